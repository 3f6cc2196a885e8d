"""The maxima of many data sets: chunk by chunk, from one start or from many.

The loop over the data sets of a chunk is `lanes.run_lanes`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..core import differentiable_loops
from ..core.compilation import Compiled
from ..core.runtime_errors import RUNTIME_ERRORS, Raised, raised
from ..core.status import OBSTRUCTED, Status, unproven
from ..core.trees import numbers_as_arrays, replace_rows, traced, tracing
from ..likelihood.objective import Objective
from ..likelihood.ragged import Chunk, RaggedBatch, power_of_two
from . import multistart
from .apart import run_apart
from .backend import AbstractBackend, leave_to_xla, run_by_first
from .chunks import account
from .implicit import Linearisation, differentiable_weights
from .modes import Modes
from .native_backend import ROWS_ELSEWHERE, UNDER_A_TRACE, NativeBackend
from .problem import Problem
from .repeated import RepeatedLikelihood, solve_repeated
from .solution import Solution
from .stepwise import search_each
from .xla_backend import XLABackend, solve_chunk

#: In the order in which they are asked; XLA takes everything.
BACKENDS: tuple[AbstractBackend, ...] = (NativeBackend(), XLABackend())

#: Reports the solutions of each finished chunk.
Report = Callable[[Solution], None]


def solve_batch(
    problem: Problem,
    n_lanes: int | None = None,
    report: Report | None = None,
    near: bool = False,
    lost: Raised | None = None,
) -> Solution:
    """The maxima of all data sets, in their order.

    Those of a regression begin with steps on the expected information, unless their maxima are near. Where one way
    proves nothing, the other is tried.

    Args:
        problem: of many data sets; its likelihood is a `RaggedBatch` or a `RepeatedLikelihood`.
        n_lanes: number of lanes; by default as many as suit the device.
        report: called with the solutions of each finished chunk.
        near: True if the starts are close to the maxima.
        lost: gets what log-densities raise; outside a trace, that is the end of their own data sets alone.
    """
    batch, starts = problem.likelihood, problem.starts
    lost = {} if lost is None else lost
    if isinstance(batch, RepeatedLikelihood):
        leave_to_xla(problem, ROWS_ELSEWHERE)
        found = solve_repeated(problem, lost)
        if report is not None:
            report(found)
        return found
    width = n_lanes or batch.lanes()
    warm_up = problem.has_two_ways and not near
    if batch.traced or tracing(starts):
        leave_to_xla(problem, UNDER_A_TRACE)
        return _solve_as_one(problem, width, warm_up, lost)
    plain = None if warm_up else problem.plain
    found = _solve_chunks(plain or problem, width, warm_up, report, lost)
    if plain is not None and len(places := np.flatnonzero(np.asarray(found.status) == OBSTRUCTED)):
        more: Raised = {}
        passed = _solve_chunks(_those(problem, places), width, False, None, more)
        lost.update({int(places[i]): said for i, said in more.items()})
        found = jax.tree.map(lambda old, new: replace_rows(places, old, new), found, passed)
    if problem.has_two_ways and len(places := np.flatnonzero(unproven(np.asarray(found.status)))):
        again = _solve_chunks(_those(problem, places), width, not warm_up, None, {})
        better = np.asarray(again.status == Status.converged)
        proven = places[better]
        found = jax.tree.map(lambda old, new: replace_rows(proven, old, new[better]), found, again)
    return found


def _those(problem: Problem, places: np.ndarray) -> Problem:
    """The problem of some of the data sets."""
    starts = jax.tree.map(lambda leaf: np.asarray(leaf)[places], problem.starts)
    return problem.of(problem.likelihood.subset(places), starts)


def _solve_as_one(problem: Problem, n_lanes: int, warm_up: bool, lost: Raised) -> Solution:
    """`solve_batch` in one chunk, under a trace or not."""
    shared = (None, problem.of(problem.likelihood.bound, []), n_lanes, warm_up)

    def run(chunk: Chunk, starts: list[Any]) -> Solution:
        return solve_chunk(chunk, starts, *shared)[0]

    chunk, starts = problem.likelihood.as_chunk(), problem.starts
    if traced((chunk, shared)) or tracing(starts):
        return run(chunk, starts)
    try:
        return jax.block_until_ready(run(chunk, starts))
    except RUNTIME_ERRORS as error:
        raised(error)
    shapes = jax.eval_shape(lambda starts: run(chunk, starts), starts)
    on_host = lambda *part: jax.tree.map(np.asarray, run(*part))  # noqa: E731
    found, here = run_apart(on_host, chunk, jax.tree.map(np.asarray, starts), shapes)
    found = _with_lost(problem, jax.tree.map(jnp.asarray, found), warm_up, here)
    lost.update(here)
    return found


def _solve_chunks(problem: Problem, n_lanes: int, warm_up: bool, report: Report | None, lost: Raised) -> Solution:
    """`solve_batch` in one way, outside a trace."""
    batch: RaggedBatch = problem.likelihood
    rows, kept = batch.block() or batch.longest, account()

    here: Raised = {}

    def finish(out: tuple[Solution, Any], count: int, places: np.ndarray) -> Solution:
        found, blocks = out
        if len(places):
            found.status[places] = Status.raised
        if kept is not None:
            kept.add(blocks, rows)
        found = jax.tree.map(lambda leaf: leaf[:count], found)
        if report is not None:
            report(found)
        return found

    found = run_by_first(BACKENDS, problem, lambda one: one.solve_chunks(problem, n_lanes, warm_up, finish, here))
    found = _with_lost(problem, found, warm_up, here)
    lost.update(here)
    return found


def _with_lost(problem: Problem, found: Solution, warm_up: bool, lost: Raised) -> Solution:
    """The solutions with those of data sets that raised, each searched once more, step by step."""
    if not lost:
        return found
    places = np.array(sorted(lost))
    those, starts = problem.likelihood.subset(places), jax.tree.map(np.asarray, problem.starts)
    whole = [(np.arange(len(places)), those.as_chunk())]
    ends, order = [], []
    for chosen, chunk in whole if those.one_chunk else those.chunks(problem.parameters.n_free, 1):
        here = jax.device_put(chunk)
        mine = [
            problem.of(here.likelihood(those.bound, jnp.asarray(i)), [leaf[place] for leaf in starts])
            for i, place in enumerate(places[chosen])
        ]
        each, said = search_each(mine, warm_up, [lost[int(place)] for place in places[chosen]])
        ends.append(each)
        order.append(places[chosen])
        lost.update({int(places[chosen][i]): text for i, text in said.items()})
    every = jax.tree.map(lambda *parts: jnp.concatenate(parts), *ends)
    return jax.tree.map(functools.partial(replace_rows, np.concatenate(order)), found, every)


def solve_from_starts(
    problem: Problem,
    keys: Array | None,
    drawn: list[Any] | None,
    n_lanes: int | None = None,
    report: Report | None = None,
    lost: Raised | None = None,
) -> tuple[Solution, Modes | None]:
    """The maxima of a batch, and where there are keys the best that many starts find, and their modes.

    Args:
        problem: of a batch; its likelihood is a `BatchLikelihood`.
        keys: random keys, one a start.
        drawn: the leaves of the starts but the first, if they were drawn already.
        n_lanes: as in `solve_batch`.
        report: likewise.
        lost: likewise; of a data set what one of its starts raised.
    """
    here, lost = problem.of(problem.likelihood.ragged, problem.starts), {} if lost is None else lost
    found = solve_batch(here, n_lanes, report, lost=lost)
    if keys is None:
        return found, None

    def solve(problem: Problem) -> Solution:
        more: Raised = {}
        found = solve_batch(problem, n_lanes, report, lost=more)
        lost.update({i // (len(keys) - 1): said for i, said in more.items()})
        return found

    return multistart.best_of(keys, found, drawn, here, solve)


def linearise_batch(
    linearise: Callable[..., Linearisation],
    problem: Problem,
    tangents: Any,
    free: Array,
    proven: Array,
    held: Array | None,
) -> Linearisation:
    """The linearisation around the maximum of each data set; `implicit.maximum` says what the arguments are."""
    batch = problem.likelihood.ragged
    own, rest = batch.per_set()
    moving = jax.tree.map(lambda leaf: None, own)
    rows = tangents.likelihood.dataset.arrays
    weights = None if rows is None else rows[1]
    if rows is not None:
        moving = dataclasses.replace(moving, data=rows[0], weights=weights)
    of_batch = lambda tree: (tree.likelihood.model, tree.likelihood.args, tree.parameters)  # noqa: E731
    shared, shared_tangents = of_batch(problem), of_batch(tangents)

    def of_set(values: tuple[Any, ...]) -> Linearisation:
        mine, my_tangents, free, proven, held = values

        def objective(operands: PyTree) -> Objective:
            (own, starts), (model, args, parameters) = operands
            likelihood = dataclasses.replace(eqx.combine(own, rest), model=model, args=args)
            fixed = parameters.with_values(parameters.fixed_leaves(starts))
            return differentiable_weights(Objective(likelihood, fixed), weights, free)

        return linearise(objective, (mine, shared), (my_tangents, shared_tangents), free, proven, held)

    values = ((own, problem.starts), (moving, tangents.starts), free, proven, held)
    return differentiable_loops.checkpointed_map(of_set, values, batch.lanes())


def initial_starts(init: Callable[[PyTree], PyTree], batch: RaggedBatch) -> PyTree:
    """`init(data)` of every data set, as arrays with a leading axis of sets.

    Sets of unequal length are filled up to the next power of two by repeating their rows in turn, so that few
    shapes are compiled and means and quantiles stay about the same: a start need not be exact.
    """
    rows, offsets = batch.rows, jnp.asarray(batch.offsets)
    if batch.lengths is None or traced((rows, batch.lengths)):
        length = batch.longest if batch.lengths is None else batch.lengths
        return _initial_starts(init, rows, offsets, jnp.broadcast_to(length, offsets.shape), batch.longest)
    lengths = np.maximum(np.asarray(batch.lengths), 1)
    widths = np.array([power_of_two(length) for length in lengths])
    parts, numbers = [], []
    for width in np.unique(widths):
        chosen = np.flatnonzero(widths == width)
        source = batch.offsets[chosen][:, None] + np.arange(width) % lengths[chosen][:, None]
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
    def of_set(offset: Array, length: Array) -> PyTree:
        index = offset + jnp.arange(width) % jnp.maximum(length, 1)
        start = init(jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], rows))
        return numbers_as_arrays(start)

    return eqx.filter_vmap(of_set)(offsets, lengths)
