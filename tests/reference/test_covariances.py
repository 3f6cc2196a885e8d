"""Covariances of every kind beside those of statsmodels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import mlekit as mle
from tests.helpers.seasons import DATA, N, counts_fit, statsmodels_counts


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return counts_fit()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"kind": "observed"}, ("nonrobust",)),
        ({"kind": "sandwich"}, ("HC0",)),
        ({"kind": "sandwich", "clusters": "firm"}, ("cluster", False, (0,))),
        ({"kind": "sandwich", "clusters": "firm", "small_sample": "regression"}, ("cluster", True, (0,))),
        ({"kind": "sandwich", "clusters": ["firm", "year"]}, ("cluster", False, (0, 1))),
        (
            {"kind": "sandwich", "clusters": ["firm", "year"], "small_sample": "regression"},
            ("cluster", True, (0, 1)),
        ),
        ({"kind": "hac", "lags": 4}, ("HAC", False)),
        ({"kind": "hac", "lags": 4, "small_sample": "regression"}, ("HAC", True)),
    ],
    ids=lambda case: "-".join(map(str, case.values())) if isinstance(case, dict) else "",
)
def test_statsmodels_agrees(fit: mle.Fit, ours: dict[str, Any], theirs: tuple[Any, ...]) -> None:
    np.testing.assert_allclose(fit.covariance(**ours), statsmodels_counts(*theirs), rtol=1e-8)


def test_small_samples(fit: mle.Fit) -> None:
    """The factors that statsmodels has no name for: G/(G-1) alone, and each observation a cluster of its own."""
    one, two = fit.covariance("sandwich"), fit.covariance("sandwich", "firm")
    np.testing.assert_allclose(fit.covariance("sandwich", small_sample="clusters"), one * 60 / 59, rtol=1e-12)
    np.testing.assert_allclose(fit.covariance("sandwich", small_sample="regression"), one * 60 / 58, rtol=1e-12)
    np.testing.assert_allclose(
        fit.covariance("sandwich", "firm", small_sample="clusters"), two * 9 / 8, rtol=1e-12
    )
    np.testing.assert_allclose(fit.covariance("sandwich", np.arange(N)), one, rtol=1e-10)
    np.testing.assert_allclose(fit.covariance("hac", lags=0), one, rtol=1e-10)
    # All lags there are and more: weights go on falling, products of rows that are not there are zero.
    scores, bread = np.asarray(fit.scores()), np.linalg.inv(fit.information())
    jacobian = np.asarray(fit.parameters.jacobian(fit._solution.free))
    distance = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
    middle = scores.T @ np.maximum(0, 1 - distance / 101) @ scores
    np.testing.assert_allclose(
        fit.covariance("hac", lags=100), jacobian @ bread @ middle @ bread @ jacobian.T, rtol=1e-8, atol=1e-12
    )


def test_three_ways_at_once(fit: mle.Fit) -> None:
    """Inclusion and exclusion, written out."""
    third = np.arange(N) % 5
    ways = [DATA["firm"], DATA["year"], third]
    total = np.zeros((2, 2))
    for size in (1, 2, 3):
        for some in itertools.combinations(ways, size):
            label = np.unique(np.column_stack(some), axis=0, return_inverse=True)[1].ravel()
            total += (-1) ** (size + 1) * np.asarray(fit.covariance("sandwich", label))
    np.testing.assert_allclose(fit.covariance("sandwich", ways), total, rtol=1e-9, atol=1e-14)
