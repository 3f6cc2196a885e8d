"""What the gradient of a fit costs: beside the fit, beside a solver unrolled, and beside other implicit ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

import mlekit as mle

from .. import peers
from ..harness import Way, Workload, in_shares
from ..peers_single import needs

#: Data sets of the batch, and rows of the large one.
SIZES = {"quick": (200, 20_000), "full": (10_000, 500_000), "gpu": (1_000_000, 10_000_000)}
ROWS, SLOPES, RIDGE = 100, np.array([0.2, 0.5, -0.5, 0.3]), 1.0
#: What is differentiated: so much of each coefficient.
SHARE = np.array([1.0, -1.0, 0.5, 2.0])
FITS = "mlekit's own fits"
UNROLLED = "Newton unrolled, as many steps"
#: A gradient with a larger relative error has failed.
CLOSE = 1e-6


def logistic(coef: Any, obs: Any, ridge: Any) -> Any:
    """The log-density of one yes or no, with its share of a penalty on the coefficients."""
    eta = obs["x"] @ coef
    return obs["y"] * eta - jnp.logaddexp(0.0, eta) - 0.5 * ridge * jnp.sum(coef**2) / obs["n"]


def workloads(size: str) -> list[Workload]:
    """Gradients with respect to the responses, of many small fits and of a large one, in float64."""
    n_sets, rows = SIZES[size]
    return [
        gradients(n_sets, ROWS, f"{n_sets:,} logistic regressions"),
        gradients(1, rows, "a logistic regression"),
    ]


def simulate(n_sets: int, rows: int) -> dict[str, np.ndarray]:
    """Regressors, responses, and the number of rows beside each of them."""
    rng = np.random.default_rng(20260401)
    x = np.concatenate([np.ones((n_sets, rows, 1)), rng.normal(size=(n_sets, rows, 3))], axis=2)
    y = (rng.uniform(size=(n_sets, rows)) < special.expit(x @ SLOPES)).astype(float)
    return {"x": x, "y": y, "n": np.full((n_sets, rows), float(rows))}


def exact(data: dict[str, np.ndarray]) -> np.ndarray:
    """The gradients in closed form, `X H^-1 SHARE` at the maximum, by Newton's method in NumPy."""
    out = np.empty(data["y"].shape)
    for b, (x, y) in enumerate(zip(data["x"], data["y"])):
        coef = np.zeros(len(SLOPES))
        for _ in range(30):
            chance = special.expit(x @ coef)
            hessian = (x.T * (chance * (1 - chance))) @ x + RIDGE * np.eye(len(coef))
            coef = coef + np.linalg.solve(hessian, x.T @ (y - chance) - RIDGE * coef)
        out[b] = x @ np.linalg.solve(hessian, SHARE)
    return out


def gradients(n_sets: int, rows: int, what: str) -> Workload:
    """The workload of so many data sets of so many rows."""
    data = simulate(n_sets, rows)
    known = exact(data)
    begin = np.zeros(len(SLOPES))
    single = n_sets == 1
    # Whoever takes gradients has arrays of JAX.
    arrays = {name: jnp.asarray(leaf) for name, leaf in data.items()}
    one_set = {name: leaf[0] for name, leaf in arrays.items()}

    def fit(y: Any) -> mle.Fit:
        if single:
            return mle.fit(logistic, begin, {**one_set, "y": y[0]}, args=RIDGE)
        return mle.fit_batch(logistic, begin, {**arrays, "y": y}, args=RIDGE)

    responses = arrays["y"]
    gradient = jax.grad(lambda y: jnp.sum(fit(y).params @ SHARE))
    steps = int(np.max(fit(responses).steps))

    def judge(found: np.ndarray) -> np.ndarray:
        wanted = known[: len(found)]
        error = np.max(np.abs(found - wanted), axis=1) / np.max(np.abs(wanted), axis=1)
        return np.where(error < CLOSE, 0.0, -np.inf)

    def own_fits() -> np.ndarray:
        jax.block_until_ready(fit(responses).params)
        return known  # a fit has no gradient to be judged

    def loss(coef: Any, one: Any) -> Any:
        eta = one["x"] @ coef
        return jnp.mean(jnp.logaddexp(0.0, eta) - one["y"] * eta) + 0.5 * RIDGE * jnp.sum(coef**2) / one["n"][0]

    def shared(name: str, best: Any) -> Way:
        def of_y(one: Any) -> Any:
            return jax.grad(lambda y: best({**one, "y": y}) @ SHARE)(one["y"])

        run = in_shares(of_y, data, n_sets, None if single else 64)
        return Way(name, lambda: np.concatenate([np.asarray(part) for part in run()])[:n_sets])

    def unrolled() -> Way:
        def best(one: Any) -> Any:
            def step(coef: Any, _: Any) -> tuple[Any, None]:
                value, hessian = jax.grad(loss)(coef, one), jax.hessian(loss)(coef, one)
                return coef - jnp.linalg.solve(hessian, value), None

            return jax.lax.scan(step, jnp.asarray(begin), length=steps)[0]

        return shared(UNROLLED, best)

    def by_optimistix() -> Way:
        import optimistix

        needs("optimistix")
        solver: Any = optimistix.BFGS(rtol=1e-9, atol=1e-9)

        def best(one: Any) -> Any:
            return optimistix.minimise(loss, solver, jnp.asarray(begin), one, max_steps=200, throw=False).value

        return shared("optimistix BFGS, implicit", best)

    def by_jaxopt() -> Way:
        import jaxopt

        needs("jaxopt")

        def best(one: Any) -> Any:
            solver = jaxopt.LBFGS(loss, maxiter=200, tol=1e-9)
            return solver.run(jnp.asarray(begin), one).params

        return shared("jaxopt LBFGS, implicit", best)

    others, missing = peers.available(
        {UNROLLED: unrolled, "optimistix BFGS, implicit": by_optimistix, "jaxopt LBFGS, implicit": by_jaxopt}
    )
    return Workload(
        name="gradient, one large" if single else "gradients",
        title=f"gradient with respect to all responses, of {what} of {rows:,} rows, 4 coefficients",
        n_fits=n_sets,
        ways=(Way("mlekit", lambda: np.asarray(gradient(responses))), Way(FITS, own_fits), *others),
        log_likelihood=judge,
        # At most twice as long as the fit, and five times as fast as the same steps differentiated one by one.
        reach={FITS: 1 / 2, UNROLLED: 5},
        missing=missing,
    )
