"""Estimates with their intervals."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import statsmodels.api as sm
from jax.scipy.stats import norm

import mlekit as mle
from tests.plot.figures import COUNTS, count_fit, labels, line, line_fit, plot, segments, unbounded_fit


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
