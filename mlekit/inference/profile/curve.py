"""Profile likelihood: curves and grids."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ...core.checks import check_count
from ...core.compilation import Compiled
from ...core.format.numbers import count, counted
from ...core.status import Status, StatusArray
from ...core.trees import batch_of_one, only_one, tracing
from ...engine.solution import Solution
from ...models.parameters import Parameters, open_ranges
from ..evaluate import evaluate, repeat_each
from ..information import inverse_of_kind
from ..record import FitRecord
from ..refit import from_better, refit, shared_batch, shared_parameters
from ..wald import from_line, to_line, wald_transformed
from .endpoint_search import BETTER
from .interval import ROUNDS, ends, twins

#: A curve reaches as far as an interval of this level would, and a grid a little less far.
WIDE = {1: 0.999, 2: 0.99}
POINTS = {1: 41, 2: 21}


class Profile(eqx.Module):
    """A profile likelihood on a line or on a grid, made by `mle.profile`.

    Args:
        names: the one or two parameters that were held.
        values: for each of them the values at which it was held, in natural units, shape `(points,)`.
        log_likelihood: the highest that the other parameters reach there, in nats, shape `(points,)` or
            `(points, points)`; NaN where no maximum is proven.
        params: these parameters, a PyTree like `init` with leading axes of points.
        status: why each of these fits ended.
        fit: the fit; made again from a better maximum where the profile met one.
        better: whether a better maximum was met.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    values: tuple[Float[Array, "..."], ...]
    log_likelihood: Float[Array, "..."]
    params: PyTree
    status: StatusArray
    fit: FitRecord
    better: Array

    @property
    def drop(self) -> Float[Array, "..."]:
        """The maximum less the profile, in nats; at the ends of a 95 % interval it is 1.92."""
        best = self.fit.log_likelihood
        return jnp.reshape(best, (*jnp.shape(best), *(1,) * len(self.names))) - self.log_likelihood

    def __repr__(self) -> str:
        if isinstance(self.log_likelihood, jax.core.Tracer):
            return f"Profile(<traced>, {', '.join(self.names)})"
        return profile_text(self)


def profile(
    fit: FitRecord, name: str | Sequence[str], values: Any = None, *, points: int | None = None
) -> Profile:
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
        >>> print(curve.drop.round(3) + 0)  # which rounding may have left negative
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
        batched = None if values is None else tuple(v[None] for v in _as_arrays(values, names))
        return only_one(profile(batch_of_one(fit), names, batched, points=points))
    parameters = shared_parameters(fit)
    parameters.with_fixed(names)  # checks the names
    places = tuple(map(fit.parameter_names.index, names))
    dtype, original = fit._solution.estimates.dtype, fit
    if values is None:
        steps = np.linspace(0.0, 1.0, points or POINTS[len(names)]).astype(dtype)
    else:
        grid = tuple(
            jnp.broadcast_to(v.astype(dtype), (fit.n_sets, v.shape[-1])) for v in _as_arrays(values, names)
        )
    for _ in range(ROUNDS):
        if values is None:
            fit, found = ends(fit, WIDE[len(names)])
            grid = _grid(fit._solution, fit.parameters, found.lower, found.upper, steps, places)
        curve = _curve(fit, names, grid)
        higher, start = _higher(fit._solution, fit.parameters, curve.log_likelihood, curve.params, len(names))
        if tracing(higher) or not np.any(higher):
            break
        fit = from_better(fit, jnp.where(higher[:, None], start, fit._solution.free), higher)
    return dataclasses.replace(curve, better=fit.log_likelihood > original.log_likelihood)


@Compiled
def _higher(
    solution: Solution, parameters: Parameters, heights: Array, params: PyTree, axes: int
) -> tuple[Array, Array]:
    """True for data sets with a point above their supposed maximum; and the free vectors of the highest points."""
    best, n_sets = solution.log_likelihood, len(heights)
    size = jnp.maximum(1.0, jnp.abs(best))
    eps, bits = jnp.finfo(size.dtype).eps, jnp.finfo(size.dtype).bits
    flat = heights.reshape(n_sets, -1)
    height = jnp.where(jnp.isnan(flat), -jnp.inf, flat)
    top = jnp.argmax(height, axis=1)

    def at_top(leaf: Array) -> Array:
        return leaf.reshape(n_sets, -1, *leaf.shape[1 + axes :])[jnp.arange(n_sets), top]

    there = eqx.filter_vmap(Parameters.free)(parameters, jax.tree.map(at_top, params))
    higher = jnp.max(height, axis=1) > best + BETTER[bits] + 10 * eps * size
    return higher & (solution.status == Status.converged), there


def _as_arrays(values: Any, names: tuple[str, ...]) -> tuple[Array, ...]:
    """For each name the values to hold it at, shape `(points,)`, or with a leading axis of data sets."""
    pair = (values,) if len(names) == 1 and not isinstance(values, tuple) else tuple(values)
    if len(pair) != len(names):
        raise ValueError(f"values must hold one array for each of {', '.join(names)}; got {len(pair)}")
    arrays = tuple(jnp.asarray(v) for v in pair)
    if any(v.ndim < 1 for v in arrays):
        raise ValueError("values must be an array of the values to hold the parameter at, shape (points,)")
    return arrays


@Compiled
def _grid(
    solution: Solution,
    parameters: Parameters,
    lower: Array,
    upper: Array,
    steps: Float[Array, " points"],
    places: tuple[int, ...],
) -> tuple[Array, ...]:
    """For each place among the parameters values from one of its ends to the other, shape `(n_sets, points)`."""
    which = np.array(places)
    low, high = (end[:, which] for end in eqx.filter_vmap(open_ranges)(parameters, solution.estimates))
    # Where there is no end, four standard errors will do.
    wide = wald_transformed(solution.estimates[:, which], solution.standard_errors[:, which], low, high, 0.9999)
    found = (lower[:, which], upper[:, which])
    edges = [jnp.where(jnp.isfinite(e) & (e > low) & (e < high), e, w) for e, w in zip(found, wide)]
    begin, end = (to_line(e, low, high) for e in edges)
    line = begin[..., None] + (end - begin)[..., None] * steps[None, None, :]
    grid = from_line(line, low[..., None], high[..., None])
    low, high = (end[:, which, None] for end in eqx.filter_vmap(Parameters.ranges)(parameters, solution.estimates))
    grid = jnp.clip(grid, low, high)  # which rounding may leave
    return tuple(grid[:, i] for i in range(len(places)))


def _curve(fit: FitRecord, names: tuple[str, ...], values: tuple[Array, ...]) -> Profile:
    """The fits with the names held at all combinations of these values."""
    points = math.prod(v.shape[1] for v in values)
    batch, parameters = shared_batch(fit), shared_parameters(fit)
    places = tuple(map(fit.parameter_names.index, names))
    spread = evaluate(fit, inverse_of_kind("observed"), fit._solution.free)
    starts = _starts(fit.parameters, fit._solution.free, spread, values, places)
    found = refit(batch.repeated(points), parameters.with_fixed(names), starts)
    reached, params, status = _reached(found, fit.converged, parameters, tuple(v.shape[1] for v in values))
    return Profile(
        names=names,
        values=values,
        log_likelihood=reached,
        params=params,
        status=StatusArray(status),
        fit=fit,
        better=jnp.asarray(np.zeros(fit.n_sets, bool)),
    )


@Compiled
def _starts(
    parameters: Parameters,
    free: Array,
    spread: Array,
    values: tuple[Float[Array, "n_sets ..."], ...],
    places: tuple[int, ...],
) -> list[Array]:
    """Leaves of `params` with the elements at `places` held: where a quadratic likelihood has its maximum then."""

    def of_set(parameters: Parameters, free: Array, spread: Array, *values: Array) -> list[Array]:
        vector = parameters.natural_vector(free)
        low, high = (end[np.array(places)] for end in open_ranges(parameters, vector))

        def target(z: Array) -> Array:
            return to_line(parameters.natural_vector(z)[np.array(places)], low, high)

        slope = jax.jacfwd(target)(free)
        along = spread @ slope.T @ jnp.linalg.inv(slope @ spread @ slope.T)

        def leaves_at(held: Array) -> list[Array]:
            move = along @ (to_line(held, low, high) - target(free))
            moved = jnp.where(jnp.all(jnp.isfinite(move)), free + move, free)
            moved = moved if parameters.box is None else parameters.box.clip(moved)
            vector = parameters.natural_vector(moved)
            of = twins(parameters)
            for place, value in zip(places, held):
                same = np.array([twin == of[place] for twin in of])
                vector = jnp.where(same, value, vector)
            return parameters.split(parameters.tree(vector))

        held = jnp.stack([axis.ravel() for axis in jnp.meshgrid(*values, indexing="ij")], -1)
        return jax.vmap(leaves_at)(held)

    leaves = eqx.filter_vmap(of_set)(parameters, free, spread, *values)
    return [leaf.reshape(-1, *leaf.shape[2:]) for leaf in leaves]


@Compiled
def _reached(
    found: Solution, converged: Array, parameters: Parameters, shape: tuple[int, ...]
) -> tuple[Array, PyTree, Array]:
    """Log-likelihoods, parameters and statuses of the points, NaN where no maximum is proven."""
    n_sets = len(converged)
    allowed = jax.vmap(parameters.allows)(found.estimates)
    status = jnp.where(allowed, found.status, Status.nonfinite_start).astype(jnp.int32)
    known = (status == Status.converged) & repeat_each(converged, math.prod(shape))
    heights = jnp.where(known, found.log_likelihood, jnp.nan).reshape(n_sets, *shape)
    vector = jnp.where(known[:, None], found.estimates, jnp.nan).reshape(n_sets, *shape, -1)
    return heights, parameters.tree(vector), status.reshape(n_sets, *shape)


def profile_text(curve: Profile) -> str:
    """The size of a profile, its failures, and whether it found a better maximum."""
    better, status = np.asarray(curve.better), curve.status.counts()
    where = " x ".join(count(v.shape[-1]) for v in curve.values)
    text = f"Profile of {' and '.join(curve.names)}: {where} points"
    if better.ndim:
        text += f" for each of {counted(better.size, 'data set')}"
    bad = {name: n for name, n in status.items() if name != "converged"}
    if bad:
        text += "; without a proven maximum: " + ", ".join(f"{count(n)} {name}" for name, n in bad.items())
    if np.any(better):
        many = f" of {counted(int(better.sum()), 'data set')}" if better.ndim else ""
        text += f". It met a higher maximum than the fit{many}, which was fitted again from there: see .fit"
    return text
