"""The objective that a solver minimises, and its evaluation at a point: all that a method knows of the problem."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .box import Box


class Curvature(enum.Enum):
    """The matrix of second order that an evaluation holds."""

    none = "none"  #: no matrix
    exact = "exact"  #: the Hessian
    outer_product = "outer_product"  #: the mean outer product of the scores
    expected = "expected"  #: the expected information of a regression: first derivatives of its predictions alone


class Evaluation(eqx.Module):
    """An objective at one point.

    Args:
        loss: its value.
        gradient: its gradient, shape `(n_free,)`.
        curvature: the matrix that was asked for, shape `(n_free, n_free)`; `None` with `Curvature.none`.
        box: the bounds that the point must keep to, if there are any.
    """

    loss: Float[Array, ""]
    gradient: Float[Array, " n_free"]
    curvature: Any = None
    box: Box | None = None


class AbstractObjective(eqx.Module):
    """A function of the free vector that is to be minimised: a mean over observations."""

    @property
    @abc.abstractmethod
    def n_obs(self) -> Float[Array, ""]:
        """Number of observations, in the precision of the free vector."""

    @property
    @abc.abstractmethod
    def box(self) -> Box | None:
        """The bounds of the free vector, if there are any; a point beyond them stands for the nearest within."""

    @property
    @abc.abstractmethod
    def cheap_curvature(self) -> Curvature:
        """The curvature that costs first derivatives only: `expected` where the model has it."""

    @abc.abstractmethod
    def __call__(self, free: Float[Array, " n_free"]) -> Float[Array, ""]:
        """The loss."""

    @abc.abstractmethod
    def evaluate(
        self,
        free: Float[Array, " n_free"],
        curvature: Curvature = Curvature.none,
        n_obs: Float[Array, ""] | None = None,
    ) -> Evaluation:
        """Loss, gradient and the curvature that is asked for.

        Args:
            free: where.
            curvature: which.
            n_obs: number of observations, where it is known already.
        """

    @abc.abstractmethod
    def minibatches(
        self, key: PRNGKeyArray, steps: Int[Array, ""], size: int
    ) -> tuple[int, Callable[[Array], AbstractObjective]]:
        """Objectives of some observations at a time, in random order: how many come next, and number `j` of them.

        Args:
            key: random key.
            steps: how many there were before.
            size: observations of each.
        """
