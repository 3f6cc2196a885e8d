"""XLA programs, on whichever device JAX uses: data sets move through lanes."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from ..core import devices
from ..core.compilation import THOROUGH_ROWS, Compiled
from ..core.runtime_errors import Raised
from ..likelihood.objective import Objective
from ..likelihood.ragged import Chunk, RaggedBatch
from ..solvers import AbstractSolver, Stop
from .backend import XLA, AbstractBackend, Finish, asked_for
from .chunks import run_chunks
from .lanes import for_each, run_lanes
from .problem import Problem
from .search import maximise, search
from .solution import Solution, nothing_to_find, solution


class Searched(NamedTuple):
    """The end of the searches of a chunk.

    Args:
        states: the last state of each search; its leaves have a leading axis of data sets.
        steps: steps taken by each.
        blocks: blocks of rows that were run over, those of padding included.
    """

    states: Any
    steps: Int[Array, " n_sets"]
    blocks: Int[Array, ""]


class XLABackend(AbstractBackend):
    """XLA: whatever JAX can trace, it can run."""

    name: ClassVar[str] = XLA

    def supports(self, problem: Problem) -> bool:
        """True unless another backend was asked for, which can search for something."""
        return asked_for(problem) in (None, self.name) or not problem.parameters.n_free

    def solve_chunks(
        self, problem: Problem, n_lanes: int, warm_up: bool, finish: Finish, lost: Raised
    ) -> Solution:
        """As `AbstractBackend.solve_chunks`: as many chunks are under way as there is room for."""
        batch: RaggedBatch = problem.likelihood
        shared = (problem.of(batch.bound, []), n_lanes, warm_up)
        n_free, starts = problem.parameters.n_free, problem.starts
        found: Solution = run_chunks(solve_chunk, batch, n_free, n_lanes, starts, shared, finish, lost)
        return found

    def solve_one(self, problem: Problem, warm_up: bool) -> Solution:
        """As `AbstractBackend.solve_one`; what the log-density raises is raised."""
        if is_thorough(problem):
            program = solve_one.lower_and_compile(problem, warm_up, thorough=True)
            return jax.block_until_ready(program(problem, warm_up))
        return jax.block_until_ready(solve_one(problem, warm_up))


def is_thorough(problem: Problem) -> bool:
    """True if a search takes so long that the most thorough compilation pays."""
    return problem.likelihood.rows >= THOROUGH_ROWS


solve_one = Compiled(maximise)


def search_chunk(chunk: Chunk, problem: Problem, n_lanes: int, warm_up: bool) -> Searched:
    """The searches of all data sets of a chunk.

    Args:
        chunk: the data sets.
        problem: the rest; its likelihood is the `BoundModel` that they share, its starts are theirs.
        n_lanes: data sets that are searched side by side.
        warm_up: True if Newton's method begins with the expected information.
    """
    parameters, n_sets = problem.parameters, chunk.n_sets
    objective = _objectives(chunk, problem)
    count = jnp.asarray(chunk.count, jnp.int32)

    def start(i: Array) -> Array:
        return parameters.free(parameters.join(_pick(problem.starts, i)))

    free = for_each(start, n_sets, n_lanes)
    n_obs = for_each(lambda i: objective(i).n_obs, n_sets, n_lanes)
    blocks = []

    def drive(solver: AbstractSolver, states: Any, stop: Stop) -> Any:
        states, turned = run_lanes(solver, objective, states, n_obs, stop, n_lanes, count)
        blocks.append(turned)
        return states

    states, steps = search(problem.solver, drive, jax.vmap, free, problem.stop, warm_up)
    return Searched(states, jnp.asarray(steps), sum(blocks, jnp.zeros((), jnp.int32)))


def solutions(chunk: Chunk, problem: Problem, found: Searched, n_lanes: int) -> Solution:
    """The solutions of all data sets of a chunk, with status and certificate, from the last states of a solver."""
    objective = _objectives(chunk, problem)

    def of_set(i: Array) -> Solution:
        return solution(objective(i), _pick(found.states, i), found.steps[i], problem.stop)

    return for_each(of_set, chunk.n_sets, n_lanes, jnp.asarray(chunk.count))


@Compiled
def solve_chunk(
    chunk: Chunk,
    starts: list[Array],
    mesh: Any,
    problem: Problem,
    n_lanes: int,
    warm_up: bool,
) -> tuple[Solution, Int[Array, ""]]:
    """The solutions of all data sets of a chunk, leaves with a leading axis of sets; and the blocks run over."""

    def on_device(chunk: Chunk, starts: list[Array]) -> tuple[Solution, Array]:
        here = problem.of(problem.likelihood, starts)
        if not problem.parameters.n_free:
            objective = _objectives(chunk, here)
            count = jnp.asarray(chunk.count)
            found = for_each(lambda i: nothing_to_find(objective(i)), chunk.n_sets, n_lanes, count)
            return found, jnp.asarray(chunk.n_sets)
        searched = search_chunk(chunk, here, n_lanes, warm_up)
        return solutions(chunk, here, searched, n_lanes), searched.blocks

    return devices.shard_mapped(on_device, mesh)(chunk, starts)


def _objectives(chunk: Chunk, problem: Problem) -> Any:
    """The objective of data set `i` of a chunk, as a function of `i`."""
    fixed = problem.parameters.fixed_leaves(problem.starts)

    def objective(i: Array) -> Objective:
        parameters = problem.parameters.with_values(_pick(fixed, i))
        return Objective(chunk.likelihood(problem.likelihood, i), parameters)

    return objective


def _pick(tree: PyTree, i: Array) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], tree)
