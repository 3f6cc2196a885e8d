"""Whole fits by native kernels against those of XLA: the same statuses, steps, log-likelihoods and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from mlekit.core.special import gammaln
from tests.helpers.marks import mostly_slow

pytestmark = pytest.mark.standard_promotion

SETS, ROWS = 21, 30
RNG = np.random.default_rng(3)


def gamma(p: Any, x: Any) -> Any:
    return (p["shape"] - 1) * jnp.log(x) - x / p["scale"] - p["shape"] * jnp.log(p["scale"]) - gammaln(p["shape"])


def weibull(p: Any, x: Any) -> Any:
    log = jnp.log(x) - jnp.log(p["scale"])
    return jnp.log(p["shape"]) - jnp.log(p["scale"]) + (p["shape"] - 1) * log - jnp.exp(p["shape"] * log)


def student(p: Any, x: Any) -> Any:
    z, nu = (x - p["location"]) / p["scale"], p["shape"]
    norm = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * jnp.log(jnp.pi * nu) - jnp.log(p["scale"])
    return norm - (nu + 1) / 2 * jnp.log1p(z**2 / nu)


def spot(p: Any, o: Any) -> Any:
    square = (o["x"] - p["x0"]) ** 2 + (o["y"] - p["y0"]) ** 2
    rate = p["amplitude"] * jnp.exp(-0.5 * square / p["width"] ** 2) + p["background"]
    return o["count"] * jnp.log(rate) - rate


def scaled(p: Any, x: Any, args: Any) -> Any:
    return -0.5 * ((x - p["mean"]) / p["sd"] * args["factor"]) ** 2 - jnp.log(p["sd"])


def spots() -> dict[str, np.ndarray]:
    row, column = (np.broadcast_to(i.ravel(), (SETS, 25)).astype(float) for i in np.indices((5, 5)))
    rate = 40 * np.exp(-0.5 * ((column - 2.1) ** 2 + (row - 1.9) ** 2) / 1.2**2) + 3
    return {"x": column, "y": row, "count": RNG.poisson(rate).astype(float)}


POSITIVE = {"shape": mle.positive, "scale": mle.positive}
X = RNG.gamma(2.0, 1.5, (SETS, ROWS))
WEIGHTS = RNG.integers(0, 3, X.shape).astype(float)
SPOTS = spots()
COVARIATES = RNG.normal(size=(SETS, ROWS, 3))
CHOICES = (RNG.random((SETS, ROWS)) < 0.6).astype(float)
LENGTHS = RNG.integers(8, ROWS + 1, SETS)
LONG = RNG.standard_t(4, (SETS, 5 * ROWS))
REGRESSION = mle.regression(lambda p, o: o["x"] @ p["slope"], mle.families.bernoulli)
START = {"shape": 1.0, "scale": 1.0}
CENTRE = {"amplitude": 30.0, "x0": 2.0, "y0": 2.0, "width": 1.0, "background": 2.0}
BROAD = {"location": 0.0, "scale": 1.0, "shape": 5.0}

CASES: dict[str, Callable[..., Any]] = {
    "gamma": lambda **how: mle.fit_batch(gamma, START, X, constraints=POSITIVE, **how),
    "Weibull with bounds": lambda **how: mle.fit_batch(
        weibull, START, X, constraints={"shape": mle.between(0.5, 1.7), "scale": mle.positive}, **how
    ),
    "Weibull with weights": lambda **how: mle.fit_batch(
        weibull, START, X, constraints=POSITIVE, weights=WEIGHTS, **how
    ),
    "long Student": lambda **how: mle.fit_batch(student, BROAD, LONG, constraints=POSITIVE, **how),
    "spots": lambda **how: mle.fit_batch(
        spot, CENTRE, SPOTS, constraints=dict.fromkeys(("amplitude", "width", "background"), mle.positive), **how
    ),
    "ragged regression": lambda **how: mle.fit_batch(
        REGRESSION, {"slope": np.zeros(3)}, {"x": COVARIATES, "y": CHOICES}, lengths=LENGTHS, **how
    ),
    "BFGS": lambda **how: mle.fit_batch(gamma, START, X, constraints=POSITIVE, solver=mle.BFGS(), **how),
    "LBFGS": lambda **how: mle.fit_batch(gamma, START, X, constraints=POSITIVE, solver=mle.LBFGS(), **how),
    "scoring": lambda **how: mle.fit_batch(gamma, START, X, constraints=POSITIVE, solver=mle.Scoring(), **how),
    "fixed": lambda **how: mle.fit_batch(
        gamma,
        {"shape": np.linspace(1, 3, SETS), "scale": np.ones(SETS)},
        X,
        init_axis=0,
        constraints={"shape": mle.fixed, "scale": mle.positive},
        **how,
    ),
    "args": lambda **how: mle.fit_batch(
        scaled,
        {"mean": 0.0, "sd": 1.0},
        X,
        constraints={"sd": mle.positive},
        args={"factor": jnp.asarray(1.3)},
        **how,
    ),
    "float32": lambda **how: mle.fit_batch(
        weibull, jax.tree.map(np.float32, START), X.astype(np.float32), constraints=POSITIVE, **how
    ),
}


@pytest.mark.parametrize("name", mostly_slow(CASES, "gamma", "Weibull with bounds", "fixed", "float32"))
def test_fits_are_those_of_xla(name: str, natively: Callable[..., Any]) -> None:
    want, got = CASES[name](backend="xla"), natively(CASES[name])
    single = name == "float32"
    np.testing.assert_array_equal(got.status, want.status)
    if not single:
        np.testing.assert_array_equal(got.steps, want.steps)
    rtol = 1e-5 if single else 1e-9
    np.testing.assert_allclose(got.log_likelihood, want.log_likelihood, rtol=rtol, atol=rtol)
    for mine, theirs in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3 if single else 1e-8, atol=1e-3 if single else 1e-8)
    for mine, theirs in zip(jax.tree.leaves(got.standard_errors()), jax.tree.leaves(want.standard_errors())):
        np.testing.assert_allclose(mine, theirs, rtol=1e-2 if single else 1e-7)


def poisoned() -> np.ndarray:
    data = X.copy()
    bad = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, 1e-300, 5e-324, 1e-310]
    for i, value in enumerate(bad):
        data[i, (7 * i) % ROWS] = value
    data[9], data[11, 1:] = np.nan, 2.0
    return data


@pytest.mark.parametrize("density", [gamma, pytest.param(weibull, marks=pytest.mark.slow)])
def test_poisoned_sets_end_as_with_xla(density: Any, natively: Callable[..., Any]) -> None:
    # Where powers of the data overflow, rounding leads a search of many hundred steps.
    data = np.delete(poisoned(), 5, axis=0)
    fit = lambda **how: mle.fit_batch(density, START, data, constraints=POSITIVE, **how)  # noqa: E731
    want, got = fit(backend="xla"), natively(fit)
    np.testing.assert_array_equal(got.status, want.status)
    np.testing.assert_allclose(got.log_likelihood, want.log_likelihood, rtol=1e-9)


BITS = ("Weibull with weights", "ragged regression", "long Student", "spots")


@pytest.mark.parametrize("name", mostly_slow(BITS, "Weibull with weights", "long Student"))
def test_bits_do_not_depend_on_threads(name: str, natively: Callable[..., Any]) -> None:
    one, two = natively(CASES[name]), natively(CASES[name], 2)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params)):
        np.testing.assert_array_equal(a, b)


def test_bits_do_not_depend_on_the_batch(natively: Callable[..., Any]) -> None:
    data = poisoned()
    fit = lambda chosen: lambda **how: mle.fit_batch(weibull, START, data[chosen], constraints=POSITIVE, **how)  # noqa: E731
    whole = natively(fit(slice(None)))
    for chosen in ([12], [20, 3, 15, 0, 13]):
        part = natively(fit(chosen))
        np.testing.assert_array_equal(part.log_likelihood, np.asarray(whole.log_likelihood)[chosen])
        for a, b in zip(jax.tree.leaves(part.params), jax.tree.leaves(whole.params)):
            np.testing.assert_array_equal(a, np.asarray(b)[chosen])


def test_what_it_cannot_run_is_an_error_with_the_reason() -> None:
    sorting = lambda p, x: -0.5 * (jnp.linalg.eigh(jnp.diag(x))[0][0] - p) ** 2  # noqa: E731
    with pytest.raises(ValueError, match="backend='native' cannot run this fit: eigh"):
        mle.fit_batch(sorting, 0.0, X[:, :, None], backend="native")
    with pytest.raises(ValueError, match="backend must be one of native, xla; got 'numba'"):
        mle.fit_batch(gamma, START, X, constraints=POSITIVE, backend="numba")
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda x: mle.fit_batch(gamma, START, x, constraints=POSITIVE, backend="native").params)(X)


def test_derivatives_pass_through_native_fits() -> None:
    total = lambda x, how: mle.fit_batch(gamma, START, x, constraints=POSITIVE, backend=how).params["shape"].sum()  # noqa: E731
    x = jnp.asarray(X[:3])
    np.testing.assert_allclose(jax.grad(total)(x, "native"), jax.grad(total)(x, "xla"), rtol=1e-7)
