"""The batch engine: a fixed number of lanes, each with a data set until it finishes, then with the next one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..core.dtypes import as_index
from ..core.trees import pack, unpack
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..solvers import AbstractSolver, Stop
from ..solvers.base import AbstractPointSolver, updated
from ..solvers.objective import Curvature
from .search import running

#: Where lanes are many, a data set that takes more steps than `LONG_SEARCH` finishes in lanes that are few, so
#: that many need not wait for one at the end. It depends on the data set alone, and so does the result.
LONG_SEARCH, MANY_LANES, FEWER = 40, 512, 16
#: Where a step takes several blocks of rows, at most one lane in so many is updated at a time.
UPDATED_SHARE = 4


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
        states: the states that the solver begins with.
        n_obs: number of observations of each set.
        stop: when to stop; `max_steps` for all, or one for each.
        n_lanes: number of lanes.
        count: number of data sets; the rest of the axis is empty.
    """
    n_sets = states.status.shape[0]
    n_lanes = min(n_lanes, n_sets)
    limits = jnp.broadcast_to(stop.max_steps, (n_sets,))
    every = jnp.arange(n_sets)
    last = Stop(stop.tolerance, limits)
    queue = _Queue(solver, objective, n_obs, last, n_lanes, every, jnp.asarray(count, jnp.int32))
    if n_lanes < MANY_LANES:
        return queue.run(states)
    first = Stop(stop.tolerance, jnp.minimum(limits, LONG_SEARCH))
    states, blocks = dataclasses.replace(queue, stop=first).run(states)
    left = running(states, last) & (every < as_index(count))
    order, n_left = jnp.argsort(~left, stable=True), jnp.sum(left, dtype=jnp.int32)
    few = dataclasses.replace(queue, n_lanes=n_lanes // FEWER, order=order, count=n_left)
    states, more = few.run(states)
    return states, blocks + more


class Lanes(eqx.Module):
    """The data sets in the lanes, and the states of all data sets.

    Args:
        position: position in the queue of the data set in each lane; `count` once there is none left.
        point: the point where its derivatives are wanted.
        sums: the sums of its blocks of rows so far.
        block: number of these blocks.
        next_position: position of the next data set in the queue.
        states: the solver's states of all data sets, packed.
        turns: blocks of rows that each lane has run over.
    """

    position: Int[Array, " n_lanes"]
    point: Float[Array, "n_lanes n_free"] | None
    sums: PyTree
    block: Int[Array, " n_lanes"]
    next_position: Int[Array, ""]
    states: tuple[Array, ...]
    turns: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class _Queue:
    """Lanes take data sets as they stand from a queue, and put them back when they have stopped.

    Every turn evaluates one block of rows of each lane's data set. Where that was the last block, the solver
    takes its step, for a few lanes at a time; so a long data set costs its own lane, and no other.

    Args:
        solver: the solver.
        objective: the objective of data set `i`.
        n_obs: number of observations of each set.
        stop: when to stop; `max_steps` of each set.
        n_lanes: number of lanes.
        order: the queue: numbers of data sets.
        count: number of data sets to take from it.
    """

    solver: AbstractSolver
    objective: Callable[[Int[Array, ""]], Objective]
    n_obs: Float[Array, " n_sets"]
    stop: Stop
    n_lanes: int
    order: Int[Array, " n_sets"]
    count: Int[Array, ""]

    def run(self, states: Any) -> tuple[Any, Int[Array, ""]]:
        """The states of all data sets after the last step of each, and the blocks of rows that lanes ran over."""
        like = jax.tree.map(lambda leaf: leaf[0], states)
        packed = jax.vmap(pack)(states)
        position = jnp.minimum(jnp.arange(self.n_lanes, dtype=jnp.int32), self.count)
        zero = self._sample.zero(self._curvature) if self._by_points else ()
        lanes = Lanes(
            position=position,
            point=self._trial_points(packed, position, like),
            sums=jax.tree.map(lambda leaf: jnp.zeros((self.n_lanes, *leaf.shape), leaf.dtype), zero),
            block=jnp.zeros_like(position),
            next_position=jnp.asarray(self.n_lanes, jnp.int32),
            states=packed,
            turns=jnp.zeros((), jnp.int32),
        )
        turn = functools.partial(self._turn, like=like)
        lanes = jax.lax.while_loop(lambda lanes: jnp.any(lanes.position < self.count), turn, lanes)
        return jax.vmap(lambda *rows: unpack(rows, like))(*lanes.states), lanes.turns * self.n_lanes

    # The shape of the work, the same for all data sets.

    @property
    def _by_points(self) -> bool:
        """True if the solver's steps are evaluations at one point, which blocks of rows add up to."""
        return isinstance(self.solver, AbstractPointSolver)

    @functools.cached_property
    def _sample(self) -> Objective:
        return self.objective(jnp.asarray(0))

    @functools.cached_property
    def _curvature(self) -> Curvature:
        return (
            self.solver.curvature(self._sample) if isinstance(self.solver, AbstractPointSolver) else Curvature.none
        )

    @functools.cached_property
    def _in_one_block(self) -> bool:
        """True if every turn of a lane is a step."""
        return not self._by_points or self._sample.likelihood.n_blocks == 1

    # One lane.

    def _data_set(self, position: Array) -> Array:
        """The number of the data set at a position of the queue."""
        return self.order[jnp.minimum(position, self.order.shape[0] - 1)]

    def _evaluate_block(self, i: Array, point: Any, sums: Any, b: Array) -> Any:
        """The sums of data set `i` after one more block of rows."""
        if not self._by_points:
            return sums
        part = self.objective(i).part(point, self._curvature, b)
        add = lambda total, new: (new if self._in_one_block else total + new).astype(total.dtype)  # noqa: E731
        return jax.tree.map(add, sums, part)

    def _step(self, i: Array, state: Any, sums: Any) -> Any:
        """A step of the solver on data set `i` after its last block."""
        until = Stop(self.stop.tolerance, self.stop.max_steps[i])
        if not isinstance(self.solver, AbstractPointSolver):
            return self.solver.step(self.objective(i), state, until)
        return updated(self.solver, state, self.objective(i).mean(sums, self.n_obs[i]), self.n_obs[i], until)

    def _rows_left(self, i: Array, block: Array) -> Bool[Array, ""]:
        likelihood = self.objective(i).likelihood
        assert isinstance(likelihood, InMemoryLikelihood)  # as all that lanes hold
        return as_index(block) * likelihood.block < likelihood.n_unpadded

    # All lanes.

    def _states(self, packed: tuple[Array, ...], position: Array, like: Any) -> Any:
        """The states of the data sets at these positions."""
        i = self._data_set(position)
        return jax.vmap(lambda *rows: unpack(rows, like))(*(rows[i] for rows in packed))

    def _trial_points(self, packed: tuple[Array, ...], position: Array, like: Any) -> Any:
        if not isinstance(self.solver, AbstractPointSolver):
            return None
        return jax.vmap(self.solver.trial_point)(self._states(packed, position, like))

    def _complete(self, lanes: Lanes) -> Bool[Array, " n_lanes"]:
        """The lanes that have run over all their rows."""
        left = jax.vmap(self._rows_left)(self._data_set(lanes.position), lanes.block)
        return (lanes.block > 0) & ~left & (lanes.position < self.count)

    def _turn(self, lanes: Lanes, like: Any) -> Lanes:
        i = self._data_set(lanes.position)
        sums = jax.vmap(self._evaluate_block)(i, lanes.point, lanes.sums, lanes.block)
        lanes = dataclasses.replace(lanes, sums=sums, block=lanes.block + 1, turns=lanes.turns + 1)
        update = functools.partial(self._update, like=like)
        if self._in_one_block:
            return update(lanes)
        return jax.lax.while_loop(lambda lanes: jnp.any(self._complete(lanes)), update, lanes)

    def _update(self, lanes: Lanes, like: Any) -> Lanes:
        """Steps of the solver in the first lanes that are complete; those that stop take the next data set."""
        n_lanes, n_sets, all_lanes = self.n_lanes, self.order.shape[0], self._in_one_block
        updated = jnp.arange(n_lanes)
        if not all_lanes:
            size = max(1, n_lanes // UPDATED_SHARE)
            updated = jnp.nonzero(self._complete(lanes), size=size, fill_value=n_lanes)[0]
        pick = lambda leaf: leaf if all_lanes else leaf.at[updated].get(mode="fill", fill_value=0)  # noqa: E731
        put = lambda leaf, new: new if all_lanes else leaf.at[updated].set(new, mode="drop")  # noqa: E731
        position = pick(lanes.position)
        i, here = self._data_set(position), (updated < n_lanes) & (position < self.count)
        state = jax.vmap(self._step)(i, self._states(lanes.states, position, like), jax.tree.map(pick, lanes.sums))
        home = jnp.where(here, i, n_sets)
        keep = lambda rows, new: rows.at[home].set(new, mode="drop")  # noqa: E731
        states = jax.tree.map(keep, lanes.states, jax.vmap(pack)(state))
        done = here & ~running(state, Stop(self.stop.tolerance, self.stop.max_steps[i]))
        following = jnp.minimum(lanes.next_position + jnp.cumsum(done, dtype=jnp.int32) - 1, self.count)
        position = jnp.where(done, following, position).astype(position.dtype)
        return Lanes(
            position=put(lanes.position, position),
            point=jax.tree.map(put, lanes.point, self._trial_points(states, position, like)),
            sums=jax.tree.map(lambda leaf: put(leaf, jnp.zeros_like(pick(leaf))), lanes.sums),
            block=put(lanes.block, jnp.zeros_like(position)),
            next_position=lanes.next_position + jnp.sum(done, dtype=jnp.int32),
            states=states,
            turns=lanes.turns,
        )


def for_each(
    fn: Callable[[Int[Array, ""]], Any], n_sets: int, width: int, count: Int[Array, ""] | None = None
) -> Any:
    """`fn(i)` for every data set, `width` of them at once; for the first `count` alone, if that is given."""
    width = min(width, n_sets)
    index = jnp.minimum(jnp.arange(-(-n_sets // width) * width), n_sets - 1).reshape(-1, width)
    if count is None:
        out = jax.lax.map(jax.vmap(fn), index)
    else:
        some = jax.jit(jax.vmap(fn), inline=True)  # traced once, for its shapes and for the loop

        def put(r: Array, out: Any) -> Any:
            return jax.tree.map(lambda rows, new: rows.at[r].set(new), out, some(index[r]))

        shapes = jax.eval_shape(some, index[0])
        empty = jax.tree.map(lambda one: jnp.zeros((len(index), *one.shape), one.dtype), shapes)
        out = jax.lax.fori_loop(0, -(-as_index(count) // width), put, empty)
    return jax.tree.map(lambda leaf: leaf.reshape(index.size, *leaf.shape[2:])[:n_sets], out)
