"""Bootstrap confidence intervals: percentile, basic, BCa and studentized."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

METHODS = ("percentile", "basic", "bca", "studentized")


@functools.partial(jax.jit, static_argnames="method")
def ends(
    refits: tuple[Array, Array, Array | None], best: Array, errors: Array, fixed: Array, z: Array, method: str
) -> tuple[Array, Array]:
    """`Bootstrap.ends`, with a normal quantile for the level."""
    lower, upper = (_end(*refits, best, errors, side * z, method) for side in (-1, 1))
    return jnp.where(fixed, best, lower), jnp.where(fixed, best, upper)


def _end(
    vector: Array, own: Array, acceleration: Array | None, best: Array, errors: Array, z: Array, method: str
) -> Array:
    share = jnp.broadcast_to(ndtr(z), best.shape)
    here = best[..., None, :]
    if method == "percentile":
        return _quantiles(vector, share)
    if method == "basic":
        return 2 * best - _quantiles(vector, 1 - share)
    if method == "studentized":
        return best - errors * _quantiles((vector - here) / own, 1 - share)
    assert acceleration is not None
    below = jnp.sum(vector < here, -2) + 0.5 * jnp.sum(vector == here, -2)  # NaN are neither
    shift = ndtri(below / jnp.sum(~jnp.isnan(vector), -2))
    moved = shift + z
    return _quantiles(vector, ndtr(shift + moved / (1 - acceleration * moved)))


def _quantiles(values: Float[Array, "... replicates k"], share: Float[Array, "... k"]) -> Float[Array, "... k"]:
    """For each column its own quantile of the numbers that are there."""
    last = jnp.sort(jnp.moveaxis(values, -2, -1), axis=-1)  # NaN come last
    count = jnp.sum(~jnp.isnan(last), axis=-1)
    place = share * (count - 1)
    low = jnp.clip(jnp.floor(place).astype(int), 0, jnp.maximum(count - 1, 0))
    high = jnp.minimum(low + 1, jnp.maximum(count - 1, 0))
    take = lambda i: jnp.take_along_axis(last, i[..., None], axis=-1)[..., 0]  # noqa: E731
    part = place - low
    found = take(low) * (1 - part) + jnp.where(part > 0, take(high), 0.0) * part
    return jnp.where(jnp.isfinite(place), found, jnp.nan)
