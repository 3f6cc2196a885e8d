"""Compositions are distributions: probabilities sum to one, tails meet, draws follow them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

import mlekit as mle
from tests.helpers.intervals import INF
from tests.helpers.marks import mostly_slow
from tests.models.compositions.parts import (
    PLACED,
    TWO,
    by_row,
    normal,
    normal_log_cdf,
    normal_log_density,
    pair,
    rate,
)

waiting = mle.regression(lambda params, obs: (params["scale"], params["shape"]), mle.families.weibull)
SCALES = {"scale": 2.0, "shape": 1.5}
SHARES = np.array([0.3, 0.7])

COUNTS: dict[str, tuple[Any, Any]] = {
    "truncated": (mle.truncated(rate, lower=0, upper=7), {"rate": 2.5}),
    "inflated": (mle.zero_inflated(rate), {"rate": 2.5, "chance": 0.3}),
    "hurdle": (mle.zero_inflated(mle.truncated(rate, lower=0)), {"rate": 2.5, "chance": 0.3}),
    "mixture": (mle.mixture(rate), {"weights": SHARES, "components": {"rate": np.array([1.0, 9.0])}}),
    "mixture of an inflated one": (
        mle.mixture([rate, mle.zero_inflated(rate)]),
        {"weights": SHARES, "components": [{"rate": 9.0}, {"rate": 2.5, "chance": 0.3}]},
    ),
}
SIZES: dict[str, tuple[Any, Any]] = {
    "truncated": (mle.truncated(pair, lower=-0.5, upper=1.0), {"mean": 0.3, "scale": 1.7}),
    "truncated in a tail": (mle.truncated(pair, lower=51.0), {"mean": 0.3, "scale": 1.7}),
    "truncated below its support": (mle.truncated(waiting, lower=-1.0, upper=2.0), SCALES),
    "mixture": (mle.mixture(pair), {"weights": SHARES, "components": TWO}),
    "mixture of two kinds": (
        mle.mixture({"line": pair, "half-line": waiting}),
        {"weights": SHARES, "components": {"half-line": SCALES, "line": {"mean": 1.0, "scale": 0.5}}},
    ),
    "truncated mixture": (mle.truncated(mle.mixture(pair), lower=0.0), {"weights": SHARES, "components": TWO}),
}


@pytest.mark.parametrize("name", mostly_slow(COUNTS, "inflated", "mixture", "truncated"))
def test_counts(name: str) -> None:
    """Probabilities sum to one, their sums are the distribution function, and draws are as likely as these say."""
    model, params = COUNTS[name]
    y = np.arange(60)
    p = np.exp(by_row(model, params, {"y": y}))
    np.testing.assert_allclose(np.sum(p), 1, rtol=1e-13)
    below = np.exp(by_row(model.log_cdf, params, {"y": y}))
    np.testing.assert_allclose(below, np.cumsum(p), rtol=1e-13)
    draws = simulated(model, params, np.uint8(1), 4000)
    assert draws.dtype == np.uint8
    counts = np.bincount(draws, minlength=len(y))
    assert not counts[p == 0].any()
    often = 4000 * p > 5
    together = lambda row: np.append(row[often], row[~often].sum())  # noqa: E731
    counts, wanted = together(counts), together(4000 * p)
    assert st.chisquare(counts[wanted > 0], wanted[wanted > 0]).pvalue > 0.01


def simulated(model: Any, params: Any, y: Any, times: int) -> np.ndarray:
    draw = lambda key: model.simulate(key, params, {"y": y})["y"]  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), times)))


@pytest.mark.parametrize("name", mostly_slow(SIZES, "truncated", "mixture of two kinds"))
def test_sizes(name: str) -> None:
    """The density is the slope of the distribution function, and draws have that function."""
    model, params = SIZES[name]
    draws = simulated(model, params, 0.0, 2000)

    def both(params: Any, obs: Any) -> Any:
        value, slope = jax.value_and_grad(lambda y: model.log_cdf(params, {"y": y}))(obs["y"])
        return value, jnp.log(slope) + value, model(params, obs)

    log_cdf, by_slope, density = by_row(both, params, {"y": draws})
    np.testing.assert_allclose(by_slope, density, rtol=1e-7, atol=1e-9)
    assert st.kstest(np.exp(log_cdf), "uniform").pvalue > 0.01


def test_both_tails_of_densities_made_of_others() -> None:
    """The chance of more than a response, where the distribution function is one to the computer."""
    far, half = {"y": 30.0}, {"chance": 0.25, "weights": np.array([0.25, 0.75])}
    one, two = np.array([0.3, 1.7]), np.array([0.0, 2.0])
    mixed: Any = mle.mixture([normal, normal])
    wanted = np.logaddexp(np.log(0.25) + st.norm.logsf(30, *one), np.log(0.75) + st.norm.logsf(30, *two))
    np.testing.assert_allclose(mixed.log_survival(half | {"components": [one, two]}, far), wanted, rtol=1e-13)
    zeros: Any = mle.zero_inflated(mle.regression(lambda p, obs: (0.3, 1.7), mle.families.normal))
    np.testing.assert_allclose(zeros.log_survival(half, far), np.log(0.75) + st.norm.logsf(30, *one), rtol=1e-13)
    low = zeros.log_cdf(half, {"y": -30.0}), np.log(0.75) + st.norm.logcdf(-30, *one)
    np.testing.assert_allclose(*low, rtol=1e-13)
    below = np.exp(zeros.log_cdf(half, {"y": -1.0})) + np.exp(zeros.log_survival(half, {"y": -1.0}))
    np.testing.assert_allclose(below, 1.0, rtol=1e-14)


def test_companions() -> None:
    bare, with_cdf = mle.Model(normal_log_density), mle.Model(normal_log_density, log_cdf=normal_log_cdf)

    def has(model: mle.Model) -> tuple[bool, bool]:
        assert (model.log_cdf is None) == (model.log_survival is None)
        return model.log_cdf is not None, model.simulate is not None

    assert has(mle.censored(normal, upper=INF)) == (False, False)
    assert has(mle.truncated(with_cdf, lower=0)) == (True, True)
    # What is derived goes with what it is derived from.
    other: Any = dataclasses.replace(with_cdf, log_cdf=lambda params, obs: -1.0)
    np.testing.assert_allclose(other.log_survival(PLACED, {"y": 3.0}), np.log1p(-np.exp(-1)), rtol=1e-14)
    assert dataclasses.replace(with_cdf, log_cdf=None).log_survival is None
    for make in (lambda model: mle.mixture([normal, model]), mle.zero_inflated):
        assert [has(make(model)) for model in (bare, with_cdf, normal)] == [
            (False, False),
            (True, False),
            (True, True),
        ]
    # Draws that no number can be: for want of NaN the largest integer; a size is no whole number.
    counts = mle.truncated(rate, lower=0)
    assert simulated(counts, {"rate": np.nan}, np.int32(1), 1) == np.iinfo(np.int32).max
    assert np.isnan(simulated(counts, {"rate": np.nan}, 1.0, 1))
    assert simulated(mle.truncated(normal, lower=0), PLACED, np.int32(1), 1).dtype == np.float64
