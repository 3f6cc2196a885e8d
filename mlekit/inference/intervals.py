"""Wald intervals, on the natural scale and on one that never leaves the constraint."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float


def wald(
    estimates: Float[Array, "... k"], errors: Float[Array, "... k"], level: float
) -> tuple[Float[Array, "... k"], Float[Array, "... k"]]:
    r"""$\hat\theta \pm z_{(1 + \text{level}) / 2}\, \mathrm{se}$."""
    margin = _quantile(level, errors.dtype) * errors
    return estimates - margin, estimates + margin


def wald_free(
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
    z = _quantile(level, errors.dtype)
    below, above = jnp.isfinite(low), jnp.isfinite(high)
    from_low = jnp.where(below, estimates - low, 1.0)
    to_high = jnp.where(above, high - estimates, 1.0)
    inside = (from_low > 0) & (to_high > 0)
    from_low, to_high = jnp.where(inside, from_low, 1.0), jnp.where(inside, to_high, 1.0)

    # Every case is a logit, with the missing edges at infinite distance.
    slope = jnp.where(below, 1 / from_low, 0.0) + jnp.where(above, 1 / to_high, 0.0)
    free = jnp.log(jnp.where(below, from_low, 1.0)) - jnp.log(jnp.where(above, to_high, 1.0))

    def back(h: Array) -> Array:
        between = low + (high - low) * (1 / (1 + jnp.exp(-h)))
        one_edge = jnp.where(below, low + jnp.exp(h), high - jnp.exp(-h))
        return jnp.where(below & above, between, one_edge)

    margin = z * errors * slope
    lower, upper = back(free - margin), back(free + margin)
    plain = wald(estimates, errors, level)
    edges = below | above
    fixed = errors == 0
    lower = jnp.where(fixed, estimates, jnp.where(edges, lower, plain[0]))
    upper = jnp.where(fixed, estimates, jnp.where(edges, upper, plain[1]))
    return jnp.where(inside | fixed, lower, jnp.nan), jnp.where(inside | fixed, upper, jnp.nan)


def _quantile(level: float, dtype: Any) -> Array:
    return ndtri(jnp.asarray(0.5 * (1 + level), dtype))
