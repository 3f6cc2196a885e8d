"""One parameter over all data sets of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import check_level
from ..core.status import Status
from ..inference.covariance import errors
from ..inference.record import check_one_axis
from ..inference.wald import wald
from ..results.fit import Fit
from .style import BLUE, INK, MIDDLE, PALE, around, axes_for, check_fit, note, percent, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: So many data sets have their names beside them,
NAMED = 30
#: so many an interval each,
DRAWN = 1_000
#: and of more the intervals of so many stretches of neighbours are summed up.
STRETCHES = 250
#: The axis holds all but this share of the ends of many intervals, on either side.
OUTSIDE = 0.01


def batch(fits: Fit, name: str, *, level: float = 0.95, kind: str = "observed", ax: Axes | None = None) -> Axes:
    """The estimates of one parameter over the data sets of a batch, in order, with Wald intervals.

    Data sets without a proven maximum have no estimate to show: they are counted above the picture, by status.
    Of more than 1,000 data sets the intervals are summed up: the band runs between the medians of the lower and of
    the upper ends, among neighbours in the order of estimates.

    Args:
        fits: a batch of fits.
        name: one of `fits.parameter_names`.
        level: of the intervals.
        kind: of the standard errors, as in `Fit.covariance`.
        ax: where to draw; by default on a new figure.

    Returns:
        The Axes. Up to 30 data sets have their keys, or numbers, beside them.

    Raises:
        ValueError: a single fit, no such parameter, no data set that converged, or a level outside (0, 1).

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> fits = mle.fit_batch(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, jnp.array([[4.0, 6.0], [1.0, 2.0]]))
        >>> ax = mle.plot.batch(fits, "params", ax=Figure().subplots())
        >>> print(ax.get_lines()[0].get_xdata(), [label.get_text() for label in ax.get_yticklabels()])
        [1.5 5. ] ['1', '0']
    """
    check_fit(fits, "fits")
    if not fits.batched:
        raise ValueError("fits is a single fit and this draws a batch; see mle.plot.coefficients")
    check_one_axis(fits)
    check_level(level)
    (place,) = places(fits, [name])
    proven = np.flatnonzero(np.asarray(fits.converged))
    counts = fits.status.counts()
    unproven = ", ".join(f"{n:,} {status}" for status, n in counts.items() if status != Status.converged.name)
    if not proven.size:
        raise ValueError(f"no data set converged, so there are no estimates to draw: {unproven}")
    ends = wald(fits._solution.estimates, errors(fits, kind), level)
    value, lower, upper = (np.asarray(part, float)[proven, place] for part in (fits._solution.estimates, *ends))
    at_bound = int(np.sum(np.asarray(fits._at_bound)[proven, place]))
    order = np.argsort(value, kind="stable")
    proven, value, lower, upper = (part[order] for part in (proven, value, lower, upper))
    few, extent = len(value) <= NAMED, np.concatenate([value, lower, upper])
    limits = around(extent if few else np.nanquantile(extent, [OUTSIDE, 1 - OUTSIDE]))
    outside = int(np.sum((value < limits[0]) | (value > limits[1])))

    ax = axes_for(ax, 5.0, 0.9 + 0.2 * len(value) if few else 4.5)
    draw = _rows if few else _lines if len(value) <= DRAWN else _band
    draw(ax, np.arange(1, len(value) + 1), value, lower, upper)
    if few:
        ax.set_yticks(range(1, len(value) + 1), _names(fits, proven))
    else:
        ax.yaxis.set_major_formatter("{x:,.0f}")
    interval = f"{percent(level)} Wald interval"
    ax.set_xlabel(f"{name}, {interval if len(value) <= DRAWN else f'median {interval} of neighbours'}")
    ax.set_ylabel(_called(fits) if few else "data sets, in order")
    ax.set(xlim=limits, ylim=(0.5, len(value) + 0.5))
    note(
        ax,
        f"{len(value):,} converged",
        f"{outside:,} beyond the axis" if outside else "",
        f"{at_bound:,} at the bound, without an interval" if at_bound else "",
        f"not drawn: {unproven}" if unproven else "",
    )
    return ax


def _rows(ax: Axes, rank: np.ndarray, value: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
    ax.hlines(rank, lower, upper, color=BLUE, lw=1.5)
    ax.plot(value, rank, "o", color=BLUE, ms=5)


def _lines(ax: Axes, rank: np.ndarray, value: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
    ax.hlines(rank, lower, upper, color=MIDDLE, lw=0.7)
    ax.plot(value, rank, color=INK, lw=1.6)


def _band(ax: Axes, rank: np.ndarray, value: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
    stretches = np.array_split(np.arange(len(rank)), STRETCHES)
    middle, low, high = (np.array([_median(one[part]) for part in stretches]) for one in (rank, lower, upper))
    ax.fill_betweenx(middle, low, high, color=PALE, lw=0)
    some = np.linspace(0, len(rank) - 1, DRAWN).astype(int)  # both ends among them
    ax.plot(value[some], rank[some], color=INK, lw=1.6)


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else np.nan


def _names(fits: Fit, chosen: np.ndarray) -> list[str]:
    """Names of data sets: their keys, or their number in the batch."""
    keys = fits.keys
    if keys is not None:
        rows = keys.take(chosen).to_pylist()
        return [", ".join(map(str, row.values())) for row in rows]
    numbers = np.arange(fits.n_sets) if fits._dataset.index is None else np.asarray(fits._dataset.index)
    return [str(number) for number in numbers[chosen]]


def _called(fits: Fit) -> str:
    return "data set" if fits.keys is None else ", ".join(fits.keys.column_names)
