"""The path of a search."""

from __future__ import annotations

import numpy as np
from scipy import stats

from tests.plot.figures import MEAN, SD, X, labels, line, normal_fit, plot, said, unbounded_fit


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


def test_history_of_a_failure_says_so() -> None:
    ax = plot.history(unbounded_fit())
    assert said(ax) == "not converged: unbounded"
    assert labels(ax) == ["below the highest point", "decrement"]
