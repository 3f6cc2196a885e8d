"""What a solver minimises, and its derivatives, summed block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..models.parameters import Parameters
from . import curvature
from .in_memory import InMemoryLikelihood
from .weights import scaled_rows


class Objective(eqx.Module):
    r"""What a solver minimises: minus the mean log-likelihood, as a function of the free vector.

    $$f(z) = -\frac{1}{n} \ell(\theta(z)), \qquad n = \sum_i w_i$$

    The mean, so that steps do not depend on `n_obs`. One call yields the loss and all derivatives that are
    wanted, and calls the user's function at one place.
    """

    likelihood: InMemoryLikelihood
    parameters: Parameters

    @property
    def n_obs(self) -> Float[Array, ""]:
        """Number of observations, the sum of the weights, in the precision of the free vector."""
        return self.likelihood.n_obs.astype(self.parameters.dtype)

    def __call__(self, free: Float[Array, " n_free"]) -> Float[Array, ""]:
        """The loss; its derivative comes from `gradient`, in forward and in reverse mode."""
        # Line searches of optax hand over a wider type than they were given.
        return _loss(free.astype(self.parameters.dtype), self)

    def gradient(self, free: Float[Array, " n_free"]) -> tuple[Array, Array]:
        """Loss and gradient."""
        return self.derivatives("gradient", free)

    def hessian(self, free: Float[Array, " n_free"]) -> tuple[Array, Array, Array]:
        """Loss, gradient and exact Hessian."""
        return self.derivatives("hessian", free)

    def derivatives(self, kind: str, free: Float[Array, " n_free"], n_obs: Array | None = None) -> Any:
        """Loss and derivatives of this kind, summed over all blocks of the data set.

        Args:
            kind: `gradient`; `hessian`, the exact one; `outer_product` of the scores; or `scoring`, the curvature
                of a regression without second derivatives of its predictions. The last two cost first derivatives.
            free: where.
            n_obs: number of observations, where it is known already.
        """
        sums = self.likelihood.total(self._block(kind, free), self.nothing(kind))
        return self.mean(sums, self.n_obs if n_obs is None else n_obs)

    def part(self, kind: str, free: Float[Array, " n_free"], b: Any) -> Any:
        """What block `b` adds to the sums behind `derivatives`."""
        return self.likelihood.part(self._block(kind, free), b)

    def nothing(self, kind: str) -> Any:
        """What those sums start from."""
        k, dtype = self.parameters.n_free, self.parameters.dtype
        return tuple(jnp.zeros((k,) * axes, dtype) for axes in range(2 if kind == "gradient" else 3))

    def mean(self, sums: Any, n_obs: Float[Array, ""]) -> Any:
        """The derivatives of the mean from those sums."""
        return jax.tree.map(lambda total: total.astype(self.parameters.dtype) / n_obs, sums)

    def _block(self, kind: str, free: Array) -> Callable[[PyTree, Array | None], Any]:
        """What one block of rows adds to the loss and its derivatives."""

        def gradient(data: PyTree, weights: Array | None) -> tuple[Array, Array]:
            return jax.value_and_grad(self._block_loss)(free, data, weights)

        def hessian(data: PyTree, weights: Array | None) -> tuple[Array, Array, Array]:
            return curvature.hessian(lambda z: self._block_loss(z, data, weights), free)

        def hessian_of_numbers(data: PyTree, weights: Array | None) -> tuple[Array, Array, Array]:
            return curvature.hessian_of_numbers(lambda z: self._block_loss(z, data, weights), free)

        def outer_product(data: PyTree, weights: Array | None) -> tuple[Array, Array, Array]:
            values, scores = self.likelihood.block_scores(free, self.parameters.natural, data)
            weighted = scaled_rows(scores, weights)
            return -jnp.sum(scaled_rows(values, weights)), -jnp.sum(weighted, axis=0), weighted.T @ scores

        def information(data: PyTree, weights: Array | None) -> tuple[Array, Array, Array]:
            exact = kind == "hessian"
            found = curvature.information(self.likelihood, self.parameters, free, data, weights, exact)
            return -found[0], -found[1], found[2]

        if kind == "hessian" and curvature.are_few_numbers(self.parameters):
            return hessian_of_numbers
        if kind == "scoring" or (kind == "hessian" and self.likelihood.model.regression is not None):
            return information
        return {"gradient": gradient, "hessian": hessian, "outer_product": outer_product}[kind]

    def _block_loss(self, free: Array | tuple[Array, ...], data: PyTree, weights: Array | None) -> Array:
        value = self.likelihood.block_sum(self.parameters.natural(free), data, weights)
        return -value.astype(self.parameters.dtype)


@eqx.filter_custom_jvp
def _loss(free: Array, objective: Objective) -> Array:
    zero = jnp.zeros((), objective.parameters.dtype)
    return objective.likelihood.total(lambda *b: objective._block_loss(free, *b), zero) / objective.n_obs


@_loss.def_jvp
def _loss_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # Blocks are summed in a loop that reverse mode cannot cross; the gradient is summed in one of its own.
    value, gradient = primals[1].gradient(primals[0])
    return value, gradient @ tangents[0]
