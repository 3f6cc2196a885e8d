"""White's test of the information matrix by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import statsmodels.api as sm

import mlekit as mle
from tests.helpers.marks import mostly_slow
from tests.inference.hypotheses import (
    COUNTS,
    COUNTS_START,
    FAMILIES,
    FIRST,
    NORMAL,
    PAIR_RULES,
    PLACE,
    N,
    check,
    full_fit,
)


@pytest.fixture(scope="module")
def full() -> mle.Fit:
    return full_fit()


def white(scores: Any, hessians: Any, theta: np.ndarray) -> tuple[float, int]:
    """Statistic and degrees of freedom from functions of theta that take complex numbers, by complex steps."""
    k = len(theta)
    upper = np.triu_indices(k)

    def indicators(at: np.ndarray) -> np.ndarray:
        s, h = scores(at), hessians(at)
        return (h + s[:, :, None] * s[:, None, :])[:, upper[0], upper[1]]

    slope = np.array([indicators(theta + 1e-30j * row).mean(axis=0).imag for row in np.eye(k)]).T / 1e-30
    d, s, h = indicators(theta), scores(theta), hessians(theta).mean(axis=0)
    left = d - s @ np.linalg.solve(h, slope.T)
    spread = left.T @ left / len(d)
    mean, rank = d.mean(axis=0), np.linalg.matrix_rank(spread, rtol=1e-9, hermitian=True)
    return len(d) * mean @ np.linalg.pinv(spread, rtol=1e-9, hermitian=True) @ mean, int(rank)


def test_white_for_the_normal() -> None:
    """Mean and standard deviation: what is left of three indicators are skewness and kurtosis."""
    y = np.random.default_rng(0).gamma(4.0, size=80)
    fit = mle.fit(NORMAL, PLACE, {"y": y}, constraints=PAIR_RULES)

    # On the free scale, that of log sigma, where the test is made.
    z = lambda at: (y - at[0]) * np.exp(-at[1])  # noqa: E731

    def scores(at: np.ndarray) -> np.ndarray:
        return np.column_stack([z(at) * np.exp(-at[1]), z(at) ** 2 - 1])

    def hessians(at: np.ndarray) -> np.ndarray:
        cross, unit = -2 * z(at) * np.exp(-at[1]), np.exp(-2 * at[1])
        return np.moveaxis(np.array([[-unit + 0 * cross, cross], [cross, -2 * z(at) ** 2]]), 2, 0)

    wanted, df = white(scores, hessians, np.array([fit.params["place"], np.log(fit.params["scale"])]))
    assert df == 2
    test = mle.information_matrix_test(fit)
    check(test, wanted, 2)
    # By hand: the parts of z³ - 3z and z⁴ - 6z² + 3 that mean and scale cannot follow.
    u = scipy.stats.zscore(y)
    m3, m4 = np.mean(u**3), np.mean(u**4)
    third = u**3 - 3 * u - 2 * m3 * (u**2 - 1)
    fourth = u**4 - 6 * u**2 + 3 - 4 * m3 * u - 2 * (m4 - 3) * (u**2 - 1)
    left, mean = np.column_stack([third, fourth]), np.array([m3, m4 - 3])
    np.testing.assert_allclose(test.statistic, 80 * mean @ np.linalg.solve(left.T @ left / 80, mean), rtol=1e-7)


@pytest.mark.parametrize("weighted", mostly_slow([False, True], False))
def test_white_for_counts(weighted: bool, full: mle.Fit) -> None:
    """A weight repeats a row."""
    weights = np.arange(N) % 3 if weighted else np.ones(N, int)
    fit = mle.fit(COUNTS, COUNTS_START, FIRST, weights=weights) if weighted else full
    design, y = np.repeat(sm.add_constant(FIRST["x"]), weights, axis=0), np.repeat(FIRST["y"], weights)
    mean = lambda at: np.exp(design @ at)  # noqa: E731
    wanted = white(
        lambda at: (y - mean(at))[:, None] * design,
        lambda at: -mean(at)[:, None, None] * design[:, :, None] * design[:, None, :],
        np.array([fit.params["const"], fit.params["slope"]]),
    )
    check(mle.information_matrix_test(fit), *wanted)


def test_white_without_anything_to_test() -> None:
    """One coin has no more to it than its chance: the indicator is a multiple of the score."""
    coin = mle.regression(lambda p, obs: p, FAMILIES.bernoulli)
    test = mle.information_matrix_test(mle.fit(coin, 0.0, {"y": np.arange(9) % 3 // 2}))
    assert np.isnan(test.p_value)
    assert repr(test).startswith("Information-matrix test: no verdict")
