"""The figure of the demonstration."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, NullLocator

from ..plot.style import BLUE, GREY, INK, ORANGE, VERMILLION
from ..results.fit import Fit

OFTEN = 100  #: flights from which on a slope is known well enough to be ranked
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
}


def draw(fits: Fit, n_normal: int) -> Figure:
    """Three panels: the slopes with their intervals, lines of all aircraft, and the degrees of freedom.

    Args:
        fits: the fits of `demo.run`.
        n_normal: how many of them have degrees of freedom that run to infinity.
    """
    proven = fits[np.flatnonzero(np.asarray(fits.converged))]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.5), layout=ConstrainedLayoutEngine(wspace=0.04, h_pad=0.06))
        left, middle, right = figure.subplots(1, 3)
        if len(proven):
            _slopes(left, proven)
            _lines(figure, middle, proven)
            _tails(right, proven, n_normal, len(fits) - len(proven) - n_normal)
        flights = f"{float(np.sum(np.asarray(fits.n_obs))):,.0f}"
        figure.suptitle(
            f"Arrival delay = intercept + slope × departure delay + Student-t error: {len(fits):,} aircraft, "
            f"{flights} flights out of New York City, 2013",
            fontsize=11.5,
            color=INK,
        )
    return figure


def _column(fits: Fit, name: str) -> np.ndarray:
    return np.asarray(fits.params[name])


def _slopes(axes: Axes, fits: Fit) -> None:
    slope, error = _column(fits, "slope"), np.asarray(fits.standard_errors()["slope"])
    often = np.asarray(fits.n_obs) >= OFTEN
    which = f"aircraft with {OFTEN} flights or more"
    if not often.any():
        often, which = np.ones(len(fits), bool), "aircraft"
    slope, error = slope[often], error[often]
    order = np.argsort(slope)
    slope, error = slope[order], error[order]
    rank = np.arange(1, len(slope) + 1)
    low, high = slope - 1.96 * error, slope + 1.96 * error
    kinds = [
        ("interval holds 1", (low <= 1) & (high >= 1), GREY, 0.5),
        ("below 1: late minutes are made up", high < 1, BLUE, 1.0),
        ("above 1: late minutes grow", low > 1, VERMILLION, 1.0),
    ]
    for label, chosen, colour, alpha in kinds:
        shown = f"{label} ({chosen.sum():,})"
        axes.vlines(rank[chosen], low[chosen], high[chosen], colour, lw=0.7, alpha=alpha, label=shown)
    axes.plot(rank, slope, color=INK, lw=1.4)
    axes.axhline(1, color=INK, lw=0.8, ls=(0, (4, 3)))
    bottom, top = _around(np.append(low, high), 1.0, spare=0.05)
    axes.set(
        title="a  A late minute arrives as about one",
        xlabel=f"{which}, in order of slope",
        ylabel="slope, 95% interval (minutes per minute)",
        xlim=(0, len(slope) + 1),
        ylim=(bottom, top + 0.2 * (top - bottom)),  # room for the legend
    )
    legend = axes.legend(loc="upper left", frameon=False, fontsize=8, handlelength=1.2, borderaxespad=0.2)
    handles: list[Any] = legend.legend_handles
    for handle in handles:
        handle.set_linewidth(3)


def _lines(figure: Figure, axes: Axes, fits: Fit) -> None:
    intercept, slope, n_obs = _column(fits, "intercept"), _column(fits, "slope"), np.asarray(fits.n_obs)
    errors = fits.standard_errors()
    order = np.argsort(n_obs)  # what is known best lies on top
    axes.errorbar(
        intercept[order],
        slope[order],
        xerr=np.asarray(errors["intercept"])[order],
        yerr=np.asarray(errors["slope"])[order],
        fmt="none",
        ecolor=GREY,
        elinewidth=0.4,
        alpha=0.18,
    )
    norm = matplotlib.colors.LogNorm(max(1, n_obs.min()), max(2, n_obs.max()))
    points = axes.scatter(
        intercept[order], slope[order], c=n_obs[order], s=7, norm=norm, cmap="cividis_r", linewidths=0, zorder=3
    )
    bar = figure.colorbar(points, ax=axes, pad=0.02, aspect=30)
    ticks = [n for n in (5, 10, 20, 50, 100, 200, 500) if n_obs.min() <= n <= n_obs.max()]
    bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.set_yticklabels([str(n) for n in ticks])
    bar.set_label("flights of the aircraft")
    bar.outline.set_visible(False)
    axes.axhline(1, color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.axvline(0, color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.set(
        title="b  Most make up minutes on the way",
        xlabel="intercept ± standard error (minutes)",
        ylabel="slope ± standard error (minutes per minute)",
        xlim=_around(intercept, 0.0),
        ylim=_around(slope, 1.0),
    )


def _tails(axes: Axes, fits: Fit, n_normal: int, n_hidden: int) -> None:
    freedom = _column(fits, "degrees_of_freedom")
    edges = np.geomspace(0.25, 1600.0, 40)
    counts, _ = np.histogram(np.clip(freedom, edges[0], edges[-1]), edges)
    axes.stairs(counts, edges, fill=True, color=BLUE)
    axes.set_xscale("log")
    # What has no finite maximum stands apart, beyond a gap in the axis.
    low, beyond, high = 7e3, 1.2e4, 2.06e4
    axes.bar(low, n_normal, width=high - low, align="edge", color=ORANGE)
    tallest = max(counts.max(), n_normal)
    axes.annotate(
        f"{n_normal:,} aircraft:\na normal is\nenough",
        (beyond, n_normal),
        (0, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
    )
    median = float(np.median(freedom))
    axes.plot([median, median], [0, 1.06 * counts.max()], color=INK, lw=1.2)
    axes.annotate(f"median {median:.1f}", (median, 1.07 * counts.max()), ha="center", va="bottom", fontsize=8)
    if n_hidden:
        note = f"not shown: {n_hidden:,} aircraft\nwith too few flights or\nno proven maximum"
        axes.text(0.02, 0.99, note, transform=axes.transAxes, ha="left", va="top", fontsize=7.5, color="#555555")
    axes.set(
        title="c  Tails heavier than a normal's",
        xlabel="degrees of freedom (small: heavy tails)",
        ylabel="number of aircraft",
        xlim=(0.2, 4e4),
        ylim=(0, 1.22 * tallest),
    )
    axes.xaxis.set_major_locator(FixedLocator([1, 10, 100, 1000, beyond]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(["1", "10", "100", "1,000", "∞"])
    gap: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 5}
    axes.plot([2.6e3, 4.0e3], [0, 0], color="white", lw=3, **gap)
    for place in (2.6e3, 4.0e3):
        axes.plot([place / 1.12, place * 1.12], [-0.015, 0.015], color=INK, lw=0.8, **gap)


def _around(values: np.ndarray, centre: float, spare: float = 0.25) -> tuple[float, float]:
    """Limits that hold all but the outermost hundredth on each side, and the centre."""
    low, high = np.quantile(np.append(values, centre), [0.01, 0.99])
    margin = spare * (high - low) + 0.02
    return float(min(low, centre) - margin), float(max(high, centre) + margin)
