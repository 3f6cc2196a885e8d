"""Many data sets: a fixed number of lanes, each holding one until it finishes, then the next moves in.

Data sets lie one behind the other in flat rows; a lane is a position in them. So a data set that moves in
copies nothing, sets of every length share one compiled shape, and padding costs at most one block of rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .groups import Groups
from .likelihood import Likelihood, Objective
from .loop import Solution, nothing_to_find, running, search, solution
from .model import Model
from .parameters import Parameters
from .solvers import Solver, Stop

#: Steps between two looks at which lanes have finished.
STRIDE = 2
#: Rows that all lanes together evaluate at once; more no longer fit into a core's cache.
TILE_ROWS = 1 << 11
#: Data sets and rows of a piece: what is on the device at a time.
PIECE_SETS, PIECE_ROWS = 1 << 12, 1 << 20


class Sets(eqx.Module):
    """A piece of the work on the device: data sets in flat rows.

    Args:
        model: the log-density with its companions.
        rows: PyTree of arrays, leading axis `(rows,)`.
        weights: shape `(rows,)`, or `None`.
        args: third argument of the model.
        offset: first row of each set, shape `(n_sets,)`.
        length: number of its rows.
        anchor: position of a row with a positive weight; `None` without weights.
        longest: rows of the longest set.
        block: rows evaluated at once in a lane.
    """

    model: Model
    rows: PyTree
    weights: Float[Array, " rows"] | None
    args: PyTree
    offset: Int[Array, " n_sets"]
    length: Int[Array, " n_sets"] | None
    anchor: Int[Array, " n_sets"] | None
    longest: int = eqx.field(static=True)
    block: int = eqx.field(static=True)

    @property
    def n_sets(self) -> int:
        """Number of data sets, the empty ones at the end of a piece included."""
        return self.offset.shape[0]

    def likelihood(self, i: Int[Array, ""]) -> Likelihood:
        """The likelihood of data set `i`."""
        pick = lambda array: None if array is None else array[i]  # noqa: E731
        return Likelihood(
            model=self.model,
            data=self.rows,
            weights=self.weights,
            args=self.args,
            offset=self.offset[i],
            length=pick(self.length),
            anchor=pick(self.anchor),
            longest=self.longest,
            block=self.block,
        )


def run(
    solver: Solver,
    objective: Callable[[Int[Array, ""]], Objective],
    free: Float[Array, "n_sets n_free"],
    stop: Stop,
    n_lanes: int,
) -> Any:
    """The solver's last states on all data sets, in their order.

    Args:
        solver: the solver.
        objective: the objective of data set `i`.
        free: the starts.
        stop: when to stop; `max_steps` for all, or one for each.
        n_lanes: number of lanes.
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
        slot = jnp.where(done, jnp.minimum(following + rank, n_sets), slot).astype(slot.dtype)
        fresh = jax.vmap(solver.init)(free[jnp.minimum(slot, n_sets - 1)])
        state = jax.tree.map(
            lambda new, old: jnp.where(done.reshape(done.shape + (1,) * (new.ndim - 1)), new, old), fresh, state
        )
        return state, slot, following + jnp.sum(done), results

    slot = jnp.arange(n_lanes)
    first = (jax.vmap(solver.init)(free[:n_lanes]), slot, jnp.asarray(n_lanes), jax.vmap(solver.init)(free))
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1] < n_sets), turn, first)[3]


@eqx.filter_jit
def solve_piece(
    solver: Solver, sets: Sets, parameters: Parameters, starts: PyTree, stop: Stop, n_lanes: int
) -> Solution:
    """The maxima of all data sets of a piece, every leaf with a leading axis of sets."""
    free = jax.vmap(parameters.free)(starts)
    fixed = jax.vmap(parameters.fixed_values)(starts)

    def objective(i: Array) -> Objective:
        values = jax.tree.map(lambda value: value[i], fixed)
        return Objective(sets.likelihood(i), parameters.with_values(values))

    every = jnp.arange(sets.n_sets)
    if not parameters.n_free:
        return jax.lax.map(lambda i: nothing_to_find(objective(i)), every, batch_size=n_lanes)

    def drive(solver: Solver, free: Array, stop: Stop) -> Any:
        return run(solver, objective, free, stop, n_lanes)

    states, steps = search(solver, drive, free, stop)
    settle = lambda state, count, i: solution(objective(i), state, count)  # noqa: E731
    return jax.vmap(settle)(states, steps, every)


@dataclasses.dataclass(frozen=True)
class Work:
    """Rows times steps: what was needed, and what was evaluated.

    Args:
        needed: rows of the data sets times the steps each took.
        padding: rows added to fill whole blocks, times those steps.
        evaluated: rows that all lanes ran over, waiting ones included.
    """

    needed: int
    padding: int
    evaluated: int


@dataclasses.dataclass(frozen=True)
class Collection:
    """All data sets of a batch, wherever they are: flat rows, and where each set lies in them.

    Args:
        rows: PyTree of arrays, leading axis of all rows.
        weights: shape `(rows,)`, or `None`.
        args: third argument of the model.
        offsets: first row of each set.
        lengths: number of its rows; `None` where every set has `longest`.
        longest: rows of the longest set.
    """

    rows: PyTree
    weights: Any
    args: PyTree
    offsets: np.ndarray
    lengths: Any
    longest: int

    @property
    def n_sets(self) -> int:
        """Number of data sets."""
        return len(self.offsets)

    def block(self, model: Model) -> int:
        """Rows that a lane evaluates at once: few where sets differ in length, all where they do not."""
        if model.is_joint or (self.lengths is None and self.longest <= 512):
            return 0
        typical = self.longest if self.lengths is None or _traced(self.lengths) else int(np.median(self.lengths))
        return min(256, max(8, power_of_two(typical) // 4))

    def lanes(self, model: Model) -> int:
        """How many lanes fill a core's cache."""
        rows = self.block(model) or self.longest
        return min(1024, max(32, power_of_two(TILE_ROWS // rows)))

    def whole(self, model: Model) -> Sets:
        """All data sets as one piece; the only way under a trace."""
        offset = jnp.asarray(self.offsets)
        return Sets(
            model=model,
            rows=self.rows,
            weights=self.weights,
            args=self.args,
            offset=offset,
            length=None if self.lengths is None else jnp.asarray(self.lengths),
            anchor=self._anchor_traced(),
            longest=self.longest,
            block=self.block(model),
        )

    def _anchor_traced(self) -> Any:
        if self.weights is None:
            return None
        counting = jnp.reshape(self.weights > 0, (self.n_sets, -1))
        return jnp.argmax(counting, axis=1)

    def pieces(self, model: Model) -> Iterator[tuple[np.ndarray, Sets]]:
        """The data sets in pieces of one compiled shape, longest sets first.

        Yields the numbers of the sets in the piece, and the piece; it may end with sets of no rows.
        """
        lengths = self._known_lengths()
        n_sets, n_rows = self._piece_shape(lengths)
        for chosen in self._partition(model, lengths):
            yield chosen, self._piece(model, chosen, lengths[chosen], n_sets, n_rows)

    def work(self, model: Model, steps: np.ndarray, n_lanes: int | None = None) -> Work:
        """What the lanes evaluated for a search that took so many `steps` a data set.

        Counted by going through the schedule again: lanes step together, and all of them run over as many
        blocks as the longest set that any of them holds.
        """
        lengths = self._known_lengths()
        width, lanes = self.block(model), n_lanes or self.lanes(model)
        needed = int((lengths * steps).sum())
        padding = evaluated = 0
        for chosen in self._partition(model, lengths):
            size = width or (self.longest if self.lengths is None else power_of_two(int(lengths[chosen].max())))
            blocks = -(-lengths[chosen] // size)
            left = np.append(steps[chosen], 0)
            padding += int((blocks * size * steps[chosen] - lengths[chosen] * steps[chosen]).sum())
            slot = np.arange(min(lanes, len(chosen)))
            following = len(slot)
            blocks = np.append(blocks, 0)
            while np.any(slot < len(chosen)):
                evaluated += STRIDE * len(slot) * size * int(blocks[slot].max())
                left[slot] -= STRIDE
                done = left[slot] <= 0
                slot = np.where(done, np.minimum(following + np.cumsum(done) - 1, len(chosen)), slot)
                following += int(done.sum())
        return Work(needed, padding, evaluated)

    def _known_lengths(self) -> np.ndarray:
        return np.full(self.n_sets, self.longest) if self.lengths is None else np.asarray(self.lengths)

    def _piece_shape(self, lengths: np.ndarray) -> tuple[int, int]:
        """Data sets and rows that every piece has room for."""
        budget = max(PIECE_ROWS, power_of_two(self.longest))
        return min(PIECE_SETS, power_of_two(self.n_sets)), min(budget, power_of_two(int(lengths.sum())))

    def _partition(self, model: Model, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """The numbers of the sets of each piece."""
        order = np.argsort(-lengths, kind="stable")
        n_sets, n_rows = self._piece_shape(lengths)
        start = 0
        while start < len(order):
            within = lengths[order[start : start + n_sets]]
            fits = np.cumsum(within) <= n_rows
            if model.is_joint:
                # A joint model sees whole sets at once, so sets of a piece must be of similar length.
                fits &= 2 * within >= within[0]
            count = max(1, int(fits.sum()))
            yield order[start : start + count]
            start += count

    def _piece(
        self, model: Model, chosen: np.ndarray, lengths: np.ndarray, n_sets: int, n_rows: int
    ) -> Sets:
        offset = np.zeros(n_sets, np.int32)
        length = np.zeros(n_sets, np.int32)
        ends = np.cumsum(lengths)
        offset[: len(chosen)], length[: len(chosen)] = ends - lengths, lengths
        total = int(ends[-1])
        # Row j of the piece is row source[j] of the collection.
        source = np.zeros(n_rows, np.int64)
        source[:total] = np.arange(total) + np.repeat(self.offsets[chosen] - (ends - lengths), lengths)
        take = lambda leaf: leaf[source]  # noqa: E731
        weights = None if self.weights is None else take(self.weights)
        anchor = None
        if weights is not None:
            counting = np.flatnonzero(np.asarray(weights) > 0)
            place = np.searchsorted(counting, offset)
            first = counting[np.minimum(place, max(len(counting) - 1, 0))] if len(counting) else offset
            anchor = jnp.asarray(np.where((first >= offset) & (first < offset + length), first - offset, 0))
        even = self.lengths is None and len(chosen) == n_sets
        longest = self.longest if self.lengths is None else power_of_two(self.longest)
        if model.is_joint and self.lengths is not None:
            longest = power_of_two(int(lengths[0]))
        return Sets(
            model=model,
            rows=jax.tree.map(lambda leaf: jnp.asarray(take(leaf)), self.rows),
            weights=None if weights is None else jnp.asarray(weights),
            args=self.args,
            offset=jnp.asarray(offset),
            length=None if even else jnp.asarray(length),
            anchor=anchor,
            longest=longest,
            block=self.block(model),
        )


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
        starts: PyTree of starting parameters, every leaf with a leading axis of sets.
        solver: the solver.
        stop: when to stop.
        n_lanes: number of lanes; by default as many as fill the cache.
        report: called with the solutions of each finished piece.
    """
    width = n_lanes or collection.lanes(model)

    def work(sets: Sets, starts: PyTree) -> Solution:
        return solve_piece(solver, sets, parameters, starts, stop, width)

    if _traced((collection.rows, collection.weights, collection.args, collection.lengths, starts)):
        return work(collection.whole(model), starts)
    return _in_pieces(collection, model, starts, work, report)


def map_sets(
    fn: Callable[[Objective, Any], Any],
    collection: Collection,
    model: Model,
    parameters: Parameters,
    value: PyTree,
) -> Any:
    """`fn(objective, value)` for every data set, in their order, with memory bounded by a piece.

    Args:
        fn: what is wanted of one data set; compiled once for as long as it is the same function.
        collection: the data sets.
        model: the model.
        parameters: how its parameters map to the free vector; its arrays have a leading axis of sets.
        value: what `fn` needs, arrays with a leading axis of sets.
    """
    width = collection.lanes(model)
    arrays, rest = eqx.partition((parameters, value), eqx.is_array)
    work = functools.partial(_map_piece, fn, rest=rest, width=width)
    if _traced((arrays, collection.rows)):
        return work(collection.whole(model), arrays)
    return _in_pieces(collection, model, arrays, work)


@eqx.filter_jit
def _map_piece(fn: Callable[..., Any], sets: Sets, arrays: PyTree, *, rest: PyTree, width: int) -> Any:
    def one(pair: tuple[Array, Any]) -> Any:
        parameters, value = eqx.combine(pair[1], rest)
        return fn(Objective(sets.likelihood(pair[0]), parameters), value)

    return jax.lax.map(one, (jnp.arange(sets.n_sets), arrays), batch_size=min(width, sets.n_sets))


def _in_pieces(
    collection: Collection,
    model: Model,
    arrays: PyTree,
    work: Callable[[Sets, PyTree], Any],
    report: Callable[[Any], None] | None = None,
) -> Any:
    """`work(sets, arrays)` on one piece after the other, put together in the order of the sets."""
    arrays = jax.tree.map(np.asarray, arrays)
    numbers, parts = [], []
    for chosen, sets in collection.pieces(model):
        filled = np.concatenate([chosen, np.full(sets.n_sets - len(chosen), chosen[-1])])
        out = work(sets, jax.tree.map(lambda leaf: jnp.asarray(leaf[filled]), arrays))  # noqa: B023
        numbers.append(chosen)
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf[: len(chosen)]), out))  # noqa: B023
        if report is not None:
            report(parts[-1])
    back = np.argsort(np.concatenate(numbers), kind="stable")
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)[back]), *parts)


def _traced(tree: PyTree) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def from_arrays(data: PyTree, weights: Any, lengths: Any, args: PyTree) -> Collection:
    """The collection of data sets in arrays of shape `(n_sets, n_obs, ...)`, padded at the end if `lengths`."""
    n_sets, n_obs = jnp.shape(jax.tree.leaves(data)[0])[:2]
    flat = lambda leaf: leaf.reshape(n_sets * n_obs, *leaf.shape[2:])  # noqa: E731
    return Collection(
        rows=jax.tree.map(flat, data),
        weights=None if weights is None else flat(weights),
        args=args,
        offsets=np.arange(n_sets) * n_obs,
        lengths=lengths if lengths is None or _traced(lengths) else np.asarray(lengths),
        longest=n_obs,
    )


def from_groups(groups: Groups, index: np.ndarray, weight_column: str | None, args: PyTree) -> Collection:
    """The collection of the groups with these numbers."""
    lengths = groups.lengths[index]
    return Collection(
        rows=groups.columns,
        weights=None if weight_column is None else groups.columns[weight_column],
        args=args,
        offsets=groups.offsets[index],
        lengths=lengths,
        longest=int(lengths.max()),
    )


def starts(init: Callable[[PyTree], PyTree], collection: Collection) -> PyTree:
    """`init(data)` of every data set, as arrays with a leading axis of sets.

    Sets of unequal length are filled up to the next power of two by repeating their rows in turn, so that few
    shapes are compiled and means and quantiles stay about the same: a start need not be exact.
    """
    rows, offsets = collection.rows, jnp.asarray(collection.offsets)
    if collection.lengths is None or _traced((rows, collection.lengths)):
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
    arrays, rest = eqx.partition(parts[0], eqx.is_array)
    merged = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *(eqx.filter(p, eqx.is_array) for p in parts))
    return eqx.combine(merged, rest)


@eqx.filter_jit
def _starts(init: Callable[[PyTree], PyTree], rows: PyTree, offsets: Array, lengths: Array, width: int) -> PyTree:
    def one(offset: Array, length: Array) -> PyTree:
        index = offset + jnp.arange(width) % jnp.maximum(length, 1)
        start = init(jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], rows))
        number = lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float | int) else leaf  # noqa: E731
        return jax.tree.map(number, start)

    return eqx.filter_vmap(one)(offsets, lengths)


def power_of_two(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << max(0, int(number) - 1).bit_length()
