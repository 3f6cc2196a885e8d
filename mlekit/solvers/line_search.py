"""A line search of one evaluation a step, and the loop of quasi-Newton methods around it."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..core.status import RUNNING, Status
from ..core.trees import choose
from .base import AbstractPointSolver, Stop
from .objective import AbstractObjective, Curvature, Evaluation

SUFFICIENT = 1e-4  #: share of the linear decrease that a step must bring (Armijo)
FLATTER = 0.9  #: share of the slope that may be left at its end (Wolfe)
LONGEST_SEARCH = 30  #: evaluations along one line
EXPANSIONS = 8  #: doublings along one line; beyond, the point is taken as it is


class LineSearchState(eqx.Module):
    """The best point, the line from it, the bracket on that line, and the trial point to evaluate next."""

    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    gradient: Float[Array, " n_free"]
    memory: Any  # what the method knows of the curvature
    direction: Float[Array, " n_free"]
    step_size: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    trials: Int[Array, ""]
    failures: Int[Array, ""]
    decrement: Float[Array, ""]
    steps: Int[Array, ""]
    status: Int[Array, ""]


class AbstractQuasiNewton(AbstractPointSolver):
    """Methods that learn the curvature from gradients: they differ in what they remember."""

    @abc.abstractmethod
    def init_memory(self, free: Float[Array, " n_free"]) -> Any:
        """The memory before anything was seen."""

    @abc.abstractmethod
    def update_memory(self, memory: Any, step: Array, change: Array) -> Any:
        """The memory after a step that changed the gradient by `change`, where `step @ change > 0`."""

    @abc.abstractmethod
    def direction(self, memory: Any, gradient: Array) -> Array:
        """Minus the inverse curvature times the gradient."""

    def init(self, free: Float[Array, " n_free"]) -> LineSearchState:
        """The state before the first step."""
        zero, none = jnp.zeros((), free.dtype), jnp.asarray(0, jnp.int32)
        return LineSearchState(
            free=free,
            loss=jnp.asarray(jnp.inf, free.dtype),
            gradient=jnp.zeros_like(free),
            memory=self.init_memory(free),
            direction=jnp.zeros_like(free),
            step_size=zero,
            low=zero,
            high=jnp.asarray(jnp.inf, free.dtype),
            trials=none,
            failures=none,
            decrement=jnp.asarray(jnp.inf, free.dtype),
            steps=none,
            status=jnp.asarray(RUNNING, jnp.int32),
        )

    def curvature(self, objective: AbstractObjective) -> Curvature:
        """None: it is learned from gradients."""
        return Curvature.none

    def trial_point(self, state: LineSearchState) -> Float[Array, " n_free"]:
        """A point of the line."""
        return state.free + state.step_size * state.direction

    def update(
        self, state: LineSearchState, trial: Evaluation, n_obs: Float[Array, ""], stop: Stop
    ) -> LineSearchState:
        """Keep the point, or narrow or widen the bracket around a better one.

        Bisection on the weak Wolfe conditions (Lewis and Overton 2013): it needs no cubic model and ends
        wherever the function is bounded below along the line.
        """
        eps = jnp.finfo(state.free.dtype).eps
        first = state.steps == 0
        point = self.trial_point(state)
        loss, gradient, box = trial.loss, trial.gradient, trial.box
        if box is not None:
            point = box.clip(point)
        finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient))

        slope = jnp.dot(state.gradient, state.direction)
        ahead = state.direction
        if box is not None:  # the line bends where it meets a bound
            stays = point != self.trial_point(state)
            ahead = jnp.where(stays, 0.0, ahead)
            far = jnp.where(state.step_size > 0, state.step_size, 1.0)
            slope = jnp.dot(state.gradient, (point - state.free) / far)
        noise = 10 * eps * jnp.maximum(1.0, jnp.abs(jnp.where(first, 0.0, state.loss)))
        enough = finite & (loss <= state.loss + SUFFICIENT * state.step_size * slope + noise)
        flat = jnp.dot(gradient, ahead) >= FLATTER * slope
        wide = jnp.isinf(state.high) & (state.trials >= EXPANSIONS)
        accept = (first & finite) | (enough & (flat | wide))

        move, change = point - state.free, gradient - state.gradient
        curved = jnp.dot(move, change) > eps * jnp.linalg.norm(move) * jnp.linalg.norm(change)
        memory = choose(accept & ~first & curved, self.update_memory(state.memory, move, change), state.memory)
        free = jnp.where(accept, point, state.free)
        loss = jnp.where(accept, loss, state.loss)
        gradient = jnp.where(accept, gradient, state.gradient)

        low = jnp.where(enough, state.step_size, state.low)
        high = jnp.where(enough, state.high, state.step_size)
        middle = jnp.where(jnp.isinf(high), 2.0 * state.step_size, 0.5 * (low + high))
        spent = ~accept & (
            (state.trials >= LONGEST_SEARCH)
            | jnp.all(jnp.abs(middle - state.step_size) * jnp.abs(state.direction) <= eps * jnp.abs(state.free))
        )
        # A line that leads nowhere means that the memory misleads: forget it once, then give up.
        memory = choose(spent, self.init_memory(free), memory)
        failures = jnp.where(accept, 0, state.failures + spent.astype(jnp.int32))

        fresh = accept | spent
        downwards = gradient
        if box is not None:
            downwards = box.inner_gradient(free, gradient)
        direction = self.direction(memory, downwards)
        if box is not None:  # entries at active bounds stay there
            direction = jnp.where((downwards == 0) & (gradient != 0), 0.0, direction)
        downhill = jnp.dot(direction, downwards) < 0
        direction = jnp.where(downhill, direction, -downwards)
        direction = jnp.where(fresh, direction, state.direction)
        size = jnp.linalg.norm(direction)
        unscaled = first | spent
        initial_step_size = jnp.where(unscaled, jnp.minimum(1.0, 1.0 / jnp.where(size > 0, size, 1.0)), 1.0)

        decrement = -0.5 * n_obs * jnp.dot(downwards, direction)
        decrement = jnp.where(fresh & ~unscaled, decrement, state.decrement)
        within = accept & (decrement <= stop.tolerance)
        status = jnp.where(within, Status.converged, RUNNING)
        status = jnp.where((failures >= 2) | ((size == 0) & ~within), Status.stalled, status)
        status = jnp.where(first & ~finite, Status.nonfinite_start, status)
        return LineSearchState(
            free=free,
            loss=loss,
            gradient=gradient,
            memory=memory,
            direction=direction,
            step_size=jnp.where(fresh, initial_step_size, middle),
            low=jnp.where(fresh, 0.0, low),
            high=jnp.where(fresh, jnp.inf, high),
            trials=jnp.where(fresh, 0, state.trials + 1),
            failures=failures,
            decrement=decrement,
            steps=state.steps + 1,
            status=status.astype(jnp.int32),
        )
