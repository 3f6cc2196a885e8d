"""Censored and truncated responses of Student's t, of which the degrees of freedom are estimated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats as st

import mlekit as mle
from tests.helpers.derivatives import difference
from tests.models.compositions.parts import assert_smooth, with_derivatives

student = mle.regression(lambda p, obs: (p[0], p[1], p[2]), mle.families.student_t)
TRUTH = np.array([0.3, 1.7, 2.5])
RULES = (None, mle.positive, mle.positive)


def test_derivatives_by_the_degrees_of_freedom() -> None:
    low = np.array([-np.inf, 1.0, -0.5, 0.3, 4.0, -80.0])
    high = np.array([-3.0, np.inf, 0.4, 0.31, 6.0, -60.0])

    def wanted(params: Any) -> np.ndarray:
        location, scale, df = params
        a, b = (low - location) / scale, (high - location) / scale
        upper = a > 0  # of this tail SciPy has the digits
        return np.log(np.where(upper, st.t.sf(a, df) - st.t.sf(b, df), st.t.cdf(b, df) - st.t.cdf(a, df)))

    # Of the narrow interval SciPy's difference has lost digits, but it has kept enough of them.
    assert_smooth(mle.censored(student, lower="low", upper="high"), TRUTH, {"low": low, "high": high}, wanted)


@pytest.mark.parametrize("kind", [pytest.param("censored", marks=pytest.mark.slow), "truncated"])
def test_fits(kind: str) -> None:
    y = st.t.rvs(TRUTH[2], TRUTH[0], TRUTH[1], size=6000, random_state=1)
    inside = (y > -2) & (y < 4)
    if kind == "censored":
        low, high = np.where(y <= -2, -np.inf, np.minimum(y, 4.0)), np.where(y >= 4, np.inf, np.maximum(y, -2.0))
        model, data = mle.censored(student, lower="low", upper="high"), {"low": low, "high": high}
    else:
        model, data = mle.truncated(student, upper=9.0, lower=-9.0), {"y": y[(y > -9) & (y < 9)]}

    def total(params: Any) -> Any:
        t = st.t(params[2], params[0], params[1])
        if kind == "truncated":
            return np.sum(t.logpdf(data["y"]) - np.log(t.cdf(9) - t.cdf(-9)))
        return t.logpdf(y[inside]).sum() + t.logcdf(-2) * np.sum(y <= -2) + t.logsf(4) * np.sum(y >= 4)

    fit = mle.fit(model, (0.0, 1.0, 5.0), data, constraints=RULES)
    assert fit.converged
    params, errors = np.asarray(fit.params), np.asarray(fit.standard_errors())
    assert np.all(np.abs(params - TRUTH) < 3 * errors)
    np.testing.assert_allclose(fit.log_likelihood, total(params), rtol=1e-12)
    for move in np.eye(3):
        assert abs(difference(total, (params,), (move,), 1e-4)) < 1e-4


def test_far_tails_stay_finite() -> None:
    """Where the function itself is zero to the computer, and near the normal distribution."""
    model = mle.censored(student, lower=-np.inf, upper="high")
    for df in (0.5, 30.0, 1e10):
        found = with_derivatives(model)(np.array([0.0, 1.0, df]), {"high": np.array([-40.0, -1e3, -1e6])})
        assert all(np.all(np.isfinite(part)) for part in found)
