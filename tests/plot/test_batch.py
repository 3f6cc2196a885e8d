"""Many fits in one figure."""

from __future__ import annotations

import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

import mlekit as mle
from tests.plot.figures import RNG, X, corners, normal_batch, plot, said, segments


def test_batch_of_few() -> None:
    ax = plot.batch(normal_batch(), "mean", level=0.9)
    order = [2, 0, 3]
    sets = [X, X, X - 7.0, 2.0 * X]
    means, half = (np.array([fn(sets[i]) for i in order]) for fn in (np.mean, np.std))
    half *= stats.norm.ppf(0.95) / 5
    np.testing.assert_allclose(ax.get_lines()[0].get_xydata(), np.column_stack([means, [1, 2, 3]]), atol=1e-9)
    np.testing.assert_allclose(segments(ax), np.column_stack([means - half, means + half]), rtol=1e-6)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["2", "0", "3"]
    assert said(ax) == "3 converged; not drawn: 1 nonfinite_data"
    assert ax.get_xlabel() == "mean, 90% Wald interval"


def test_batch_of_groups_names_them() -> None:
    table = {"site": np.repeat(["north", "south"], 3), "year": np.repeat([1, 2], 3), "x": np.arange(6.0)}
    fits = mle.fit_batch(lambda m, obs: norm.logpdf(obs["x"], m), 9.0, mle.group_by(table, by=["site", "year"]))
    ax = plot.batch(fits[::-1], "params")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["north, 1", "south, 2"]
    assert ax.get_ylabel() == "site, year"


@pytest.mark.parametrize("n_sets", [40, 5_000])
def test_batch_of_many(n_sets: int) -> None:
    x = RNG.normal(RNG.normal(size=(n_sets, 1)), size=(n_sets, 4))
    x[7, 0] = np.nan
    ax = plot.batch(mle.fit_batch(lambda m, x: norm.logpdf(x, m), 0.0, x), "params")
    means = np.sort(np.delete(x, 7, 0).mean(1))
    drawn = np.asarray(ax.get_lines()[0].get_xydata())
    rank = drawn[:, 1].astype(int)
    np.testing.assert_allclose(drawn[:, 0], means[rank - 1], atol=1e-9)
    assert (rank[0], rank[-1], len(rank)) == (1, n_sets - 1, min(n_sets - 1, 1_000))
    half = stats.norm.ppf(0.975) / 2
    if n_sets == 40:
        np.testing.assert_allclose(segments(ax), np.column_stack([means - half, means + half]))
    else:
        band = corners(ax)
        parts = np.array_split(means, 250)
        middle = np.array([np.median(part) for part in parts])
        ranks = np.array([np.median(part) for part in np.array_split(np.arange(1, n_sets), 250)])
        for end in (middle - half, middle + half):
            distance = np.abs(band[:, None] - np.column_stack([end, ranks])).max(-1).min(0)
            np.testing.assert_allclose(distance, 0, atol=1e-8)
        assert ax.get_xlabel() == "params, median 95% Wald interval of neighbours"
    low, high = ax.get_xlim()
    beyond = int(np.sum((means < low) | (means > high)))
    assert said(ax).startswith(f"{n_sets - 1:,} converged")
    assert (f"{beyond} beyond the axis" in said(ax)) == (beyond > 0)
    assert said(ax).endswith("not drawn: 1 nonfinite_data")
    assert ax.get_ylabel() == "data sets, in order"
