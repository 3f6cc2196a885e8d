"""L-BFGS: an inverse Hessian made of the last few steps, for many parameters."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core.checks import check_count
from .line_search import AbstractQuasiNewton


class Pairs(eqx.Module):
    """The last steps and gradient changes, newest first; unused places have `rho` zero."""

    steps: Float[Array, "memory n_free"]
    changes: Float[Array, "memory n_free"]
    rho: Float[Array, " memory"]


class LBFGS(AbstractQuasiNewton):
    r"""L-BFGS: BFGS from the last few steps only; the default where parameters are many.

    The product of the inverse Hessian with the gradient comes from the two-loop recursion over the last
    `memory` pairs, started from $s^T y / y^T y$ of the newest. A step costs one value and gradient and
    `4 * memory * n_free` operations. (Liu and Nocedal 1989; Nocedal and Wright 2006, algorithm 7.4.)

    Args:
        memory: number of pairs kept.

    Example:
        >>> import mlekit as mle
        >>> mle.LBFGS(memory=20)
        LBFGS(memory=20)
    """

    memory: int = eqx.field(static=True, default=10)

    def __check_init__(self) -> None:
        check_count(self.memory, "LBFGS: memory")

    def init_memory(self, free: Float[Array, " n_free"]) -> Pairs:
        """No pairs."""
        none = jnp.zeros((self.memory, *free.shape), free.dtype)
        return Pairs(none, none, jnp.zeros(self.memory, free.dtype))

    def update_memory(self, memory: Pairs, step: Array, change: Array) -> Pairs:
        """The newest pair in, the oldest out."""
        product = jnp.dot(step, change)
        rho = jnp.where(product > 0, 1.0 / jnp.where(product > 0, product, 1.0), 0.0)
        push = lambda old, new: jnp.concatenate([new[None], old[:-1]])  # noqa: E731
        return Pairs(push(memory.steps, step), push(memory.changes, change), push(memory.rho, rho))

    def direction(self, memory: Pairs, gradient: Array) -> Array:
        """The two-loop recursion."""

        def down(q: Array, pair: Pairs) -> tuple[Array, Array]:
            alpha = pair.rho * jnp.dot(pair.steps, q)
            return q - alpha * pair.changes, alpha

        def up(r: Array, pair_alpha: tuple[Pairs, Array]) -> tuple[Array, None]:
            pair, alpha = pair_alpha
            beta = pair.rho * jnp.dot(pair.changes, r)
            return r + (alpha - beta) * pair.steps, None

        q, alphas = jax.lax.scan(down, gradient, memory)
        size = jnp.dot(memory.changes[0], memory.changes[0])
        scale = jnp.where(memory.rho[0] > 0, 1.0 / jnp.where(size > 0, memory.rho[0] * size, 1.0), 1.0)
        r, _ = jax.lax.scan(up, scale * q, (memory, alphas), reverse=True)
        return -r
