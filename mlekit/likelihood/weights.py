"""Rows times their frequency weights, where a weight of zero silences any row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.trees import align_to_rows


def scaled_rows(rows: Array, weights: Array | None) -> Array:
    """Rows times their weights, if one that counts stands for each that does not, as in the blocks of a sum."""
    return rows if weights is None else align_to_rows(weights.astype(rows.dtype), rows) * rows


def weighted_rows(rows: Array, weights: Array | None) -> Array:
    """Rows times their weights, where a weight of zero silences any row."""
    if weights is None:
        return rows
    w = align_to_rows(weights.astype(rows.dtype), rows)
    known = (w > 0) | jnp.isfinite(rows)
    w = known_where(known, w)
    return jnp.where(known, w * rows, w)


def known_where(known: Array, weights: Array) -> Array:
    """Weights, zero where not `known`, and there with derivatives of NaN; but zero if nobody asks for them."""

    def only(_: Any, change: Array) -> Array:
        return jnp.where(known | (change == 0), change, jnp.nan)

    # JAX lets a linear map have derivatives of its own, forward and reverse, as the solution of a linear system.
    # This system is the identity, and its derivative is `only`.
    weights = jnp.broadcast_to(weights, known.shape)
    return jax.lax.custom_linear_solve(lambda it: it, weights, only, symmetric=True)


def weighted_squares(rows: Array, weights: Array | None) -> Array:
    r"""$\sum_i w_i r_i r_i^T$, where a weight of zero silences any row."""
    known = rows if weights is None else jnp.where((weights > 0)[:, None] | jnp.isfinite(rows), rows, 0)
    return weighted_rows(known, weights).T @ known
