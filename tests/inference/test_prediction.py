"""Predictions with their errors."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import mlekit as mle
from tests.inference.lines_and_counts import BEST, DATA, DESIGN, FAMILIES, NEW, RESIDUAL, N, counts_fit, line_fit


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return line_fit()


@pytest.fixture(scope="module")
def counts() -> mle.Fit:
    return counts_fit()


AHEAD = np.column_stack([np.ones(4), NEW["x"]])


@pytest.mark.parametrize(("level", "kind"), [(0.95, "observed"), (0.8, "sandwich")])
def test_prediction_by_hand(level: float, kind: str, fit: mle.Fit) -> None:
    found = fit.predict(lambda p, o: {"mean": p["intercept"] + p["slope"] * o["x"]}, NEW, level=level, kind=kind)
    value = AHEAD @ [BEST["intercept"], BEST["slope"]]
    inverse = np.linalg.inv(DESIGN.T @ DESIGN)
    middle = DESIGN.T * RESIDUAL**2 @ DESIGN if kind == "sandwich" else DESIGN.T @ DESIGN * BEST["sigma"] ** 2
    error = np.sqrt(np.sum(AHEAD @ inverse @ middle @ inverse * AHEAD, axis=1))
    z = scipy.stats.norm.ppf(0.5 + level / 2)
    np.testing.assert_allclose(found.value["mean"], value, rtol=1e-10)
    np.testing.assert_allclose(found.standard_error["mean"], error, rtol=1e-8)
    np.testing.assert_allclose(found.lower["mean"], value - z * error, rtol=1e-8)
    np.testing.assert_allclose(found.upper["mean"], value + z * error, rtol=1e-8)


def test_prediction_of_vectors_is_an_estimate(fit: mle.Fit) -> None:
    """Each row as `estimate` has it, where sigma takes part in a product."""
    both = lambda p, o: jnp.stack([p["intercept"] + p["slope"] * o["x"], p["sigma"] * o["x"]])  # noqa: E731
    found = fit.predict(both, NEW)
    assert found.value.shape == (4, 2)
    one = fit.estimate(lambda p: both(p, {"x": 4.0}))
    np.testing.assert_allclose(found.value[3], one.value, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error[3], one.standard_error, rtol=1e-10)


def test_prediction_of_a_regression(counts: mle.Fit) -> None:
    """By default the family's parameters, of new data without a response; in a batch for shared or own data."""
    shared = counts.predict(data=NEW)
    assert list(shared.value) == ["rate"]
    covariance = np.asarray(counts.covariance())
    for i in (0, 1):
        value = np.exp(AHEAD @ [counts.params["const"][i], counts.params["slope"][i]])
        error = value * np.sqrt(np.sum(AHEAD @ covariance[i] * AHEAD, axis=1))
        np.testing.assert_allclose(shared.value["rate"][i], value, rtol=1e-10)
        np.testing.assert_allclose(shared.standard_error["rate"][i], error, rtol=1e-8)
        alone = counts[i].predict(data=NEW)
        np.testing.assert_allclose(alone.upper["rate"], shared.upper["rate"][i], rtol=1e-10)
    assert np.all(np.isnan(shared.standard_error["rate"][2]))
    shifted = np.stack([NEW["x"], NEW["x"] + 1, NEW["x"]])
    own = counts.predict(data={"x": shifted}, data_axis=0)
    np.testing.assert_allclose(own.lower["rate"][0], shared.lower["rate"][0], rtol=1e-12)
    np.testing.assert_allclose(own.value["rate"][1, 0], shared.value["rate"][1, 1], rtol=1e-12)


def test_prediction_with_args() -> None:
    model = mle.regression(lambda p, obs, power: (p["a"] + p["b"] * obs["x"] ** power, 1.0), FAMILIES.normal)
    fit = mle.fit(model, {"a": 0.0, "b": 0.0}, DATA, args=jnp.asarray(2.0))
    found = fit.predict(data=NEW)
    assert list(found.value) == ["mean", "scale"]
    coef, *_ = np.linalg.lstsq(np.column_stack([np.ones(N), DATA["x"] ** 2]), DATA["y"])
    np.testing.assert_allclose(found.value["mean"], coef[0] + coef[1] * NEW["x"] ** 2, rtol=1e-9)
    np.testing.assert_allclose(found.standard_error["scale"], 0)


def test_prediction_says_what_is_missing(fit: mle.Fit, counts: mle.Fit) -> None:
    with pytest.raises(ValueError, match="fn: say what to predict"):
        fit.predict(data=NEW)
    with pytest.raises(ValueError, match="data: the observations to predict are missing"):
        counts.predict()
    with pytest.raises(ValueError, match="data_axis must be None or 0, got 1"):
        counts.predict(data=NEW, data_axis=1)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        counts.predict(data=NEW, level=95)
    with pytest.raises(ValueError, match="all leaves must share their leading axis"):
        counts.predict(data={"x": np.zeros(3), "z": np.zeros(4)})
    with pytest.raises(ValueError, match=r"data: .*3 data sets"):
        counts.predict(data={"x": np.zeros((2, 4))}, data_axis=0)
    with pytest.raises(ValueError, match="data_axis"):
        counts[0].predict(data={"x": np.zeros((3, 4))}, data_axis=0)
