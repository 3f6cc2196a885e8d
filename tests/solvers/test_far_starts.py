"""Starts that are many standard errors away."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.stats as jst
import numpy as np
import pytest

import mlekit as mle


def square(mean: jax.Array, y: jax.Array) -> jax.Array:
    return -0.5 * (y - mean) ** 2


def normal(params: Any, y: jax.Array) -> jax.Array:
    return jst.norm.logpdf(y, params["mean"], params["sd"])


def log_linear(a: jax.Array, y: jax.Array) -> jax.Array:
    return y * a - jnp.exp(a)


@pytest.mark.parametrize(("start", "most"), [(20.0, 40), (34.0, 60), (40.0, 60), (100.0, 130), (700.0, 740)])
def test_a_concave_likelihood_from_afar(start: float, most: int) -> None:
    """Newton's method needs a step for each unit, here too: the first radius must not be below the doubles."""
    y = np.array([1.0, 2.0, 3.0, 1.0, 2.0])
    fit = mle.fit(log_linear, start, y)
    assert fit.converged
    assert int(fit.steps) <= most
    np.testing.assert_allclose(fit.params, np.log(y.mean()), rtol=1e-9)


@pytest.mark.parametrize("errors", [1e4, 1e6, 1e8])
def test_a_quadratic_takes_a_handful_of_steps(errors: float) -> None:
    y = np.random.default_rng(1).standard_normal(100)
    fit = mle.fit(square, -0.1 * errors, y)
    assert fit.converged
    assert int(fit.steps) <= 9
    np.testing.assert_allclose(fit.params, y.mean(), rtol=1e-9)


def line(params: Any, obs: Any) -> jax.Array:
    return jst.norm.logpdf(obs["y"], params["a"] + params["b"] * obs["t"], params["s"])


@pytest.mark.parametrize("size", [1e8, 1e9, 1e10])
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_regressors_as_large_as_unix_time(size: float, slope: float) -> None:
    rng = np.random.default_rng(1)
    t = size * (1 + 0.1 * rng.random(100))
    y = 3 + 20 * (t / size - 1) + 0.5 * rng.standard_normal(100)
    fit = mle.fit(line, {"a": 0.0, "b": slope, "s": 1.0}, {"t": t, "y": y}, constraints={"s": mle.positive})
    assert fit.converged
    centred = t - t.mean()
    right = centred @ y / (centred @ centred)
    np.testing.assert_allclose(fit.params["b"], right, rtol=1e-7)
    np.testing.assert_allclose(fit.params["s"], np.std(y - y.mean() - right * centred), rtol=1e-7)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e9])
def test_normal_data_in_any_unit_from_zero_and_one(size: float) -> None:
    y = size * (1 + 0.2 * np.random.default_rng(2).standard_normal((100, 50)))
    start = {"mean": 0.0, "sd": 1.0}
    fits = mle.fit_batch(normal, start, y, constraints={"sd": mle.positive})
    assert fits.status.counts() == {"converged": 100}
    np.testing.assert_allclose(fits.params["mean"], y.mean(axis=1), rtol=1e-7)
    np.testing.assert_allclose(fits.params["sd"], y.std(axis=1), rtol=1e-6)


FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    "normal": (normal, {"mean": 0.0, "sd": 1.0}, {"sd": mle.positive}),
    "exponential": (lambda rate, y: jnp.log(rate) - rate * y, 1.0, mle.positive),
    "gamma": (
        lambda params, y: jst.gamma.logpdf(y, params["a"], scale=params["b"]),
        {"a": 1.0, "b": 1.0},
        mle.positive,
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_data_of_any_size_that_has_powers(family: str) -> None:
    """Estimates scale with the data, from a start that does not."""
    density, start, rules = FAMILIES[family]
    y = np.random.default_rng(0).gamma(2.0, 1.0, 40)
    near = mle.fit(density, start, y, constraints=rules)
    sizes = np.array([1e-50, 1e-20, 1e-8, 1e8, 1e20])
    fits = mle.fit_batch(density, start, y * sizes[:, None], constraints=rules)
    assert np.all(fits.converged)
    np.testing.assert_allclose(fits.log_likelihood, near.log_likelihood - 40 * np.log(sizes), rtol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_data_whose_powers_overflow_or_vanish_have_one_status(family: str) -> None:
    density, start, rules = FAMILIES[family]
    y = np.random.default_rng(0).gamma(2.0, 1.0, 40)
    sizes = np.array([1e-300, 1e-200, 1.0, 1e200, 1e300])
    fits = mle.fit_batch(density, start, y * sizes[:, None], constraints=rules)
    assert fits.status.names() == [*2 * ["nonfinite_data"], "converged", *2 * ["nonfinite_data"]]
    huge = mle.fit(density, start, y * 1e300, constraints=rules)
    assert huge.message.endswith(f"The largest number of data is {1e300 * y.max():.3g}.")


def test_a_linear_log_likelihood_has_no_end() -> None:
    y = np.array([2.0, 1.0, 3.0])
    assert str(mle.fit(lambda m, y: y * m, 0.0, y).status) == "unbounded"
    both = mle.fit(lambda params, y: y * params["m"] + 0.5 * params["k"] * y, {"m": 0.0, "k": 1.0}, y)
    assert str(both.status) == "unbounded"


@pytest.mark.parametrize(
    ("density", "best"),
    [
        (lambda p, y: -0.5 * (y - p["a"] * p["b"]) ** 2 - 0.1 * (p["a"] ** 4 + p["b"] ** 4), (2 / 1.4) ** 0.5),
        (lambda p, y: y * p["a"] * p["b"] - 0.5 * p["a"] ** 4 - 0.5 * p["b"] ** 4, 1.0),
    ],
)
def test_a_saddle_whose_hessian_has_no_diagonal_is_left(density: Any, best: float) -> None:
    fit = mle.fit(density, {"a": 0.0, "b": 0.0}, np.array([2.0, 1.0, 3.0]))
    assert fit.converged
    np.testing.assert_allclose(abs(fit.params["a"]), best, rtol=1e-9)
    np.testing.assert_allclose(fit.params["a"], fit.params["b"], rtol=1e-9)
