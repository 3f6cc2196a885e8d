"""One data set outside a trace: compiled, or step by step in sight; from one start or from many."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..core.compilation import THOROUGH_ROWS, Compiled
from ..core.digest import digest_of
from ..core.format.progress import batch_bar
from ..core.status import Status
from ..core.trees import batch_of_one, only_one, traced, tracing
from ..likelihood.dataset import AbstractDataset
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..likelihood.ragged import RaggedBatch, from_arrays
from ..models.parameters import Parameters
from ..solvers import AbstractSolver, Stop
from . import batch_solve, host_loop, implicit, modes, multistart, search, solution
from .checkpoint import Checkpointer, checkpointing
from .history import History, Recorder
from .host_loop import Callback
from .repeated import RepeatedDataset

#: A data set with more rows than this keeps the device busy by itself; lanes would only be in each other's way.
LONG_SET = 4096


class Problem(eqx.Module):
    """One data set's likelihood, and where and how to look for its maximum."""

    likelihood: InMemoryLikelihood
    parameters: Parameters
    start: PyTree
    solver: AbstractSolver
    stop: Stop

    @property
    def objective(self) -> Objective:
        """What is minimised: the fixed parameters are those of the start."""
        return Objective(self.likelihood, self.parameters.fixed_at(self.start))

    @property
    def differentiable(self) -> Objective:
        """The same in a form that reverse mode can cross."""
        likelihood = dataclasses.replace(self.likelihood, reversible=True)
        return dataclasses.replace(self.objective, likelihood=likelihood)


def linearise_single(
    local: Callable[..., implicit.Linearisation], problem: Problem, change: Any, *rest: Array
) -> implicit.Linearisation:
    """What is around the maximum; `implicit.maximum` says what the arguments are."""
    weights = change.likelihood.weights
    return local(
        lambda here: implicit.differentiable_weights(here.differentiable, weights, rest[0]), problem, change, *rest
    )


def solve(
    problem: Problem,
    bar: Callback | None = None,
    history: bool = False,
    checkpoint: Any = None,
    given: AbstractDataset | None = None,
) -> tuple[solution.Solution, History | None]:
    """The maximum, and the path to it if that is wanted.

    Args:
        problem: the problem.
        bar: what shows the steps, if they are to be seen; under a trace they cannot.
        history: whether the path is wanted.
        checkpoint: where the state is saved, if it is.
        given: the data, where a state is saved.

    Raises:
        ValueError: a history or a checkpoint are wanted under a trace; or as `checkpoint.keeping`.
    """
    if tracing((problem.likelihood, problem.start)):
        if history:
            raise ValueError("history=True follows the search from Python, so it does not run under jit or vmap")
        if checkpoint is not None:
            raise ValueError("checkpoint follows the search from Python, so it does not run under jit or vmap")
        return _solve(problem, False), None
    seen = history or bar is not None or checkpoint is not None
    if not seen and problem.likelihood.rows >= THOROUGH_ROWS:
        return _solve.ahead(problem, False, thorough=True)(problem, False), None

    def search(warm_up: bool, keeper: Checkpointer | None) -> tuple[solution.Solution, History | None]:
        return _watched(problem, warm_up, bar, history, keeper) if seen else (_solve(problem, warm_up), None)

    with _keeping(problem, checkpoint, given) as keeper:
        found = search(False, keeper)
        if batch_solve.has_two_ways(problem.solver, problem.likelihood.model) and batch_solve.unproven(
            found[0].status
        ):
            again = search(True, keeper)
            found = again if again[0].status == Status.converged else found
    return found


def _keeping(
    problem: Problem, where: Any, given: AbstractDataset | None
) -> AbstractContextManager[Checkpointer | None]:
    """What keeps the state of the search, if that is wanted."""
    if where is None or given is None:
        return contextlib.nullcontext()
    parameters, likelihood = problem.parameters, problem.likelihood
    job = {
        "parameters": list(parameters.names),
        "free parameters": parameters.n_free,
        "solver": problem.solver.name,
        "precision": parameters.dtype.name,
        "fixed ones": [leaf.is_fixed for leaf in parameters.leaves],
        "tolerance": float(problem.stop.tolerance),
        "data": given.fingerprint,
        "model": digest_of(likelihood.model, parameters, problem.start, problem.solver, likelihood.args),
        "mean log-likelihood at the start": -float(given.checked(_at_start(problem))),
    }
    return checkpointing(where, job, given.check)


@Compiled
def _at_start(problem: Problem) -> Array:
    """Tells a model from others, and starts, at the cost of a sample of the rows."""
    objective, likelihood = problem.objective, problem.likelihood
    if likelihood.has_sample:
        objective = dataclasses.replace(objective, likelihood=likelihood.of_sample(True))
    return objective(objective.parameters.free(problem.start))


@Compiled
def _solve(problem: Problem, warm_up: bool) -> solution.Solution:
    begin = problem.objective.parameters.free(problem.start)
    return search.maximise(problem.solver, problem.objective, begin, problem.stop, warm_up)


def _watched(
    problem: Problem, warm_up: bool, bar: Callback | None, history: bool, keeper: Checkpointer | None
) -> tuple[solution.Solution, History | None]:
    """`_solve` with the loop in Python, so that its steps can be seen."""
    recorder = Recorder() if history else None
    watchers: list[Callback] = [watcher for watcher in (bar, recorder) if watcher is not None]
    objective = problem.objective
    if objective.parameters.n_free:
        if keeper is not None and recorder is not None:
            keeper.record(recorder)
        begin, run = objective.parameters.free(problem.start), host_loop.HostLoop(watchers, keeper)
        last = search.last_state(problem.solver, objective, begin, problem.stop, warm_up, run)
        found = _settle(objective, *last, problem.stop)
    else:
        found = _solve(problem, False)
        for watcher in watchers:
            watcher(found.steps, found.log_likelihood, found.decrement, found.vector)
    return found, None if recorder is None else recorder.history()


_settle = Compiled(solution.solution)


def best_of(
    keys: Array,
    drawn: PyTree,
    first: solution.Solution,
    problem: Problem,
    progress: bool,
) -> tuple[solution.Solution, modes.Modes]:
    """The best that many starts find, and their modes.

    Args:
        keys: random keys, one a start.
        drawn: the starts but the first, if they were drawn already.
        first: what the first one found.
        problem: the problem.
        progress: whether to show how far it is.
    """
    likelihood, parameters, solver, stop = problem.likelihood, problem.parameters, problem.solver, problem.stop
    collection: RaggedBatch | RepeatedDataset
    if type(likelihood) is InMemoryLikelihood:
        collection = from_arrays(*batch_of_one((likelihood.data, likelihood.weights)), None, likelihood.args)
    else:
        collection = RepeatedDataset(likelihood, likelihood.args, lambda found: found)
    leaves = batch_of_one(parameters.split(problem.start))
    others = None if drawn is None else batch_of_one(parameters.split(drawn))

    def in_turn(starts: list[Any]) -> solution.Solution:
        found = []
        for i in range(len(keys) - 1):
            begin = parameters.join([leaf[i] for leaf in starts])
            found.append(_solve(dataclasses.replace(problem, start=begin), False))
            if report is not None:
                report(found[-1])
        return jax.tree.map(lambda *parts: jnp.stack(parts), *found)

    def solve(repeated: RaggedBatch | RepeatedDataset, starts: list[Any]) -> solution.Solution:
        apart = isinstance(repeated, RaggedBatch) and repeated.longest > LONG_SET
        if apart and not traced((first, starts)):
            return in_turn(starts)
        return batch_solve.solve_batch(repeated, likelihood.model, parameters, starts, solver, stop, report=report)

    with batch_bar(progress and len(keys) > 1, len(keys) - 1, (first, keys)) as report:
        rest = (leaves, others, collection, likelihood.model, parameters, stop.tolerance)
        best = multistart.best_of(keys, batch_of_one(first), *rest, solve)
    return only_one(best)
