"""Wald intervals, on the natural scale and on one that never leaves the constraint."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float


def wald(
    estimates: Float[Array, "... k"], errors: Float[Array, "... k"], level: float
) -> tuple[Float[Array, "... k"], Float[Array, "... k"]]:
    r"""$\hat\theta \pm z_{(1 + \text{level}) / 2}\, \mathrm{se}$."""
    return _wald(estimates, errors, quantile(level, errors.dtype))


@jax.jit
def _wald(estimates: Array, errors: Array, z: Array) -> tuple[Array, Array]:
    return estimates - z * errors, estimates + z * errors


def wald_transformed(
    estimates: Float[Array, "... k"],
    errors: Float[Array, "... k"],
    low: Float[Array, "... k"],
    high: Float[Array, "... k"],
    level: float,
) -> tuple[Float[Array, "... k"], Float[Array, "... k"]]:
    r"""Wald intervals on a scale without edges, mapped back.

    $$h^{-1}\big(h(\hat\theta) \pm z\, h'(\hat\theta)\, \mathrm{se}\big)$$

    with $h$ the logarithm of the distance to the edge where the parameter has one edge, the logit between
    two edges, and the identity where there are none.

    Args:
        estimates: parameters in natural units.
        errors: their standard errors.
        low: the open range of each parameter begins here.
        high: and ends here.
        level: confidence level.
    """
    return _wald_transformed(estimates, errors, low, high, quantile(level, errors.dtype))


@jax.jit
def _wald_transformed(estimates: Array, errors: Array, low: Array, high: Array, z: Array) -> tuple[Array, Array]:
    inside = (estimates > low) & (estimates < high)
    safe = jnp.where(
        inside, estimates, jnp.where(jnp.isfinite(low), low + 1, jnp.where(jnp.isfinite(high), high - 1, 0))
    )
    margin = z * errors * line_slope(safe, low, high)
    middle = to_line(safe, low, high)
    fixed = errors == 0
    ends = (from_line(middle - margin, low, high), from_line(middle + margin, low, high))
    lower, upper = (jnp.where(fixed, estimates, jnp.where(inside, end, jnp.nan)) for end in ends)
    return lower, upper


def to_line(value: Array, low: Array, high: Array) -> Array:
    """The logarithm of the distance to the one edge, the logit between two, the value itself where there is none.

    Every case but the last is a logit, with a missing edge at infinite distance.
    """
    below, above = jnp.isfinite(low), jnp.isfinite(high)
    bounded = jnp.log(jnp.where(below, value - low, 1.0)) - jnp.log(jnp.where(above, high - value, 1.0))
    return jnp.where(below | above, bounded, value)


def line_slope(value: Array, low: Array, high: Array) -> Array:
    """The derivative of `to_line`."""
    below, above = jnp.isfinite(low), jnp.isfinite(high)
    bounded = jnp.where(below, 1 / (value - low), 0.0) + jnp.where(above, 1 / (high - value), 0.0)
    return jnp.where(below | above, bounded, 1.0)


def from_line(h: Array, low: Array, high: Array) -> Array:
    """The inverse of `to_line`."""
    below, above = jnp.isfinite(low), jnp.isfinite(high)
    # Values that `where` does not choose must be finite too, or the derivatives are not.
    low, high, there = jnp.where(below, low, 0.0), jnp.where(above, high, 0.0), jnp.where(below | above, h, 0.0)
    between = low + (high - low) / (1 + jnp.exp(-there))
    one_edge = jnp.where(below, low + jnp.exp(there), high - jnp.exp(-there))
    return jnp.where(below & above, between, jnp.where(below | above, one_edge, h))


_ndtri = jax.jit(ndtri)


def quantile(level: float, dtype: Any) -> Array:
    """The normal quantile that leaves half of `1 - level` above it."""
    return _ndtri(jnp.asarray(0.5 * (1 + level), dtype))
