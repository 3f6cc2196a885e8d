"""One data set outside a trace: compiled, or step by step in sight; from one start or from many."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from . import implicit, loop, modes, pieces
from .collection import Collection, from_arrays
from .compilation import THOROUGH_ROWS, Compiled
from .likelihood import Likelihood
from .objective import Objective
from .parameters import Parameters
from .report.progress import FitProgress, batch_bar
from .solvers import Solver, Stop
from .status import Status
from .trees import traced, tracing

#: A data set with more rows than this keeps the device busy by itself; lanes would only be in each other's way.
LONG_SET = 4096


class Problem(eqx.Module):
    """One data set's likelihood, and where and how to look for its maximum."""

    likelihood: Likelihood
    parameters: Parameters
    start: PyTree
    solver: Solver
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


def over(local: Callable[..., implicit.Local], problem: Problem, change: Any, *rest: Array) -> implicit.Local:
    """What is around the maximum; `implicit.maximum` says what the arguments are."""
    weights = change.likelihood.weights
    return local(lambda here: implicit.weighing(here.differentiable, weights, rest[0]), problem, change, *rest)


def solve(problem: Problem, progress: bool = False) -> loop.Solution:
    """The maximum.

    Args:
        problem: the problem.
        progress: whether to show how far it is.
    """
    under_trace = tracing((problem.likelihood, problem.start))
    if progress and not under_trace:
        with FitProgress(problem.solver.name) as bar:
            return _solve_showing(bar, problem)
    if under_trace:
        return _solve(problem)
    if problem.likelihood.rows >= THOROUGH_ROWS:
        return _solve.ahead(problem, thorough=True)(problem)
    found = _solve(problem)
    if pieces.has_two_ways(problem.solver, problem.likelihood.model) and pieces.unproven(found.status):
        again = _solve(problem, True)
        found = again if again.status == Status.converged else found
    return found


@Compiled
def _solve(problem: Problem, warm_up: bool = False) -> loop.Solution:
    objective = problem.objective
    begin = objective.parameters.free(problem.start)
    return loop.maximise(problem.solver, objective, begin, problem.stop, warm_up)


def _solve_showing(bar: FitProgress, problem: Problem) -> loop.Solution:
    """`_solve` with the loop in Python, so that every few steps can be shown: all of them over all rows."""
    objective = problem.objective
    parameters = objective.parameters
    if not parameters.n_free:
        return _solve(problem)
    n_obs = float(objective.n_obs)

    def drive(solver: Solver, state: Any, stop: Stop) -> Any:
        while bool(loop.running(state, stop)):
            state = _few_steps(solver, objective, state, stop)
            bar.update(int(state.steps), -float(state.loss) * n_obs, float(state.decrement))
        return state

    state, steps = loop.search(problem.solver, drive, lambda fn: fn, parameters.free(problem.start), problem.stop)
    return _settle(objective, state, steps, problem.stop)


@Compiled
def _few_steps(solver: Solver, objective: Objective, state: Any, stop: Stop) -> Any:
    until = Stop(stop.tolerance, jnp.minimum(stop.max_steps, state.steps + 5))
    return loop.run(solver, objective, state, until)


_settle = Compiled(loop.solution)


def best_of(
    keys: Array,
    drawn: PyTree,
    first: loop.Solution,
    problem: Problem,
    progress: bool,
) -> tuple[loop.Solution, modes.Modes]:
    """The best that many starts find, and their modes.

    Args:
        keys: random keys, one a start.
        drawn: the starts but the first, if they were drawn already.
        first: what the first one found.
        problem: the problem.
        progress: whether to show how far it is.
    """
    likelihood, parameters, solver, stop = problem.likelihood, problem.parameters, problem.solver, problem.stop
    one = lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)  # noqa: E731
    collection = from_arrays(one(likelihood.data), one(likelihood.weights), None, likelihood.args)
    leaves = one(parameters.split(problem.start))
    others = None if drawn is None else one(parameters.split(drawn))

    def in_turn(starts: list[Any]) -> loop.Solution:
        found = []
        for i in range(len(keys) - 1):
            begin = parameters.join([leaf[i] for leaf in starts])
            found.append(_solve(dataclasses.replace(problem, start=begin)))
            if report is not None:
                report(found[-1])
        return jax.tree.map(lambda *parts: jnp.stack(parts), *found)

    def solve(repeated: Collection, starts: list[Any]) -> loop.Solution:
        if collection.longest > LONG_SET and not traced((first, starts)):
            return in_turn(starts)
        return pieces.solve(repeated, likelihood.model, parameters, starts, solver, stop, report=report)

    with batch_bar(progress and len(keys) > 1, len(keys) - 1, (first, keys)) as report:
        best = modes.best_of(
            keys, one(first), leaves, others, collection, likelihood.model, parameters, stop.tolerance, solve
        )
    return jax.tree.map(lambda leaf: leaf[0], best)
