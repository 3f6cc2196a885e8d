"""Tests of fit: statistics of SciPy, and p-values of refits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import mlekit as mle
from tests.helpers.marks import mostly_slow
from tests.inference.hypotheses import FAMILIES

WAITS = mle.regression(lambda mean, obs: mean, FAMILIES.exponential)


def test_statistic_of_counts_that_can_be_no_larger() -> None:
    """Where the last has nothing above it, u is in the middle of its jump."""
    rng = np.random.default_rng(8)
    wide, model = rng.binomial(6, rng.beta(1, 1, 80)), mle.regression(lambda p, obs: p, mle.families.binomial(6))
    fits = mle.fit_batch(model, 0.0, {"y": np.stack([wide, rng.binomial(6, 0.4, 80)]).astype(float)})
    test = mle.goodness_of_fit_test(fits, jax.random.key(0), 99)
    at = scipy.stats.binom(6, scipy.special.expit(np.asarray(fits.params))[0])
    u = np.sort(at.cdf(wide) - at.pmf(wide) / 2)
    odd = 2 * np.arange(80) + 1
    np.testing.assert_allclose(test.statistic[0], -80 - odd @ (np.log(u) + np.log1p(-u[::-1])) / 80, rtol=1e-9)
    assert test.p_value[0] == pytest.approx(0.01)
    assert test.p_value[1] > 0.05


@pytest.mark.parametrize(
    ("statistic", "theirs"),
    mostly_slow(
        [("anderson-darling", "ad"), ("cramer-von-mises", "cvm"), ("kolmogorov-smirnov", "ks")],
        ("anderson-darling", "ad"),
    ),
)
def test_statistics_of_fit(statistic: str, theirs: str) -> None:
    """Ragged: the same numbers as scipy's for each data set."""
    draws, lengths = np.random.default_rng(6).exponential(2.0, (2, 30)), np.array([30, 17])
    fits = mle.fit_batch(WAITS, 1.0, {"y": draws}, constraints=mle.positive, lengths=lengths)
    test = mle.goodness_of_fit_test(fits, jax.random.key(0), 19, statistic)
    for i, n in enumerate(lengths):
        known = {"loc": 0.0, "scale": float(fits.params[i])}
        y = draws[i, :n]
        # One resample: the p-value is not what is compared here.
        wanted = scipy.stats.goodness_of_fit(
            scipy.stats.expon, y, known_params=known, statistic=theirs, n_mc_samples=1, rng=0
        )
        np.testing.assert_allclose(test.statistic[i], wanted.statistic, rtol=1e-9)
        assert float(test.p_value[i]) * 20 == pytest.approx(round(float(test.p_value[i]) * 20))
    name = {"ad": "Anderson-Darling", "cvm": "Cramer-von Mises", "ks": "Kolmogorov-Smirnov"}[theirs]
    assert repr(test).startswith(
        f"{name} test of 2 data sets: the hypothesis that the model fits is rejected at 5 %"
    )


@pytest.mark.slow
def test_p_values_of_fit() -> None:
    """Uniform where the model holds, small where it does not; of one fit as in the batch."""
    draws = np.random.default_rng(6).exponential(2.0, (200, 20))
    fits = mle.fit_batch(WAITS, 1.0, {"y": draws}, constraints=mle.positive)
    test = mle.goodness_of_fit_test(fits, jax.random.key(1), 99)
    p = np.asarray(test.p_value)
    # On a grid of a hundredth, which the comparison with a continuous distribution hardly notices among 200.
    assert scipy.stats.kstest(p - 0.005, "uniform").pvalue > 0.01
    alone = mle.goodness_of_fit_test(fits[7], jax.random.key(1), 99)
    np.testing.assert_allclose([alone.statistic, alone.p_value], [test.statistic[7], p[7]], rtol=1e-9)
    even = mle.fit(WAITS, 1.0, {"y": np.random.default_rng(2).gamma(6.0, size=20)}, constraints=mle.positive)
    wrong = mle.goodness_of_fit_test(even, jax.random.key(1), 99)
    assert wrong.p_value == pytest.approx(0.01)
    assert repr(wrong).endswith("p = 0.0100 (parametric bootstrap)")


@pytest.mark.slow
def test_a_statistic_of_ones_own() -> None:
    """Twice the largest wait over the mean; and no distribution function is needed."""
    model = mle.Model(
        lambda mean, y: -y / mean - jnp.log(mean), simulate=lambda key, mean, y: mean * jax.random.exponential(key)
    )
    y = np.array([0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 0.2, 9.0])
    fit = mle.fit(model, 1.0, y, constraints=mle.positive)
    test = mle.goodness_of_fit_test(fit, jax.random.key(0), 199, lambda mean, data: 2 * jnp.max(data) / mean)
    np.testing.assert_allclose(test.statistic, 18 / y.mean(), rtol=1e-9)
    # Fisher's test of the largest of n exponential shares: n (1 - share)^(n-1) where that share exceeds a half.
    exact = 8 * (1 - 9 / y.sum()) ** 7
    assert test.p_value == pytest.approx((1 + np.round(199 * exact)) / 200, abs=0.015)
    with pytest.raises(ValueError, match="no log_cdf"):
        mle.goodness_of_fit_test(fit, jax.random.key(0))
