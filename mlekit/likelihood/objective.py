"""The objective of a fit: minus the mean log-likelihood, summed with its derivatives block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..models.parameters import Parameters
from ..solvers.box import Box
from ..solvers.objective import AbstractObjective, Curvature, Evaluation
from .base import AbstractLikelihood
from .curvature import BLOCK_TERMS, block_loss
from .in_memory import InMemoryLikelihood


class Objective(AbstractObjective):
    r"""Minus the mean log-likelihood as a function of the free vector, which solvers minimise.

    $$f(z) = -\frac{1}{n} \ell(\theta(z)), \qquad n = \sum_i w_i$$

    The mean, so that steps do not depend on `n_obs`. One call yields the loss and all derivatives that are
    wanted, and calls the user's function at one place.
    """

    likelihood: AbstractLikelihood
    parameters: Parameters

    @property
    def n_obs(self) -> Float[Array, ""]:
        """Number of observations, the sum of the weights, in the precision of the free vector."""
        return jnp.asarray(self.likelihood.n_obs, self.parameters.dtype)

    @property
    def box(self) -> Box | None:
        """The bounds of closed constraints."""
        return self.parameters.box

    @property
    def cheap_curvature(self) -> Curvature:
        """The expected information of a regression, the outer product of the scores of any other model."""
        return Curvature.expected if self.likelihood.model.regression else Curvature.outer_product

    def __call__(self, free: Float[Array, " n_free"]) -> Float[Array, ""]:
        """The loss; its derivative comes from `evaluate`, in forward and in reverse mode."""
        # Line searches of optax hand over a wider type than they were given
        # (https://github.com/google-deepmind/optax/pull/1108, seen with 0.2.8). The cast goes once they keep it.
        return _loss(free.astype(self.parameters.dtype), self)

    def evaluate(
        self,
        free: Float[Array, " n_free"],
        curvature: Curvature = Curvature.none,
        n_obs: Float[Array, ""] | None = None,
    ) -> Evaluation:
        """As `AbstractObjective.evaluate`, summed over all blocks of the data set."""
        sums = self.likelihood.total(self._block(free, curvature), self.zero(curvature))
        return self.mean(sums, self.n_obs if n_obs is None else n_obs)

    def part(self, free: Float[Array, " n_free"], curvature: Curvature, b: Any) -> Evaluation:
        """The part of block `b` of rows in memory in the sums behind `evaluate`."""
        assert isinstance(self.likelihood, InMemoryLikelihood)
        return self.likelihood.part(self._block(free, curvature), b)

    def zero(self, curvature: Curvature) -> Evaluation:
        """Zeros with the shapes and dtypes of those sums."""
        k, dtype = self.parameters.n_free, self.parameters.dtype
        matrix = None if curvature is Curvature.none else jnp.zeros((k, k), dtype)
        return Evaluation(jnp.zeros((), dtype), jnp.zeros(k, dtype), matrix)

    def mean(self, sums: Evaluation, n_obs: Float[Array, ""]) -> Evaluation:
        """The evaluation of the mean from those sums."""
        found = jax.tree.map(lambda total: total.astype(self.parameters.dtype) / n_obs, sums)
        return dataclasses.replace(found, box=self.box)

    def minibatches(
        self, key: PRNGKeyArray, steps: Int[Array, ""], size: int
    ) -> tuple[int, Callable[[Array], Objective]]:
        """As `AbstractObjective.minibatches`."""
        number, batch = self.likelihood.minibatches(key, steps, size)
        return number, lambda j: dataclasses.replace(self, likelihood=batch(j))

    def _block(self, free: Array, curvature: Curvature) -> Callable[..., Evaluation]:
        """The terms of one block of rows in loss and derivatives."""
        return BLOCK_TERMS[curvature](self.likelihood, self.parameters, free)


@eqx.filter_custom_jvp
def _loss(free: Array, objective: Objective) -> Array:
    likelihood, parameters = objective.likelihood, objective.parameters
    zero = jnp.zeros((), parameters.dtype)
    return likelihood.total(lambda *rows: block_loss(likelihood, parameters, free, *rows), zero) / objective.n_obs


@_loss.def_jvp
def _loss_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # Blocks are summed in a loop that reverse mode cannot cross; the gradient is summed in one of its own.
    here = primals[1].evaluate(primals[0])
    return here.loss, here.gradient @ tangents[0]
