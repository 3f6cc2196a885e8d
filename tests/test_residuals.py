"""Quantile residuals and the probability integral transform, against SciPy and NumPy."""

from __future__ import annotations

import functools

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


def test_both_tails_keep_their_digits() -> None:
    model = mle.Model(
        lambda mean, x: norm.logpdf(x, mean), log_cdf=lambda mean, x: jax.scipy.special.log_ndtr(x - mean)
    )
    fit = mle.fit(model, 0.0, jnp.array([-30.0, -9.0, 0.5, 9.0, 29.5]))
    np.testing.assert_allclose(fit.residuals(), np.array([-30.0, -9.0, 0.5, 9.0, 29.5]), rtol=1e-12)
    assert fit.residuals(KEY).shape == (5,)


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
