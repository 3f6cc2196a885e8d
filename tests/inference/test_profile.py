"""Profile likelihoods against closed forms, MINOS and SciPy: where intervals end, and where they do not."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

import mlekit as mle
from mlekit.inference.profile.interval import ends
from tests.helpers.models import Counted
from tests.inference.profiles import DROP, INIT, LENGTHS, POSITIVE_SD, RNG, X, crossing, normal, normal_fits


def mean_interval(x: np.ndarray) -> list[float]:
    """The profile interval of a normal mean: the variance about it grows by exp(2 drop / n)."""
    half = x.std() * np.sqrt(np.expm1(2 * DROP / len(x)))
    return [x.mean() - half, x.mean() + half]


def sd_interval(x: np.ndarray) -> list[float]:
    n, s = len(x), x.std()
    profile = lambda v: -n * np.log(v) - n * s**2 / (2 * v**2)  # noqa: E731
    return [crossing(profile, s, 0.1 * s), crossing(profile, s, 10 * s)]


FINE = [0, 1, 2, 5]


@pytest.fixture(scope="module")
def fits() -> mle.Fit:
    return normal_fits()


def test_normal_ends_are_the_closed_ones(fits: mle.Fit) -> None:
    found = fits.intervals(method="profile")
    for i in FINE:
        x = X[i, : LENGTHS[i]]
        np.testing.assert_allclose([end[i] for end in found["mean"]], mean_interval(x), rtol=1e-9)
        np.testing.assert_allclose([end[i] for end in found["sd"]], sd_interval(x), rtol=1e-9)
    for pair in found.values():
        assert np.all(np.isnan(np.stack(pair)[:, [3, 4]]))
    _, both = ends(fits, 0.95)
    assert np.all(np.asarray(both.status)[FINE] == mle.Status.converged)
    # Where there is no fit, its own status is that of the ends.
    np.testing.assert_array_equal(both.status[3], mle.Status.too_few_observations)
    np.testing.assert_array_equal(both.status[4], mle.Status.nonfinite_data)


@pytest.mark.parametrize("level", [0.5, 0.999])
def test_level(fits: mle.Fit, level: float) -> None:
    x = X[0]
    half = x.std() * np.sqrt(np.expm1(stats.chi2.ppf(level, 1) / 15))
    low, high = fits.intervals(level, "profile")["mean"]
    np.testing.assert_allclose([low[0], high[0]], [x.mean() - half, x.mean() + half], rtol=1e-9)


def test_a_batch_is_its_data_sets(fits: mle.Fit) -> None:
    together = fits.intervals(method="profile")
    alone = fits[2].intervals(method="profile")
    for name in INIT:
        np.testing.assert_allclose(alone[name], [end[2] for end in together[name]], rtol=1e-12)


@pytest.mark.slow
def test_groups_with_weights() -> None:
    """Weights count observations, whatever the order of the rows."""
    n = np.array([14, 6, 11])
    table = {"key": np.repeat(np.arange(3), n), "x": RNG.exponential(size=31), "w": RNG.integers(1, 4, 31) - 1.0}
    order = RNG.permutation(31)
    groups = mle.group_by({k: v[order] for k, v in table.items()}, "key")
    density = lambda rate, obs: jnp.log(rate) - rate * obs["x"]  # noqa: E731
    fits = mle.fit_batch(density, 1.0, groups, weights="w", constraints=mle.positive)
    low, high = fits.intervals(method="profile")
    for i in range(3):
        mine = table["key"] == i
        count, total = table["w"][mine].sum(), table["w"][mine] @ table["x"][mine]
        profile = lambda rate: count * np.log(rate) - total * rate  # noqa: B023, E731
        expected = [crossing(profile, count / total, far * count / total) for far in (1e-3, 20.0)]
        np.testing.assert_allclose([low[i], high[i]], expected, rtol=1e-9)


@pytest.mark.slow
def test_float32_keeps_what_it_can() -> None:
    init = {k: jnp.asarray(v, jnp.float32) for k, v in INIT.items()}
    fit = mle.fit(normal, init, {"x": X[0].astype(np.float32)}, constraints=POSITIVE_SD)
    found = fit.intervals(method="profile")
    assert found["mean"][0].dtype == jnp.float32
    # Sums of 15 terms carry six digits, and an end moves by about half of what the height is off.
    np.testing.assert_allclose(found["mean"], mean_interval(X[0]), rtol=2e-4)
    np.testing.assert_allclose(found["sd"], sd_interval(X[0]), rtol=2e-4)


@pytest.mark.slow
def test_joint_model() -> None:
    """An autoregression with known noise, given its first value, is a least-squares line through the origin."""
    x = np.cumsum(RNG.normal(size=30))

    def contributions(phi: Any, data: Any) -> Any:
        return jnp.concatenate([jnp.zeros(1), norm.logpdf(data["x"][1:], phi * data["x"][:-1])])

    fit = mle.fit(mle.joint(contributions), 0.5, {"x": x})
    best, square = x[1:] @ x[:-1] / (x[:-1] @ x[:-1]), x[:-1] @ x[:-1]
    half = np.sqrt(2 * DROP / square)
    np.testing.assert_allclose(fit.intervals(method="profile"), [best - half, best + half], rtol=1e-10)
    # Nothing is left to maximise over: the curve is the likelihood itself.
    curve = mle.profile(fit, "params", jnp.array([best - half, best, best + 2 * half]))
    np.testing.assert_allclose(curve.drop, [DROP, 0, 4 * DROP], atol=1e-10)


def test_one_trace_serves_all_calls() -> None:
    counted = Counted(lambda rate, x: jnp.log(rate) - rate * x)
    x = RNG.exponential(size=(2, 4, 20))
    first, again = (mle.fit_batch(counted, 1.0, one, constraints=mle.positive) for one in x)
    first.intervals(method="profile")
    mle.profile(first, "params", points=5)
    traces = counted.traces
    again.intervals(0.9, "profile")
    mle.profile(again, "params", points=5)
    mle.profile(again, "params", jnp.linspace(1.0, 3.0, 5))
    assert counted.traces == traces
