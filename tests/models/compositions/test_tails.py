"""Compositions where a number falls short: far tails, ends of a support, float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from mlekit.models.families.numerics import log1mexp
from tests.helpers.derivatives import difference
from tests.helpers.intervals import INF
from tests.helpers.marks import mostly_slow
from tests.models.compositions.parts import ENDING, MODELS, by_row, normal, with_derivatives


@pytest.mark.parametrize("name", mostly_slow(ENDING, "binomial"))
def test_tails_whose_square_is_no_number(name: str) -> None:
    """They come as probabilities, not as logarithms; a second derivative holds their reciprocal twice."""
    model, first, at = ENDING[name]
    intervals, params = [(3.0, 100.0), (6.0, 30.0), (30.0, 100.0), (130.0, INF)], np.array([first])

    def of(params: Any) -> np.ndarray:
        return np.array([np.log(at(*params).sf(low) - at(*params).sf(high)) for low, high in intervals])

    low, high = np.array(intervals).T
    obs = {"low": low, "high": high}
    value, gradient, hessian, reverse = with_derivatives(model)(params, obs)
    np.testing.assert_allclose(value, of(params), rtol=1e-10)
    np.testing.assert_allclose(gradient[:, 0], difference(of, (params,), (np.ones(1),), 1e-4), rtol=1e-7)
    bend = difference(lambda p: with_derivatives(model)(p, obs)[1], (params,), (np.ones(1),), 1e-4)
    np.testing.assert_allclose(hessian[:, 0], bend, rtol=1e-6)
    np.testing.assert_allclose(reverse[:, 0], bend, rtol=1e-6)


Z = lambda p, obs: (obs["y"] - p[0]) / p[1]  # noqa: E731
#: The log-density, and logarithms of the distribution function and of the survival function, which is zero to the
#: computer from somewhere on; an exponential distribution of negative numbers has no logarithm above zero at all.
TAILS: dict[str, list[Callable[[Any, Any], Any]]] = {
    "gumbel": [
        lambda p, obs: -Z(p, obs) - jnp.exp(-Z(p, obs)) - jnp.log(p[1]),
        lambda p, obs: -jnp.exp(-Z(p, obs)),
        lambda p, obs: jnp.log(-jnp.expm1(-jnp.exp(-Z(p, obs)))),
    ],
    "negative": [
        lambda p, obs: p[0] * obs["y"] + jnp.log(p[0]),
        lambda p, obs: p[0] * obs["y"],
        lambda p, obs: jnp.log(-jnp.expm1(p[0] * obs["y"])),
    ],
}
BETWEEN = {
    "gumbel": [(-INF, 3e3), (-INF, 1e6), (2e3, 2e3), (1.0, 5e3), (30.0, 40.0), (0.0, 1.0), (30.0, INF)],
    "negative": [(-2.0, -2.0), (-INF, -1.0), (-3.0, INF), (-4.0, -1.0), (-3.0, 0.0), (-0.1, -0.01)],
}


@pytest.mark.parametrize("name", TAILS)
def test_functions_whose_tails_end(name: str) -> None:
    """Whichever tail a user writes: none is asked for a derivative that it has not."""
    density, log_cdf, log_survival = TAILS[name]
    below, above = {"log_cdf": log_cdf}, {"log_survival": log_survival}
    low, high = np.array(BETWEEN[name]).T
    models: Any = [mle.Model(density, **tails) for tails in (below, above, below | above)]
    first, *others = (
        with_derivatives(mle.censored(model, lower="low", upper="high"))(
            np.array([0.3, 1.7]), {"low": low, "high": high}
        )
        for model in models
    )
    assert all(np.isfinite(part).all() for part in first)
    for other in others:
        for here, there in zip(other, first):
            np.testing.assert_allclose(here, there, rtol=1e-7, atol=1e-12)


def test_third_derivatives_in_a_tail() -> None:
    """Where probabilities are 1e-198: log(1 - exp(-x)) is log x, and its derivatives those of the logarithm."""
    f = lambda t: log1mexp(1e-198 * t)  # noqa: E731
    for order in range(4):
        np.testing.assert_allclose(f(1.0), [np.log(1e-198), 1.0, -1.0, 2.0][order], rtol=1e-13)
        f = jax.grad(f)


def test_what_is_not_valid_is_nan() -> None:
    censored = mle.censored(normal, lower="low", upper="high")
    truncated: Any = mle.truncated(normal, lower="low", upper="high")
    low, high = np.array([[2.0, 1.0], [np.nan, 1.0], [0.0, np.nan], [INF, INF], [-INF, -INF]]).T
    params, obs = np.array([0.0, 1.0]), {"low": low, "high": high, "y": np.full(5, 1.5)}
    for model in (censored, truncated, truncated.log_cdf):
        assert np.isnan(by_row(model, params, obs)).all()
    # An empty interval, a window that the computer cannot tell from nothing, and responses outside or missing.
    empty = {"low": np.array([0.0, 60.0, 0.0, 0.0, 0.0]), "high": np.array([0.0, 61.0, 1.0, 1.0, 1.0])}
    blind: Any = mle.truncated(MODELS["normal functions"], lower="low", upper="high")
    found = by_row(blind, params, {**empty, "y": np.array([0.0, 60.5, 0.0, 1.1, np.nan])})
    np.testing.assert_array_equal(found, [np.nan, np.nan, -INF, -INF, np.nan])
    # The status of a data set tells.
    data = {"low": np.array([0.0, 2.0, 1.0]), "high": np.array([1.0, 1.0, 1.0])}
    fit = mle.fit(censored, (0.0, 1.0), data, constraints=(None, mle.positive))
    assert fit.status == mle.Status.nonfinite_start


def test_float32() -> None:
    """Numbers of float32 end where a normal tail is at 13 standard deviations, and its logarithm does not."""
    params = np.array([0.3, 1.7], np.float32)
    low, high = np.array([[-20.0, -20.0], [-INF, 1.0], [200.0, INF], [200.0, 210.0]], np.float32).T
    model = mle.censored(normal, lower="low", upper="high")
    single = with_derivatives(model)(params, {"low": low, "high": high})
    double = with_derivatives(model)(params.astype(float), {"low": low.astype(float), "high": high.astype(float)})
    for here, there in zip(single, double):
        assert here.dtype == jnp.float32
        np.testing.assert_allclose(here, there, rtol=3e-3)
    # Whole numbers in the data, and bounds that are Python's, leave the precision to the parameters.
    obs = {"y": np.int64(2)}
    made = [mle.truncated(normal, lower=0, upper=5.0), mle.censored(normal, upper=INF)]
    made += [mle.zero_inflated(normal, lambda params, obs: 0.5)]
    assert {jax.eval_shape(model, params, obs).dtype for model in made} == {jnp.dtype("float32")}
    mixed = mle.mixture([normal, normal], weights=lambda params, obs: jnp.array([0.5, 0.5], jnp.float32))
    assert jax.eval_shape(mixed, {"components": [params, params]}, obs).dtype == jnp.float32
