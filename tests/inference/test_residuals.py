"""Quantile residuals and the probability integral transform, against SciPy and NumPy."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.scipy.stats import norm

import mlekit as mle

RNG = np.random.default_rng(0)
X = RNG.normal(size=60)
COUNTS = RNG.poisson(np.exp(0.5 + 0.4 * X)).astype(float)
TIMES = RNG.gamma(2.0, 3.0, size=60)
KEY = jax.random.key(3)


@functools.cache
def counts() -> mle.Fit:
    model = mle.regression(lambda p, obs: jnp.exp(p["a"] + p["b"] * obs["x"]), mle.families.poisson)
    return mle.fit(model, {"a": 0.0, "b": 0.0}, {"x": X, "y": COUNTS})


def test_shares_of_a_continuous_model() -> None:
    model = mle.regression(lambda p, obs: (p["mean"], p["shape"]), mle.families.gamma)
    fit = mle.fit(
        model,
        {"mean": 1.0, "shape": 1.0},
        {"y": TIMES},
        constraints=dict.fromkeys(("mean", "shape"), mle.positive),
    )
    mean, shape = (float(fit.params[name]) for name in ("mean", "shape"))
    wanted = scipy.stats.gamma(shape, scale=mean / shape).cdf(TIMES)
    np.testing.assert_allclose(fit.pit(), wanted, rtol=1e-9)
    np.testing.assert_allclose(fit.pit(KEY), wanted, rtol=1e-9, err_msg="a key is for whole numbers alone")
    np.testing.assert_allclose(fit.residuals(), scipy.stats.norm.ppf(wanted), rtol=1e-8)


def test_whole_numbers_are_drawn_between_the_sides_of_the_jump() -> None:
    fit = counts()
    mean = np.exp(float(fit.params["a"]) + float(fit.params["b"]) * X)
    low, high = (scipy.stats.poisson(mean).cdf(COUNTS - shift) for shift in (1, 0))
    draws = np.asarray(fit.pit(KEY))
    assert np.all((low < draws) & (draws < high))
    np.testing.assert_allclose(fit.residuals(KEY), scipy.stats.norm.ppf(draws), rtol=1e-9)
    inside = np.concatenate([(np.asarray(fit.pit(jax.random.key(i))) - low) / (high - low) for i in range(20)])
    assert scipy.stats.kstest(inside, "uniform").pvalue > 0.01
    with pytest.raises(ValueError, match=r"whole numbers.*key=jax\.random\.key"):
        fit.residuals()


@functools.cache
def rain() -> tuple[mle.Fit, np.ndarray, float, np.ndarray]:
    """Sums that are often nothing; their zeros, the fitted chance of them, and the other distribution there."""
    rng = np.random.default_rng(1)
    sums = np.where(rng.uniform(size=200) < 0.4, 0.0, rng.gamma(2.0, 3.0, size=200))
    gamma = mle.regression(lambda p, obs: (p["mean"], p["shape"]), mle.families.gamma)
    rules = {"mean": mle.positive, "shape": mle.positive, "chance": mle.unit_interval}
    start = {"mean": 5.0, "shape": 1.0, "chance": 0.5}
    fit = mle.fit(mle.zero_inflated(gamma), start, {"y": sums}, constraints=rules)
    mean, shape, chance = (float(fit.params[name]) for name in ("mean", "shape", "chance"))
    return fit, sums == 0, chance, scipy.stats.gamma(shape, scale=mean / shape).cdf(sums)


def test_only_zeros_are_drawn_where_the_rest_is_continuous() -> None:
    fit, zero, chance, rest = rain()
    np.testing.assert_allclose(chance, zero.mean(), rtol=1e-9)
    draws = np.asarray(fit.pit(KEY))
    np.testing.assert_allclose(draws[~zero], (chance + (1 - chance) * rest)[~zero], rtol=1e-9)
    assert scipy.stats.kstest(draws[zero] / chance, "uniform").pvalue > 0.01
    with pytest.raises(ValueError, match=r"jumps at zero: pass key=jax\.random\.key"):
        fit.residuals()


def test_counts_that_are_truncated_want_a_key_too() -> None:
    rates = mle.regression(lambda rate, obs: rate, mle.families.poisson)
    y = np.random.default_rng(2).poisson(2.0, size=200)
    fit = mle.fit(mle.truncated(rates, upper=40), 1.0, {"y": y}, constraints=mle.positive)
    with pytest.raises(ValueError, match="jumps at whole numbers"):
        fit.pit()
    plain = mle.fit(rates, 1.0, {"y": y}, constraints=mle.positive)  # 40 is out of reach
    np.testing.assert_allclose(fit.pit(KEY), plain.pit(KEY), rtol=1e-9)
    mixture = mle.mixture([rates, mle.truncated(rates, upper=40)])
    assert mixture.atoms is True
    both: Any = mle.mixture([rates, mle.regression(lambda p, obs: p, mle.families.exponential)])
    assert both.atoms({"y": 1.0})
    assert mle.mixture([rates, lambda params, obs: 0.0]).atoms is None


def test_both_tails_keep_their_digits() -> None:
    model = mle.Model(
        lambda mean, x: norm.logpdf(x, mean), log_cdf=lambda mean, x: jax.scipy.special.log_ndtr(x - mean)
    )
    fit = mle.fit(model, 0.0, jnp.array([-30.0, -9.0, 0.5, 9.0, 29.5]))
    np.testing.assert_allclose(fit.residuals(), np.array([-30.0, -9.0, 0.5, 9.0, 29.5]), rtol=1e-12)
    assert fit.residuals(KEY).shape == (5,)
    # In float32 one less a distribution function has its last digit at 5.4 standard deviations.
    single = np.array([-12.0, 0.5, 11.5], np.float32)
    family = mle.regression(lambda mean, x: (mean, 1.0), mle.families.normal, lambda x: x)
    np.testing.assert_allclose(mle.fit(family, np.float32(0), single).residuals(), single, rtol=1e-5)


def test_counts_far_above_keep_their_digits() -> None:
    """Between the two sides of a jump that the distribution function does not tell from one."""
    model = mle.regression(lambda rate, obs: rate, mle.families.poisson)
    fit = mle.fit(model, 1.0, {"y": np.array([0.0] * 99 + [30.0])}, constraints=mle.positive)
    low, high = (-scipy.stats.norm.ppf(scipy.stats.poisson(0.3).sf(30 - k)) for k in (1, 0))
    assert low < fit.residuals(KEY)[-1] < high


def test_batches_and_padding() -> None:
    table = {"g": np.repeat([0, 1], [25, 35]), "x": X, "y": COUNTS}
    fits = mle.fit_batch(counts().model, {"a": 0.0, "b": 0.0}, mle.group_by(table, "g"))
    together = fits.residuals(KEY)
    assert together.shape == (2, 35)
    assert np.all(np.isnan(together[0, 25:]))
    np.testing.assert_allclose(together[0, :25], fits[0].residuals(KEY), rtol=1e-9)
    np.testing.assert_allclose(together[1], fits[1].residuals(KEY), rtol=1e-9)


def test_errors_and_unproven_fits() -> None:
    bare = mle.fit(lambda mean, x: norm.logpdf(x, mean), 0.0, X)
    with pytest.raises(ValueError, match="no log_cdf"):
        bare.pit()
    with pytest.raises(TypeError, match="random key"):
        counts().pit(7)
    undone = mle.fit(counts().model, {"a": 0.0, "b": 0.0}, {"x": X, "y": COUNTS}, max_steps=1)
    assert not undone.converged
    assert np.all(np.isnan(undone.residuals(KEY)))
