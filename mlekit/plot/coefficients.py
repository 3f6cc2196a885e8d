"""Estimates with their intervals, of one fit or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from ..core.checks import check_choice
from ..results.fit import Fit
from .style import DASHED, INK, SERIES, around, axes_for, check_single, legend, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


METHODS = ("wald", "wald-transformed", "profile")


def coefficients(
    fits: Fit | Mapping[str, Fit],
    names: str | Sequence[str] | None = None,
    *,
    level: float = 0.95,
    method: str = "wald",
    kind: str = "observed",
    ax: Axes | None = None,
) -> Axes:
    """Estimates with their intervals, one row a parameter, from one fit or from several side by side.

    Fixed parameters are hollow. A fit that did not converge is named so, and its estimates have no intervals. An
    interval without an end runs to the edge of the picture, and one whose end was not found stops at the estimate.
    Estimates at their bounds have intervals by the method `profile` alone.

    Args:
        fits: a single fit, or a dict of such by their labels.
        names: the parameters to show, from top to bottom; all by default.
        level: of the intervals.
        method: `wald`, `wald-transformed` or `profile`, as in `Fit.intervals`.
        kind: of the standard errors, as in `Fit.covariance`.
        ax: where to draw; by default on a new figure, as high as there are rows.

    Returns:
        The Axes.

    Raises:
        ValueError: a batch, no fits, a parameter that none of them has, another method, or a level outside (0, 1).

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> fit = mle.fit(lambda p, x: -0.5 * (x - p["mean"]) ** 2, {"mean": 0.0}, jnp.array([1.0, 2.0, 6.0]))
        >>> ax = mle.plot.coefficients(fit, ax=Figure().subplots())
        >>> print([label.get_text() for label in ax.get_yticklabels()], ax.get_lines()[1].get_xdata())
        ['mean'] [3.]
    """
    check_choice(method, METHODS, "method")
    by_label = {
        str(label): fit for label, fit in (dict(fits) if isinstance(fits, Mapping) else {"": fits}).items()
    }
    if not by_label:
        raise ValueError("fits is empty: pass a fit, or a dict of fits by their labels")
    for fit in by_label.values():
        check_single(fit, proven=False)
    rows = _rows(list(by_label.values()), names)
    estimates = {label: _estimates(fit, rows, level, method, kind) for label, fit in by_label.items()}

    ax = axes_for(ax, 5.0, 0.9 + len(rows) * (0.17 + 0.13 * len(by_label)))
    edges = around(np.concatenate([[0.0], *(table[:3] for table in estimates.values())], axis=None))
    ax.axvline(0.0, color=INK, lw=0.8, ls=DASHED)
    for i, (label, fit) in enumerate(by_label.items()):
        colour, marker = SERIES[i % len(SERIES)]
        value, lower, upper, fixed = estimates[label]
        y = np.arange(len(rows)) + (i - 0.5 * (len(by_label) - 1)) * min(0.26, 0.8 / len(by_label))
        status = "" if bool(fit.converged) else f"not converged: {fit.status}"
        shown = " ".join(filter(None, (label, f"({status})" if label and status else status)))
        ax.plot(value[~fixed], y[~fixed], marker, color=colour, ms=5.5, zorder=3, label=shown or None)
        ax.plot(value[fixed], y[fixed], marker, color=colour, mfc="white", ms=5.5, zorder=3)
        begin, end = (np.where(np.isnan(side), value, np.clip(side, *edges)) for side in (lower, upper))
        bar = ~(np.isnan(lower) & np.isnan(upper))
        ax.hlines(y[bar], begin[bar], end[bar], color=colour, lw=1.5)
        for end, edge, arrow in ((lower, edges[0], "<"), (upper, edges[1], ">")):
            for row in y[np.isinf(end)]:
                ax.plot([edge], [row], arrow, color=colour, ms=5.5, clip_on=False)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlim=edges, ylim=(len(rows) - 0.5, -0.5))
    ax.set_xlabel(f"estimate, {percent(level)} {_called(method, kind)} interval")
    if any(ax.get_legend_handles_labels()[1]):
        legend(ax, "above")
    return ax


def _rows(fits: list[Fit], names: str | Sequence[str] | None) -> list[str]:
    """The parameters to show: those asked for, or all of all fits in order."""
    there = list(dict.fromkeys(name for fit in fits for name in fit.parameter_names))
    if names is None:
        return there
    chosen = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in there:
            raise ValueError(f"there is no parameter {name!r}; there are {', '.join(there)}")
    return chosen


def _estimates(fit: Fit, rows: list[str], level: float, method: str, kind: str) -> tuple[np.ndarray, ...]:
    """Of each row the estimate, both ends of its interval and whether it is fixed; NaN where there is none."""
    value = np.asarray(fit._solution.estimates, float)
    lower = upper = np.full(len(value), np.nan)
    if bool(fit.converged):
        pairs = fit.intervals(level, method, kind=kind)
        ends = (jax.tree.map(lambda _, pair, side=side: pair[side], fit.params, pairs) for side in (0, 1))
        lower, upper = (np.concatenate([np.ravel(leaf) for leaf in fit.parameters.split(end)]) for end in ends)
    there = np.array([row in fit.parameter_names for row in rows])
    place = [fit.parameter_names.index(row) if row in fit.parameter_names else 0 for row in rows]
    fixed = np.array(fit.fixed)[place] & there
    value, lower, upper = (np.where(there, numbers[place], np.nan) for numbers in (value, lower, upper))
    return value, np.where(fixed, np.nan, lower), np.where(fixed, np.nan, upper), fixed


def _called(method: str, kind: str) -> str:
    """The name of an interval: `Wald`, `profile`, `Wald (sandwich)`."""
    name = method.replace("wald", "Wald")
    return name if kind == "observed" else f"{name} ({kind})"
