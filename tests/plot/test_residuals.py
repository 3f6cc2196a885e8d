"""Residuals, and whether they are as they should be."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from scipy import stats

import mlekit as mle
from tests.plot.figures import (
    KEY,
    LINE,
    WEIGHTS,
    X,
    corners,
    count_fit,
    labels,
    line,
    line_fit,
    normal,
    plot,
    said,
)


def standardised() -> np.ndarray:
    """The residuals of `line_fit` by weighted least squares."""
    design = np.column_stack([np.ones(60), LINE["x"]])
    coef = np.linalg.solve(design.T @ (WEIGHTS[:, None] * design), design.T @ (WEIGHTS * LINE["out"]))
    off = LINE["out"] - design @ coef
    return off / np.sqrt(np.average(off**2, weights=WEIGHTS))


def test_residuals_in_order_and_against_columns() -> None:
    counts = WEIGHTS > 0
    axes = [plot.residuals(line_fit(), against=against) for against in (None, "x", 2.0 * LINE["x"])]
    for ax, x in zip(axes, (np.arange(1, 61), LINE["x"], 2.0 * LINE["x"])):
        drawn = np.asarray(ax.get_lines()[0].get_xydata())
        np.testing.assert_allclose(drawn, np.column_stack([x, standardised()])[counts], rtol=1e-8, atol=1e-8)
    assert [ax.get_xlabel() for ax in axes] == ["observation", "x", "against"]
    assert axes[0].get_ylabel() == "quantile residual"
    np.testing.assert_allclose([one.get_ydata()[0] for one in axes[0].get_lines()[1:4]], [0, -1.959964, 1.959964])


def test_infinite_and_unknown_residuals_are_counted() -> None:
    def log_cdf(p: Any, x: Any) -> Any:
        known = norm.logcdf(x, p["mean"], p["sd"])
        return jnp.where(x == X[0], -jnp.inf, jnp.where(x == X[1], jnp.nan, known))

    model = mle.Model(normal, log_cdf=log_cdf)
    fit = mle.fit(model, {"mean": 0.0, "sd": 1.0}, X, constraints={"sd": mle.positive})
    ax = plot.residuals(fit)
    assert said(ax) == "1 of 25 are NaN, left out; 1 of 24 infinite, at the edge"
    np.testing.assert_allclose(ax.get_lines()[-1].get_xydata(), [[1.0, ax.get_ylim()[0]]])
    assert said(plot.qq(fit)) == "1 of 25 are NaN, left out; 1 of 24 infinite, not shown"
    assert said(plot.pit(fit)) == "1 of 25 are NaN, left out"


def test_pit_with_the_band_of_a_uniform_sample() -> None:
    edges = [0.0, 0.1, 0.5, 1.0]
    ax = plot.pit(line_fit(), bins=edges)
    bars, band = (patch.get_data() for patch in ax.patches)
    u, n, width = stats.norm.cdf(standardised()), WEIGHTS.sum(), np.diff(edges)
    np.testing.assert_allclose(bars.values, np.histogram(u, edges, weights=WEIGHTS)[0] / n / width)
    wanted = [stats.binom.ppf(share, n, width) / n / width for share in (0.025, 0.975)]
    np.testing.assert_allclose([band.baseline, band.values], wanted)
    assert labels(ax) == ["data", "95% band of each bar", "uniform"]
    counts = plot.pit(count_fit(), KEY, bins=4).patches[0].get_data().values
    np.testing.assert_allclose(counts, np.histogram(count_fit().pit(KEY), 4, (0, 1), density=True)[0])
    assert len(plot.pit(count_fit(), KEY).patches[0].get_data().values) == 5


def test_qq_with_the_band_of_order_statistics() -> None:
    ax = plot.qq(count_fit(), KEY, level=0.9)
    i = np.arange(1, 61)
    x, r = line(ax, "residuals").T
    np.testing.assert_allclose(x, stats.norm.ppf((i - 0.5) / 60))
    np.testing.assert_allclose(r, np.sort(count_fit().residuals(KEY)))
    for share in (0.05, 0.95):
        band = np.column_stack([x, stats.norm.ppf(stats.beta.ppf(share, i, 61 - i))])
        distance = np.abs(corners(ax)[:, None] - band).max(-1).min(0)
        np.testing.assert_allclose(distance, 0, atol=1e-12)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("standard normal quantile", "quantile residual")
    # A weight of two is two observations: their plotting position is the middle of both.
    x, r = line(plot.qq(line_fit()), "residuals").T
    order = np.argsort(standardised()[WEIGHTS > 0])
    weights = WEIGHTS[WEIGHTS > 0][order]
    np.testing.assert_allclose(r, standardised()[WEIGHTS > 0][order], atol=1e-8)
    np.testing.assert_allclose(stats.norm.cdf(x), (np.cumsum(weights) - weights / 2) / weights.sum())
