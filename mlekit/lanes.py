"""Many data sets: a fixed number of lanes, each holding one until it finishes, then the next moves in."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from . import devices
from .collection import Collection, Sets, power_of_two
from .compilation import THOROUGH_ROWS, Compiled
from .loop import Solution, nothing_to_find, running, search, solution
from .model import Model
from .objective import Objective
from .parameters import Parameters
from .solvers import Solver, Stop
from .solvers.base import Stepwise
from .trees import is_array, numbers_as_arrays, pack, traced, tracing, unpack

#: Where lanes are many, a data set that takes more steps than `LONG_SEARCH` finishes in lanes that are few: many
#: shall not wait for one at the end. It depends on the data set alone, and so does what comes out.
LONG_SEARCH, MANY_LANES, FEWER = 40, 512, 16
#: Where a step takes several blocks of rows, the solver serves this fraction of the lanes at a time: a fourth.
SERVED = 4


@dataclasses.dataclass
class Account:
    """What lanes did: rows that all of them ran over, those of waiting lanes and of padding included."""

    rows: int = 0


_ACCOUNT: contextvars.ContextVar[Account | None] = contextvars.ContextVar("account", default=None)


@contextlib.contextmanager
def accounting() -> Iterator[Account]:
    """Counts what the lanes do for the fits that are made inside."""
    account = Account()
    token = _ACCOUNT.set(account)
    try:
        yield account
    finally:
        _ACCOUNT.reset(token)


def run(
    solver: Solver,
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
    left = running(states, last) & (every < count)
    queue = (jnp.argsort(~left, stable=True), jnp.sum(left))
    states, more = _turns(solver, objective, states, n_obs, last, n_lanes // FEWER, *queue)
    return states, blocks + more


class Lanes(eqx.Module):
    """What lanes hold, and the states of all data sets.

    Args:
        place: which data set of the queue is in each lane; `count` once there is none left.
        candidate: the point where its derivatives are wanted.
        sums: what its blocks of rows so far add up to.
        block: how many these are.
        following: the next in the queue.
        shelf: where the solver stands on each data set, packed.
        turns: blocks of rows that each lane has run over.
    """

    place: Int[Array, " n_lanes"]
    candidate: Float[Array, "n_lanes n_free"] | None
    sums: PyTree
    block: Int[Array, " n_lanes"]
    following: Int[Array, ""]
    shelf: tuple[Array, ...]
    turns: Int[Array, ""]


def _turns(
    solver: Solver,
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
    n_sets = order.shape[0]
    like = jax.tree.map(lambda leaf: leaf[0], states)
    stepwise = solver if isinstance(solver, Stepwise) else None
    sample = objective(jnp.asarray(0))
    kind = stepwise.derivatives(sample) if stepwise else ""
    whole = stepwise is None or sample.likelihood.n_blocks == 1
    n_served = n_lanes if whole else max(1, n_lanes // SERVED)

    def slot(place: Array) -> Array:
        return order[jnp.minimum(place, n_sets - 1)]

    def stored(shelf: tuple[Array, ...], place: Array) -> Any:
        return jax.vmap(lambda *rows: unpack(rows, like))(*(rows[slot(place)] for rows in shelf))

    def candidate(shelf: tuple[Array, ...], place: Array) -> Any:
        return jax.vmap(stepwise.candidate)(stored(shelf, place)) if stepwise else None

    def evaluate(i: Array, candidate: Any, sums: Any, b: Array) -> Any:
        """One more block of rows."""
        if stepwise is None:
            return sums
        part = objective(i).part(kind, candidate, b)
        return jax.tree.map(lambda total, new: (new if whole else total + new).astype(total.dtype), sums, part)

    def step(i: Array, state: Any, sums: Any) -> Any:
        """A step of the solver after the last block."""
        until = Stop(stop.tolerance, stop.max_steps[i])
        if stepwise is None:
            return solver.step(objective(i), state, until)
        return stepwise.learn(state, objective(i).mean(sums, n_obs[i]), n_obs[i], until)

    def complete(lanes: Lanes) -> Array:
        """The lanes that have run over all their rows."""

        def rows_left(i: Array, block: Array) -> Array:
            likelihood = objective(i).likelihood
            length = likelihood.rows if likelihood.length is None else likelihood.length
            return block * likelihood.block < length

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
        following = jnp.minimum(lanes.following + jnp.cumsum(done) - 1, count)
        place = jnp.where(done, following, place).astype(place.dtype)
        return Lanes(
            place=put(lanes.place, place),
            candidate=jax.tree.map(put, lanes.candidate, candidate(shelf, place)),
            sums=jax.tree.map(lambda leaf: put(leaf, jnp.zeros_like(pick(leaf))), lanes.sums),
            block=put(lanes.block, jnp.zeros_like(place)),
            following=lanes.following + jnp.sum(done, dtype=jnp.int32),
            shelf=shelf,
            turns=lanes.turns,
        )

    def turn(lanes: Lanes) -> Lanes:
        sums = jax.vmap(evaluate)(slot(lanes.place), lanes.candidate, lanes.sums, lanes.block)
        lanes = dataclasses.replace(lanes, sums=sums, block=lanes.block + 1, turns=lanes.turns + 1)
        if whole:
            return serve(lanes)
        return jax.lax.while_loop(lambda lanes: jnp.any(complete(lanes)), serve, lanes)

    shelf = jax.vmap(pack)(states)
    place = jnp.minimum(jnp.arange(n_lanes), count).astype(jnp.int32)
    nothing = sample.nothing(kind) if stepwise else ()
    empty = jax.tree.map(lambda leaf: jnp.zeros((n_lanes, *leaf.shape), leaf.dtype), nothing)
    zero = jnp.zeros((), jnp.int32)
    first = Lanes(
        place, candidate(shelf, place), empty, jnp.zeros_like(place), jnp.asarray(n_lanes, jnp.int32), shelf, zero
    )
    lanes = jax.lax.while_loop(lambda lanes: jnp.any(lanes.place < count), turn, first)
    return jax.vmap(lambda *rows: unpack(rows, like))(*lanes.shelf), lanes.turns * n_lanes


def for_each(fn: Callable[[Int[Array, ""]], Any], n_sets: int, width: int) -> Any:
    """`fn(i)` for every data set, `width` of them at once."""
    width = min(width, n_sets)
    index = jnp.minimum(jnp.arange(-(-n_sets // width) * width), n_sets - 1).reshape(-1, width)
    out = jax.lax.map(jax.vmap(fn), index)
    return jax.tree.map(lambda leaf: leaf.reshape(index.size, *leaf.shape[2:])[:n_sets], out)


@Compiled
def solve_piece(
    sets: Sets,
    starts: PyTree,
    mesh: Any,
    solver: Solver,
    model: Model,
    args: PyTree,
    parameters: Parameters,
    stop: Stop,
    n_lanes: int,
) -> tuple[Solution, Int[Array, ""]]:
    """The maxima of all data sets of a piece, every leaf with a leading axis of sets; and the blocks run over."""

    def one(sets: Sets, starts: PyTree) -> tuple[Solution, Array]:
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

        def drive(solver: Solver, states: Any, stop: Stop) -> Any:
            states, turned = run(solver, objective, states, n_obs, stop, n_lanes, count)
            blocks.append(turned)
            return states

        # Where the expected information is dear, the exact one costs hardly more.
        warm_up = model.regression is not None and model.regression.family.closed_form
        found = search(solver, drive, jax.vmap, free, stop, warm_up)
        settled = for_each(lambda i: solution(objective(i), *pick(found, i)), n_sets, n_lanes)
        return settled, sum(blocks, jnp.zeros((), jnp.int32))

    return devices.spread(one, mesh)(sets, starts)


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
        n_lanes: number of lanes; by default as many as suit the device.
        report: called with the solutions of each finished piece.
    """
    width = n_lanes or collection.lanes(model)
    rows = collection.block(model) or collection.longest

    rest = (solver, model, collection.args, parameters, stop, width)
    if collection.traced or tracing(starts):
        return solve_piece(collection.whole(model), starts, None, *rest)[0]
    account = _ACCOUNT.get()

    def finish(out: tuple[Solution, Any], count: int) -> Solution:
        found, blocks = out
        if account is not None:
            account.rows += int(blocks) * rows
        found = jax.tree.map(lambda leaf: leaf[:count], found)
        if report is not None:
            report(found)
        return found

    return _in_pieces(solve_piece, collection, model, parameters.n_free, width, starts, rest, finish)


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
    arrays, others = eqx.partition((parameters, value, own), is_array)
    rest = (fn, model, collection.args, others, width)
    if collection.traced or tracing(arrays):
        return _map_piece(collection.whole(model), arrays, None, *rest)

    def finish(out: Any, count: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[:count], out)

    return _in_pieces(_map_piece, collection, model, parameters.n_free, width, arrays, rest, finish)


@Compiled
def _map_piece(
    sets: Sets,
    arrays: PyTree,
    mesh: Any,
    fn: Callable[..., Any],
    model: Model,
    args: PyTree,
    others: PyTree,
    width: int,
) -> Any:
    def piece(sets: Sets, arrays: PyTree) -> Any:
        def one(i: Array) -> Any:
            parameters, value, own = eqx.combine(jax.tree.map(lambda leaf: leaf[i], arrays), others)
            mine, extra = (model, args) if own is None else own
            likelihood = sets.likelihood(mine, extra, i)
            return fn(Objective(likelihood, parameters), value)

        return for_each(one, sets.n_sets, width)

    return devices.spread(piece, mesh)(sets, arrays)


def _in_pieces(
    fn: Compiled,
    collection: Collection,
    model: Model,
    n_free: int,
    width: int,
    arrays: PyTree,
    rest: tuple[Any, ...],
    finish: Callable[..., Any],
) -> Any:
    """`finish(fn(sets, arrays, mesh, *rest))` of one piece after the other, put together in the order of the sets.

    As many pieces are under way as there is room for: the next ones are gathered and sent while these compute.
    Each runs in a thread of its own, as a CPU works off what one thread asks for one after the other.
    """
    arrays = jax.tree.map(np.asarray, arrays)
    # Other threads don't know what precision was chosen for this one: they get no numbers to convert.
    rest = jax.tree.map(lambda leaf: jnp.asarray(leaf) if is_array(leaf) else leaf, rest)
    mesh = devices.mesh()
    thorough = int(collection.row_counts.sum()) * collection.repeats >= THOROUGH_ROWS
    numbers: list[np.ndarray] = []
    parts: list[Any] = []
    under_way: collections.deque[tuple[list[np.ndarray], Future[list[PyTree]]]] = collections.deque()

    def work(program: Callable[..., Any], sets: Sets, arrays: PyTree) -> list[PyTree]:
        return devices.apart(program(sets, arrays, mesh, *rest), mesh)

    def collect() -> None:
        chosen, out = under_way.popleft()
        numbers.extend(chosen)
        parts.extend(finish(one, len(mine)) for mine, one in zip(chosen, out.result()))

    with ThreadPoolExecutor(devices.at_once(mesh)) as pool:
        for pieces in devices.groups(collection.pieces(model, n_free, width), mesh):
            own = [_of_sets(arrays, chosen, sets.n_sets) for chosen, sets in pieces]
            sent = devices.together([sets for _, sets in pieces], mesh), devices.together(own, mesh)
            program = fn.ahead(*sent, mesh, *rest, thorough=thorough)
            under_way.append(([chosen for chosen, _ in pieces], pool.submit(work, program, *sent)))
            if len(under_way) > devices.at_once(mesh):
                collect()
        while under_way:
            collect()
    back = np.argsort(np.concatenate(numbers), kind="stable")
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)[back]), *parts)


def _of_sets(arrays: PyTree, chosen: np.ndarray, n_sets: int) -> PyTree:
    """The arrays of the chosen sets, and as many of some set as it takes to fill a piece."""
    filled = np.concatenate([chosen, np.full(n_sets - len(chosen), chosen[-1] if len(chosen) else 0)])
    return jax.tree.map(lambda leaf: leaf[filled], arrays)


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


@Compiled
def _starts(init: Callable[[PyTree], PyTree], rows: PyTree, offsets: Array, lengths: Array, width: int) -> PyTree:
    def one(offset: Array, length: Array) -> PyTree:
        index = offset + jnp.arange(width) % jnp.maximum(length, 1)
        start = init(jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], rows))
        return numbers_as_arrays(start)

    return eqx.filter_vmap(one)(offsets, lengths)
