"""Responses that are seen only where they lie between bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats as st

import mlekit as mle
from tests.helpers.intervals import INF, of_interval
from tests.helpers.marks import mostly_slow
from tests.models.compositions.parts import (
    ENDING,
    MODELS,
    PLACED,
    POINTS,
    assert_smooth,
    by_row,
    normal,
    with_derivatives,
)


def of_window(at: Any, low: float, y: float, high: float) -> tuple[float, float]:
    """Logarithms of the shares of a window below and above a response, each from the smaller of the two."""
    if y == high:
        return 0.0, -INF
    whole = of_interval(at, low, high)
    below, above = of_interval(at, low, y) - whole, of_interval(at, y, high) - whole
    return (
        below if below < -0.7 else np.log1p(-np.exp(above)),
        above if above < -0.7 else np.log1p(-np.exp(below)),
    )


TRUNCATED = [(0.0, INF, 0.5), (-INF, 0.0, -3.0), (0.0, 2.0, 1.9), (51.0, INF, 51.5), (51.0, 53.0, 52.0)]
TRUNCATED += [(-52.0, -50.0, -51.0), (-INF, INF, 0.4), (-1.0, 1.0, 1.0)]
TRUNCATED_FAR = [(90.0, INF, 90.1), (90.0, 93.0, 90.01)]


@pytest.mark.parametrize("which", mostly_slow(["normal", "normal functions"], "normal"))
def test_derivatives_of_truncated(which: str) -> None:
    low, high, y = np.array(TRUNCATED + ([] if "functions" in which else TRUNCATED_FAR)).T
    model: Any = mle.truncated(MODELS[which], lower="low", upper="high")
    obs, params = {"low": low, "high": high, "y": y}, POINTS["normal"]

    def density(params: Any) -> np.ndarray:
        at = st.norm(*params)
        return at.logpdf(y) - [of_interval(at, *pair) for pair in zip(low, high)]

    assert_smooth(model, params, obs, density)
    scaled = (low - params[0]) / params[1], (high - params[0]) / params[1], *params
    np.testing.assert_allclose(with_derivatives(model)(params, obs)[0], st.truncnorm.logpdf(y, *scaled), rtol=1e-9)

    def distribution(params: Any) -> np.ndarray:
        at = st.norm(*params)
        return np.array([of_window(at, *ends)[0] for ends in zip(low, y, high)])

    assert_smooth(model.log_cdf, params, obs, distribution)
    if "functions" not in which:
        rest = [of_window(st.norm(*params), *ends)[1] for ends in zip(low, y, high)]
        np.testing.assert_allclose(by_row(model.log_survival, params, obs), rest, rtol=1e-12)
        # A window may begin near one end of the distribution, and what is left of it lie near the other.
        both: Any = mle.truncated(MODELS[which], lower=-1.0, upper=100.0)
        left = st.norm(*params).logsf(90.0) - st.norm(*params).logsf(-1.0)
        np.testing.assert_allclose(both.log_survival(params, {"y": 90.0}), left, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_with_a_far_bound(dtype: Any) -> None:
    data = {"low": np.array([3.0, 4, 5, 2, 3, 6]), "high": np.array([3.0, 4, 5, 2, 3, 130])}
    assert mle.fit(ENDING["poisson"][0], (dtype(2),), data, constraints=(mle.positive,)).converged


def test_another_distribution_function_stands_in() -> None:
    model = mle.truncated(normal, lower=0, log_cdf=lambda params, obs: -1.0 + 0 * obs["y"])
    wanted = st.norm.logpdf(1.2, *PLACED) - np.log(-np.expm1(-1))
    np.testing.assert_allclose(model(PLACED, {"y": 1.2}), wanted, rtol=1e-13)
