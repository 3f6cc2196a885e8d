"""Many data sets: a fixed number of lanes, each holding one until it finishes, then the next moves in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .collection import STRIDE, Collection, Sets, power_of_two, traced
from .likelihood import Objective
from .loop import Solution, nothing_to_find, running, search, solution
from .model import Model
from .parameters import Parameters
from .solvers import Solver, Stop
from .trees import is_array


def run(
    solver: Solver,
    objective: Callable[[Int[Array, ""]], Objective],
    free: Float[Array, "n_sets n_free"],
    stop: Stop,
    n_lanes: int,
    count: Int[Array, ""],
) -> Any:
    """The solver's last states on all data sets, in their order.

    Args:
        solver: the solver.
        objective: the objective of data set `i`.
        free: the starts.
        stop: when to stop; `max_steps` for all, or one for each.
        n_lanes: number of lanes.
        count: how many data sets there are; the rest of the axis is empty.
    """
    n_sets = free.shape[0]
    n_lanes = min(n_lanes, n_sets)
    limits = jnp.broadcast_to(stop.max_steps, (n_sets,))

    def one_step(state: Any, i: Array) -> Any:
        until = Stop(stop.tolerance, limits[i])
        go = running(state, until)
        after = solver.step(objective(i), state, until)
        return jax.tree.map(lambda new, old: jnp.where(go, new, old), after, state)

    def turn(carry: tuple[Any, Array, Array, Any]) -> tuple[Any, Array, Array, Any]:
        state, slot, following, results = carry
        held = jnp.minimum(slot, n_sets - 1)
        state = jax.lax.fori_loop(0, STRIDE, lambda _, s: jax.vmap(one_step)(s, held), state)

        done = ~jax.vmap(running)(state, Stop(jnp.broadcast_to(stop.tolerance, slot.shape), limits[held]))
        home = jnp.where(done, slot, n_sets)
        results = jax.tree.map(lambda all_, one: all_.at[home].set(one, mode="drop"), results, state)
        rank = jnp.cumsum(done) - 1
        slot = jnp.where(done, jnp.minimum(following + rank, count), slot).astype(slot.dtype)
        fresh = jax.vmap(solver.init)(free[jnp.minimum(slot, n_sets - 1)])
        state = jax.tree.map(
            lambda new, old: jnp.where(done.reshape(done.shape + (1,) * (new.ndim - 1)), new, old),
            fresh,
            state,
        )
        return state, slot, following + jnp.sum(done), results

    slot = jnp.minimum(jnp.arange(n_lanes), count)
    first = (jax.vmap(solver.init)(free[:n_lanes]), slot, jnp.asarray(n_lanes), jax.vmap(solver.init)(free))
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1] < count), turn, first)[3]


@eqx.filter_jit
def solve_piece(
    solver: Solver, sets: Sets, parameters: Parameters, starts: PyTree, stop: Stop, n_lanes: int
) -> Solution:
    """The maxima of all data sets of a piece, every leaf with a leading axis of sets."""
    free = jax.vmap(lambda leaves: parameters.free(parameters.join(leaves)))(starts)
    fixed = parameters.fixed_leaves(starts)

    def objective(i: Array) -> Objective:
        values = jax.tree.map(lambda value: value[i], fixed)
        return Objective(sets.likelihood(i), parameters.with_values(values))

    every = jnp.arange(sets.n_sets)
    if not parameters.n_free:
        return jax.lax.map(lambda i: nothing_to_find(objective(i)), every, batch_size=n_lanes)

    def drive(solver: Solver, free: Array, stop: Stop) -> Any:
        return run(solver, objective, free, stop, n_lanes, sets.count)

    states, steps = search(solver, drive, free, stop)
    settle = lambda state, count, i: solution(objective(i), state, count)  # noqa: E731
    return jax.vmap(settle)(states, steps, every)


def solve(
    collection: Collection,
    model: Model,
    parameters: Parameters,
    starts: PyTree,
    solver: Solver,
    stop: Stop,
    n_lanes: int | None = None,
    report: Callable[[Solution], None] | None = None,
) -> Solution:
    """The maxima of all data sets, in their order.

    Args:
        collection: the data sets.
        model: the model.
        parameters: how its parameters map to the free vector.
        starts: the leaves of the starting parameters, in order, each with a leading axis of sets.
        solver: the solver.
        stop: when to stop.
        n_lanes: number of lanes; by default as many as fill the cache.
        report: called with the solutions of each finished piece.
    """
    width = n_lanes or collection.lanes(model)

    def work(sets: Sets, starts: PyTree) -> Solution:
        return solve_piece(solver, sets, parameters, starts, stop, width)

    if collection.traced or traced(starts):
        return work(collection.whole(model), starts)
    return _in_pieces(collection, model, parameters.n_free, starts, work, report)


def map_sets(
    fn: Callable[[Objective, Any], Any],
    collection: Collection,
    model: Model,
    parameters: Parameters,
    value: PyTree,
    own: PyTree = None,
) -> Any:
    """`fn(objective, value)` for every data set, in their order, with memory bounded by a piece.

    Args:
        fn: what is wanted of one data set; compiled once for as long as it is the same function.
        collection: the data sets.
        model: the model.
        parameters: how its parameters map to the free vector; its arrays have a leading axis of sets.
        value: what `fn` needs, arrays with a leading axis of sets.
        own: `(model, args)` where each set has its own, arrays with a leading axis of sets.
    """
    width = collection.lanes(model)
    arrays, rest = eqx.partition((parameters, value, own), is_array)
    work = functools.partial(_map_piece, fn, rest=rest, width=width)
    if collection.traced or traced(arrays):
        return work(collection.whole(model), arrays)
    return _in_pieces(collection, model, parameters.n_free, arrays, work)


@eqx.filter_jit
def _map_piece(fn: Callable[..., Any], sets: Sets, arrays: PyTree, *, rest: PyTree, width: int) -> Any:
    def one(pair: tuple[Array, Any]) -> Any:
        parameters, value, own = eqx.combine(pair[1], rest)
        likelihood = sets.likelihood(pair[0])
        if own is not None:
            likelihood = dataclasses.replace(likelihood, model=own[0], args=own[1])
        return fn(Objective(likelihood, parameters), value)

    return jax.lax.map(one, (jnp.arange(sets.n_sets), arrays), batch_size=min(width, sets.n_sets))


def _in_pieces(
    collection: Collection,
    model: Model,
    n_free: int,
    arrays: PyTree,
    work: Callable[[Sets, PyTree], Any],
    report: Callable[[Any], None] | None = None,
) -> Any:
    """`work(sets, arrays)` on one piece after the other, put together in the order of the sets."""
    arrays = jax.tree.map(np.asarray, arrays)
    numbers, parts = [], []
    for chosen, sets in collection.pieces(model, n_free):
        filled = np.concatenate([chosen, np.full(sets.n_sets - len(chosen), chosen[-1])])
        out = work(sets, jax.tree.map(lambda leaf: jnp.asarray(leaf[filled]), arrays))  # noqa: B023
        numbers.append(chosen)
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf[: len(chosen)]), out))  # noqa: B023
        if report is not None:
            report(parts[-1])
    back = np.argsort(np.concatenate(numbers), kind="stable")
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)[back]), *parts)


def starts(init: Callable[[PyTree], PyTree], collection: Collection) -> PyTree:
    """`init(data)` of every data set, as arrays with a leading axis of sets.

    Sets of unequal length are filled up to the next power of two by repeating their rows in turn, so that few
    shapes are compiled and means and quantiles stay about the same: a start need not be exact.
    """
    rows, offsets = collection.rows, jnp.asarray(collection.offsets)
    if collection.lengths is None or traced((rows, collection.lengths)):
        length = collection.longest if collection.lengths is None else collection.lengths
        return _starts(init, rows, offsets, jnp.broadcast_to(length, offsets.shape), collection.longest)
    lengths = np.maximum(np.asarray(collection.lengths), 1)
    widths = np.array([power_of_two(length) for length in lengths])
    parts, numbers = [], []
    for width in np.unique(widths):
        chosen = np.flatnonzero(widths == width)
        source = collection.offsets[chosen][:, None] + np.arange(width) % lengths[chosen][:, None]
        here = jax.tree.map(lambda leaf: jnp.asarray(leaf[source.ravel()]), rows)  # noqa: B023
        count = jnp.full(len(chosen), width)
        parts.append(_starts(init, here, jnp.arange(len(chosen)) * width, count, int(width)))
        numbers.append(chosen)
    back = np.argsort(np.concatenate(numbers), kind="stable")
    rest = eqx.filter(parts[0], eqx.is_array, inverse=True)
    merged = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves)[back], *(eqx.filter(p, eqx.is_array) for p in parts)
    )
    return eqx.combine(merged, rest)


@eqx.filter_jit
def _starts(init: Callable[[PyTree], PyTree], rows: PyTree, offsets: Array, lengths: Array, width: int) -> PyTree:
    def one(offset: Array, length: Array) -> PyTree:
        index = offset + jnp.arange(width) % jnp.maximum(length, 1)
        start = init(jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], rows))
        number = lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float | int) else leaf  # noqa: E731
        return jax.tree.map(number, start)

    return eqx.filter_vmap(one)(offsets, lengths)
