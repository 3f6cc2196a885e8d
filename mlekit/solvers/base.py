"""The base classes of solvers: a start and a step, written for one data set; loops and lanes drive them."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..core.compilation import Compiled
from .objective import AbstractObjective, Curvature, Evaluation


class Stop(eqx.Module):
    """When to stop.

    Args:
        tolerance: on the decrement, in nats of log-likelihood.
        max_steps: steps at most, of one search or of each of many.
    """

    tolerance: Float[Array, ""]
    max_steps: Int[Array, "*sets"]


def usual_tolerance(dtype: Any) -> float:
    """The tolerance on the decrement, in nats, that suits a precision."""
    return 1e-9 if jnp.finfo(dtype).bits >= 64 else 1e-5


class AbstractSolver(eqx.Module):
    """A method that maximises a likelihood.

    `init` evaluates nothing: the first `step` evaluates the start. So a loop calls the user's function at one
    place, and a fresh data set may join others that have taken steps already.
    Loops and lanes read five arrays in any state: `free`, `loss`, `decrement`, `steps` and `status`.
    """

    exact: ClassVar[bool] = False  #: its last state holds the exact Hessian, and so the proof of a maximum
    second_order: ClassVar[bool] = False  #: it steps on a curvature that its state holds, in a trust region
    default_max_steps: ClassVar[int] = 1000

    @abc.abstractmethod
    def init(self, free: Float[Array, " n_free"]) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def step(self, objective: AbstractObjective, state: Any, stop: Stop) -> Any:
        """One step; it sets the status when there is nothing left to do."""

    @property
    def name(self) -> str:
        """The solver's name in tables."""
        return type(self).__name__


class AbstractPointSolver(AbstractSolver):
    """A solver whose every step looks at the derivatives at one point.

    So the sums behind them may be gathered block by block, with other data sets in between.
    """

    @abc.abstractmethod
    def curvature(self, objective: AbstractObjective) -> Curvature:
        """The curvature that it needs beside loss and gradient."""

    @abc.abstractmethod
    def trial_point(self, state: Any) -> Float[Array, " n_free"]:
        """The point to evaluate next."""

    @abc.abstractmethod
    def update(self, state: Any, trial: Evaluation, n_obs: Float[Array, ""], stop: Stop) -> Any:
        """The state after the evaluation at the trial point."""

    def step(self, objective: AbstractObjective, state: Any, stop: Stop) -> Any:
        """Evaluate the trial point, and update the state."""
        trial = objective.evaluate(self.trial_point(state), self.curvature(objective))
        return updated(self, state, trial, objective.n_obs, stop)


@Compiled
def updated(
    solver: AbstractPointSolver, state: Any, trial: Evaluation, n_obs: Float[Array, ""], stop: Stop
) -> Any:
    """`solver.update`, which knows nothing of the model: traced once for all models of as many parameters."""
    return solver.update(state, trial, n_obs, stop)
