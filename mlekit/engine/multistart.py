"""Many starts for one maximum: where they begin, which maximum is kept, and how many starts found which."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core.checks import check_count
from ..core.compilation import Compiled
from ..core.linear_algebra import curvature_scale
from ..core.random_keys import is_key
from ..core.status import Status
from ..core.trees import is_array, numbers_as_arrays, repeat
from ..likelihood.objective import Objective
from ..solvers.choice import DENSE_CERTIFICATE
from ..solvers.objective import Curvature
from . import lanes, map_datasets
from .modes import Modes, select_modes
from .problem import Problem
from .solution import Solution

#: Where a solver could not begin, a start moves towards the centre so many times, to this share of its distance.
RETREATS, RETREAT = 10, 0.25


# The arguments `starts` and `key`.


def parse_starts(starts: Any, key: Any, init: Any) -> tuple[Array | None, Any]:
    """One key a start, or `None` where no starts are asked for; and `init`, as `DrawnStarts` if it takes a key.

    Raises:
        ValueError: `starts` is no positive whole number, or one of `starts` and `key` lacks the other.
        TypeError: `key` is no random key.
    """
    if starts is None:
        if key is not None:
            raise ValueError("key: it is there to draw starts with; say how many: starts=20, or leave it out")
        if takes_key(init):
            raise ValueError(
                "init takes two arguments, data and a key, so it draws starts: say how many and give a key, "
                "such as starts=20, key=jax.random.key(0)"
            )
        return None, init
    check_count(starts, "starts")
    if key is None:
        if starts > 1 or takes_key(init):
            raise ValueError(f"starts={starts} are drawn at random, so they need a key: key=jax.random.key(0)")
        key = jax.random.key(0)  # of no use with one start
    if not is_key(key):
        raise TypeError(f"key must be one random key, such as jax.random.key(0); got {key!r}")
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(starts))
    return keys, DrawnStarts(init, keys) if takes_key(init) else init


def takes_key(init: Any) -> bool:
    """True if `init` is a function of the data and a key: of two positional parameters without defaults."""
    if not callable(init) or isinstance(init, eqx.Module):
        return False
    try:
        parameters = inspect.signature(init).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) == 2


class DrawnStarts(eqx.Module):
    """`init(data, key)` for every key, as one function of the data: leaves with a leading axis of starts."""

    init: Callable[[PyTree, Array], PyTree]
    keys: Array

    def __call__(self, data: PyTree) -> PyTree:
        """The starts of one data set."""

        def start(key: Array) -> PyTree:
            return numbers_as_arrays(self.init(data, key))

        return eqx.filter_vmap(start)(self.keys)


def split_first(starts: PyTree, axis: int = 0) -> tuple[PyTree, PyTree]:
    """The first of drawn starts, and all others."""
    arrays, rest = eqx.partition(starts, is_array)
    index = (slice(None),) * axis
    one, others = (jax.tree.map(lambda leaf: leaf[(*index, at)], arrays) for at in (0, slice(1, None)))  # noqa: B023
    return eqx.combine(one, rest), eqx.combine(others, rest)


# The points that searches begin at.


def _around(objective: Objective, value: tuple[Any, ...]) -> tuple[Array, ...]:
    """Starts of one data set around a centre: the leaves of their parameters with a leading axis of starts."""
    maximum, proven, leaves, directions = value
    parameters = objective.parameters
    dense = parameters.n_free <= DENSE_CERTIFICATE
    centre = jnp.where(proven, maximum, parameters.free(parameters.join(leaves)))
    unit = jnp.ones_like(centre)
    if dense:
        there = objective.evaluate(centre, Curvature.exact)
        unit = 1 / curvature_scale(there.curvature, there.gradient)
        # Far from a maximum a parameter may have next to no influence, and then curvature says nothing.
        unit = jnp.where(proven, unit, jnp.minimum(unit, jnp.maximum(1.0, jnp.abs(centre))))

    def leaves_at(free: Array) -> tuple[Array, ...]:
        return tuple(parameters.split(parameters.natural(free)))

    def retreat(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        move, tries, _ = state
        there = parameters.free(parameters.join(list(leaves_at(centre + move))))
        found = objective.evaluate(there, Curvature.exact if dense else Curvature.none)
        fine = jnp.all(jnp.array([jnp.all(jnp.isfinite(part)) for part in jax.tree.leaves(found)]))
        return jnp.where(fine, move, RETREAT * move), tries + 1, fine

    def along(direction: Array) -> tuple[Array, ...]:
        first = (unit * direction, jnp.asarray(0), jnp.asarray(False))
        move, *_ = jax.lax.while_loop(lambda state: ~state[2] & (state[1] <= RETREATS), retreat, first)
        return leaves_at(centre + move)

    return jax.lax.map(along, directions)


def _around_unseen(objective: Objective, value: tuple[Any, ...]) -> tuple[Array, ...]:
    """`_around` without a word of the log-density, which raises at some of those points."""
    maximum, proven, leaves, directions = value
    parameters = objective.parameters
    centre = jnp.where(proven, maximum, parameters.free(parameters.join(leaves)))
    unit = jnp.maximum(1.0, jnp.abs(centre))

    def along(direction: Array) -> tuple[Array, ...]:
        return tuple(parameters.split(parameters.natural(centre + unit * direction)))

    return jax.lax.map(along, directions)


def directions(keys: Array, n_free: int, dtype: Any) -> Float[Array, "starts n_free"]:
    """Draws from the Cauchy distribution that has no preferred direction, one for each key."""
    normal = jax.vmap(lambda key: jax.random.normal(key, (n_free + 1,), dtype))(keys)
    return normal[:, :-1] / jnp.abs(normal[:, -1:])


def draw(keys: Array, first: Solution, problem: Problem) -> list[Array]:
    r"""Starts around the maximum that the first start found, or around that start where it found none.

    $$z_j = \hat z_j + \frac{e_j}{|e_0|}\, h_j^{-1/2}, \qquad e \sim N(0, 1)$$

    on the free scale, where $h_j$ is the curvature of the mean log-likelihood: the unit is the width that the
    information in one observation gives, so that nothing depends on the units of parameters or on how many
    observations there are. Half of the starts lie within about one unit in each direction and one in sixteen
    beyond ten: near enough to converge, or far enough to find what is elsewhere. All data sets share the same
    draws of $e$, so that none depends on what else is in the batch.

    Args:
        keys: one key a start.
        first: what the first start found in each data set.
        problem: of many data sets, with the first start of each.

    Returns:
        The leaves of the starts' parameters, with leading axes of sets and of starts.
    """
    n_sets, parameters = problem.likelihood.n_sets, problem.parameters
    steps = directions(keys, parameters.n_free, parameters.dtype)
    value = (first.free, first.status == Status.converged, list(problem.starts), repeat(steps, n_sets))
    every = problem.parameters_per_set(n_sets)
    return list(map_datasets.map_or_else(_around, _around_unseen, problem.likelihood, every, value))


# The best of the maxima, and all of them.


def best_of(
    keys: Array,
    first: Solution,
    drawn: list[Array] | None,
    problem: Problem,
    solve: Callable[[Problem], Solution],
) -> tuple[Solution, Modes]:
    """The best of many starts for each data set, and the modes they found.

    Args:
        keys: one key a start.
        first: what the first start found in each data set.
        drawn: the leaves of the other starts, with leading axes of sets and starts; `None` has them drawn.
        problem: of many data sets, with the first start of each.
        solve: finds the maxima of a problem of many data sets.
    """
    parameters, leaves = problem.parameters, problem.starts
    n_sets, others = problem.likelihood.n_sets, keys.shape[0] - 1
    every = jax.tree.map(lambda leaf: leaf[:, None], first)
    if others and not parameters.n_free:
        every = jax.tree.map(lambda leaf: jnp.repeat(leaf, 1 + others, axis=1), every)
    elif others:
        if drawn is None:
            drawn = draw(keys[1:], first, problem)
        # A fixed parameter is the same for all starts.
        shared = lambda leaf: jnp.broadcast_to(leaf[:, None], (n_sets, others, *leaf.shape[1:]))  # noqa: E731
        chosen = [
            shared(jnp.asarray(mine)) if leaf.is_fixed else jnp.asarray(new)
            for leaf, mine, new in zip(parameters.leaves, leaves, drawn)
        ]
        flat = [leaf.reshape(n_sets * others, *leaf.shape[2:]) for leaf in chosen]
        found = solve(problem.of(problem.likelihood.repeated(others), flat))
        every = jax.tree.map(
            lambda one, more: jnp.concatenate([one, more.reshape(n_sets, others, *more.shape[1:])], axis=1),
            every,
            found,
        )
    return _select_all(every, problem.stop.tolerance, parameters.names)


@Compiled
def _select_all(found: Solution, tolerance: Float[Array, ""], names: tuple[str, ...]) -> tuple[Solution, Modes]:
    status, reached = found.status, found.log_likelihood
    # Maxima at the same bound are the same there, though no error tells how near that is.
    vector, errors = found.estimates, found.standard_errors
    if found.multiplier is not None:
        errors = jnp.where(jnp.isnan(errors), 0.0, errors)

    def of_set(i: Array) -> tuple[Array, Modes]:
        return select_modes(status[i], reached[i], vector[i], errors[i], tolerance, names)

    best, modes = lanes.for_each(of_set, status.shape[0], 256)
    return jax.tree.map(lambda leaf: jax.vmap(lambda mine, i: mine[i])(leaf, best), found), modes
