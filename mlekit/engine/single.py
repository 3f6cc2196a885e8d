"""One data set outside a trace: compiled, or step by step in sight; from one start or from many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.compilation import Compiled
from ..core.digest import digest_of, holds_own
from ..core.format.progress import batch_bar
from ..core.runtime_errors import RUNTIME_ERRORS, Raised, raised
from ..core.status import OBSTRUCTED, Status, unproven
from ..core.trees import batch_of_one, only_one, traced, tracing
from ..likelihood.dataset import AbstractDataset
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..likelihood.ragged import RaggedBatch, from_arrays
from . import batch_solve, host_loop, implicit, multistart, search
from .backend import leave_to_xla, run_by_first
from .checkpoint import Checkpointer, checkpointing
from .history import History, Recorder
from .host_loop import Callback
from .modes import Modes
from .native_backend import SHOWS_NO_STEPS, UNDER_A_TRACE
from .problem import Problem
from .repeated import RepeatedLikelihood
from .solution import Solution, compiled_solution
from .stepwise import search_stepwise
from .xla_backend import is_thorough, solve_one

#: A data set with more rows than this keeps the device busy by itself; lanes would only be in each other's way.
LONG_SET = 4096


def linearise_single(
    linearise: Callable[..., implicit.Linearisation], problem: Problem, tangents: Any, *rest: Array
) -> implicit.Linearisation:
    """The linearisation around the maximum; `implicit.maximum` says what the arguments are."""
    weights = getattr(tangents.likelihood, "weights", None)  # of rows in memory alone

    def objective(here: Problem) -> Objective:
        return implicit.differentiable_weights(here.reversible, weights, rest[0])

    return linearise(objective, problem, tangents, *rest)


def solve(
    problem: Problem,
    bar: Callback | None = None,
    history: bool = False,
    checkpoint: Any = None,
    dataset: AbstractDataset | None = None,
    lost: Raised | None = None,
) -> tuple[Solution, History | None]:
    """The maximum, and the path to it if that is wanted.

    Outside a trace a search in which the log-density raises is made again, step by step.

    Args:
        problem: the problem.
        bar: what shows the steps, if they are to be seen; under a trace they cannot.
        history: True if the path is wanted.
        checkpoint: where the state is saved, if it is.
        dataset: the data, where a state is saved.
        lost: gets what the log-density raises, as of data set 0.

    Raises:
        ValueError: a history or a checkpoint are wanted under a trace; or as `checkpointing`.
    """
    if tracing((problem.likelihood, problem.starts)):
        leave_to_xla(problem, UNDER_A_TRACE)
        if history:
            raise ValueError("history=True follows the search from Python, so it does not run under jit or vmap")
        if checkpoint is not None:
            raise ValueError("checkpoint follows the search from Python, so it does not run under jit or vmap")
        return solve_one(problem, False), None
    seen = history or bar is not None or checkpoint is not None
    if seen:
        leave_to_xla(problem, SHOWS_NO_STEPS)
    recorders = [Recorder() for _ in range(2 * history)]

    def search(warm_up: bool, checkpointer: Checkpointer | None) -> Solution:
        if seen:
            recorder = recorders[warm_up] if history else None
            return _watched(problem, warm_up, bar, recorder, checkpointer)
        return _search(problem, warm_up)

    # What runs raises where it is waited for.
    way = 0
    found = None
    try:
        with _keeping(problem, checkpoint, dataset) as checkpointer:
            found = jax.block_until_ready(search(False, checkpointer))
            if problem.has_two_ways and (seen or not is_thorough(problem)) and unproven(found.status):
                again = jax.block_until_ready(search(True, checkpointer))
                if again.status == Status.converged:
                    found, way = again, 1
    except RUNTIME_ERRORS as error:
        said = raised(error)
        if found is None:
            found, more = search_stepwise(problem)
            if lost is not None:
                lost[0] = more or said
    return found, recorders[way].history() if history and recorders[way] else None


def _keeping(
    problem: Problem, where: Any, dataset: AbstractDataset | None
) -> AbstractContextManager[Checkpointer | None]:
    """The checkpointer of the search, if one is wanted."""
    if where is None or dataset is None:
        return contextlib.nullcontext()
    parameters, likelihood = problem.parameters, problem.likelihood
    model = (likelihood.model, parameters, problem.start, problem.solver, likelihood.args)
    job = {
        "parameters": list(parameters.names),
        "free parameters": parameters.n_free,
        "solver": problem.solver.name,
        "precision": parameters.dtype.name,
        "fixed ones": [leaf.is_fixed for leaf in parameters.leaves],
        "tolerance": float(problem.stop.tolerance),
        "data": dataset.weighted_fingerprint,
        "model": digest_of(*model),
        "mean log-likelihood at the start": -float(dataset.checked(_at_start(problem))),
    }
    return checkpointing(where, job, dataset.check, ("model",) if holds_own(model) else ())


@Compiled
def _at_start(problem: Problem) -> Array:
    """Tells a model from others, and starts, at the cost of a sample of the rows."""
    likelihood = problem.likelihood
    if likelihood.has_sample:
        problem = problem.of(likelihood.of_sample(True), problem.starts)
    return problem.objective(problem.free)


def _search(problem: Problem, warm_up: bool) -> Solution:
    """The maximum, outside a trace: the longer program runs only where the shorter one meets a wall or a kink."""
    plain = None if warm_up or problem.likelihood.has_sample else problem.plain
    if plain is not None:
        found = run_by_first(batch_solve.BACKENDS, plain, lambda backend: backend.solve_one(plain, False))
        if found.status != OBSTRUCTED:
            return found
    return run_by_first(batch_solve.BACKENDS, problem, lambda backend: backend.solve_one(problem, warm_up))


def _watched(
    problem: Problem,
    warm_up: bool,
    bar: Callback | None,
    recorder: Recorder | None,
    checkpointer: Checkpointer | None,
) -> Solution:
    """`_search` with the loop in Python, so that its steps can be seen."""
    callbacks: list[Callback] = [callback for callback in (bar, recorder) if callback is not None]
    if problem.parameters.n_free:
        if checkpointer is not None and recorder is not None:
            checkpointer.record(recorder)
        last = search.last_state(problem, warm_up, host_loop.HostLoop(callbacks, checkpointer))
        found = compiled_solution(problem.objective, *last, problem.stop)
    else:
        found = solve_one(problem, False)
        for callback in callbacks:
            callback(found.steps, found.log_likelihood, found.decrement, found.estimates)
    return found


def best_of(
    keys: Array,
    drawn: list[Any] | None,
    first: Solution,
    problem: Problem,
    progress: bool,
    lost: Raised | None = None,
) -> tuple[Solution, Modes]:
    """The best that many starts find, and their modes.

    Args:
        keys: random keys, one a start.
        drawn: the leaves of the starts but the first, if they were drawn already.
        first: what the first one found.
        problem: of one data set.
        progress: True to show how far it is.
        lost: as in `solve`; of one of the starts.
    """
    likelihood = problem.likelihood
    batch: RaggedBatch | RepeatedLikelihood
    if isinstance(likelihood, InMemoryLikelihood):
        rows = batch_of_one((likelihood.data, likelihood.weights))
        batch = from_arrays(likelihood.model, likelihood.args, *rows, None)
    else:
        batch = RepeatedLikelihood(likelihood, lambda found: found)

    def solve(problem: Problem) -> Solution:
        batch, starts = problem.likelihood, problem.starts
        if isinstance(batch, RaggedBatch) and batch.longest > LONG_SET and not traced((first, starts)):
            return in_turn(starts)
        more: Raised = {}
        found = batch_solve.solve_batch(problem, report=report, lost=more)
        lose(more)
        return found

    def lose(more: Raised) -> None:
        if lost is not None and more:
            lost[0] = next(iter(more.values()))

    def in_turn(starts: list[Any]) -> Solution:
        found = []
        for i in range(len(keys) - 1):
            here = problem.of(likelihood, [leaf[i] for leaf in starts])
            try:
                found.append(_search(here, False))
            except RUNTIME_ERRORS as error:
                lose({i: raised(error)})
                found.append(search_stepwise(here)[0])
            if report is not None:
                report(found[-1])
        return jax.tree.map(lambda *parts: jnp.stack(parts), *found)

    many = problem.of(batch, batch_of_one(problem.starts))
    others = None if drawn is None else batch_of_one(drawn)
    with batch_bar(progress and len(keys) > 1, len(keys) - 1, (first, keys)) as report:
        return only_one(multistart.best_of(keys, batch_of_one(first), others, many, solve))
