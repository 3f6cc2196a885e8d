"""What every solver must do: the same maximum, jitted, mapped, in both precisions, and traced once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.special import gammaln

import mlekit as mle
from mlekit.inference.record import objective
from tests.helpers.marks import mostly_slow
from tests.helpers.models import RULES, START, Counted, least_squares, line, line_data, logistic, logistic_data

SOLVERS: dict[str, Any] = {
    "newton": mle.Newton(),
    "scoring": mle.Scoring(),
    "bfgs": mle.BFGS(),
    "lbfgs": mle.LBFGS(),
    "adam": optax.adam(0.1),
    "sgd": optax.sgd(optax.cosine_decay_schedule(0.5, 4000, 0.2)),
    "optax lbfgs": optax.lbfgs(),
}
DATA = line_data()
BEST = least_squares(DATA)


@pytest.mark.parametrize("name", mostly_slow(SOLVERS, "newton", "scoring", "bfgs", "lbfgs", "adam"))
def test_finds_the_closed_form(name: str) -> None:
    fit = mle.fit(line, START, DATA, constraints=RULES, solver=SOLVERS[name])
    assert bool(fit.converged), fit.message
    np.testing.assert_allclose([fit.params[k] for k in BEST], list(BEST.values()), rtol=1e-9)
    assert float(fit.certificate.decrement) < 1e-9
    assert float(fit.certificate.min_eigenvalue) > 0


@pytest.mark.parametrize("name", mostly_slow(SOLVERS, "newton"))
def test_jit_and_vmap_change_nothing(name: str) -> None:
    sets = line_data(n_sets=3, seed=5)

    def one(data: Any) -> mle.Fit:
        return mle.fit(line, START, data, constraints=RULES, solver=SOLVERS[name])

    mapped = jax.jit(jax.vmap(one))(sets)
    batch = mle.fit_batch(line, START, sets, constraints=RULES, solver=SOLVERS[name])
    for i in range(3):
        best = least_squares({k: v[i] for k, v in sets.items()})
        for fits in (mapped, batch):
            assert str(fits[i].status) == "converged"
            np.testing.assert_allclose([fits[i].params[k] for k in best], list(best.values()), rtol=1e-9)


@pytest.mark.parametrize("name", mostly_slow(SOLVERS, "newton", "scoring", "bfgs", "lbfgs", "adam"))
def test_float32(name: str) -> None:
    data = {k: v.astype(np.float32) for k, v in logistic_data().items()}
    reference = mle.fit(logistic, np.zeros(3), logistic_data())
    fit = mle.fit(logistic, np.zeros(3, np.float32), data, solver=SOLVERS[name])
    assert fit.params.dtype == jnp.float32
    assert bool(fit.converged), fit.message
    np.testing.assert_allclose(fit.params, reference.params, atol=2e-5)


@pytest.mark.parametrize("name", mostly_slow(["newton", "native newton", "bfgs", "adam"], "bfgs"))
def test_same_shapes_never_trace_again(name: str) -> None:
    density = Counted(line)
    solvers: dict[str, Any] = {"newton": mle.Newton, "bfgs": mle.BFGS, "adam": lambda: optax.adam(0.1)}
    make, backend = solvers[name.split()[-1]], "native" if name.startswith("native") else "xla"
    mle.fit(density, START, DATA, constraints=RULES, solver=make(), backend=backend)
    traces = density.traces
    assert 0 < traces <= 6
    for seed in (1, 2):
        start = {k: v + 0.1 * seed for k, v in START.items()}
        options: dict[str, Any] = {"tolerance": 1e-8, "max_steps": 99, "backend": backend}
        mle.fit(density, start, line_data(seed=seed), constraints=RULES, solver=make(), **options)
    assert density.traces == traces
    mle.fit(density, START, line_data(n_obs=41), constraints=RULES, solver=make(), backend=backend)
    assert density.traces == traces if backend == "native" else density.traces > traces


@pytest.mark.parametrize("backend", ["native", "xla"])
def test_a_batch_never_traces_again_either(backend: str) -> None:
    density = Counted(line)
    sets = line_data(n_sets=5)
    mle.fit_batch(density, START, sets, constraints=RULES, backend=backend)
    traces = density.traces
    assert 0 < traces <= 6
    mle.fit_batch(density, START, line_data(n_sets=5, seed=3), constraints=RULES, backend=backend)
    assert density.traces == traces
    # Ragged sets of whatever lengths share one compiled shape.
    for n_sets in (5, 6, 7, 8):
        groups = mle.group_by({"key": np.arange(120) % n_sets, **line_data(120, seed=n_sets)}, "key")
        mle.fit_batch(density, START, groups, constraints=RULES, backend=backend)
        # To XLA 24 rows a group, and 15, are two shapes.
        traces = traces + 1 if n_sets in (5, 8) and backend == "xla" else traces
        assert density.traces == traces


def test_new_args_do_not_recompile() -> None:
    density = Counted(lambda params, x, offset: -0.5 * (x - params - offset) ** 2)
    x = jnp.arange(5.0)
    for offset in (0.0, 1.0, 2.5):
        fit = mle.fit(density, 0.0, x, args=jnp.asarray(offset))
        np.testing.assert_allclose(fit.params, 2.0 - offset, atol=1e-12)
    traces = density.traces
    mle.fit(density, 0.0, x, args=jnp.asarray(7.0))
    assert density.traces == traces
    batch = mle.fit_batch(density, 0.0, jnp.stack([x, x + 1]), args=jnp.asarray(1.0))
    np.testing.assert_allclose(batch.params, [1.0, 2.0], atol=1e-12)
    np.testing.assert_allclose(batch.covariance()[:, 0, 0], 0.2, rtol=1e-12)


def test_solver_none_chooses_and_says_so() -> None:
    assert mle.fit(line, START, DATA, constraints=RULES).solver == "Newton"
    wide = mle.fit(lambda p, x: -jnp.sum((p - x) ** 2), np.zeros(300), np.ones((4, 300)))
    assert wide.solver == "LBFGS"
    assert bool(wide.converged)
    np.testing.assert_allclose(wide.params, 1.0)
    assert mle.fit(line, START, DATA, constraints=RULES, solver=optax.adam(0.1), max_steps=1).solver == "Optax"


def test_mini_batches() -> None:
    data = logistic_data(2000)
    full = mle.fit(logistic, np.zeros(3), data)
    solver = mle.Optax(
        optax.adam(optax.exponential_decay(0.05, 100, 0.8)), batch_size=100, steps=2000, key=jax.random.key(0)
    )
    fit = mle.fit(logistic, np.zeros(3), data, solver=solver)
    assert int(fit.steps) == 2000
    assert str(fit.status) == "max_steps"
    assert np.all(np.isnan(fit.standard_errors()))
    # Within a tenth of a standard error of the maximum, and the certificate says how far.
    assert np.max(np.abs(fit.params - full.params) / full.standard_errors()) < 0.1
    gap = float(full.log_likelihood - fit.log_likelihood)
    assert 0 <= gap < 0.01
    np.testing.assert_allclose(fit.certificate.decrement, gap, rtol=0.05)
    again = mle.fit(logistic, np.zeros(3), data, solver=solver)
    np.testing.assert_array_equal(fit.params, again.params)
    # Ragged batches draw from each set's own rows.
    groups = mle.group_by({"key": np.repeat([0, 1], [800, 1200]), **data}, "key")
    batch = mle.fit_batch(logistic, np.zeros(3), groups, solver=solver)
    exact = mle.fit_batch(logistic, np.zeros(3), groups)
    assert np.max(np.abs(batch.params - exact.params) / exact.standard_errors()) < 0.2


def test_max_steps_is_kept() -> None:
    for solver in SOLVERS.values():
        fit = mle.fit(line, START, DATA, constraints=RULES, solver=solver, max_steps=2)
        assert str(fit.status) in ("max_steps", "converged")
        assert int(fit.steps) <= 2
        assert str(fit.status) == "max_steps" or float(fit.certificate.decrement) < 1e-9


def test_scale_of_parameters_does_not_matter() -> None:
    def density(params: Any, obs: Any) -> Any:
        mean = params["small"] * 1e6 + params["large"] * 1e-6 * obs["x"]
        return -0.5 * ((obs["y"] - mean) / params["s"]) ** 2 - jnp.log(params["s"])

    fit = mle.fit(density, {"small": 0.0, "large": 0.0, "s": 1.0}, DATA, constraints={"s": mle.positive})
    assert bool(fit.converged)
    np.testing.assert_allclose(fit.params["small"] * 1e6, BEST["intercept"], rtol=1e-9)
    np.testing.assert_allclose(fit.params["large"] * 1e-6, BEST["slope"], rtol=1e-9)


def test_hard_functions_from_hard_starts() -> None:
    """Rosenbrock's valley, Powell's singular Hessian on the way, and a far start on a plateau."""

    def rosenbrock(p: Any, x: Any) -> Any:
        return -(100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2) + 0 * x

    for solver in (mle.Newton(), mle.BFGS(), mle.LBFGS()):
        fit = mle.fit(rosenbrock, np.array([-1.2, 1.0]), np.zeros(2), solver=solver)
        assert bool(fit.converged)
        np.testing.assert_allclose(fit.params, [1.0, 1.0], rtol=1e-8)

    def hump(p: Any, x: Any) -> Any:
        return jnp.exp(-0.5 * (p - x) ** 2)

    far = mle.fit(hump, 4.0, np.zeros(3))  # curvature has the wrong sign there
    assert bool(far.converged)
    np.testing.assert_allclose(far.params, 0.0, atol=1e-8)
    seen = mle.fit(hump, 60.0, np.zeros(3))  # zero gradient, zero curvature: a look at a distance finds the hump
    assert bool(seen.converged)
    np.testing.assert_allclose(seen.params, 0.0, atol=1e-8)
    flat = mle.fit(lambda p, x: 0 * p * x, 60.0, np.zeros(3))
    assert str(flat.status) == "not_identified"

    quartic = mle.fit(lambda p, x: -((p - x) ** 4), 1.0, np.zeros(3))  # a maximum without curvature
    assert not bool(quartic.converged)


#: Seeds and scales of the counts.
COUNTS = (
    *(
        (0, 0.01),
        (65, 0.01),
        (65, 1.0),
        (324, 1.0),
        (2231, 300.0),
        (736, 1.0),
        (105, 0.01),
        (77, 0.01),
        (153, 1.0),
    ),
    *((275, 0.01), (357, 0.01), (616, 300.0), (38, 0.01), (7025, 1.0), (312, 0.01), (1152, 1.0), (1188, 1.0)),
    *(
        (6444, 0.01),
        (5731, 1.0),
        (1199, 300.0),
        (4293, 0.01),
        (204, 300.0),
        (7328, 300.0),
        (525, 300.0),
        (951, 0.01),
    ),
)


@pytest.mark.parametrize(("seed", "scale"), COUNTS)
def test_never_converged_without_proof(seed: int, scale: float) -> None:
    """Negative binomial counts, some with a finite maximum and some without: `converged` is always a maximum."""
    rng = np.random.default_rng(seed)
    n = 30
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    y = (
        rng.poisson(np.exp(1 + 0.3 * x[:, 1]) * rng.gamma(1 / scale, scale, n))
        if scale < 100
        else rng.binomial(4, 0.5, n)
    )
    fit = mle.fit(
        negative_binomial,
        {"coef": np.zeros(2), "alpha": 0.5},
        {"x": x, "y": y.astype(float)},
        constraints={"alpha": mle.positive},
    )
    if bool(fit.converged):
        free, loss = fit._solution.free, objective(fit)
        at = float(loss(free))
        for i in range(3):
            for step in (-1e-3, 1e-3):
                assert float(loss(free.at[i].add(step))) > at
        assert np.all(np.isfinite(fit._solution.standard_errors))
    else:
        assert str(fit.status) == "unbounded"
        assert float(fit.params["alpha"]) < 1e-3 or float(y.sum()) == 0
        assert np.all(np.isnan(fit._solution.standard_errors))


def negative_binomial(params: Any, obs: Any) -> Any:
    mean, shape = jnp.exp(obs["x"] @ params["coef"]), 1 / params["alpha"]
    y = obs["y"]
    return (
        gammaln(y + shape) - gammaln(shape) - gammaln(y + 1)
        + shape * jnp.log(shape / (shape + mean)) + y * jnp.log(mean / (shape + mean))
    )  # fmt: skip
