"""What every solver is: a start and a step, written for one data set; loops and lanes drive it."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..likelihood.objective import Objective


class Stop(eqx.Module):
    """When to stop.

    Args:
        tolerance: on the decrement, in nats of log-likelihood.
        max_steps: steps at most.
    """

    tolerance: Float[Array, ""]
    max_steps: Int[Array, ""]


def usual_tolerance(dtype: Any) -> float:
    """The tolerance on the decrement, in nats, that suits a precision."""
    return 1e-9 if jnp.finfo(dtype).bits >= 64 else 1e-5


class AbstractSolver(eqx.Module):
    """A method that maximises a likelihood.

    `init` evaluates nothing: the first `step` evaluates the start. So a loop calls the user's function at one
    place, and a fresh data set may join others that are half-way.
    Loops and lanes read five arrays in any state: `free`, `loss`, `decrement`, `steps` and `status`.
    """

    exact: ClassVar[bool] = False  #: whether its last state holds the exact Hessian
    patience: ClassVar[int] = 1000  #: default of `max_steps`

    @abc.abstractmethod
    def init(self, free: Float[Array, " n_free"]) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def step(self, objective: Objective, state: Any, stop: Stop) -> Any:
        """One step; it sets the status when there is nothing left to do."""

    @property
    def name(self) -> str:
        """How the solver shows in tables."""
        return type(self).__name__


class AbstractPointSolver(AbstractSolver):
    """A solver whose every step learns from the derivatives at one point.

    So the sums behind them may be gathered block by block, with other data sets in between.
    """

    @abc.abstractmethod
    def derivatives(self, objective: Objective) -> str:
        """Which derivatives it learns from; a kind of `Objective.derivatives`."""

    @abc.abstractmethod
    def candidate(self, state: Any) -> Float[Array, " n_free"]:
        """The point whose derivatives it wants."""

    @abc.abstractmethod
    def learn(self, state: Any, found: Any, n_obs: Float[Array, ""], stop: Stop) -> Any:
        """The state after seeing what was `found` at the candidate."""

    def step(self, objective: Objective, state: Any, stop: Stop) -> Any:
        """Evaluate the candidate, and learn from it."""
        found = objective.derivatives(self.derivatives(objective), self.candidate(state))
        return self.learn(state, found, objective.n_obs, stop)
