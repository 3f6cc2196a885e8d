"""Profile likelihood: intervals, curves and grids."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..arguments import check_count, warn
from ..compilation import Compiled
from ..parameters import Parameters
from ..solvers.farthest import BETTER
from ..status import Status, StatusArray
from ..trees import tracing
from .each import evaluate, evaluate_times, in_batch, repeat_each
from .information import inverse_of_kind
from .intervals import from_line, quantile, to_line, wald_free
from .profile_end import end
from .refit import from_better, refit, shared_collection, shared_parameters

if TYPE_CHECKING:
    from ..result import Fit

#: Higher maxima that a profile finds are followed so many times.
ROUNDS = 5
#: A curve reaches as far as an interval of this level would, and a grid a little less far.
WIDE = {1: 0.999, 2: 0.99}
POINTS = {1: 41, 2: 21}


class Ends(eqx.Module):
    """Both ends of the profile-likelihood interval of every scalar parameter.

    Args:
        lower: shape `(k,)`; at the edge of the constraint, or infinite, where the likelihood stays high all the
            way; NaN where no end was found.
        upper: likewise.
        status: a `Status` value for each end, lower ones first, shape `(k, 2)`: `converged`; `unbounded` where
            the likelihood stays above the level; or what went wrong.
    """

    lower: Float[Array, "... k"]
    upper: Float[Array, "... k"]
    status: Int[Array, "... k 2"]


def ends(fit: Fit, level: float) -> tuple[Fit, Ends]:
    r"""Where the profile likelihood of each parameter has fallen by half a quantile of chi-square.

    $$\ell_p(\theta_j) = \max_{\theta_{-j}} \ell(\theta) = \hat\ell - \tfrac12 \chi^2_{1, \text{level}}$$

    All ends of all data sets are searched side by side. Where a search meets a higher likelihood than that of the
    fit, the fit is made again from there, and so are its ends.

    Args:
        fit: the fit, or batch of fits.
        level: confidence level.

    Returns:
        The fit, made again where that was needed, and the ends.
    """
    if not fit.batched:
        fits, found = ends(in_batch(fit), level)
        return jax.tree.map(lambda leaf: leaf[0], (fits, found))
    found, better, free = _ends(fit, level)
    if tracing(better):
        return fit, found
    for _ in range(ROUNDS):
        those = np.flatnonzero(better)
        if not those.size:
            break
        again = from_better(fit[those], free[those], np.ones(len(those), bool))
        news = (again.solution, *_ends(again, level))
        known = (fit.solution, found, better, free)
        solution, found, better, free = jax.tree.map(functools.partial(_put, those), known, news)
        fit = eqx.tree_at(lambda fit: fit.solution, fit, solution)
    return fit, found


def _put(those: np.ndarray, old: Array, new: Array) -> Array:
    return old.at[those].set(new)


def _ends(fit: Fit, level: float) -> tuple[Ends, Array, Array]:
    """The ends; for each data set whether a better maximum was met, and where."""
    vector = fit.solution.vector
    n_sets, k = vector.shape
    low, high = eqx.filter_vmap(Parameters.ranges)(fit.parameters, vector)
    moving = np.array([i for i, j in enumerate(_moving(fit.parameters)) if i == j], int)
    lower = upper = jnp.where(fit.converged[:, None], vector, jnp.nan)
    status = jnp.broadcast_to(fit.solution.status[:, None, None], (n_sets, k, 2))
    if not moving.size:
        return Ends(lower, upper, status), jnp.zeros(n_sets, bool), fit.solution.free
    times = 2 * len(moving)
    which, sign = np.repeat(moving, 2), np.tile([-1.0, 1.0], len(moving))
    every = lambda array: jnp.broadcast_to(array[:, None], (n_sets, times, *array.shape[1:]))  # noqa: E731
    drop = jnp.full((n_sets, times), 0.5 * quantile(level, vector.dtype) ** 2, vector.dtype)
    each = lambda array: jnp.broadcast_to(jnp.asarray(array), (n_sets, times))  # noqa: E731
    value = (
        every(fit.solution.free),
        every(fit.converged),
        every(fit.log_likelihood),
        drop,
        each(which),
        each(sign.astype(vector.dtype)),
        low[:, which],
        high[:, which],
    )
    found, reached = evaluate_times(fit, times, end, value)
    proven = fit.converged[:, None] & ~found.better
    edge = jnp.where(sign > 0, high[:, which], low[:, which])
    reached = jnp.where(found.status == Status.converged, reached, jnp.nan)
    reached = jnp.where(found.status == Status.unbounded, edge, reached)
    # An element that never moves, as the diagonal of a correlation, is its own interval.
    still = (fit.solution.errors == 0)[:, which]
    reached = jnp.where(still, vector[:, which], jnp.where(proven, reached, jnp.nan)).reshape(n_sets, -1, 2)
    own = jnp.where(still, Status.converged, found.status)
    own = jnp.where(fit.converged[:, None], own, fit.solution.status[:, None]).reshape(n_sets, -1, 2)
    # A tied parameter shares the row of its twin.
    twins = [(i, int(np.flatnonzero(moving == j)[0])) for i, j in enumerate(_moving(fit.parameters)) if j >= 0]
    mine, of = (np.array(pair, int) for pair in zip(*twins))
    result = Ends(
        lower.at[:, mine].set(reached[:, of, 0]),
        upper.at[:, mine].set(reached[:, of, 1]),
        status.at[:, mine].set(own[:, of]),
    )
    better = found.better & fit.converged[:, None]
    highest = jnp.argmax(jnp.where(better, found.log_likelihood, -jnp.inf), axis=1)
    free = jnp.take_along_axis(found.free, highest[:, None, None], axis=1)[:, 0]
    return result, jnp.any(better, axis=1), free


def _moving(parameters: Parameters) -> list[int]:
    """For each scalar parameter itself, the twin it is tied to, or -1 where it is fixed."""
    begin, first = {}, 0
    for leaf in parameters.leaves:
        begin[leaf.name] = first
        first += leaf.size
    return [
        -1 if leaf.is_fixed else begin[leaf.tied_to or leaf.name] + i
        for leaf in parameters.leaves
        for i in range(leaf.size)
    ]


def intervals(fit: Fit, level: float) -> tuple[Array, Array]:
    """Both ends of every profile-likelihood interval, with a warning where they are those of a better maximum."""
    again, found = ends(fit, level)
    if not tracing(fit.solution):
        refitted = np.asarray(again.log_likelihood != fit.log_likelihood) & np.asarray(fit.converged)
        if np.any(refitted):
            who = f"of {int(refitted.sum()):,} of {fit.n_sets:,} data sets " if fit.batched else ""
            warn(
                f"profiles {who}met higher maxima than their fit had found: the intervals are those of the "
                "refitted maxima, which mle.profile(fit, name).fit holds; fit with starts="
            )
    return found.lower, found.upper


class Profile(eqx.Module):
    """A profile likelihood on a line or on a grid, made by `mle.profile`.

    Args:
        names: the one or two parameters that were held.
        values: for each of them the values where it was held, in natural units, shape `(points,)`.
        log_likelihood: the highest that the other parameters reach there, in nats, shape `(points,)` or
            `(points, points)`; NaN where no maximum is proven.
        params: these parameters, a PyTree like `init` with leading axes of points.
        status: why each of these fits ended.
        fit: the fit; made again from a better maximum where the profile met one.
        better: whether it did.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    values: tuple[Float[Array, "... points"], ...]
    log_likelihood: Float[Array, "..."]
    params: PyTree
    status: StatusArray
    fit: Fit
    better: Array

    @property
    def drop(self) -> Float[Array, "..."]:
        """How far the profile lies below the maximum, in nats; 1.92 below are the ends of a 95 % interval."""
        best = self.fit.log_likelihood
        return jnp.reshape(best, (*jnp.shape(best), *(1,) * len(self.names))) - self.log_likelihood

    def __repr__(self) -> str:
        if isinstance(self.log_likelihood, jax.core.Tracer):
            return f"Profile(<traced>, {', '.join(self.names)})"
        from ..report.sentences import profile_text

        return profile_text(self)


def profile(fit: Fit, name: str | Sequence[str], values: Any = None, *, points: int | None = None) -> Profile:
    r"""The profile likelihood of one parameter, or of two on a grid.

    $$\ell_p(v) = \max_{\theta:\ \theta_j = v} \ell(\theta)$$

    All points, of all data sets of a batch, are fits in one batch.

    Args:
        fit: a fit, or a batch of fits.
        name: one of `fit.parameter_names`, or two of them for a grid.
        values: where to hold the parameter, shape `(points,)`, in natural units; for two names a pair of such. By
            default evenly spaced on the scale without edges, as far as an interval of 99.9 % reaches, for a
            grid of 99 %.
        points: how many by default: 41, for a grid 21 in each direction; they hold the estimate in the middle
            only if the likelihood is symmetric.

    Returns:
        `Profile`; of a batch with a leading axis of data sets on every array. Where the fit did not converge, all
        of it is NaN.

    Raises:
        ValueError: no such parameter, a fixed one, or one that shares a constraint with others.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> density = lambda params, x: -0.5 * ((x - params["mean"]) / params["sd"]) ** 2 - jnp.log(params["sd"])
        >>> fit = mle.fit(density, {"mean": 0.0, "sd": 1.0}, jnp.array([1.0, 2.0, 4.0, 5.0]),
        ...               constraints={"sd": mle.positive})
        >>> curve = mle.profile(fit, "mean", jnp.array([1.0, 3.0, 5.0]))
        >>> print(curve.drop.round(3))
        [1.911 0.    1.911]
        >>> print(mle.profile(fit, ("mean", "sd"), points=5).log_likelihood.shape)
        (5, 5)

    Source: Venzon and Moolgavkar 1988 for the reach; every point is a fit of its own.
    """
    names = (name,) if isinstance(name, str) else tuple(name)
    if len(names) not in (1, 2) or len(set(names)) < len(names):
        raise ValueError(f"name must be one parameter or two different ones, got {name!r}")
    if points is not None:
        check_count(points, "points", least=2)
    if not fit.batched:
        given = None if values is None else tuple(v[None] for v in _arrays(values, names))
        return jax.tree.map(lambda leaf: leaf[0], profile(in_batch(fit), names, given, points=points))
    parameters = shared_parameters(fit)
    parameters.holding(names)  # says what is wrong with the names
    begun = fit
    for _ in range(ROUNDS):
        found = None
        if values is None:
            fit, found = ends(fit, WIDE[len(names)])
        curve = _curve(fit, names, _grid(fit, names, values, found, points or POINTS[len(names)]))
        higher, start = _higher(curve)
        if tracing(higher) or not np.any(higher):
            break
        fit = from_better(fit, jnp.where(higher[:, None], start, fit.solution.free), higher)
    return dataclasses.replace(curve, better=fit.log_likelihood > begun.log_likelihood)


def _higher(curve: Profile) -> tuple[Array, Array]:
    """Which data sets have a point above what was taken for their maximum, and where the highest is."""
    fit, n_sets = curve.fit, curve.fit.n_sets
    size = jnp.maximum(1.0, jnp.abs(fit.log_likelihood))
    eps, bits = jnp.finfo(size.dtype).eps, jnp.finfo(size.dtype).bits
    flat = curve.log_likelihood.reshape(n_sets, -1)
    height = jnp.where(jnp.isnan(flat), -jnp.inf, flat)
    top = jnp.argmax(height, axis=1)

    def at_top(leaf: Array) -> Array:
        return leaf.reshape(n_sets, -1, *leaf.shape[1 + len(curve.names) :])[jnp.arange(n_sets), top]

    there = eqx.filter_vmap(Parameters.free)(fit.parameters, jax.tree.map(at_top, curve.params))
    return (jnp.max(height, axis=1) > fit.log_likelihood + BETTER[bits] + 10 * eps * size) & fit.converged, there


def _grid(fit: Fit, names: tuple[str, ...], values: Any, found: Ends | None, points: int) -> tuple[Array, ...]:
    """For each name the values to hold it at, shape `(n_sets, points)`."""
    vector, dtype = fit.solution.vector, fit.solution.vector.dtype
    if values is not None:
        arrays = _arrays(values, names)
        return tuple(jnp.broadcast_to(v.astype(dtype), (fit.n_sets, v.shape[-1])) for v in arrays)
    assert found is not None
    places = np.array([fit.parameter_names.index(one) for one in names])
    low, high = (end[:, places] for end in eqx.filter_vmap(Parameters.ranges)(fit.parameters, vector))
    # Where there is no end, four standard errors will do.
    wide = wald_free(vector[:, places], fit.solution.errors[:, places], low, high, 0.9999)
    ending = (found.lower[:, places], found.upper[:, places])
    edges = [jnp.where(jnp.isfinite(e) & (e > low) & (e < high), e, w) for e, w in zip(ending, wide)]
    begin, end = (to_line(e, low, high) for e in edges)
    steps = jnp.linspace(0.0, 1.0, points, dtype=dtype)
    line = begin[..., None] + (end - begin)[..., None] * steps
    grid = from_line(line, low[..., None], high[..., None])
    return tuple(grid[:, i] for i in range(len(names)))


def _arrays(values: Any, names: tuple[str, ...]) -> tuple[Array, ...]:
    """For each name the values to hold it at, shape `(points,)`, or with a leading axis of data sets."""
    pair = (values,) if len(names) == 1 and not isinstance(values, tuple) else tuple(values)
    if len(pair) != len(names):
        raise ValueError(f"values must hold one array for each of {', '.join(names)}; got {len(pair)}")
    arrays = tuple(jnp.asarray(v) for v in pair)
    if any(v.ndim < 1 for v in arrays):
        raise ValueError("values must be an array of the values to hold the parameter at, shape (points,)")
    return arrays


def _curve(fit: Fit, names: tuple[str, ...], values: tuple[Array, ...]) -> Profile:
    """The fits with the names held at all combinations of these values."""
    n_sets, shape = fit.n_sets, tuple(v.shape[1] for v in values)
    points = int(np.prod(shape))
    axes = [v.reshape(n_sets, *(-1 if j == i else 1 for j in range(len(values)))) for i, v in enumerate(values)]
    held = jnp.stack([jnp.broadcast_to(v, (n_sets, *shape)) for v in axes], -1).reshape(n_sets, points, -1)
    everything, model = shared_collection(fit)
    parameters = shared_parameters(fit)
    places = tuple(fit.parameter_names.index(one) for one in names)
    spread = evaluate(fit, inverse_of_kind("observed"), fit.solution.free)
    starts = _starts(fit.parameters, fit.solution.free, spread, held, places)
    flat = [leaf.reshape(n_sets * points, *leaf.shape[2:]) for leaf in starts]
    solution = refit(everything.repeated(points), model, parameters.holding(names), flat)
    known = (solution.status == Status.converged) & repeat_each(fit.converged, points)
    reached = jnp.where(known, solution.log_likelihood, jnp.nan)
    vector = jnp.where(known[:, None], solution.vector, jnp.nan)
    return Profile(
        names=names,
        values=values,
        log_likelihood=reached.reshape(n_sets, *shape),
        params=parameters.tree(vector.reshape(n_sets, *shape, -1)),
        status=StatusArray(solution.status.reshape(n_sets, *shape)),
        fit=fit,
        better=jnp.zeros(n_sets, bool),
    )


@Compiled
def _starts(
    parameters: Parameters,
    free: Array,
    spread: Array,
    held: Float[Array, "n_sets points m"],
    places: tuple[int, ...],
) -> list[Array]:
    """Leaves of `params` with the elements at `places` held: where a quadratic likelihood has its maximum then."""

    def of_set(parameters: Parameters, free: Array, spread: Array, held: Array) -> list[Array]:
        low, high = (end[np.array(places)] for end in parameters.ranges(parameters.natural_vector(free)))

        def target(z: Array) -> Array:
            return to_line(parameters.natural_vector(z)[np.array(places)], low, high)

        slope = jax.jacfwd(target)(free)
        along = spread @ slope.T @ jnp.linalg.inv(slope @ spread @ slope.T)

        def at(values: Array) -> list[Array]:
            move = along @ (to_line(values, low, high) - target(free))
            moved = jnp.where(jnp.all(jnp.isfinite(move)), free + move, free)
            vector = parameters.natural_vector(moved)
            twins = _moving(parameters)
            for place, value in zip(places, values):
                same = np.array([twin == twins[place] for twin in twins])
                vector = jnp.where(same, value, vector)
            return parameters.split(parameters.tree(vector))

        return jax.vmap(at)(held)

    return eqx.filter_vmap(of_set)(parameters, free, spread, held)
