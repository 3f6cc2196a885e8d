"""The likelihood itself, along one parameter or over two, with the others held."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.checks import check_count, check_level
from ..core.compilation import Compiled
from ..inference.covariance import errors
from ..inference.record import objective
from ..inference.wald import from_line, line_slope, to_line
from ..likelihood.objective import Objective
from ..models.parameters import open_ranges
from ..results.fit import Fit
from .observations import values_at_once
from .regions import contours, curve, limit
from .style import axes_for, check_single, legend, one_or_two, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: A curve reaches as far as a region of this level, whatever is drawn into it.
WIDE = 0.999
POINTS = {1: 201, 2: 61}
#: Points in each direction while the reach is looked for, how often it is looked for, and how many times as far as
#: Wald's region.
COARSE, ROUNDS, FURTHEST = 21, 8, 5


def likelihood(
    fit: Fit,
    names: str | Sequence[str] | None = None,
    *,
    level: float = 0.95,
    values: Any = None,
    points: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""The likelihood along one parameter, or over two, with all others held at their estimates.

    $$\ell(\hat\theta_{-j}, v) - \ell(\hat\theta), \qquad
    \{v: \ell(\hat\theta) - \ell(\hat\theta_{-j}, v) \le \tfrac12 \chi^2_{1, \text{level}}\}$$

    The region is a confidence interval only where there are no other free parameters; with others it is too
    narrow, for they would move along: see `profile`.

    Args:
        fit: a single fit.
        names: one of `fit.parameter_names`, for a curve with its region; or two of them, for the regions of 50 %
            and of the level, with two degrees of freedom. By default the first that is free.
        level: of the region.
        values: where to evaluate the likelihood, shape `(points,)`, in natural units and increasing; for two names
            a pair of such. By default even on a scale without edges, as far as a region of 99.9 % reaches.
        points: how many by default: 201, for two names 61 in each direction.
        ax: where to draw; by default on a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: a batch, a fit that did not converge, no such parameter, one that is fixed or shares its
            constraint with others, values outside of the constraint, or a level outside (0, 1).

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, jnp.array([1.0, 2.0, 6.0]))
        >>> ax = mle.plot.likelihood(fit, values=[2.0, 3.0, 4.0], ax=Figure().subplots())
        >>> print(ax.get_xlabel(), ax.get_lines()[1].get_ydata().round(9) + 0)  # three observations, variance one
        params [1.5 0.  1.5]

    Source: Pawitan 2001, *In All Likelihood*, chapter 2.
    """
    check_single(fit)
    check_level(level)
    names = one_or_two(fit, names)
    fit.parameters.with_fixed(names)  # says which of them cannot move by themselves
    if points is not None:
        check_count(points, "points", least=2)
    where = places(fit, [_owner(fit, name) for name in names])
    best = np.asarray(fit._solution.estimates)[where]
    drop = functools.partial(_drop, fit, objective(fit), where)
    which, estimates = np.array(where), fit._solution.estimates
    ranges = [end[which] for end in fit.parameters.ranges(estimates)]
    lines = [end[which] for end in open_ranges(fit.parameters, estimates)]
    if values is None:
        grid = _grid(fit, where, drop, lines, ranges, points or POINTS[len(names)])
    else:
        grid = _given(values, names, lines, ranges)
    fall = drop(grid)
    ax = axes_for(ax)
    if len(names) == 1:
        curve(ax, grid[0], fall, best[0], level, ("likelihood", "likelihood interval"))
        ax.set_xlabel(names[0])
    else:
        contours(ax, grid, fall, best, level)
        ax.set(xlabel=names[0], ylabel=names[1])
    legend(ax, "best" if len(names) == 1 else "above")
    return ax


def _owner(fit: Fit, name: str) -> str:
    """The parameter that moves where this one does: itself, or the twin it is tied to."""
    leaf = next(leaf for leaf in fit.parameters.leaves if name in leaf.names())
    return (leaf.tied_to or leaf.name) + name.removeprefix(leaf.name)


def _drop(fit: Fit, objective: Objective, where: list[int], grid: Sequence[np.ndarray]) -> np.ndarray:
    """Nats below the maximum at all combinations of these values; NaN where they leave their constraint."""
    mesh = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1)
    flat = jnp.asarray(mesh.reshape(-1, len(where)), fit._solution.estimates.dtype)
    heights = _heights(
        objective, fit._solution.estimates, tuple(where), flat, values_at_once(objective.likelihood)
    )
    return np.asarray(fit.log_likelihood - heights, float).reshape(mesh.shape[:-1])


@Compiled
def _heights(
    objective: Objective,
    vector: Array,
    where: tuple[int, ...],
    points: Float[Array, "points m"],
    side_by_side: int,
) -> Float[Array, " points"]:
    """The log-likelihood with the parameters at `where` moved to each of these points, and those tied to them."""
    parameters = objective.parameters

    def at(point: Array) -> Array:
        free = parameters.free(parameters.tree(vector.at[jnp.array(where)].set(point)))
        return -objective(free) * objective.n_obs

    return jax.lax.map(at, points, batch_size=side_by_side)


def _given(
    values: Any, names: tuple[str, ...], lines: Sequence[Array], ranges: Sequence[Array]
) -> list[np.ndarray]:
    """The values to evaluate at, once they are known to be such."""
    pair = (values,) if len(names) == 1 and not isinstance(values, tuple) else tuple(values)
    arrays = [np.asarray(one, float) for one in pair]
    if len(arrays) != len(names):
        raise ValueError(f"values must hold one array for each of {', '.join(names)}; got {len(arrays)}")
    for name, array, low, high, begin, end in zip(names, arrays, *lines, *ranges):
        if array.ndim != 1 or array.size < 2 or not np.all(np.diff(array) > 0):
            raise ValueError(f"values of {name} must be increasing, shape (points,), two or more; got {array}")
        if array[0] <= low or array[-1] >= high or array[0] < begin or array[-1] > end:
            raise ValueError(f"values of {name} must lie between {begin:g} and {end:g}; got {array}")
    return arrays


def _grid(
    fit: Fit,
    where: list[int],
    drop: Callable[..., np.ndarray],
    lines: Sequence[Array],
    ranges: Sequence[Array],
    points: int,
) -> list[np.ndarray]:
    """Values that reach as far as a wide region does, evenly spaced on a scale without open edges.

    Args:
        fit: the fit.
        where: the places of the parameters.
        drop: nats below the maximum at all combinations of values.
        lines: the open ends of their ranges.
        ranges: both ends, open or closed.
        points: how many in each direction.
    """
    best, most = fit._solution.estimates[np.array(where)], limit(WIDE, len(where))
    middle = np.asarray(to_line(best, *lines), float)
    reach = np.asarray(_reach(fit, most)[np.array(where)] * line_slope(best, *lines), float)
    if not np.all(np.isfinite(reach) & (reach > 0)):
        raise ValueError("the fit has no standard errors that tell how far to draw: pass values=")
    closed = zip(lines, ranges, (-np.inf, np.inf))
    edges = np.stack([np.where(np.isfinite(line), endless, end) for line, end, endless in closed])

    def spaced(box: np.ndarray, count: int) -> list[np.ndarray]:
        steps = jnp.asarray(np.linspace(box[0], box[1], count), best.dtype)
        low, high = (end[None] for end in ranges)
        values = jnp.clip(from_line(steps, *(end[None] for end in lines)), low, high)  # which rounding may leave
        return list(np.asarray(values, float).T)

    def holds(box: np.ndarray) -> np.ndarray:
        return drop(spaced(box, COARSE)) <= most

    return spaced(_box(holds, middle, reach, edges), points)


def _reach(fit: Fit, most: float) -> np.ndarray:
    """How far from each estimate the log-likelihood falls by so much, were it quadratic."""
    found = math.sqrt(2 * most) * np.asarray(errors(fit), float)
    if fit._solution.multiplier is None:
        return found
    # From an estimate at its bound it falls with the multiplier, and the others stay.
    slope = np.asarray(fit.parameters.at_bounds(fit._solution.multiplier, np.nan), float)
    curvature = np.diagonal(np.asarray(fit.information(), float))
    bend = np.asarray(fit.parameters.at_bounds(jnp.asarray(curvature, fit._solution.free.dtype), np.nan), float)
    own = 2 * most / (slope + np.sqrt(slope**2 + 2 * np.maximum(bend, 0.0) * most))
    return np.where(np.isnan(slope), found, own)


def _box(
    holds: Callable[[np.ndarray], np.ndarray], middle: np.ndarray, reach: np.ndarray, edges: np.ndarray
) -> np.ndarray:
    """The box around a region: where it begins and ends in each dimension, shape `(2, m)`.

    Args:
        holds: which points of an even grid over a box the region holds.
        middle: a point of the region.
        reach: how far it is thought to reach from there, which is the answer where it never ends.
        edges: the box goes no further, shape `(2, m)`.
    """
    box = first = np.clip(np.stack([middle - reach, middle + reach]), *edges)
    endless = np.zeros_like(box, bool)
    for _ in range(ROUNDS):
        inside, steps = holds(box), np.linspace(box[0], box[1], COARSE)
        new, further = box.copy(), np.zeros_like(box, bool)
        for i in range(len(middle)):
            some = np.flatnonzero(inside.any(axis=tuple(np.delete(np.arange(len(middle)), i))))
            begin, end = (some[0], some[-1]) if some.size else (COARSE // 2, COARSE // 2)
            further[:, i] = begin == 0, end == COARSE - 1
            new[:, i] = steps[max(begin - 1, 0), i], steps[min(end + 1, COARSE - 1), i]
        new = np.where(further, middle + 2 * (box - middle), new)
        endless |= np.abs(new - middle) > FURTHEST * reach
        new = np.clip(np.where(endless, first, new), *edges)
        settled = np.all(np.abs(new - box) <= 0.2 * (box[1] - box[0]))
        box = new
        if settled:
            break
    return box
