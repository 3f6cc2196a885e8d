"""Searches step by step, past points where the log-density raises: they are taken for points that are not finite.

A compiled loop ends with an exception of the log-density; a loop in Python can go on. It takes the same steps, and
is for those searches alone that raised in a compiled one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.compilation import Compiled
from ..core.runtime_errors import RUNTIME_ERRORS, Raised, quiet, raised
from ..solvers.base import AbstractPointSolver
from .problem import Problem
from .search import Steps, last_state
from .solution import Solution, solution, unsearched


def search_stepwise(problem: Problem, warm_up: bool = False) -> tuple[Solution, str]:
    """The solution of one data set, and what its log-density raised first; nothing where it did not.

    It is `raised` where the log-density raises at the start, in a step of a solver that looks at more than one
    point, or in a proof by conjugate gradients.

    Args:
        problem: of one data set, outside a trace.
        warm_up: True if Newton's method begins with the expected information.
    """
    said: list[str] = []

    def run(steps: Steps, state: Any) -> Any:
        while bool(steps.unfinished(state)):
            try:
                state = jax.block_until_ready(_step(steps, state))
            except RUNTIME_ERRORS as error:
                said.append(raised(error))
                if not isinstance(steps.solver, AbstractPointSolver) or not int(state.steps):
                    raise
                state = _step_back(steps, state)
        return state

    with quiet():
        try:
            if problem.parameters.n_free:
                last = last_state(problem, warm_up, run, by_sample=False)
                return jax.block_until_ready(_solution(problem, *last)), said[0] if said else ""
        except RUNTIME_ERRORS as error:
            said.append(raised(error))
    return _unsearched(problem), said[0] if said else ""


def search_each(problems: Sequence[Problem], warm_up: bool, said: Sequence[str]) -> tuple[Solution, Raised]:
    """`search_stepwise` of many problems of one data set each, leaves with a leading axis, and what they raised.

    Args:
        problems: the problems.
        warm_up: True if Newton's method begins with the expected information.
        said: what each of them raised in a compiled loop.
    """
    found, lost = [], {}
    for i, problem in enumerate(problems):
        one, text = search_stepwise(problem, warm_up)
        found.append(one)
        lost[i] = text or said[i]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *found), lost


@Compiled
def _step(steps: Steps, state: Any) -> Any:
    return steps.step(state)


@Compiled
def _step_back(steps: Steps, state: Any) -> Any:
    """The state after a trial point that is not finite, without a look at it."""
    solver, objective = steps.solver, steps.objective
    assert isinstance(solver, AbstractPointSolver)
    zero = objective.zero(solver.curvature(objective))
    nothing = objective.mean(jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), zero), objective.n_obs)
    return solver.update(state, nothing, objective.n_obs, steps.stop)


@Compiled
def _solution(problem: Problem, state: Any, steps: Array) -> Solution:
    return solution(problem.objective, state, steps, problem.stop)


@Compiled
def _unsearched(problem: Problem) -> Solution:
    return unsearched(problem.objective, problem.free)
