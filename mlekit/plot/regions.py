"""Likelihood regions: the level that bounds one, a curve with its region, and contours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BLUE, DASHED, GREY, INK, MIDDLE, PALE, VERMILLION, around, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: The level of the inner region of contours.
INNER = 0.5
#: Points of a smooth contour in each direction, and nats by which it may rise above all points it goes through.
FINE, OVERSHOOT = 201, 0.1
#: A logarithmic axis suits positive numbers whose last is so many times the first.
DECADES = 300
#: What Wald's approximation looks like.
WALD: dict[str, Any] = {"color": VERMILLION, "lw": 1.4, "ls": DASHED}


def limit(level: float, dimensions: int) -> float:
    """Half the quantile of chi-square with as many degrees of freedom as there are dimensions, one or two."""
    return 0.5 * NormalDist().inv_cdf(0.5 * (1 + level)) ** 2 if dimensions == 1 else -math.log1p(-level)


def decades(x: np.ndarray) -> bool:
    """True if these increasing numbers are positive and reach so far that a logarithmic axis suits them."""
    return bool(x[0] > 0 and x[-1] > DECADES * x[0])


def stretches(x: np.ndarray, drop: np.ndarray, best: float, most: float) -> tuple[np.ndarray, np.ndarray]:
    r"""The stretches where a curve has dropped by no more than this much.

    Between points the signed root $\pm\sqrt{2 \cdot \text{drop}}$ is taken for linear, as it is for a parabola.

    Args:
        x: points, increasing.
        drop: nats below the maximum.
        best: where the maximum is.
        most: the drop that is allowed.

    Returns:
        The ends of each stretch, and whether the curve crosses there, both of shape `(stretches, 2)`. Where the
        curve breaks off or is NaN, a stretch ends at the last point that is known.
    """
    inside = np.flatnonzero(drop <= most)  # which NaN is not
    root = np.sign(x - best) * np.sqrt(np.maximum(drop, 0.0))

    def end(i: int, j: int) -> tuple[float, bool]:
        if not 0 <= j < len(x) or not np.isfinite(root[j]):
            return x[i], False
        share = (math.copysign(math.sqrt(most), root[j]) - root[i]) / (root[j] - root[i])
        return x[i] + share * (x[j] - x[i]), True

    runs = np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
    found = np.array([(end(run[0], run[0] - 1), end(run[-1], run[-1] + 1)) for run in runs if run.size])
    found = found.reshape(-1, 2, 2)
    return found[..., 0], found[..., 1] > 0


def curve(ax: Axes, x: np.ndarray, drop: np.ndarray, best: float, level: float, names: tuple[str, str]) -> None:
    """A curve that points at the maximum, with its part above the level shaded and the ends of that marked.

    Args:
        ax: where to draw; its vertical axis points downwards.
        x: points, increasing.
        drop: nats below the maximum.
        best: where the maximum is.
        level: of the region.
        names: what the curve and its region are called.
    """
    most = limit(level, 1)
    line, back = (np.log, np.exp) if decades(x) else (np.asarray, np.asarray)
    ends, crossed = stretches(line(x), drop, float(line(best)), most)
    for i, (low, high) in enumerate(back(ends)):
        span = np.concatenate([[low], x[(x > low) & (x < high)], [high]])
        top = np.minimum(np.interp(span, x, drop), most)
        label = f"{percent(level)} {names[1]}" if i == 0 else None
        ax.fill_between(span, top, most, color=PALE, lw=0, label=label)
    ax.axhline(most, color=GREY, lw=0.9, ls=":")
    ax.plot(x, drop, color=BLUE, lw=1.8, label=names[0])
    ax.plot(back(ends[crossed]), np.full(np.sum(crossed), most), "o", color=BLUE, ms=4.5, zorder=4)
    ax.plot([best], [0.0], "o", color=INK, ms=4.5, clip_on=False, zorder=4)
    deepest = np.max(drop[np.isfinite(drop)], initial=0.0)
    bottom = float(np.clip(1.05 * deepest, 1.3 * most, 2.8 * most))
    shown, _ = stretches(line(x), drop, float(line(best)), bottom)
    shown = back(shown) if shown.size else x
    ax.set_xscale("log" if decades(x) else "linear")
    ax.set(xlim=(shown.min(), shown.max()), ylim=(bottom, 0.0), ylabel="nats below the maximum")


def contours(
    ax: Axes,
    grid: Sequence[np.ndarray],
    drop: np.ndarray,
    best: np.ndarray,
    level: float,
    covariance: np.ndarray | None = None,
) -> None:
    """The regions of 50 % and of the level, and where the maximum is.

    Args:
        ax: where to draw.
        grid: points of the horizontal axis, and of the vertical one.
        drop: nats below the maximum at their combinations, shape `(len(grid[0]), len(grid[1]))`.
        best: both coordinates of the maximum.
        level: of the outer region.
        covariance: of the two, for Wald's regions beside, which are not drawn where a variance is zero.
    """
    levels = sorted({INNER, level})
    edges = [limit(one, 2) for one in levels]
    fine, height = _refined(grid, drop)
    shades = [MIDDLE, PALE][-len(levels) :]
    table = np.ma.masked_invalid(np.maximum(height, 0.0)).T
    ax.contourf(*fine, table, [0.0, *edges], colors=shades)
    met = [edge for edge in edges if table.min() < edge < table.max()]
    if met:
        ax.contour(*fine, table, met, colors=BLUE, linewidths=1.2)
    for one, shade in zip(levels, shades):
        ax.fill_between([], [], facecolor=shade, edgecolor=BLUE, label=f"{percent(one)} region")
    ax.plot(*best[:, None], "o", color=INK, ms=4.5, label="estimate")
    held = height <= edges[-1]
    extent = [np.append(_beside(axis, np.any(held, axis=1 - i)), best[i]) for i, axis in enumerate(fine)]
    if covariance is not None and np.all(np.diag(covariance) > 0):
        for one in levels:
            line = ellipse(covariance, best, one)
            ax.plot(*line.T, **WALD, label="Wald" if one == level else None)
        extent = [np.append(*both) for both in zip(extent, line.T)]
    for axis, points, values in zip("xy", grid, extent):
        ax.set(**{f"{axis}scale": "log" if decades(points) else "linear"})
        ax.set(**{f"{axis}lim": np.exp(around(np.log(values[values > 0]))) if decades(points) else around(values)})


def _beside(axis: np.ndarray, inside: Any) -> np.ndarray:
    """The points of an axis beside those that are inside, or all where none is."""
    some = np.flatnonzero(inside)
    return axis[[max(some[0] - 1, 0), min(some[-1] + 1, len(axis) - 1)]] if some.size else axis


def _refined(grid: Sequence[np.ndarray], drop: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The grid made finer by a bicubic spline, which is exact for a parabola; as it is where that does not fit."""
    from scipy.interpolate import RectBivariateSpline

    if min(map(len, grid)) < 4 or not np.all(np.isfinite(drop)):
        return list(grid), drop
    lines = [np.log(axis) if decades(axis) else axis for axis in grid]
    fine = [np.linspace(line[0], line[-1], FINE) for line in lines]
    found = RectBivariateSpline(*lines, drop)(*fine)
    if found.min() < drop.min() - OVERSHOOT:
        return list(grid), drop
    return [np.exp(line) if decades(axis) else line for line, axis in zip(fine, grid)], found


def ellipse(covariance: np.ndarray, centre: np.ndarray, level: float, points: int = 181) -> np.ndarray:
    r"""Points of $(v - \hat\theta)^T V^{-1} (v - \hat\theta) = \chi^2_{2, \text{level}}$, shape `(points, 2)`.

    NaN where the covariance has no inverse.
    """
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        root = np.full((2, 2), np.nan)
    angle = np.linspace(0.0, 2 * np.pi, points)
    circle = math.sqrt(2 * limit(level, 2)) * np.column_stack([np.cos(angle), np.sin(angle)])
    return centre + circle @ root.T
