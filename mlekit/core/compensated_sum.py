r"""Compensated sums: the rounding error of every addition is summed beside the sum.

$$t = s + p, \qquad e = (s - (t - (t - s))) + (p - (t - s))$$

is exact: $t + e = s + p$ (Knuth 1969). So the error of a sum of $n$ parts stays at one rounding, where it would
grow with $n$: in float32, 24,000 blocks of a hundred million rows would cost two digits or three.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


def begin(zero: PyTree) -> tuple[PyTree, PyTree]:
    """The sum of no parts: a pair of sum and error.

    Args:
        zero: the start of the sum.
    """
    return zero, jax.tree.map(jnp.zeros_like, zero)


def add(sums: tuple[PyTree, PyTree], part: PyTree) -> tuple[PyTree, PyTree]:
    """The sum with one part more."""
    before, lost = sums
    part = jax.tree.map(lambda s, p: jnp.asarray(p).astype(s.dtype), before, part)
    after = jax.tree.map(jnp.add, before, part)
    return after, jax.tree.map(_lost, before, part, after, lost)


def total(sums: tuple[PyTree, PyTree]) -> PyTree:
    """The sum with its error taken off."""
    return jax.tree.map(jnp.add, *sums)


def _lost(before: Array, part: Array, after: Array, lost: Array) -> Array:
    if not jnp.issubdtype(after.dtype, jnp.inexact):
        return lost
    moved = after - before
    error = (before - (after - moved)) + (part - moved)
    return lost + jnp.where(jnp.isfinite(after), error, 0.0)
