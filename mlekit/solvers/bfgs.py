"""BFGS: a dense inverse Hessian learned from gradients."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .line_search import AbstractQuasiNewton


class Inverse(eqx.Module):
    """The estimate of the inverse Hessian; `blank` is true before the first update."""

    matrix: Float[Array, "n_free n_free"]
    blank: Bool[Array, ""]


class BFGS(AbstractQuasiNewton):
    r"""BFGS: Newton's method with an inverse Hessian learned from gradients.

    $$B \leftarrow (I - \rho s y^T) B (I - \rho y s^T) + \rho s s^T, \qquad \rho = 1 / y^T s$$

    with $s$ the step and $y$ the change of the gradient. A step costs one value and gradient. The first
    update scales $B$ by $s^T y / y^T y$. (Nocedal and Wright 2006, chapter 6.)

    Example:
        >>> import mlekit as mle
        >>> mle.BFGS()
        BFGS()
    """

    def init_memory(self, free: Float[Array, " n_free"]) -> Inverse:
        """The identity."""
        return Inverse(jnp.eye(free.shape[0], dtype=free.dtype), jnp.asarray(True))

    def update_memory(self, memory: Inverse, step: Array, change: Array) -> Inverse:
        """The update above."""
        product = jnp.dot(step, change)
        known = jnp.where(product > 0, product, 1.0)
        size = jnp.dot(change, change)
        scaled = memory.matrix * jnp.where(memory.blank, known / jnp.where(size > 0, size, 1.0), 1.0)
        curved = scaled @ change
        matrix = (
            scaled
            - (jnp.outer(curved, step) + jnp.outer(step, curved)) / known
            + jnp.outer(step, step) * (1.0 + jnp.dot(change, curved) / known) / known
        )
        return Inverse(matrix, jnp.asarray(False))

    def direction(self, memory: Inverse, gradient: Array) -> Array:
        """Minus the inverse Hessian times the gradient."""
        return -memory.matrix @ gradient
