"""What cannot be drawn is said in words; figures and axes are those of the caller."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from jax.scipy.stats import norm

import mlekit as mle
from tests.plot.figures import (
    X,
    bootstrap,
    count_fit,
    line_fit,
    new_axes,
    normal_batch,
    normal_fit,
    plot,
    profile,
    unbounded_fit,
)

SINGLE: dict[str, Callable[..., Any]] = {
    "likelihood": plot.likelihood,
    "profile": plot.profile,
    "density": plot.density,
    "residuals": plot.residuals,
    "pit": plot.pit,
    "qq": plot.qq,
    "history": plot.history,
    "coefficients": plot.coefficients,
}


@pytest.mark.parametrize("name", SINGLE)
def test_each_wants_a_single_fit(name: str) -> None:
    with pytest.raises(ValueError, match=r"holds 4 data sets and this draws one: pass fits\[i\]"):
        SINGLE[name](normal_batch())
    with pytest.raises(TypeError, match=r"must be what mle\.fit returns, got float"):
        SINGLE[name](3.0)
    if name not in ("history", "coefficients"):
        with pytest.raises(ValueError, match="did not converge, so there is no maximum to draw; unbounded: "):
            SINGLE[name](unbounded_fit())
    assert not plt.get_fignums()


def test_new_figures_are_those_of_pyplot_and_given_axes_are_used() -> None:
    for draw in (plot.density, plot.history, plot.coefficients):
        ax = draw(normal_fit())
        assert ax.figure is plt.gcf()
        assert not ax.spines["top"].get_visible()
        mine = new_axes()
        assert draw(normal_fit(), ax=mine) is mine
        assert mine.spines["top"].get_visible()
        with pytest.raises(TypeError, match="ax must be one matplotlib Axes, got list"):
            draw(normal_fit(), ax=[mine])


@functools.cache
def table_fit() -> mle.Fit:
    data = {"u": X, "v": np.stack([X, X], 1)}
    return mle.fit(lambda m, obs: norm.logpdf(obs["u"], m), 0.0, data)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: plot.likelihood(normal_fit(), "median"), "no parameter 'median'; there are mean, sd"),
    (lambda: plot.likelihood(normal_fit(), ["sd", "sd"]), "names must be one parameter or two different ones"),
    (lambda: plot.likelihood(line_fit(), "c"), "c is fixed"),
    (lambda: plot.likelihood(normal_fit(), "sd", values=[-1.0, 1.0]), "of sd must lie between 0 and inf"),
    (lambda: plot.likelihood(normal_fit(), "sd", values=[2.0, 1.0]), "of sd must be increasing"),
    (
        lambda: plot.likelihood(normal_fit(), ("mean", "sd"), values=[[1.0, 2.0]]),
        "one array for each of mean, sd",
    ),
    (lambda: plot.likelihood(normal_fit(), level=95), "level must lie between 0 and 1"),
    (lambda: plot.likelihood(normal_fit(), points=1), "points must be a whole number of at least 2"),
    (lambda: plot.profile(normal_fit(), "median"), "no parameter 'median'; there are mean, sd"),
    (
        lambda: plot.profile(jax.tree.map(lambda leaf: leaf[None], profile())),
        r"profiles of a batch and this draws one: mle.profile\(fits\[i\]",
    ),
    (lambda: plot.profile(profile(), "sd"), "that of mean"),
    (lambda: plot.density(count_fit(), "x"), "that of the response, 'y'; got 'x'"),
    (lambda: plot.density(count_fit(), values=[0.5]), "values must be whole numbers, as y is"),
    (lambda: plot.density(count_fit(), values=3), r"shape \(points,\)"),
    (lambda: plot.density(normal_fit(), "x"), "column='x' names a column, and the data have none"),
    (lambda: plot.density(table_fit()), "whose density the model is; the columns of the data are u, v"),
    (lambda: plot.density(table_fit(), "w"), "column='w' is no column of the data, which have u, v"),
    (
        lambda: plot.density(table_fit(), "v"),
        r"column='v' must be one number an observation; it has \(25, 2\)",
    ),
    (
        lambda: plot.residuals(line_fit(), against="w"),
        "against='w' is no column of the data, which have out, x",
    ),
    (
        lambda: plot.residuals(line_fit(), against=np.ones(3)),
        r"one number an observation, \(60,\); got \(3,\)",
    ),
    (lambda: plot.residuals(normal_fit()), "this model has no log_cdf"),
    (lambda: plot.qq(count_fit()), "pass key="),
    (lambda: plot.qq(line_fit(), level=0), "level must lie between 0 and 1"),
    (lambda: plot.pit(line_fit(), bins=[0.0, 0.5]), "edges from 0 to 1"),
    (lambda: plot.pit(line_fit(), bins=0), "bins must be a positive whole number"),
    (lambda: plot.history(count_fit()), "history=True"),
    (lambda: plot.coefficients({}), "fits is empty"),
    (lambda: plot.coefficients({"one": count_fit()}, "c"), "no parameter 'c'; there are a, b"),
    (
        lambda: plot.coefficients(count_fit(), method="bootstrap"),
        "method must be one of wald, wald-transformed, profile",
    ),
    (lambda: plot.batch(normal_fit(), "mean"), "single fit"),
    (lambda: plot.batch(normal_batch(), "median"), "no parameter 'median'; there are mean, sd"),
    (lambda: plot.batch(normal_batch()[[1]], "mean"), "no data set converged.*1 nonfinite_data"),
    (lambda: plot.pairs(bootstrap(), ["sd"]), "two different parameters or more; got sd"),
    (lambda: plot.pairs(bootstrap(), ["sd", "c"]), "no parameter 'c'; there are mean, sd"),
]


@pytest.mark.parametrize(("draw", "message"), WRONG)
def test_errors(draw: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()
    assert not plt.get_fignums()


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, mlekit; assert mlekit.plot.density; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
