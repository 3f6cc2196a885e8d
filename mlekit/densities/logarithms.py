r"""Sums and differences of probabilities that are known by their logarithms.

In a tail a probability is so small that its square is zero to the computer. So derivatives, to every order, are
written as products in an order in which nothing overflows or vanishes on the way.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from ..families.numerics import log1mexp


@jax.custom_jvp
def log_complement(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$\log(1 - e^{-x})$ for $x \ge 0$, the logarithm of what a probability $e^{-x}$ leaves over."""
    return log1mexp(x)


@log_complement.defjvp
def _log_complement_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return log_complement(*primals), _odds(*primals) * tangents[0]


@jax.custom_jvp
def _odds(x: Array) -> Array:
    r"""$e^{-x} / (1 - e^{-x})$."""
    return 1 / jnp.expm1(x)


@_odds.defjvp
def _odds_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    odds = _odds(*primals)
    return odds, -(odds * ((1 + odds) * tangents[0]))


def log_between(bottom: Float[Array, "..."], top: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$\log(e^t - e^b)$, without derivative where it is $-\infty$: where $b \ge t$.

    Args:
        bottom: $b$; where it is minus infinity, the result is `top`.
        top: $t$.
    """
    some = bottom != -jnp.inf
    gap = top - jnp.where(some, bottom, 0)
    none = some & (gap <= 0)
    share = log_complement(jnp.where(some & ~none, gap, 1))
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


def log_mixed_cdf(weights: Float[Array, " k"], logs: Float[Array, " k"]) -> Float[Array, ""]:
    """`log_mixture` of distribution functions, with relative digits where it is near zero, too.

    Args:
        weights: that sum to one.
        logs: logarithms of the distribution functions.
    """
    below = log_mixture(weights, logs)
    beyond = log_mixture(weights, log_between(logs, jnp.zeros_like(logs)))
    return from_either_side(below, beyond)


def from_either_side(below: Float[Array, ""], beyond: Float[Array, ""]) -> Float[Array, ""]:
    """The logarithm of a probability, from its own where it is small, otherwise from that of its complement."""
    large = below > -math.log(2)
    return jnp.where(large, log_complement(jnp.where(large, -beyond, 1)), below)
