"""Profiles that run to an edge or meet a better maximum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import optimize, stats

import mlekit as mle
from mlekit.inference.profile.interval import ends
from tests.helpers.models import logistic
from tests.inference.profiles import DROP, RNG, crossing, normal_fits


@pytest.fixture(scope="module")
def fits() -> mle.Fit:
    return normal_fits()


@pytest.mark.slow
def test_a_variance_that_may_be_none() -> None:
    """The lower end of a variance between is zero where the data would do without it, and only there."""
    density = lambda between, x: norm.logpdf(x, 0.0, jnp.sqrt(1.0 + between))  # noqa: E731
    x = RNG.normal(size=(3, 20))
    x *= np.sqrt(np.array([1.15, 1.6, 3.0]) / np.mean(x**2, axis=1))[:, None]
    fits = mle.fit_batch(density, 1.0, x, constraints=mle.positive)
    assert fits.status.counts() == {"converged": 3}
    _, found = ends(fits, 0.95)
    for i, total in enumerate([1.15, 1.6, 3.0]):
        profile = lambda v: -10 * (np.log1p(v) + total / (1 + v))  # noqa: B023, E731
        there = profile(0.0) < profile(total - 1) - DROP
        low = crossing(profile, total - 1, 0.0) if there else 0.0
        np.testing.assert_allclose(found.lower[i, 0], low, rtol=1e-9)
        assert int(found.status[i, 0, 0]) == (mle.Status.converged if there else mle.Status.unbounded)
        np.testing.assert_allclose(found.upper[i, 0], crossing(profile, total - 1, 100.0), rtol=1e-9)
    assert found.lower[0, 0] == 0 < found.lower[2, 0]


@pytest.mark.slow
def test_degrees_of_freedom_up_to_infinity() -> None:
    """Where normal noise fits nearly as well the upper end is infinite; else far out in a flat tail."""
    y = np.random.default_rng(1).standard_t(4, size=(12, 60))[[0, 3, 4, 5, 7]]
    model = mle.regression(lambda params, obs: (0.0, params["scale"], params["df"]), mle.families.student_t)
    rules = {"scale": mle.positive, "df": mle.positive}
    fits = mle.fit_batch(model, {"scale": 1.0, "df": 5.0}, {"y": y}, constraints=rules)
    assert fits.status.counts() == {"converged": 5}
    low, high = fits.intervals(method="profile")["df"]

    def drop(i: int, df: float) -> float:
        noise = stats.norm if np.isinf(df) else stats.t(df)

        def loss(log_scale: float) -> float:
            return -float(np.sum(noise.logpdf(y[i] / np.exp(log_scale)) - log_scale))

        return float(fits.log_likelihood[i]) + optimize.minimize_scalar(loss, bounds=(-2.0, 2.0)).fun

    for i in range(5):
        np.testing.assert_allclose(drop(i, float(low[i])), DROP, atol=1e-8)
        if drop(i, np.inf) < DROP:
            assert np.isposinf(high[i])
        else:
            np.testing.assert_allclose(drop(i, float(high[i])), DROP, atol=1e-8)
    # Both kinds are there.
    assert 0 < np.sum(np.isposinf(high)) < 5


def test_all_but_separated() -> None:
    """One observation short of separation an end lies far out, but it is there."""
    x = np.linspace(-1, 1, 20)
    design = np.column_stack([np.ones(20), x])
    y = (x > 0).astype(float)
    y[[9, 10]] = 1, 0
    fit = mle.fit(logistic, np.zeros(2), {"x": design, "y": y})
    low, high = fit.intervals(method="profile")

    def profile(slope: float) -> float:
        # By symmetry the intercept is zero all along.
        return float(np.sum(y * slope * x - np.logaddexp(0, slope * x)))

    best = float(fit.params[1])
    np.testing.assert_allclose(
        [low[1], high[1]], [crossing(profile, best, 0), crossing(profile, best, 500)], rtol=1e-8
    )
    assert high[1] - best > 2 * (best - low[1])


#: Five numbers each: the likelihood of a Cauchy location has two maxima, one, and two far apart.
TROUBLE = np.array([[-2.0, -1.8, 2.0, 2.2, 1.9], [-1.6, -1.5, 1.5, 1.7, 1.6], [-4.0, -4.2, 4.0, 4.1, 4.3]])


def cauchy(location: Any, x: Any) -> Any:
    return -jnp.log1p((x - location) ** 2)


@pytest.fixture(scope="module")
def lower() -> mle.Fit:
    fits = mle.fit_batch(cauchy, -2.0, TROUBLE)
    assert fits.status.counts() == {"converged": 3}
    assert np.sign(fits.params).tolist() == [-1, 1, -1]
    return fits


def height(i: int) -> Callable[[float], float]:
    return lambda v: -float(np.sum(np.log1p((TROUBLE[i] - v) ** 2)))


def test_a_better_maximum_is_met(lower: mle.Fit) -> None:
    """The first began at the lower of two maxima, close to the other one; in the last they are far apart."""
    with pytest.warns(UserWarning, match="profiles of 1 of 3 data sets met higher maxima"):
        low, high = lower.intervals(method="profile")
    best = optimize.minimize_scalar(lambda v: -height(0)(v), (1.0, 1.9, 3.0)).x
    bests = [best, float(lower.params[1]), float(lower.params[2])]
    for i in range(3):
        top = height(i)(bests[i])
        for end in (low[i], high[i]):
            np.testing.assert_allclose(top - height(i)(float(end)), DROP, atol=1e-8)
        assert low[i] < bests[i] < high[i]
    with pytest.warns(UserWarning, match="profiles met higher maxima"):
        alone = lower[0].intervals(method="profile")
    np.testing.assert_allclose(alone, [low[0], high[0]], rtol=1e-12)


def test_a_curve_that_meets_a_better_maximum(lower: mle.Fit) -> None:
    curve = mle.profile(lower[0], "params", points=5)
    assert bool(curve.better)
    np.testing.assert_allclose(curve.fit.log_likelihood, height(0)(float(curve.fit.params)), rtol=1e-12)
    assert curve.fit.params > 0 > lower.params[0]
    # By default it reaches as far as an interval of 99.9 % would.
    np.testing.assert_allclose(curve.drop[jnp.array([0, -1])], stats.chi2.ppf(0.999, 1) / 2, rtol=1e-8)
    assert np.all(np.asarray(curve.drop) > -1e-9)
    assert "It met a higher maximum than the fit" in repr(curve)
    # The values are given, so no search goes out; one of them lies beside the other maximum.
    both = mle.profile(lower, "params", np.array([-2.0, 1.9, 4.1]))
    assert both.better.tolist() == [True, False, True]
    assert np.all(np.asarray(both.fit.params) > 0)
    np.testing.assert_allclose(both.log_likelihood, [[height(i)(v) for v in (-2.0, 1.9, 4.1)] for i in range(3)])
