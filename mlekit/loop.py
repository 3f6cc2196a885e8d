"""One data set: the loop around a solver's step, and the proof of what it found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from . import large, matrix_free
from .linear_algebra import curvature_scale, norm, spectrum
from .objective import Objective
from .solvers import DENSE_CERTIFICATE, Newton, Scoring, Solver, Stop
from .solvers.base import Stepwise
from .solvers.newton import WARM_UP
from .status import RUNNING, Status

#: Newton steps that may follow another solver which believes to have arrived.
PROOF_STEPS = 12


class Solution(eqx.Module):
    """What the search for one maximum brought: the arrays of a `Fit`.

    Args:
        free: the free vector, shape `(n_free,)`.
        vector: all scalar parameters in natural units, shape `(k,)`.
        errors: their standard errors from the observed information; NaN unless converged, and where parameters
            are too many for a dense one.
        log_likelihood: the sum, in nats.
        n_obs: number of observations, the sum of the weights.
        steps: steps taken.
        status: a `Status` value.
        decrement: nats of log-likelihood that a perfect next step could still gain.
        gradient_norm: norm of the gradient of the mean log-likelihood in scaled units.
        min_eigenvalue: least eigenvalue of the scaled information.
        condition_number: its largest eigenvalue over its least.
        weak: the least certain direction, or that in which an unbounded fit runs away, in units of each
            parameter's own conditional error, norm one.
    """

    free: Float[Array, " n_free"]
    vector: Float[Array, " k"]
    errors: Float[Array, " k"]
    log_likelihood: Float[Array, ""]
    n_obs: Array
    steps: Int[Array, ""]
    status: Int[Array, ""]
    decrement: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    min_eigenvalue: Float[Array, ""]
    condition_number: Float[Array, ""]
    weak: Float[Array, " k"]


def running(state: Any, stop: Stop) -> Array:
    """Whether there is anything left to do."""
    return (state.status == RUNNING) & (state.steps < stop.max_steps)


class Steps(eqx.Module):
    """The steps of a solver on one data set: what a loop needs to know.

    Args:
        solver: the solver.
        objective: what it minimises.
        stop: when to stop.
    """

    solver: Solver
    objective: Objective
    stop: Stop

    def begin(self, state: Any) -> Any:
        """What the loop carries, given the state that the solver begins in."""
        return state

    def unfinished(self, carry: Any) -> Array:
        """Whether there is anything left to do."""
        return running(carry, self.stop)

    def step(self, carry: Any) -> Any:
        """What the loop carries on."""
        return self.solver.step(self.objective, carry, self.stop)

    def state(self, carry: Any) -> Any:
        """The solver's state."""
        return carry

    def of_all_rows(self, carry: Any) -> Array:
        """Whether that state knows the log-likelihood of the whole data set."""
        return jnp.asarray(True)


def run(steps: Steps, state: Any) -> Any:
    """The solver's last state: once it has decided, or its steps are spent."""
    going, step = lambda carry: steps.unfinished(carry), lambda carry: steps.step(carry)
    return steps.state(jax.lax.while_loop(going, step, steps.begin(state)))


def search(
    solver: Solver,
    drive: Callable[[Solver, Any, Stop], Any],
    mapped: Callable[..., Callable[..., Any]],
    free: Float[Array, "... n_free"],
    stop: Stop,
    warm_up: bool = False,
    opening: Callable[[Solver, Any, Stop], Any] | None = None,
) -> tuple[Any, Int[Array, "..."]]:
    """Run a solver, then have Newton's method prove or refute what it found.

    A solver that never sees a Hessian can only believe to have arrived. Newton's steps from there end with
    the certificate, and polish the last digits; where the solver does not even believe, the point it reached
    is judged as it stands. Newton's method itself may begin with steps that are cheaper.

    Args:
        solver: the solver.
        drive: runs a solver from given states, on one data set or on many.
        mapped: makes a function of one data set's state one of all.
        free: the starts.
        stop: when to stop.
        warm_up: whether Newton's method begins with the expected information.
        opening: runs the solver itself, if not as its proof is run.

    Returns:
        The last state, and the steps taken in all. The state is one of Newton's unless parameters are too
        many for a dense Hessian; then it says what the solver believes, which is still to be proven.
    """
    newton = solver if isinstance(solver, Newton) else Newton()
    exact, opening = newton is solver, drive if opening is None else opening
    if exact and not warm_up:
        state = opening(solver, mapped(solver.init)(free), stop)
        return state, state.steps
    first = Scoring(newton.radius) if exact else solver
    limit = jnp.minimum(stop.max_steps, WARM_UP) if exact else stop.max_steps
    state = opening(first, mapped(first.init)(free), Stop(stop.tolerance, limit))
    if not exact and free.shape[-1] > DENSE_CERTIFICATE:
        return matrix_free.Arrived(state.free, state.loss, state.status), state.steps
    believes = (state.status != RUNNING) & (state.status != Status.nonfinite_start)
    left = jnp.maximum(stop.max_steps - state.steps, 1) if exact else jnp.where(believes, PROOF_STEPS, 1)
    begun = mapped(newton.take_over)(state)
    proof = drive(newton, begun, Stop(stop.tolerance, left.astype(jnp.int32)))
    # Where Newton's method began at a point that was known, its first step is no new one.
    steps = state.steps + proof.steps - ~begun.full
    undecided = jnp.where(believes & (not exact), Status.stalled, Status.max_steps)
    status = jnp.where(proof.status == RUNNING, undecided, proof.status)
    # A start that was not finite says more than that Newton could not begin there either.
    status = jnp.where(state.status == Status.nonfinite_start, state.status, status)
    return eqx.tree_at(lambda s: s.status, proof, status.astype(state.status.dtype)), steps


def solution(objective: Objective, state: Any, steps: Int[Array, ""], stop: Stop) -> Solution:
    """What a solver's last state says of one data set.

    Args:
        objective: the objective.
        state: the state.
        steps: steps taken in all.
        stop: when to stop, for a proof that is still to come.
    """
    parameters, likelihood = objective.parameters, objective.likelihood
    dtype = parameters.dtype
    dense = not isinstance(state, matrix_free.Arrived)
    if not dense:
        state = matrix_free.prove(objective, state, stop)
        steps = steps + state.steps
    n_obs = objective.n_obs
    status = jnp.where(state.status == RUNNING, Status.max_steps, state.status)
    status = jnp.where(likelihood.spoilt_data(status == Status.nonfinite_start), Status.nonfinite_data, status)
    few = likelihood.n_rows < parameters.n_free
    unproven = (status != Status.converged) & (status < Status.nonfinite_start)
    none = (likelihood.n_rows == 0) & (status != Status.nonfinite_data)
    status = jnp.where((few & unproven) | none, Status.too_few_observations, status)

    vector = parameters.natural_vector(state.free)
    nan = jnp.asarray(jnp.nan, dtype)
    errors = weak = jnp.full_like(vector, jnp.nan)
    delta = gradient_norm = low = condition = nan
    if dense:
        known = jnp.all(jnp.isfinite(state.curvature)) & jnp.all(jnp.isfinite(state.gradient))
        curvature = jnp.where(known, state.curvature, jnp.eye(parameters.n_free, dtype=dtype))
        eigen = spectrum(curvature, curvature_scale(curvature, state.gradient))
        hide = lambda value: jnp.where(known, value, jnp.nan)  # noqa: E731
        delta = hide(state.decrement)
        gradient_norm = norm(state.gradient / eigen.scale)
        low = hide(eigen.values[0])
        condition = hide(jnp.where(low > 0, eigen.values[-1] / low, jnp.inf))

        # Through the constraints by the exact delta method.
        jacobian = parameters.jacobian(state.free) / eigen.scale
        half = jacobian @ (eigen.vectors / jnp.sqrt(jnp.where(eigen.values > 0, eigen.values, jnp.nan)))
        errors = jnp.sqrt(jnp.sum(half**2, axis=1) / n_obs)
        errors = jnp.where(jnp.any(jacobian != 0, axis=1), errors, 0.0)
        errors = jnp.where(status == Status.converged, errors, jnp.nan)
        own = jnp.sqrt(jnp.sum(jacobian**2, axis=1))
        direction = eigen.vectors[:, 0]
        # Where the likelihood keeps rising, the step that keeps its length shows which way.
        stride = state.progress.step * eigen.scale
        leads = (status == Status.unbounded) & jnp.any(stride != 0)
        direction = jnp.where(leads, stride, direction)
        weak = jacobian @ direction / jnp.where(own > 0, own, 1.0)
        weak = hide(weak / jnp.linalg.norm(weak))
    else:
        delta, gradient_norm = state.decrement, state.gradient_norm
        low, condition = state.min_eigenvalue, state.condition_number
        along = lambda direction: jax.jvp(parameters.natural_vector, (state.free,), (direction,))[1]  # noqa: E731
        weak, own = along(state.weak), jnp.abs(along(jnp.ones_like(state.free)))
        weak = weak / jnp.where(own > 0, own, 1.0)
        weak = weak / jnp.linalg.norm(weak)
    return Solution(
        free=state.free,
        vector=vector,
        errors=errors,
        log_likelihood=jnp.where(jnp.isfinite(state.loss), -state.loss * n_obs, jnp.nan),
        n_obs=likelihood.n_obs,
        steps=steps,
        status=status.astype(jnp.int32),
        decrement=delta,
        gradient_norm=gradient_norm,
        min_eigenvalue=low,
        condition_number=condition,
        weak=weak,
    )


def nothing_to_find(objective: Objective) -> Solution:
    """The solution where every parameter is fixed: the log-likelihood as it stands."""
    likelihood, parameters = objective.likelihood, objective.parameters
    free = jnp.zeros(0, parameters.dtype)
    vector = parameters.natural_vector(free)
    loss = objective(free)
    zero, one = jnp.zeros((), parameters.dtype), jnp.ones((), parameters.dtype)
    spoilt = likelihood.spoilt_data(~jnp.isfinite(loss))
    trouble = jnp.where(spoilt, Status.nonfinite_data, Status.nonfinite_start)
    return Solution(
        free=free,
        vector=vector,
        errors=jnp.zeros_like(vector),
        log_likelihood=-loss * objective.n_obs,
        n_obs=likelihood.n_obs,
        steps=jnp.asarray(0, jnp.int32),
        status=jnp.where(jnp.isfinite(loss), Status.converged, trouble).astype(jnp.int32),
        decrement=zero,
        gradient_norm=zero,
        min_eigenvalue=one,
        condition_number=one,
        weak=jnp.zeros_like(vector),
    )


def last_state(
    solver: Solver,
    objective: Objective,
    free: Float[Array, " n_free"],
    stop: Stop,
    warm_up: bool,
    run: Callable[[Any, Any], Any],
) -> tuple[Any, Int[Array, ""]]:
    """What `search` returns for one data set, with its `Steps` run by `run`."""
    by_sample = isinstance(solver, Stepwise) and not warm_up and large.is_large(objective)
    drive = lambda solver, state, stop: run(Steps(solver, objective, stop), state)  # noqa: E731
    opening = lambda solver, state, stop: run(large.steps(solver, objective, stop, state.free), state)  # noqa: E731
    return search(solver, drive, lambda fn: fn, free, stop, warm_up, opening if by_sample else drive)


def maximise(
    solver: Solver, objective: Objective, free: Float[Array, " n_free"], stop: Stop, warm_up: bool = False
) -> Solution:
    """The maximum of one data set's likelihood."""
    if not free.size:
        return nothing_to_find(objective)
    return solution(objective, *last_state(solver, objective, free, stop, warm_up, run), stop)
