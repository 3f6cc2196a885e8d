"""Models side by side, by their criteria."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats

import mlekit as mle
from tests.helpers.models import RULES, START, line
from tests.inference.lines_and_counts import BEST, DATA, RESIDUAL, N, line_fit


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return line_fit()


@pytest.fixture(scope="module")
def rivals() -> dict[str, mle.Fit]:
    """A line without slope and one with, for data that have a slope and for data that have none."""
    data = {name: np.stack([column, column]) for name, column in DATA.items()}
    data["y"][1] -= BEST["slope"] * data["x"][1]  # the level alone is the better model here
    flat = mle.fit_batch(line, {**START, "slope": 0.0}, data, constraints={**RULES, "slope": mle.fixed})
    return {"flat": flat, "line": mle.fit_batch(line, START, data, constraints=RULES)}


@pytest.mark.parametrize("criterion", ["aic", "aicc", "bic"])
def test_comparison_by_hand(criterion: str, rivals: dict[str, mle.Fit]) -> None:
    fits = {name: fit[0] for name, fit in rivals.items()}
    table = mle.compare(fits, criterion=criterion)
    level = {"intercept": DATA["y"].mean(), "sigma": DATA["y"].std()}
    heights = np.array(
        [
            scipy.stats.norm.logpdf(DATA["y"], level["intercept"], level["sigma"]).sum(),
            scipy.stats.norm.logpdf(RESIDUAL, 0, BEST["sigma"]).sum(),
        ]
    )
    k = np.array([2, 3])
    wanted = {
        "aic": -2 * heights + 2 * k,
        "aicc": -2 * heights + 2 * k + 2 * k * (k + 1) / (N - k - 1),
        "bic": -2 * heights + k * np.log(N),
    }
    np.testing.assert_allclose(table.log_likelihood, heights, rtol=1e-10)
    for name, values in wanted.items():
        np.testing.assert_allclose(getattr(table, name), values, rtol=1e-10)
    np.testing.assert_allclose(table.weight, scipy.special.softmax(-0.5 * wanted[criterion]), rtol=1e-7)
    assert table.best == "line"
    assert table.n_free == (2, 3)
    lines = repr(table).splitlines()
    assert lines[0] == f"Comparison by { {'aic': 'AIC', 'aicc': 'AICc', 'bic': 'BIC'}[criterion] }"
    assert repr(table).index("\nline") < repr(table).index("\nflat")
    frame = table.to_pandas()
    assert frame.index.tolist() == ["line", "flat"]
    np.testing.assert_allclose(frame.loc["flat", criterion], wanted[criterion][0], rtol=1e-10)


def test_comparison_of_batches(rivals: dict[str, mle.Fit]) -> None:
    table = mle.compare(rivals, criterion="bic")
    assert table.best.tolist() == ["line", "flat"]
    assert table.weight.shape == (2, 2)
    np.testing.assert_allclose(np.sum(table.weight, axis=1), 1, rtol=1e-12)
    one = mle.compare({name: fit[1] for name, fit in rivals.items()}, criterion="bic")
    np.testing.assert_allclose(table.weight[1], one.weight, rtol=1e-12)
    frame = table.to_pandas()
    assert frame.index.tolist() == [(0, "flat"), (0, "line"), (1, "flat"), (1, "line")]
    assert frame["status"].tolist() == ["converged"] * 4
    text = repr(table)
    assert text.startswith("Comparison of 2 fits over 2 data sets")
    assert "50.0%" in text
    assert "<table" in table._repr_html_()


def test_comparison_with_a_fit_that_did_not_converge(fit: mle.Fit) -> None:
    lost = mle.fit(line, START, DATA, constraints=RULES, max_steps=1)
    assert not lost.converged
    table = mle.compare({"lost": lost, "found": fit})
    assert np.isnan(table.aic).tolist() == [True, False]
    assert table.weight.tolist() == [0, 1]
    assert table.best == "found"
    assert "max_steps" in repr(table)
    none = mle.compare({"lost": lost})
    assert none.best is None
    assert none.weight.tolist() == [0]  # as the docstring says of a fit that did not converge


def test_comparison_says_what_is_wrong(fit: mle.Fit, rivals: dict[str, mle.Fit]) -> None:
    with pytest.raises(TypeError, match="fits must be a dict of fits by name, got list"):
        mle.compare([fit])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fits: there are none"):
        mle.compare({})
    with pytest.raises(ValueError, match="criterion must be one of aic, aicc, bic; got 'dic'"):
        mle.compare({"line": fit}, criterion="dic")
    with pytest.raises(ValueError, match="compare like with like"):
        mle.compare({"line": fit, "batch": rivals["line"]})
    short = {name: column[:20] for name, column in DATA.items()}
    with pytest.raises(ValueError, match="different numbers of observations"):
        mle.compare({"line": fit, "short": mle.fit(line, START, short, constraints=RULES)})
