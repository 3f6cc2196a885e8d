"""The likelihood as a curve and as a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

import mlekit as mle
from tests.plot.figures import (
    DROP,
    MEAN,
    SD,
    X,
    corners,
    crossings,
    labels,
    line,
    new_axes,
    normal_fit,
    plot,
    sd_drop,
)


def mean_drop(v: Any) -> Any:
    return len(X) * (v - MEAN) ** 2 / (2 * SD**2)


@pytest.mark.parametrize(("name", "drop"), [("mean", mean_drop), ("sd", sd_drop)])
def test_likelihood_of_one(name: str, drop: Callable[[Any], Any]) -> None:
    ax = plot.likelihood(normal_fit(), name)
    v, fall = line(ax, "likelihood").T
    assert len(v) == 201
    np.testing.assert_allclose(fall, drop(v), atol=1e-8)
    best = {"mean": MEAN, "sd": SD}[name]
    wanted = crossings(drop, best, v[0], v[-1])
    region = corners(ax)
    np.testing.assert_allclose([region[:, 0].min(), region[:, 0].max()], wanted, rtol=1e-5)
    assert region[:, 1].max() == pytest.approx(DROP)
    # The curve goes a little beyond what a region of 99.9 % needs.
    wide = crossings(drop, best, 1e-3 if name == "sd" else -99.0, 99.0, stats.chi2.ppf(0.999, 1) / 2)
    assert v[0] < wide[0] < v[0] + 0.2 * (v[-1] - v[0])
    assert v[-1] > wide[1] > v[-1] - 0.2 * (v[-1] - v[0])
    assert (ax.get_xlabel(), ax.get_ylabel()) == (name, "nats below the maximum")
    assert ax.yaxis_inverted()
    assert labels(ax) == ["95% likelihood interval", "likelihood"]


def test_likelihood_of_two() -> None:
    ax = plot.likelihood(normal_fit(), ("mean", "sd"), level=0.9, ax=new_axes())
    inner, outer = (border.vertices for border in ax.collections[1].get_paths())
    for border, level in ((inner, 0.5), (outer, 0.9)):
        fall = sd_drop(border[:, 1]) + len(X) * (border[:, 0] - MEAN) ** 2 / (2 * border[:, 1] ** 2)
        np.testing.assert_allclose(fall, stats.chi2.ppf(level, 2) / 2, rtol=2e-3)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean", "sd")
    assert labels(ax) == ["50% region", "90% region", "estimate"]
    np.testing.assert_allclose(line(ax, "estimate"), [[MEAN, SD]])


def test_likelihood_of_tied_parameters_moves_both() -> None:
    def density(p: Any, x: Any) -> Any:
        return norm.logpdf(x[0], p["a"]) + norm.logpdf(x[1], 2 * p["b"])

    pairs = np.stack([X, X], 1)
    fit = mle.fit(density, {"a": 0.0, "b": 0.0}, pairs, constraints={"b": mle.tied(to="a")})
    values = np.array([0.5, 1.0, 3.0])
    wanted = 0.5 * 25 * 5 * (values - float(fit.params["a"])) ** 2
    for name in ("a", "b"):
        ax = plot.likelihood(fit, name, values=values)
        np.testing.assert_allclose(line(ax, "likelihood"), np.column_stack([values, wanted]), rtol=1e-9)
    # The region is wider than the curve: no end is marked.
    ax = plot.likelihood(fit, "a", values=float(fit.params["a"]) + np.array([-0.01, 0.0, 0.01]))
    assert [len(one.get_xdata()) for one in ax.get_lines()] == [2, 3, 0, 1]
