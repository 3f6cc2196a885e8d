"""Draws by inverting a distribution function: bisection over all numbers of a dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...core.dtypes import common_dtype, promoted


def draw(
    key: PRNGKeyArray, log_cdf: Callable[[Array], Float[Array, ""]], lower: Array, upper: Array, dtype: Any
) -> Array:
    r"""The least number $y$ of a dtype in `(lower, upper]` with $F(y) \ge u$, for a uniform $u$.

    The numbers of a dtype can be counted, and halving their count as often as it has bits leaves one: so the draw
    has no tolerance, whatever the distribution, and takes a fixed number of steps.

    Args:
        key: random key.
        log_cdf: the logarithm of the distribution function, minus infinity at `lower` and zero at `upper`.
        lower: below all draws; may be minus infinity.
        upper: the largest draw; may be infinity.
        dtype: of the draw; one of integers if only whole numbers are wanted.

    Returns:
        The draw; NaN where the distribution function is, and the largest integer where there is no NaN.
    """
    whole = jnp.issubdtype(dtype, jnp.integer)
    kind, unit = jnp.result_type(int) if whole else dtype, common_dtype(dtype, 0.0)
    log_u = jnp.log(jax.random.uniform(key, (), unit, minval=jnp.finfo(unit).tiny))
    position, number = (_whole, lambda count, _: count) if whole else (_position, _number)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low & high) + ((low ^ high) >> 1)  # their sum would overflow
        reached = promoted(jnp.greater_equal, log_cdf(number(middle, kind)), log_u)
        return jnp.where(reached, low, middle), jnp.where(reached, middle, high)

    ends = position(lower, kind), position(upper, kind)
    y = number(jax.lax.fori_loop(0, jnp.iinfo(ends[0].dtype).bits, halve, ends)[1], kind)
    missing = jnp.iinfo(dtype).max if whole else jnp.nan
    return jnp.where(jnp.isnan(log_cdf(y)), missing, y.astype(dtype))


def _whole(bound: Array, dtype: Any) -> Array:
    """The whole number at a bound or below; for an infinite bound the largest or smallest integer."""
    ends = jnp.iinfo(dtype)
    finite = jnp.floor(jnp.where(jnp.isfinite(bound), bound, 0)).astype(dtype)
    return jnp.where(bound == jnp.inf, ends.max, jnp.where(bound == -jnp.inf, ends.min, finite))


def _position(x: Array, dtype: Any) -> Array:
    """The position of a number among all numbers of a floating dtype, counted from zero."""
    bits = jax.lax.bitcast_convert_type(jnp.asarray(x, dtype), f"int{jnp.finfo(dtype).bits}")
    return jnp.where(bits < 0, jnp.iinfo(bits.dtype).min - bits, bits)


def _number(position: Array, dtype: Any) -> Array:
    """The number at a position: the inverse of `_position`."""
    bits = jnp.where(position < 0, jnp.iinfo(position.dtype).min - position, position)
    return jax.lax.bitcast_convert_type(bits, dtype)
