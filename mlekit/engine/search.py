"""One data set: the loop around a solver's step, and the proof of what it found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..core.status import RUNNING, Status
from ..likelihood.objective import Objective
from ..solvers import AbstractSolver, Newton, Scoring, Stop
from ..solvers.base import AbstractPointSolver
from ..solvers.choice import DENSE_CERTIFICATE
from ..solvers.newton import WARM_UP
from . import matrix_free, subsample
from .problem import Problem
from .solution import Solution, nothing_to_find, solution

#: Newton steps that may follow another solver which claims convergence.
PROOF_STEPS = 12


def running(state: Any, stop: Stop) -> Array:
    """True if there is anything left to do."""
    return (state.status == RUNNING) & (state.steps < stop.max_steps)


class Steps(eqx.Module):
    """The steps of a solver on one data set: what a loop needs to know.

    Args:
        solver: the solver.
        objective: what it minimises.
        stop: when to stop.
    """

    solver: AbstractSolver
    objective: Objective
    stop: Stop

    def begin(self, state: Any) -> Any:
        """The first carry of the loop, from the state that the solver begins with."""
        return state

    def unfinished(self, carry: Any) -> Array:
        """True if there is anything left to do."""
        return running(carry, self.stop)

    def step(self, carry: Any) -> Any:
        """The next carry of the loop."""
        return self.solver.step(self.objective, carry, self.stop)

    def state(self, carry: Any) -> Any:
        """The solver's state."""
        return carry

    def of_all_rows(self, carry: Any) -> Array:
        """True if that state knows the log-likelihood of the whole data set."""
        return jnp.asarray(True)


def run(steps: Steps, state: Any) -> Any:
    """The solver's last state: once it has decided, or its steps are spent."""
    going, step = lambda carry: steps.unfinished(carry), lambda carry: steps.step(carry)
    return steps.state(jax.lax.while_loop(going, step, steps.begin(state)))


def without_matrix(solver: AbstractSolver, n_free: int) -> bool:
    """True if what a solver claims of so many parameters is proven without a matrix."""
    return not solver.exact and n_free > DENSE_CERTIFICATE


def search(
    solver: AbstractSolver,
    drive: Callable[[AbstractSolver, Any, Stop], Any],
    mapped: Callable[..., Callable[..., Any]],
    free: Float[Array, "... n_free"],
    stop: Stop,
    warm_up: bool = False,
    opening: Callable[[AbstractSolver, Any, Stop], Any] | None = None,
) -> tuple[Any, Int[Array | np.ndarray, "..."]]:
    """Run a solver, then have Newton's method prove or refute what it found.

    A solver that never sees a Hessian can only claim convergence. Newton's steps from there end with
    the certificate, and polish the last digits; where the solver does not even claim it, the point it reached
    is judged as it stands. Newton's method itself may begin with steps that are cheaper.

    Args:
        solver: the solver.
        drive: runs a solver from given states, on one data set or on many.
        mapped: makes a function of one data set's state one of all.
        free: the starts.
        stop: when to stop.
        warm_up: True if Newton's method begins with the expected information.
        opening: runs the solver itself, if not as its proof is run.

    Returns:
        The last state, and the steps taken in all. The state is one of Newton's unless parameters are too
        many for a dense Hessian; then it says what the solver claims, which is still to be proven.
    """
    exact, opening = solver.exact, drive if opening is None else opening
    newton: Any = solver if exact else Newton()
    if exact and not warm_up:
        state = opening(solver, mapped(solver.init)(free), stop)
        return state, state.steps
    first = Scoring(newton.radius) if exact else solver
    limit = jnp.minimum(stop.max_steps, WARM_UP) if exact else stop.max_steps
    state = opening(first, mapped(first.init)(free), Stop(stop.tolerance, limit))
    if without_matrix(solver, free.shape[-1]):
        return matrix_free.Claim(state.free, state.loss, state.status), state.steps
    claims = (state.status != RUNNING) & (state.status != Status.nonfinite_start)
    left = jnp.maximum(stop.max_steps - state.steps, 1) if exact else jnp.where(claims, PROOF_STEPS, 1)
    begun = mapped(newton.warm_start)(state)
    proof = drive(newton, begun, Stop(stop.tolerance, left.astype(jnp.int32)))
    # Where Newton's method began at a point that was known, its first step is no new one.
    steps = state.steps + proof.steps - (~begun.is_newton_step).astype(jnp.int32)
    undecided = jnp.where(claims & (not exact), Status.stalled, Status.max_steps)
    status = jnp.where(proof.status == RUNNING, undecided, proof.status)
    # A start that was not finite says more than that Newton could not begin there either.
    status = jnp.where(state.status == Status.nonfinite_start, state.status, status)
    return eqx.tree_at(lambda s: s.status, proof, status.astype(state.status.dtype)), steps


def last_state(
    problem: Problem, warm_up: bool, run: Callable[[Any, Any], Any], by_sample: bool = True
) -> tuple[Any, Int[Array | np.ndarray, ""]]:
    """`search` on one data set, with its `Steps` run by `run`.

    Args:
        problem: the problem.
        warm_up: True if Newton's method begins with the expected information.
        run: runs the steps of a solver from a state.
        by_sample: True if a large data set may be searched on a sample of its rows first.
    """
    objective = problem.objective
    by_sample &= isinstance(problem.solver, AbstractPointSolver) and not warm_up and subsample.is_large(objective)

    def drive(solver: AbstractSolver, state: Any, stop: Stop) -> Any:
        return run(Steps(solver, objective, stop), state)

    def opening(solver: Any, state: Any, stop: Stop) -> Any:
        return run(subsample.subsampled_steps(solver, objective, stop, state.free), state)

    first = opening if by_sample else drive
    return search(problem.solver, drive, lambda fn: fn, problem.free, problem.stop, warm_up, first)


def maximise(problem: Problem, warm_up: bool = False, by_sample: bool = True) -> Solution:
    """The maximum of one data set's likelihood; arguments as in `last_state`."""
    if not problem.parameters.n_free:
        return nothing_to_find(problem.objective)
    return solution(problem.objective, *last_state(problem, warm_up, run, by_sample), problem.stop)
