"""Many data sets from host memory: they stream through the lanes in pieces of one compiled shape."""

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
from jaxtyping import Array, Int, PyTree

from . import devices, reverse
from .alike import Alike
from .collection import Collection, Sets, power_of_two
from .compilation import THOROUGH_ROWS, Compiled
from .lanes import for_each, run
from .likelihood import Likelihood
from .loop import Solution, nothing_to_find, search, solution
from .model import Model
from .objective import Objective
from .parameters import Parameters
from .solvers import Newton, Solver, Stop
from .status import Status
from .trees import is_array, numbers_as_arrays, on_host, traced, tracing


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
    warm_up: bool,
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

        states, steps = search(solver, drive, jax.vmap, free, stop, warm_up)

        def settle(i: Array) -> Solution:
            return solution(objective(i), pick(states, i), steps[i], stop)

        settled = for_each(settle, n_sets, n_lanes)
        return settled, sum(blocks, jnp.zeros((), jnp.int32))

    return devices.spread(one, mesh)(sets, starts)


def solve(
    collection: Collection | Alike,
    model: Model,
    parameters: Parameters,
    starts: PyTree,
    solver: Solver,
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
    if isinstance(collection, Alike):
        found = collection.solve(model, parameters, starts, solver, stop)
        if report is not None:
            report(found)
        return found
    width = n_lanes or collection.lanes(model)
    two_ways = has_two_ways(solver, model)
    warm_up = two_ways and not near
    rest = (solver, model, collection.args, parameters, stop, width)
    if collection.traced or tracing(starts):
        return solve_piece(collection.whole(model), starts, None, *rest, warm_up)[0]
    found = _solve(collection, starts, rest, warm_up, report)
    if two_ways and len(failed := np.flatnonzero(unproven(found.status))):
        begun = jax.tree.map(lambda leaf: np.asarray(leaf)[failed], starts)
        again = _solve(collection.some(failed), begun, rest, not warm_up, None)
        better = np.asarray(again.status == Status.converged)
        place = failed[better]
        found = jax.tree.map(lambda old, new: old.at[place].set(new[better]), found, again)
    return found


def has_two_ways(solver: Solver, model: Model) -> bool:
    """Whether a search may begin on the expected information: not where that is dear."""
    return isinstance(solver, Newton) and model.regression is not None and model.regression.family.closed_form


def unproven(status: Any) -> np.ndarray:
    """Whether a search found no maximum where another one might."""
    codes = np.asarray(status)
    return (codes != Status.converged) & (codes < Status.nonfinite_start)


def _solve(
    collection: Collection,
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
    return _in_pieces(solve_piece, collection, model, parameters.n_free, width, starts, rest, finish)


def map_sets(
    fn: Callable[[Objective, Any], Any],
    collection: Collection | Alike,
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
    if isinstance(collection, Alike):
        return collection.map(fn, model, parameters, value)
    width = collection.lanes(model)
    arrays, others = eqx.partition((parameters, value, own), is_array)
    rest = (fn, model, collection.args, others, width)
    if collection.traced or tracing(arrays):
        return _map_apart(collection.apart(model), arrays, others, fn, width)

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


@Compiled
def _map_apart(
    likelihoods: tuple[Likelihood, Likelihood], arrays: PyTree, others: PyTree, fn: Callable[..., Any], width: int
) -> Any:
    """`map_sets` under a trace, in a form that reverse mode can cross."""
    own, shared = likelihoods

    def one(values: tuple[Likelihood, PyTree]) -> Any:
        likelihood = eqx.combine(values[0], shared)
        parameters, value, mine = eqx.combine(values[1], others)
        if mine is not None:
            likelihood = dataclasses.replace(likelihood, model=mine[0], args=mine[1])
        return fn(Objective(likelihood, parameters), value)

    return reverse.mapped(one, (own, arrays), width)


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
    arrays = jax.tree.map(on_host, arrays)
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
            if program.alone or len(under_way) > devices.at_once(mesh):
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
