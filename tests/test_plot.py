"""What pictures show is what fits hold: read back from the Axes, against closed forms, SciPy and statsmodels."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import statsmodels.api as sm
from jax.scipy.stats import norm
from scipy import optimize, stats

import mlekit as mle

matplotlib.use("Agg")

import matplotlib.pyplot as plt

RNG = np.random.default_rng(5)
plot: Any = mle.plot
X = RNG.normal(3.0, 2.0, size=25)
MEAN, SD = X.mean(), X.std()
COUNTS = {"x": RNG.normal(size=60), "y": RNG.poisson(2.0, size=60), "z": RNG.normal(size=60)}
KEY = jax.random.key(3)
WEIGHTS = np.resize([1.0, 0.0, 2.0, 1.0], 60)
DROP = stats.chi2.ppf(0.95, 1) / 2


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Every figure is closed, and no setting of matplotlib has changed."""
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


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


# The likelihood and its profile -------------------------------------------------------------------


def mean_drop(v: Any) -> Any:
    return len(X) * (v - MEAN) ** 2 / (2 * SD**2)


def sd_drop(v: Any) -> Any:
    return len(X) * (np.log(v / SD) + SD**2 / 2 * (1 / v**2 - 1 / SD**2))


def crossings(drop: Callable[[Any], Any], best: float, low: float, high: float, most: float = DROP) -> Any:
    return [optimize.brentq(lambda v: drop(v) - most, best, far) for far in (low, high)]


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


def profile_of_mean(v: Any) -> Any:
    return len(X) / 2 * np.log1p((v - MEAN) ** 2 / SD**2)


@functools.cache
def profile() -> mle.Profile:
    return mle.profile(normal_fit(), "mean", np.linspace(MEAN - 1.5, MEAN + 1.5, 41)[::-1])


def test_profile_of_one() -> None:
    ax = new_axes()
    assert plot.profile(profile(), ax=ax) is ax
    v, fall = line(ax, "profile").T
    np.testing.assert_allclose(fall, profile_of_mean(v), atol=1e-8)
    wanted = crossings(profile_of_mean, MEAN, v[0], v[-1])
    ends = [corners(ax)[:, 0].min(), corners(ax)[:, 0].max()]
    np.testing.assert_allclose(ends, wanted, atol=1e-3 * SD / 5)  # a thousandth of a standard error
    v, parabola = line(ax, "Wald").T
    np.testing.assert_allclose(parabola, len(X) * (v - MEAN) ** 2 / (2 * SD**2), atol=1e-9)
    wald = ax.get_lines()[-1].get_xdata()
    np.testing.assert_allclose(wald, [float(end) for end in normal_fit().intervals()["mean"]])
    assert ax.get_xlabel() == "mean"
    assert said(ax) == ""


def test_profile_of_a_fit_names_its_first_parameter_and_leaves_out_what_is_not_proven() -> None:
    ax = plot.profile(normal_fit(), level=0.9)
    assert ax.get_xlabel() == "mean"
    heights = profile().log_likelihood
    holed = dataclasses.replace(profile(), log_likelihood=heights.at[22].set(jnp.nan))
    ax = plot.profile(holed)
    assert np.isnan(line(ax, "profile")[41 - 1 - 22, 1])
    assert np.isnan(line(ax, "profile")).sum() == 1
    assert len([one for one in ax.collections if len(one.get_paths())]) == 2  # a region on either side of the hole
    assert said(ax) == "1 of 41 points not proven, left out"
    nothing = dataclasses.replace(profile(), log_likelihood=jnp.full_like(heights, jnp.nan))
    with pytest.raises(ValueError, match="no point of this profile has a proven maximum"):
        plot.profile(nothing)


def test_contours_far_from_the_maximum_are_empty() -> None:
    ax = plot.likelihood(normal_fit(), ("mean", "sd"), values=([90.0, 91.0], [1.0, 2.0]), level=0.5)
    assert not any(len(path.vertices) for area in ax.collections for path in area.get_paths())
    assert labels(ax) == ["50% region", "estimate"]


def test_profile_of_two() -> None:
    ax = plot.profile(mle.profile(normal_fit(), ("mean", "sd"), points=9))
    for border, level in zip(ax.collections[1].get_paths(), (0.5, 0.95)):
        v, s = border.vertices.T
        fall = sd_drop(s) + len(X) * (v - MEAN) ** 2 / (2 * s**2)
        np.testing.assert_allclose(fall, stats.chi2.ppf(level, 2) / 2, rtol=0.02)
    off = (line(ax, "Wald") - [MEAN, SD]) * np.sqrt(len(X)) / SD
    np.testing.assert_allclose(off[:, 0] ** 2 + 2 * off[:, 1] ** 2, stats.chi2.ppf(0.95, 2), rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean", "sd")


# The density --------------------------------------------------------------------------------------


def test_density_of_numbers() -> None:
    ax = plot.density(normal_fit(), bins=[-3.0, 2.0, 3.0, 9.0], values=[1.0, 2.5])
    heights, edges, _ = ax.patches[0].get_data()
    wanted, _ = np.histogram(X, [-3.0, 2.0, 3.0, 9.0], density=True)
    np.testing.assert_allclose(heights, wanted)
    np.testing.assert_allclose(edges, [-3.0, 2.0, 3.0, 9.0])
    np.testing.assert_allclose(line(ax, "model")[:, 1], stats.norm.pdf([1.0, 2.5], MEAN, SD), rtol=1e-8)
    assert (ax.get_xlabel(), ax.get_ylabel(), labels(ax)) == ("observation", "density", ["data", "model"])
    default = plot.density(normal_fit())
    width = np.diff(default.patches[0].get_data().edges)
    upper, lower = np.quantile(X, [0.75, 0.25], method="inverted_cdf")
    np.testing.assert_allclose(width, np.ptp(X) / np.ceil(np.ptp(X) / (2 * (upper - lower) / 25 ** (1 / 3))))


def test_density_is_averaged_over_the_other_columns_with_weights() -> None:
    fit, values = line_fit(), np.array([0.0, 1.5])
    ax = plot.density(fit, values=values, bins=4)
    p = {name: float(value) for name, value in fit.params.items()}
    each = stats.norm.pdf(values[:, None], p["a"] + p["b"] * LINE["x"] + p["c"], p["s"])
    np.testing.assert_allclose(line(ax, "model")[:, 1], np.average(each, axis=1, weights=WEIGHTS), rtol=1e-10)
    known = WEIGHTS > 0
    wanted, edges = np.histogram(LINE["out"][known], 4, weights=WEIGHTS[known], density=True)
    np.testing.assert_allclose(ax.patches[0].get_data().values, wanted)
    np.testing.assert_allclose(ax.patches[0].get_data().edges, edges)
    assert ax.get_xlabel() == "out"


def test_density_of_whole_numbers() -> None:
    ax = plot.density(count_fit())
    most = COUNTS["y"].max()
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], np.bincount(COUNTS["y"]) / 60)
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in ax.patches], np.arange(most + 1))
    rate = np.exp(float(count_fit().params["a"]) + float(count_fit().params["b"]) * COUNTS["x"])
    wanted = stats.poisson.pmf(np.arange(most + 1)[:, None], rate).mean(1)
    np.testing.assert_allclose(line(ax, "model"), np.column_stack([np.arange(most + 1), wanted]), rtol=1e-9)
    assert (ax.get_ylabel(), labels(ax)) == ("share of observations", ["data", "model"])
    # Over a wide range, or where bins are asked for, they show as a histogram between halves.
    ax = plot.density(count_fit(), bins=[-0.5, 1.5, 20.5], values=np.arange(21))
    np.testing.assert_allclose(
        ax.patches[0].get_data().values, [np.mean(COUNTS["y"] < 2) / 2, np.mean(COUNTS["y"] > 1) / 19]
    )


def test_density_beside_zeros() -> None:
    """Zeros of their own are no part of the density: told in a remark, and both areas are those of the rest."""
    y = np.append(np.zeros(30), np.random.default_rng(1).gamma(2.0, 3.0, size=70))
    model = mle.zero_inflated(mle.regression(lambda p, obs: p["mean"], mle.families.exponential))
    rules = {"mean": mle.positive, "chance": mle.unit_interval}
    fit = mle.fit(model, {"mean": 1.0, "chance": 0.5}, {"y": y}, constraints=rules)
    ax = plot.density(fit, bins=[0.0, 5.0, 100.0], values=np.array([0.0, 1.0, 2.0]))
    heights = np.histogram(y[y > 0], [0.0, 5.0, 100.0])[0] / 100 / np.array([5.0, 95.0])
    np.testing.assert_allclose(ax.patches[0].get_data().values, heights)
    known = 0.7 * stats.expon(scale=y[y > 0].mean()).pdf([1.0, 2.0])
    np.testing.assert_allclose(line(ax, "model")[:, 1], [np.nan, *known], rtol=1e-8)
    assert ax.get_title("right") == "30.0% are 0, by the model 30.0%"


def test_density_of_observations_that_are_all_alike() -> None:
    fit = mle.fit(lambda mean, y: -0.5 * (y - mean) ** 2, 0.0, np.full(5, 2.0))
    heights = plot.density(fit).patches[0].get_data()
    np.testing.assert_allclose(np.sum(heights.values * np.diff(heights.edges)), 1.0)


def test_density_of_intervals() -> None:
    lives = mle.regression(lambda p, obs: p, mle.families.exponential)
    model = mle.censored(lives, upper=lambda obs: jnp.where(obs["y"] < 2, obs["y"], jnp.inf))
    fit = mle.fit(model, 1.0, {"y": np.array([0.5, 1.0, 2.0])}, constraints=mle.positive)
    with pytest.raises(ValueError, match="censored observations are intervals"):
        plot.density(fit)


@pytest.mark.parametrize("columns", ["tuple", "array"])
def test_density_of_a_response_that_a_function_picks(columns: str) -> None:
    family = mle.families.exponential
    model = mle.regression(lambda p, obs: p["m"], family, response=lambda obs: obs[0])
    y = np.abs(X)
    data = (y, X) if columns == "tuple" else np.stack([y, X], 1)
    fit = mle.fit(model, {"m": 1.0}, data, constraints={"m": mle.positive})
    if columns == "array":
        with pytest.raises(ValueError, match="response must pick a leaf of obs as it is"):
            plot.density(fit)
        return
    ax = plot.density(fit, values=[1.0, 2.0])
    known = family.log_density(jnp.array([1.0, 2.0]), fit.params["m"])
    np.testing.assert_allclose(line(ax, "model")[:, 1], np.exp(known), rtol=1e-12)
    assert ax.get_xlabel() == "response"


def test_density_counts_what_lies_further_out() -> None:
    x = np.append(RNG.normal(size=200), [80.0, 95.0])
    fit = mle.fit(normal, {"mean": 0.0, "sd": 1.0}, x, constraints={"sd": mle.positive})
    ax = plot.density(fit)
    assert said(ax) == "2 of 202 observations lie further out"
    heights, edges, _ = ax.patches[0].get_data()
    assert edges[-1] < 20
    assert np.sum(heights * np.diff(edges)) == pytest.approx(200 / 202)


# Residuals ----------------------------------------------------------------------------------------


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


# The search ---------------------------------------------------------------------------------------


def test_history_has_gaps_where_there_is_nothing_to_show() -> None:
    fit = normal_fit()
    path = fit.history
    assert path is not None
    ax = plot.history(fit)
    below, decrement = (line(ax, label) for label in ("below the maximum", "decrement"))
    height = stats.norm.logpdf(X[:, None], *np.asarray(path.vector).T).sum(0)
    best = stats.norm.logpdf(X, MEAN, SD).sum()
    far = best - height > 1e-8
    assert far.sum() >= 3
    np.testing.assert_allclose(below[far, 1], (best - height)[far], rtol=1e-6)
    assert np.all(np.isnan(below[~far, 1]) | (below[~far, 1] < 1e-8))
    assert np.isnan(below[-1, 1])  # rounding hides the last
    np.testing.assert_array_equal(below[:, 0], path.steps)
    known = np.isfinite(path.decrement)
    np.testing.assert_array_equal(decrement[known, 1], np.asarray(path.decrement)[known])
    assert np.all(np.isnan(decrement[~known, 1]))
    assert (ax.get_yscale(), ax.get_xlabel(), ax.get_ylabel(), said(ax)) == ("log", "step", "nats", "")


@functools.cache
def unbounded_fit() -> mle.Fit:
    data = {"x": np.array([-2.0, -1.0, 1.0, 2.0]), "y": np.array([0, 0, 1, 1])}
    model = mle.regression(lambda p, obs: p["b"] * obs["x"], mle.families.bernoulli)
    return mle.fit(model, {"b": 0.0}, data, history=True)


def test_history_of_a_failure_says_so() -> None:
    ax = plot.history(unbounded_fit())
    assert said(ax) == "not converged: unbounded"
    assert labels(ax) == ["below the highest point", "decrement"]


# Estimates ----------------------------------------------------------------------------------------


def test_coefficients_against_statsmodels() -> None:
    known = sm.GLM(COUNTS["y"], sm.add_constant(COUNTS["x"]), family=sm.families.Poisson()).fit(tol=1e-12)
    ax = plot.coefficients(count_fit(), level=0.9)
    np.testing.assert_allclose(segments(ax), known.conf_int(0.1), rtol=1e-6)
    np.testing.assert_allclose(ax.get_lines()[1].get_xdata(), known.params, rtol=1e-7)
    np.testing.assert_array_equal(ax.get_lines()[1].get_ydata(), [0, 1])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_xlabel() == "estimate, 90% Wald interval"
    ax = plot.coefficients(count_fit(), "b", kind="sandwich")
    np.testing.assert_allclose(segments(ax), np.transpose(count_fit().intervals(kind="sandwich")["b"])[None])
    assert ax.get_xlabel() == "estimate, 95% Wald (sandwich) interval"


def test_coefficients_side_by_side() -> None:
    """A fixed parameter is hollow and has no bar; nor have those of a failure; a fit may lack a parameter."""
    fits = {"line": line_fit(), "counts": count_fit(), "separated": unbounded_fit()}
    ax = plot.coefficients(fits, ["b", "c", "s"], method="wald-transformed")
    ends = line_fit().intervals(method="wald-transformed")
    np.testing.assert_allclose(segments(ax, 0), [ends["b"], ends["s"]])
    assert [len(segments(ax, i)) for i in range(3)] == [2, 1, 0]
    hollow = [one for one in ax.get_lines() if one.get_markerfacecolor() == "white" and len(one.get_xdata())]
    assert [float(one.get_xdata()[0]) for one in hollow] == [0.25]
    assert labels(ax) == ["line", "counts", "separated (not converged: unbounded)"]
    heights = [line(ax, label)[0, 1] for label in labels(ax)]
    assert heights[0] < heights[1] < heights[2]  # the axis points downwards
    assert labels(plot.coefficients(unbounded_fit())) == ["not converged: unbounded"]


def test_coefficients_without_an_end_run_to_the_edge() -> None:
    def density(p: Any, x: Any) -> Any:
        return norm.logpdf(x, jnp.tanh(p["far"]), 1.0)

    fit = mle.fit(density, {"far": 0.1}, np.array([0.2, 1.4, 0.5, 0.9]))
    lower, upper = fit.intervals(method="profile")["far"]
    assert np.isinf(upper)
    ax = plot.coefficients(fit, method="profile")
    np.testing.assert_allclose(segments(ax), [[lower, ax.get_xlim()[1]]])
    assert (ax.get_lines()[-1].get_marker(), ax.get_lines()[-1].get_xdata()[0]) == (">", ax.get_xlim()[1])


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


# Bootstrap draws ----------------------------------------------------------------------------------


def test_pairs_of_two() -> None:
    draws = bootstrap()
    ax = plot.pairs(draws, ["sd", "mean"], level=0.8)
    np.testing.assert_allclose(line(ax, "replicate"), np.asarray(draws.vector)[:, ::-1])
    off = (line(ax, "Wald 80%") - [SD, MEAN]) * np.sqrt(25) / SD
    np.testing.assert_allclose(2 * off[:, 0] ** 2 + off[:, 1] ** 2, stats.chi2.ppf(0.8, 2), rtol=1e-6)
    np.testing.assert_allclose(line(ax, "estimate"), [[SD, MEAN]])
    assert (ax.get_xlabel(), ax.get_ylabel(), said(ax)) == ("sd", "mean", "")


def test_pairs_count_failures() -> None:
    draws = bootstrap()
    holed = dataclasses.replace(draws, vector=draws.vector.at[:3].set(jnp.nan))
    ax = plot.pairs(holed, ax=new_axes())
    np.testing.assert_allclose(line(ax, "replicate"), np.asarray(draws.vector)[3:])
    assert said(ax) == "3 of 80 replicates failed, left out"
    nothing = dataclasses.replace(draws, vector=jnp.full_like(draws.vector, jnp.nan))
    with pytest.raises(ValueError, match="no replicate converged"):
        plot.pairs(nothing)


def test_pairs_in_a_triangle() -> None:
    rng = np.random.default_rng(0)
    vector = np.asarray(line_fit()._solution.estimates) + 0.1 * rng.normal(size=(50, 4))
    status = dataclasses.replace(line_fit().status, codes=jnp.zeros(50, int))
    draws = mle.Bootstrap(jnp.asarray(vector), jnp.asarray(vector), status, None, line_fit(), "weights")
    given = plt.figure().subplots(3, 3)
    table = plot.pairs(draws, ax=given)
    assert table.shape == (3, 3)
    assert all(new is old for new, old in zip(table.ravel(), given.ravel()))
    names = ["a", "b", "s"]
    assert [ax.get_xlabel() for ax in table[2]] == names
    assert [ax.get_ylabel() for ax in table[:, 0]] == ["", "b", "s"]
    columns = vector[:, [0, 1, 3]]
    for i in range(3):
        (bars,) = table[i, i].patches
        wanted, edges = np.histogram(columns[:, i], "auto", density=True)
        assert bars.get_xy()[:, 1].max() == pytest.approx(wanted.max())
        assert (bars.get_xy()[:, 0].min(), bars.get_xy()[:, 0].max()) == pytest.approx((edges[0], edges[-1]))
        for j in range(i):
            np.testing.assert_allclose(table[i, j].get_lines()[0].get_xydata(), columns[:, [j, i]])
            assert table[i, j].get_xlim() == table[j, j].get_xlim()
        assert not any(table[i, j].axison for j in range(i + 1, 3))
    assert plot.pairs(draws, names[:2]).get_ylabel() == "b"


# What is asked for in vain ------------------------------------------------------------------------

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
