"""A kind of covariance of one's own is one class, entered under its name."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from mlekit.inference.covariance_kinds import KINDS, AbstractCovarianceKind, CovarianceOptions
from mlekit.inference.record import FitRecord
from tests.helpers.models import RULES, START, line, line_data


class Inflated(AbstractCovarianceKind):
    """The observed one four times over, or nothing."""

    name: ClassVar[str] = "inflated"
    takes: ClassVar[dict[str, str]] = {"lags": "kind='inflated'"}

    def check(self, fit: FitRecord, options: CovarianceOptions) -> None:
        if options.lags not in (None, 0):
            raise ValueError("kind='inflated' wants lags=0")

    def compute(self, fit: FitRecord, options: CovarianceOptions) -> Any:
        return KINDS["observed"].compute(fit, options) * (jnp.nan if options.lags == 0 else 4)

    def why_missing(self, options: CovarianceOptions) -> str:
        return "it was asked for nothing"


def test_a_kind_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = mle.fit(line, START, line_data(), constraints=RULES)
    with pytest.raises(ValueError, match=r"kind must be one of .* hac; got 'inflated'"):
        fit.covariance("inflated")
    monkeypatch.setitem(KINDS, "inflated", Inflated())
    np.testing.assert_array_equal(fit.covariance(kind="inflated"), 4 * fit.covariance())
    errors, observed = fit.standard_errors(kind="inflated"), fit.standard_errors()
    np.testing.assert_allclose(errors["slope"], 2 * observed["slope"], rtol=1e-14)
    summary = fit.summary(kind="inflated")
    assert "standard errors: inflated" in str(summary)
    np.testing.assert_allclose(
        summary.to_pandas()["standard_error"], [2 * observed[name] for name in START], rtol=1e-14
    )
    with pytest.warns(UserWarning, match=r"kind='inflated' gives this fit .* \(NaN\): it was asked for nothing"):
        fit.standard_errors("inflated", lags=0)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"kind": "inflated", "lags": 1}, "wants lags=0"),
        ({"kind": "inflated", "clusters": "firm"}, "clusters go with kind='sandwich', got kind='inflated'"),
        ({"kind": "opg", "lags": 1}, "lags go with kind='hac' or kind='inflated', got kind='opg'"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            fit.covariance(**options)
