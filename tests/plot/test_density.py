"""The fitted density beside the data."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import mlekit as mle
from tests.plot.figures import (
    COUNTS,
    LINE,
    MEAN,
    RNG,
    SD,
    WEIGHTS,
    X,
    count_fit,
    labels,
    line,
    line_fit,
    normal,
    normal_fit,
    plot,
    said,
)


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
