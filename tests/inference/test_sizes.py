"""Tests reject what is true as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

import mlekit as mle
from tests.inference.hypotheses import COUNTS, COUNTS_START, FAMILIES, HELD

REPLICATES = 20_000


def size(test: mle.HypothesisTest) -> float:
    """The percentage of rejections at 5 %: from 20,000 replicates it is known to 0.15 (one standard error)."""
    p = np.asarray(test.p_value)
    assert np.all(np.isfinite(p))
    return 100 * float(np.mean(p < 0.05))


@pytest.mark.slow
def test_size_of_tests_against_the_full_model() -> None:
    """200 counts with a mean of three: at 600 events the statistics are chi-square to two digits."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(REPLICATES, 200))
    data = {"x": x, "y": rng.poisson(3.0, x.shape).astype(np.int16)}
    full = mle.fit_batch(COUNTS, COUNTS_START, data)
    null = mle.fit_batch(COUNTS, COUNTS_START, data, constraints=HELD)
    for test in (
        mle.likelihood_ratio_test(null, full),
        mle.wald_test(full, "slope"),
        mle.score_test(null),
        mle.score_test(null, kind="opg"),
    ):
        assert 4.5 < size(test) < 5.5, (test.name, size(test))


@pytest.mark.slow
def test_size_of_vuong() -> None:
    """Each model has one of two causes that matter alike; with 400 rows the statistic is normal to two digits."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(REPLICATES, 400, 2))
    data = {"x": x, "y": x.sum(axis=-1) + rng.normal(size=x.shape[:2])}

    def cause(i: int) -> mle.Fit:
        model = mle.regression(lambda p, obs: (p["slope"] * obs["x"][i], p["scale"]), FAMILIES.normal)
        return mle.fit_batch(model, {"slope": 1.0, "scale": 1.4}, data, constraints={"scale": mle.positive})

    assert 4.5 < size(mle.vuong_test(cause(0), cause(1))) < 5.5


@pytest.mark.slow
def test_size_of_white() -> None:
    """Two tosses, a thousand times: the indicator has short tails; a normal model would need far more."""
    y = np.random.default_rng(3).binomial(2, 0.5, (REPLICATES, 1000)).astype(np.int8)
    fits = mle.fit_batch(mle.regression(lambda p, obs: p, FAMILIES.binomial(2)), 0.0, {"y": y})
    assert 4.5 < size(mle.information_matrix_test(fits)) < 5.5
