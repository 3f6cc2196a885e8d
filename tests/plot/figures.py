"""Fits to draw, and how the numbers are read off a figure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.stats import norm
from scipy import optimize, stats

import mlekit as mle

RNG = np.random.default_rng(5)
plot: Any = mle.plot
X = RNG.normal(3.0, 2.0, size=25)
MEAN, SD = X.mean(), X.std()
COUNTS = {"x": RNG.normal(size=60), "y": RNG.poisson(2.0, size=60), "z": RNG.normal(size=60)}
KEY = jax.random.key(3)
WEIGHTS = np.resize([1.0, 0.0, 2.0, 1.0], 60)
DROP = stats.chi2.ppf(0.95, 1) / 2


def new_axes() -> Any:
    return plt.figure().subplots()


def normal(params: Any, x: Any) -> Any:
    return norm.logpdf(x, params["mean"], params["sd"])


@functools.cache
def normal_fit() -> mle.Fit:
    return mle.fit(normal, {"mean": 0.0, "sd": 1.0}, X, constraints={"sd": mle.positive}, history=True)


@functools.cache
def normal_batch() -> mle.Fit:
    """Four data sets, of which the second is broken."""
    x = np.stack([X, np.full_like(X, np.nan), X[::-1] - 7.0, 2.0 * X])
    return mle.fit_batch(normal, {"mean": 0.0, "sd": 1.0}, x, constraints={"sd": mle.positive})


LINE = {"x": COUNTS["x"], "out": 1.0 + COUNTS["x"] + 0.5 * COUNTS["z"]}


@functools.cache
def line_fit() -> mle.Fit:
    """A line with normal noise, frequency weights of zero to two, and a fixed parameter."""
    model = mle.regression(
        lambda p, obs: (p["a"] + p["b"] * obs["x"] + p["c"], p["s"]), mle.families.normal, "out"
    )
    init = {"a": 0.0, "b": 0.0, "c": 0.25, "s": 1.0}
    return mle.fit(model, init, LINE, weights=WEIGHTS, constraints={"s": mle.positive, "c": mle.fixed})


@functools.cache
def count_fit() -> mle.Fit:
    model = mle.regression(lambda p, obs: jnp.exp(p["a"] + p["b"] * obs["x"]), mle.families.poisson)
    return mle.fit(model, {"a": 0.0, "b": 0.0}, COUNTS)


@functools.cache
def bootstrap() -> mle.Bootstrap:
    return mle.bootstrap(normal_fit(), KEY, 80)


def segments(ax: Any, i: int = 0) -> np.ndarray:
    """The bars that `hlines` drew."""
    lines = [one for one in ax.collections if isinstance(one, matplotlib.collections.LineCollection)]
    return np.array([segment[:, 0] for segment in lines[i].get_segments()])


def labels(ax: Any) -> list[str]:
    return ax.get_legend_handles_labels()[1]


def line(ax: Any, label: str) -> np.ndarray:
    (found,) = [one for one in ax.get_lines() if one.get_label() == label]
    return np.asarray(found.get_xydata())


def corners(ax: Any, i: int = 0) -> np.ndarray:
    """The outline of an area."""
    return np.asarray(ax.collections[i].get_paths()[0].vertices)


def said(ax: Any) -> str:
    """The remarks above a picture, on one line."""
    return ax.get_title(loc="right").replace("\n", " ")


def sd_drop(v: Any) -> Any:
    return len(X) * (np.log(v / SD) + SD**2 / 2 * (1 / v**2 - 1 / SD**2))


def crossings(drop: Callable[[Any], Any], best: float, low: float, high: float, most: float = DROP) -> Any:
    return [optimize.brentq(lambda v: drop(v) - most, best, far) for far in (low, high)]


@functools.cache
def profile() -> mle.Profile:
    return mle.profile(normal_fit(), "mean", np.linspace(MEAN - 1.5, MEAN + 1.5, 41)[::-1])


@functools.cache
def unbounded_fit() -> mle.Fit:
    data = {"x": np.array([-2.0, -1.0, 1.0, 2.0]), "y": np.array([0, 0, 1, 1])}
    model = mle.regression(lambda p, obs: p["b"] * obs["x"], mle.families.bernoulli)
    return mle.fit(model, {"b": 0.0}, data, history=True)
