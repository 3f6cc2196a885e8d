"""Closed constraints, and bounds that are other parameters."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import mlekit as mle


def parabola(mean: Any, x: Any) -> Any:
    return -0.5 * (x - mean) ** 2


@pytest.mark.parametrize(
    ("rule", "start", "message"),
    [
        (mle.nonnegative, -0.5, "params is -0.5; it must be at least 0.0; start it at a number such as 1.0"),
        (mle.at_most(2.0), 3.0, "params is 3.; it must be at most 2.0; start it at a number such as 1.0"),
        (
            mle.between(0.0, 1.0),
            2.0,
            "params is 2.; it must lie between 0.0 and 1.0; start it at a number such as 0.5",
        ),
    ],
)
def test_starts_beyond_a_bound(rule: Any, start: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mle.fit(parabola, start, jnp.array([1.0, 2.0]), constraints=rule)


def test_bounds_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"between\(low, high\) wants low < high; it got low=1.0, high=1.0"):
        mle.between(1.0, 1.0)
    with pytest.raises(TypeError, match=r"at_least\(low\) wants numbers or arrays; it got 'a'"):
        mle.at_least("a")
    with pytest.raises(ValueError, match=r"at_most\(high\) wants finite numbers"):
        mle.at_most(np.inf)


def test_bounds_of_elements() -> None:
    data = jnp.array([[1.0, -2.0, 5.0], [2.0, -1.0, 6.0]])
    rule = mle.between(jnp.array([0.0, 0.0, 0.0]), jnp.array([9.0, 9.0, 4.0]))
    fit = mle.fit(lambda m, x: jnp.sum(parabola(m, x)), jnp.array([0.0, 9.0, 4.0]), data, constraints=rule)
    assert fit.converged
    np.testing.assert_allclose(fit.params, [1.5, 0.0, 4.0])
    np.testing.assert_array_equal(fit.at_bound, [False, True, True])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_either_precision(dtype: Any) -> None:
    fit = mle.fit(parabola, jnp.ones((), dtype), jnp.array([-1.0, 0.5, -2.5], dtype), constraints=mle.nonnegative)
    assert fit.converged
    assert fit.params == 0
    assert fit.params.dtype == dtype
    np.testing.assert_allclose(fit.certificate.multipliers["params"], 3.0, rtol=1e-6)


def test_no_bounds_no_marks() -> None:
    fit = mle.fit(parabola, 1.0, jnp.array([1.0, 2.0]))
    assert not fit.at_bound
    assert fit.certificate.multipliers == {}


def two_normals(p: Any, y: Any) -> Any:
    return 0.5 * (norm.logpdf(y, p["low"], 1.0) + norm.logpdf(y, p["high"] - 1.0, 1.0))


@pytest.mark.parametrize("rules", [{"high": mle.greater_than("low")}, {"low": mle.less_than("high")}])
def test_one_parameter_bounds_another(rules: Any) -> None:
    y = jnp.array(np.random.default_rng(0).standard_normal(200))
    start = {"low": -1.0, "high": 1.0}
    bound, free = (mle.fit(two_normals, start, y, constraints=rule) for rule in (rules, None))
    assert bound.converged
    for name in start:
        np.testing.assert_allclose(bound.params[name], free.params[name], rtol=1e-8)
        np.testing.assert_allclose(bound.standard_errors()[name], free.standard_errors()[name], rtol=1e-8)
        np.testing.assert_allclose(
            bound.intervals(method="profile")[name], free.intervals(method="profile")[name], rtol=1e-6
        )


def test_named_bounds_that_cannot_be() -> None:
    def fit(rules: Any, start: Any = None) -> None:
        mle.fit(two_normals, start or {"low": -1.0, "high": 1.0}, jnp.zeros(3), constraints=rules)

    with pytest.raises(ValueError, match="high is bounded by 'x', which is no parameter; there are low"):
        fit({"high": mle.greater_than("x")})
    with pytest.raises(ValueError, match="bounded by itself"):
        fit({"high": mle.greater_than("low"), "low": mle.less_than("high")})
    with pytest.raises(ValueError, match=r"init: high is 1\.; it must be greater than 2\.0"):
        fit({"high": mle.greater_than("low")}, {"low": 2.0, "high": 1.0})
    starts = {"low": jnp.array([0.0, 1.0, 2.0]), "high": jnp.ones(3)}
    rules = {"high": mle.greater_than("low")}
    with pytest.raises(ValueError, match=r"high of data set 1 is 1\.; it must be greater than 1\.0"):
        mle.fit_batch(two_normals, starts, jnp.zeros((3, 5)), init_axis=0, constraints=rules)


def test_a_start_on_a_bound_without_likelihood() -> None:
    """A rate of zero explains no count; the search leaves the bound for the mean."""
    y = jnp.array([2.0, 1.0, 3.0, 0.0, 2.0])
    fit = mle.fit(lambda rate, y: y * jnp.log(rate) - rate, 0.0, y, constraints=mle.nonnegative)
    assert fit.converged
    np.testing.assert_allclose(fit.params, 1.6, rtol=1e-12)
