"""Many data sets from host memory: they stream through the lanes in pieces of one compiled shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from ..core import devices
from ..core.compilation import Compiled
from ..core.status import Status
from ..core.trees import numbers_as_arrays, traced, tracing
from ..likelihood.objective import Objective
from ..likelihood.ragged import Chunk, RaggedBatch, power_of_two
from ..models.model import Model
from ..models.parameters import Parameters
from ..solvers import AbstractSolver, Stop
from .chunks import _ACCOUNT, run_chunks
from .lanes import for_each, run_lanes
from .repeated import RepeatedDataset
from .search import search
from .solution import Solution, nothing_to_find, solution


@Compiled
def solve_chunk(
    sets: Chunk,
    starts: PyTree,
    mesh: Any,
    solver: AbstractSolver,
    model: Model,
    args: PyTree,
    parameters: Parameters,
    stop: Stop,
    n_lanes: int,
    warm_up: bool,
) -> tuple[Solution, Int[Array, ""]]:
    """The maxima of all data sets of a piece, every leaf with a leading axis of sets; and the blocks run over."""

    def one(sets: Chunk, starts: PyTree) -> tuple[Solution, Array]:
        n_sets = sets.n_sets
        pick = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)  # noqa: E731
        fixed = parameters.fixed_leaves(starts)

        def objective(i: Array) -> Objective:
            return Objective(sets.likelihood(model, args, i), parameters.with_values(pick(fixed, i)))

        if not parameters.n_free:
            return for_each(lambda i: nothing_to_find(objective(i)), n_sets, n_lanes), jnp.asarray(n_sets)
        free = for_each(lambda i: parameters.free(parameters.join(pick(starts, i))), n_sets, n_lanes)
        n_obs, count = for_each(lambda i: objective(i).n_obs, n_sets, n_lanes), jnp.asarray(sets.count, jnp.int32)
        blocks = []

        def drive(solver: AbstractSolver, states: Any, stop: Stop) -> Any:
            states, turned = run_lanes(solver, objective, states, n_obs, stop, n_lanes, count)
            blocks.append(turned)
            return states

        states, steps = search(solver, drive, jax.vmap, free, stop, warm_up)

        def settle(i: Array) -> Solution:
            return solution(objective(i), pick(states, i), steps[i], stop)

        settled = for_each(settle, n_sets, n_lanes)
        return settled, sum(blocks, jnp.zeros((), jnp.int32))

    return devices.shard_mapped(one, mesh)(sets, starts)


def solve_batch(
    collection: RaggedBatch | RepeatedDataset,
    model: Model,
    parameters: Parameters,
    starts: PyTree,
    solver: AbstractSolver,
    stop: Stop,
    n_lanes: int | None = None,
    report: Callable[[Solution], None] | None = None,
    near: bool = False,
) -> Solution:
    """The maxima of all data sets, in their order.

    Those of a regression begin with steps on the expected information, unless their maxima are near. Where one way
    proves nothing, the other is tried.

    Args:
        collection: the data sets.
        model: the model.
        parameters: how its parameters map to the free vector.
        starts: the leaves of the starting parameters, in order, each with a leading axis of sets.
        solver: the solver.
        stop: when to stop.
        n_lanes: number of lanes; by default as many as suit the device.
        report: called with the solutions of each finished piece.
        near: whether the starts are close to the maxima.
    """
    if isinstance(collection, RepeatedDataset):
        found = collection.solve(model, parameters, starts, solver, stop)
        if report is not None:
            report(found)
        return found
    width = n_lanes or collection.lanes(model)
    two_ways = has_two_ways(solver, model)
    warm_up = two_ways and not near
    rest = (solver, model, collection.args, parameters, stop, width)
    if collection.traced or tracing(starts):
        return solve_chunk(collection.whole(model), starts, None, *rest, warm_up)[0]
    found = _solve_chunks(collection, starts, rest, warm_up, report)
    if two_ways and len(failed := np.flatnonzero(unproven(found.status))):
        begun = jax.tree.map(lambda leaf: np.asarray(leaf)[failed], starts)
        again = _solve_chunks(collection.some(failed), begun, rest, not warm_up, None)
        better = np.asarray(again.status == Status.converged)
        place = failed[better]
        found = jax.tree.map(lambda old, new: old.at[place].set(new[better]), found, again)
    return found


def has_two_ways(solver: AbstractSolver, model: Model) -> bool:
    """Whether a search may begin on the expected information: not where that is dear."""
    return solver.exact and model.regression is not None and model.regression.family.cheap_information


def unproven(status: Any) -> np.ndarray | np.bool_:
    """Whether a search found no maximum where another one might."""
    codes = np.asarray(status)
    return (codes != Status.converged) & (codes < Status.nonfinite_start)


def _solve_chunks(
    collection: RaggedBatch,
    starts: PyTree,
    rest: tuple[Any, ...],
    warm_up: bool,
    report: Callable[[Solution], None] | None,
) -> Solution:
    """`solve` in one way, outside a trace."""
    _, model, _, parameters, _, width = rest
    rows = collection.block(model) or collection.longest
    account = _ACCOUNT.get()

    def finish(out: tuple[Solution, Any], count: int) -> Solution:
        found, blocks = out
        if account is not None:
            account.rows += int(blocks) * rows
        found = jax.tree.map(lambda leaf: leaf[:count], found)
        if report is not None:
            report(found)
        return found

    rest = (*rest, warm_up)
    return run_chunks(solve_chunk, collection, model, parameters.n_free, width, starts, rest, finish)


def initial_starts(init: Callable[[PyTree], PyTree], collection: RaggedBatch) -> PyTree:
    """`init(data)` of every data set, as arrays with a leading axis of sets.

    Sets of unequal length are filled up to the next power of two by repeating their rows in turn, so that few
    shapes are compiled and means and quantiles stay about the same: a start need not be exact.
    """
    rows, offsets = collection.rows, jnp.asarray(collection.offsets)
    if collection.lengths is None or traced((rows, collection.lengths)):
        length = collection.longest if collection.lengths is None else collection.lengths
        return _initial_starts(init, rows, offsets, jnp.broadcast_to(length, offsets.shape), collection.longest)
    lengths = np.maximum(np.asarray(collection.lengths), 1)
    widths = np.array([power_of_two(length) for length in lengths])
    parts, numbers = [], []
    for width in np.unique(widths):
        chosen = np.flatnonzero(widths == width)
        source = collection.offsets[chosen][:, None] + np.arange(width) % lengths[chosen][:, None]
        here = jax.tree.map(lambda leaf: jnp.asarray(leaf[source.ravel()]), rows)  # noqa: B023
        count = jnp.full(len(chosen), width)
        parts.append(_initial_starts(init, here, jnp.arange(len(chosen)) * width, count, int(width)))
        numbers.append(chosen)
    back = np.argsort(np.concatenate(numbers), kind="stable")
    rest = eqx.filter(parts[0], eqx.is_array, inverse=True)
    merged = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves)[back], *(eqx.filter(p, eqx.is_array) for p in parts)
    )
    return eqx.combine(merged, rest)


@Compiled
def _initial_starts(
    init: Callable[[PyTree], PyTree], rows: PyTree, offsets: Array, lengths: Array, width: int
) -> PyTree:
    def one(offset: Array, length: Array) -> PyTree:
        index = offset + jnp.arange(width) % jnp.maximum(length, 1)
        start = init(jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], rows))
        return numbers_as_arrays(start)

    return eqx.filter_vmap(one)(offsets, lengths)
