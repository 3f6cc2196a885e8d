r"""Sums and differences of probabilities that are known by their logarithms.

Their derivatives, to every order, are products in an order in which nothing overflows or vanishes on the way.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from ..families.numerics import log1mexp


def log_between(bottom: Float[Array, "..."], top: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$\log(e^t - e^b)$, without derivative where it is $-\infty$: where $b \ge t$.

    Args:
        bottom: $b$; where it is minus infinity, the result is `top`.
        top: $t$.
    """
    some = bottom != -jnp.inf
    gap = top - jnp.where(some, bottom, 0)
    none = some & (gap <= 0)
    share = log1mexp(jnp.where(some & ~none, gap, 1))
    return jnp.where(none, -jnp.inf, top + jnp.where(some, share, 0))


@jax.custom_jvp
def log_mixture(weights: Float[Array, " k"], logs: Float[Array, " k"]) -> Float[Array, ""]:
    r"""$\log \sum_j w_j e^{l_j}$, differentiable where weights are zero and where terms are $-\infty$."""
    none = weights == 0
    return logsumexp(jnp.where(none, -jnp.inf, jnp.log(jnp.where(none, 1, weights)) + logs))


@log_mixture.defjvp
def _log_mixture_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    weights, logs = primals
    total = log_mixture(weights, logs)
    ratios = _ratios(weights, logs, total)
    return total, jnp.sum(ratios * tangents[0] + (weights * ratios) * tangents[1])


def shares(weights: Float[Array, " k"], logs: Float[Array, " k"]) -> Float[Array, " k"]:
    r"""$w_j e^{l_j}$ as a share of their sum; NaN where that is zero."""
    total = log_mixture(weights, logs)
    return jnp.where(total == -jnp.inf, jnp.nan, weights * _ratios(weights, logs, total))


def _ratios(weights: Array, logs: Array, total: Array) -> Array:
    r"""$e^{l_j}$ over the sum of all terms: at most $1 / w_j$; where that is infinite, its square still is not."""
    most = -math.log(jnp.finfo(logs.dtype).tiny) * jnp.where(weights == 0, 0.5, 1)
    return jnp.exp(jnp.minimum(logs - jnp.where(total == -jnp.inf, 0, total), most))


def from_either_side(below: Float[Array, ""], beyond: Float[Array, ""]) -> Float[Array, ""]:
    """The logarithm of a probability, from its own where that is small, otherwise from its complement's."""
    large = below > -math.log(2)
    return jnp.where(large, log1mexp(jnp.where(large, -beyond, 1)), below)
