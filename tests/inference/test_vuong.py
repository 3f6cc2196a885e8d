"""Vuong's test by hand."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.scipy.stats import norm

import mlekit as mle
from tests.inference.hypotheses import CAUCHY, DATA, FIRST, NORMAL, PAIR_RULES, PLACE, N, full_fit, rival_fits


@pytest.fixture(scope="module")
def full() -> mle.Fit:
    return full_fit()


def vuong(a: mle.Fit, b: mle.Fit, y: np.ndarray, weights: Any = None, correction: float = 0.0) -> float:
    first = scipy.stats.norm.logpdf(y, float(a.params["place"]), float(a.params["scale"]))
    second = scipy.stats.cauchy.logpdf(y, float(b.params["place"]), float(b.params["scale"]))
    difference = np.repeat(first - second, 1 if weights is None else weights)
    return (difference.sum() - correction) / (np.sqrt(len(difference)) * difference.std())


@pytest.fixture(scope="module")
def pair() -> tuple[mle.Fit, mle.Fit]:
    return rival_fits()


def test_vuong(pair: tuple[mle.Fit, mle.Fit], full: mle.Fit) -> None:
    a, b = pair
    test = mle.vuong_test(a, b)
    wanted = [vuong(a[i], b[i], DATA["y"][i]) for i in range(3)]
    np.testing.assert_allclose(test.statistic, wanted, rtol=1e-10)
    np.testing.assert_allclose(test.p_value, 2 * scipy.stats.norm.sf(np.abs(wanted)), rtol=1e-8)
    assert np.all(np.isnan(test.degrees_of_freedom))
    np.testing.assert_allclose(mle.vuong_test(b[0], a[0]).statistic, -wanted[0], rtol=1e-10)
    assert np.isnan(mle.vuong_test(a[0], a[0]).p_value)
    # The counts have two parameters as well: what is taken off is nothing.
    corrected = mle.vuong_test(full, a[0], correction="bic").statistic
    np.testing.assert_allclose(corrected, mle.vuong_test(full, a[0]).statistic, rtol=1e-12)


@pytest.mark.parametrize(("correction", "less"), [("aic", 1.0), ("bic", 0.5 * np.log(N))])
def test_vuong_with_a_correction(correction: str, less: float, pair: tuple[mle.Fit, mle.Fit]) -> None:
    b = pair[1][0]
    a = mle.fit(NORMAL, {**PLACE, "unit": 1.0}, {"y": FIRST["y"]}, constraints={**PAIR_RULES, "unit": mle.fixed})
    narrow = mle.fit(CAUCHY, PLACE, {"y": FIRST["y"]}, constraints={"scale": mle.fixed})
    np.testing.assert_allclose(
        mle.vuong_test(a, narrow, correction=correction).statistic,
        vuong(a, narrow, FIRST["y"], correction=less),
        rtol=1e-10,
    )
    np.testing.assert_allclose(mle.vuong_test(a, b, correction=correction).statistic, vuong(a, b, FIRST["y"]))


@pytest.mark.slow
def test_vuong_with_weights_is_that_of_repeated_rows() -> None:
    weights = np.arange(N) % 3
    a, b = (
        mle.fit(one, PLACE, {"y": FIRST["y"]}, constraints=PAIR_RULES, weights=weights) for one in (NORMAL, CAUCHY)
    )
    np.testing.assert_allclose(mle.vuong_test(a, b).statistic, vuong(a, b, FIRST["y"], weights), rtol=1e-10)


@pytest.mark.slow
def test_vuong_of_series_of_unequal_length() -> None:
    lengths = [5, 6, 60]
    noise = np.random.default_rng(1).normal(size=sum(lengths))
    groups = mle.group_by({"set": np.repeat([0, 1, 2], lengths), "x": noise}, "set")
    before = lambda x: jnp.concatenate([jnp.zeros(1), x[:-1]])  # noqa: E731
    follow = mle.joint(lambda phi, data: norm.logpdf(data["x"], phi * before(data["x"]), 1.0))
    level = mle.joint(lambda mean, data: norm.logpdf(data["x"], mean, 1.0))
    a, b = mle.fit_batch(follow, 0.0, groups), mle.fit_batch(level, 0.0, groups)
    wanted = []
    for i, group in enumerate(groups):
        x = group["x"]
        last = np.concatenate([[0.0], x[:-1]])
        difference = 0.5 * ((x - float(b.params[i])) ** 2 - (x - float(a.params[i]) * last) ** 2)
        wanted.append(difference.sum() / (np.sqrt(len(x)) * difference.std()))
    np.testing.assert_allclose(mle.vuong_test(a, b).statistic, wanted, rtol=1e-8)
