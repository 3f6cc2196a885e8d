"""The engine: a fixed number of lanes, each holding a data set until it finishes, then the next one moves in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..core.dtypes import as_index
from ..core.trees import pack, unpack
from ..likelihood.objective import Objective
from ..solvers import AbstractSolver, Stop
from ..solvers.base import AbstractPointSolver
from ..solvers.objective import Curvature
from .search import running

#: Where lanes are many, a data set that takes more steps than `LONG_SEARCH` finishes in lanes that are few: many
#: shall not wait for one at the end. It depends on the data set alone, and so does what comes out.
LONG_SEARCH, MANY_LANES, FEWER = 40, 512, 16
#: Where a step takes several blocks of rows, the solver serves this fraction of the lanes at a time: a fourth.
SERVED = 4


def run_lanes(
    solver: AbstractSolver,
    objective: Callable[[Int[Array, ""]], Objective],
    states: Any,
    n_obs: Float[Array, " n_sets"],
    stop: Stop,
    n_lanes: int,
    count: Int[Array, ""],
) -> tuple[Any, Int[Array, ""]]:
    """The solver's last states on all data sets, in their order, and the blocks of rows that lanes ran over.

    Args:
        solver: the solver.
        objective: the objective of data set `i`.
        states: where the solver begins.
        n_obs: number of observations of each set.
        stop: when to stop; `max_steps` for all, or one for each.
        n_lanes: number of lanes.
        count: how many data sets there are; the rest of the axis is empty.
    """
    n_sets = states.status.shape[0]
    n_lanes = min(n_lanes, n_sets)
    limits = jnp.broadcast_to(stop.max_steps, (n_sets,))
    every = jnp.arange(n_sets)
    queue = (every, count)
    last = Stop(stop.tolerance, limits)
    if n_lanes < MANY_LANES:
        return _turns(solver, objective, states, n_obs, last, n_lanes, *queue)
    first = Stop(stop.tolerance, jnp.minimum(limits, LONG_SEARCH))
    states, blocks = _turns(solver, objective, states, n_obs, first, n_lanes, *queue)
    left = running(states, last) & (every < as_index(count))
    queue = (jnp.argsort(~left, stable=True), jnp.sum(left))
    states, more = _turns(solver, objective, states, n_obs, last, n_lanes // FEWER, *queue)
    return states, blocks + more


class Lanes(eqx.Module):
    """What lanes hold, and the states of all data sets.

    Args:
        place: which data set of the queue is in each lane; `count` once there is none left.
        point: where its derivatives are wanted.
        sums: what its blocks of rows so far add up to.
        block: how many these are.
        following: the next in the queue.
        shelf: where the solver stands on each data set, packed.
        turns: blocks of rows that each lane has run over.
    """

    place: Int[Array, " n_lanes"]
    point: Float[Array, "n_lanes n_free"] | None
    sums: PyTree
    block: Int[Array, " n_lanes"]
    following: Int[Array, ""]
    shelf: tuple[Array, ...]
    turns: Int[Array, ""]


def _turns(
    solver: AbstractSolver,
    objective: Callable[[Int[Array, ""]], Objective],
    states: Any,
    n_obs: Float[Array, " n_sets"],
    stop: Stop,
    n_lanes: int,
    order: Int[Array, " n_sets"],
    count: Int[Array, ""],
) -> tuple[Any, Int[Array, ""]]:
    """Lanes take data sets as they stand from a queue, and put them back when they have stopped.

    Every turn evaluates one block of rows of each lane's data set. Where that was the last block, the solver
    takes its step, for a few lanes at a time; so a long data set costs its own lane, and no other.

    Args:
        solver: the solver.
        objective: the objective of data set `i`.
        states: where the solver stands on each data set.
        n_obs: number of observations of each set.
        stop: when to stop; `max_steps` of each set.
        n_lanes: number of lanes.
        order: the queue: numbers of data sets.
        count: how many of them to take.
    """
    n_sets, count = order.shape[0], jnp.asarray(count, jnp.int32)
    like = jax.tree.map(lambda leaf: leaf[0], states)
    stepwise = solver if isinstance(solver, AbstractPointSolver) else None
    sample = objective(jnp.asarray(0))
    curvature = stepwise.curvature(sample) if stepwise else Curvature.none
    whole = stepwise is None or sample.likelihood.n_blocks == 1
    n_served = n_lanes if whole else max(1, n_lanes // SERVED)

    def slot(place: Array) -> Array:
        return order[jnp.minimum(place, n_sets - 1)]

    def stored(shelf: tuple[Array, ...], place: Array) -> Any:
        return jax.vmap(lambda *rows: unpack(rows, like))(*(rows[slot(place)] for rows in shelf))

    def trial_point(shelf: tuple[Array, ...], place: Array) -> Any:
        return jax.vmap(stepwise.trial_point)(stored(shelf, place)) if stepwise else None

    def evaluate(i: Array, point: Any, sums: Any, b: Array) -> Any:
        """One more block of rows."""
        if stepwise is None:
            return sums
        part = objective(i).part(point, curvature, b)
        return jax.tree.map(lambda total, new: (new if whole else total + new).astype(total.dtype), sums, part)

    def step(i: Array, state: Any, sums: Any) -> Any:
        """A step of the solver after the last block."""
        until = Stop(stop.tolerance, stop.max_steps[i])
        if stepwise is None:
            return solver.step(objective(i), state, until)
        return stepwise.update(state, objective(i).mean(sums, n_obs[i]), n_obs[i], until)

    def complete(lanes: Lanes) -> Array:
        """The lanes that have run over all their rows."""

        def rows_left(i: Array, block: Array) -> Array:
            likelihood = objective(i).likelihood
            length = likelihood.rows if likelihood.length is None else likelihood.length
            return as_index(block) * likelihood.block < as_index(length)

        left = jax.vmap(rows_left)(slot(lanes.place), lanes.block)
        return (lanes.block > 0) & ~left & (lanes.place < count)

    def serve(lanes: Lanes) -> Lanes:
        """Steps of the solver in the first lanes that are complete; those that stop take the next data set."""
        served = jnp.arange(n_lanes)
        if not whole:
            served = jnp.nonzero(complete(lanes), size=n_served, fill_value=n_lanes)[0]
        pick = lambda leaf: leaf if whole else leaf.at[served].get(mode="fill", fill_value=0)  # noqa: E731
        put = lambda leaf, new: new if whole else leaf.at[served].set(new, mode="drop")  # noqa: E731
        place = pick(lanes.place)
        mine, here = slot(place), (served < n_lanes) & (place < count)
        state = jax.vmap(step)(mine, stored(lanes.shelf, place), jax.tree.map(pick, lanes.sums))
        home = jnp.where(here, mine, n_sets)
        keep = lambda rows, new: rows.at[home].set(new, mode="drop")  # noqa: E731
        shelf = jax.tree.map(keep, lanes.shelf, jax.vmap(pack)(state))
        done = here & ~running(state, Stop(stop.tolerance, stop.max_steps[mine]))
        following = jnp.minimum(lanes.following + jnp.cumsum(done, dtype=jnp.int32) - 1, count)
        place = jnp.where(done, following, place).astype(place.dtype)
        return Lanes(
            place=put(lanes.place, place),
            point=jax.tree.map(put, lanes.point, trial_point(shelf, place)),
            sums=jax.tree.map(lambda leaf: put(leaf, jnp.zeros_like(pick(leaf))), lanes.sums),
            block=put(lanes.block, jnp.zeros_like(place)),
            following=lanes.following + jnp.sum(done, dtype=jnp.int32),
            shelf=shelf,
            turns=lanes.turns,
        )

    def turn(lanes: Lanes) -> Lanes:
        sums = jax.vmap(evaluate)(slot(lanes.place), lanes.point, lanes.sums, lanes.block)
        lanes = dataclasses.replace(lanes, sums=sums, block=lanes.block + 1, turns=lanes.turns + 1)
        if whole:
            return serve(lanes)
        return jax.lax.while_loop(lambda lanes: jnp.any(complete(lanes)), serve, lanes)

    shelf = jax.vmap(pack)(states)
    place = jnp.minimum(jnp.arange(n_lanes, dtype=jnp.int32), count)
    nothing = sample.zero(curvature) if stepwise else ()
    empty = jax.tree.map(lambda leaf: jnp.zeros((n_lanes, *leaf.shape), leaf.dtype), nothing)
    zero = jnp.zeros((), jnp.int32)
    first = Lanes(
        place,
        trial_point(shelf, place),
        empty,
        jnp.zeros_like(place),
        jnp.asarray(n_lanes, jnp.int32),
        shelf,
        zero,
    )
    lanes = jax.lax.while_loop(lambda lanes: jnp.any(lanes.place < count), turn, first)
    return jax.vmap(lambda *rows: unpack(rows, like))(*lanes.shelf), lanes.turns * n_lanes


def for_each(fn: Callable[[Int[Array, ""]], Any], n_sets: int, width: int) -> Any:
    """`fn(i)` for every data set, `width` of them at once."""
    width = min(width, n_sets)
    index = jnp.minimum(jnp.arange(-(-n_sets // width) * width), n_sets - 1).reshape(-1, width)
    out = jax.lax.map(jax.vmap(fn), index)
    return jax.tree.map(lambda leaf: leaf.reshape(index.size, *leaf.shape[2:])[:n_sets], out)
