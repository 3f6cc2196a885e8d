"""The solution of a search: estimates, errors, status and certificate of one data set."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..core.compilation import Compiled
from ..core.eigen import spectrum
from ..core.linear_algebra import curvature_scale, norm
from ..core.status import OBSTRUCTED, RUNNING, Status, unproven
from ..likelihood.facts import DataFacts, facts
from ..likelihood.objective import Objective
from ..models.parameters import Parameters
from ..solvers import Stop
from ..solvers.box import Box, hold
from . import matrix_free

#: An estimate is next to the edge of its range within so many times the machine precision.
NEXT_TO = 64.0


class Solution(eqx.Module):
    """The result of the search for one maximum: the arrays of a `Fit`.

    Args:
        free: the free vector, shape `(n_free,)`.
        estimates: all scalar parameters in natural units, shape `(k,)`.
        standard_errors: theirs from the observed information; NaN unless converged, and where parameters are too
            many for a dense one.
        log_likelihood: the sum, in nats.
        n_obs: number of observations, the sum of the weights.
        steps: steps taken.
        status: a `Status` value.
        decrement: nats of log-likelihood that a perfect next step could still gain.
        gradient_norm: norm of the gradient of the mean log-likelihood in scaled units.
        min_eigenvalue: least eigenvalue of the scaled information.
        condition_number: its largest eigenvalue over its least.
        weak_direction: the least certain direction, or that in which an unbounded fit runs away, in units of each
            parameter's own conditional error, norm one.
        multiplier: of the bound that each entry of the free vector lies on, in nats per unit; NaN for those that
            lie on none. `None` where no constraint is closed.
    """

    free: Float[Array, " n_free"]
    estimates: Float[Array, " k"]
    standard_errors: Float[Array, " k"]
    log_likelihood: Float[Array, ""]
    n_obs: Array
    steps: Int[Array, ""]
    status: Int[Array, ""]
    decrement: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    min_eigenvalue: Float[Array, ""]
    condition_number: Float[Array, ""]
    weak_direction: Float[Array, " k"]
    multiplier: Float[Array, " n_free"] | None = None

    @property
    def active(self) -> Bool[Array, "... n_free"] | None:
        """The entries of the free vector that an active bound holds, if there are any bounds."""
        return None if self.multiplier is None else ~jnp.isnan(self.multiplier)

    @property
    def smooth(self) -> Bool[Array, "..."]:
        """Whether a maximum is proven that moves smoothly with the data: no multiplier is zero."""
        proven = self.status == Status.converged
        return proven if self.multiplier is None else proven & jnp.all(self.multiplier != 0, axis=-1)


def solution(objective: Objective, state: Any, steps: Int[Array | np.ndarray, ""], stop: Stop) -> Solution:
    """The solution of one data set, from the last state of a solver.

    Args:
        objective: the objective.
        state: the state.
        steps: steps taken in all.
        stop: when to stop, for a proof that is still to come.
    """
    if isinstance(state, matrix_free.Claim):
        state = matrix_free.prove(objective, state, stop)
        steps = steps + state.steps
    known = facts(objective.likelihood, doubtful(state.status))
    return solution_of_facts(objective.parameters, known, state, steps, stop)


def doubtful(status: Any) -> Any:
    """True where a search ended in a way that the data may explain; of an array of `Status` values."""
    return (status != Status.converged) & (status != OBSTRUCTED)


def solution_of_facts(
    parameters: Parameters, data: DataFacts, state: Any, steps: Int[Array | np.ndarray, ""], stop: Stop
) -> Solution:
    """The solution of one data set of which this much is known; arguments as of `solution`."""
    dtype, box = parameters.dtype, parameters.box
    dense = not isinstance(state, matrix_free.Proof)
    n_obs = jnp.asarray(data.n_obs, dtype)
    status = jnp.where(state.status == RUNNING, Status.max_steps, state.status)
    bad = (data.nonfinite & (status == Status.nonfinite_start)) | data.beyond_powers
    status = jnp.where(bad, Status.nonfinite_data, status)
    few = data.n_rows < parameters.n_free
    none = (data.n_rows == 0) & (status != Status.nonfinite_data)
    status = jnp.where((few & unproven(status)) | none, Status.too_few_observations, status)

    vector = parameters.natural_vector(state.free)
    # So near to an open edge nothing is left but rounding; the search was on its way there.
    low, high = parameters.ranges(vector, closed=False)
    at_edge = jnp.minimum(vector - low, high - vector) <= NEXT_TO * jnp.finfo(dtype).eps * jnp.abs(vector)
    status = jnp.where((status == Status.stalled) & jnp.any(at_edge), Status.unbounded, status)
    nan = jnp.asarray(jnp.nan, dtype)
    errors = weak = jnp.full_like(vector, jnp.nan)
    delta = gradient_norm = low = condition = nan
    multiplier = None
    if dense:
        known = jnp.all(jnp.isfinite(state.curvature)) & jnp.all(jnp.isfinite(state.gradient))
        hide = lambda value: jnp.where(known, value, jnp.nan)  # noqa: E731
        curvature = jnp.where(known, state.curvature, jnp.eye(parameters.n_free, dtype=dtype))
        gradient, units = state.gradient, curvature_scale(curvature, state.gradient)
        if box is not None:
            active = box.active(state.free, gradient, units, n_obs, stop.tolerance)
            curvature, gradient = hold(curvature, gradient, active.held, units)
            multiplier = hide(active.multiplier(n_obs))
            status = _unless_infinite(status, box, state.free, multiplier)
            parameters = dataclasses.replace(parameters, active=active.held)
        eigen = spectrum(curvature, units)
        delta = hide(state.decrement)
        gradient_norm = norm(gradient / eigen.scale)
        low = hide(eigen.values[0])
        condition = hide(jnp.where(low > 0, eigen.values[-1] / low, jnp.inf))

        # Through the constraints by the exact delta method.
        jacobian = parameters.jacobian(state.free) / eigen.scale[None, :]
        half = jacobian @ (eigen.vectors / jnp.sqrt(jnp.where(eigen.values > 0, eigen.values, jnp.nan))[None, :])
        errors = jnp.sqrt(jnp.sum(half**2, axis=1) / n_obs)
        errors = jnp.where(jnp.any(jacobian != 0, axis=1), errors, 0.0)
        errors = jnp.where(status == Status.converged, errors, jnp.nan)
        if multiplier is not None:  # an estimate at its bound has no error that a number could tell
            errors = jnp.where(jnp.isnan(parameters.at_bounds(multiplier, jnp.nan)), errors, jnp.nan)
        own = jnp.sqrt(jnp.sum(jacobian**2, axis=1))
        direction = eigen.vectors[:, 0]
        # Where the likelihood keeps rising, the step that keeps its length shows which way.
        stride = state.progress.step * eigen.scale
        leads = (status == Status.unbounded) & jnp.any(stride != 0)
        direction = jnp.where(leads, stride, direction)
        if box is not None:
            lost = active.lost(state.free, units, state.scale)
            only_those = jnp.where(lost, 1.0, 0.0).astype(dtype)
            direction = jnp.where((status == Status.not_identified) & jnp.any(lost), only_those, direction)
        weak = jacobian @ direction / jnp.where(own > 0, own, 1.0)
        weak = hide(weak / jnp.linalg.norm(weak))
    else:
        delta, gradient_norm = state.decrement, state.gradient_norm
        low, condition = state.min_eigenvalue, state.condition_number
        along = lambda direction: jax.jvp(parameters.natural_vector, (state.free,), (direction,))[1]  # noqa: E731
        weak, own = along(state.weak), jnp.abs(along(jnp.ones_like(state.free)))
        weak = weak / jnp.where(own > 0, own, 1.0)
        weak = weak / jnp.linalg.norm(weak)
        multiplier = state.multiplier
        if box is not None and multiplier is not None:
            status = _unless_infinite(status, box, state.free, multiplier)
    return Solution(
        free=state.free,
        estimates=vector,
        standard_errors=errors,
        log_likelihood=jnp.where(jnp.isfinite(state.loss), -state.loss * n_obs, jnp.nan),
        n_obs=jnp.asarray(data.n_obs),
        steps=jnp.asarray(steps),
        status=status.astype(jnp.int32),
        decrement=delta,
        gradient_norm=gradient_norm,
        min_eigenvalue=low,
        condition_number=condition,
        weak_direction=weak,
        multiplier=multiplier,
    )


compiled_solution = Compiled(solution)
compiled_solution_of_facts = Compiled(solution_of_facts)


def _unless_infinite(status: Array, box: Box, free: Array, multiplier: Array) -> Array:
    """The status, which is `unbounded` where the log-likelihood is infinite on a bound."""
    infinite = jnp.any(box.infinite_at(free, multiplier))
    return jnp.where((status == Status.converged) & infinite, Status.unbounded, status)


def unsearched(objective: Objective, free: Float[Array, " n_free"]) -> Solution:
    """The solution where the log-density raises: the start, and no word of the log-density."""
    vector = objective.parameters.natural_vector(free)
    nan, nans = jnp.full((), jnp.nan, free.dtype), jnp.full_like(vector, jnp.nan)
    return Solution(
        free=free,
        estimates=vector,
        standard_errors=nans,
        log_likelihood=nan,
        n_obs=objective.likelihood.n_obs,
        steps=jnp.asarray(0, jnp.int32),
        status=jnp.asarray(Status.raised, jnp.int32),
        decrement=nan,
        gradient_norm=nan,
        min_eigenvalue=nan,
        condition_number=nan,
        weak_direction=nans,
        multiplier=None if objective.box is None else jnp.full_like(free, jnp.nan),
    )


def nothing_to_find(objective: Objective) -> Solution:
    """The solution where every parameter is fixed: the log-likelihood as it stands."""
    likelihood, parameters = objective.likelihood, objective.parameters
    free = jnp.zeros(0, parameters.dtype)
    vector = parameters.natural_vector(free)
    loss = objective(free)
    zero, one = jnp.zeros((), parameters.dtype), jnp.ones((), parameters.dtype)
    nonfinite, beyond_powers = likelihood.bad_numbers(~jnp.isfinite(loss))
    trouble = jnp.where(nonfinite | beyond_powers, Status.nonfinite_data, Status.nonfinite_start)
    return Solution(
        free=free,
        estimates=vector,
        standard_errors=jnp.zeros_like(vector),
        log_likelihood=-loss * objective.n_obs,
        n_obs=likelihood.n_obs,
        steps=jnp.asarray(0, jnp.int32),
        status=jnp.where(jnp.isfinite(loss), Status.converged, trouble).astype(jnp.int32),
        decrement=zero,
        gradient_norm=zero,
        min_eigenvalue=one,
        condition_number=one,
        weak_direction=jnp.zeros_like(vector),
    )
