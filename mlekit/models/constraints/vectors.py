"""Constraints on vectors: shares that sum to one, and increasing numbers."""

# ruff: noqa: D102 - the five methods are documented in `Constraint`, their formulas and shapes by each class
from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .base import Constraint, last_axis, like, show, slack_of, trouble


class Simplex(Constraint):
    """Positive shares `(..., k)` that sum to one: `value = softmax([free, 0])`, with `k - 1` free.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> print(mle.simplex.forward(jnp.zeros(3)))
        [0.25 0.25 0.25 0.25]

    Source: the additive log-ratio of Aitchison (1986), The Statistical Analysis of Compositional Data.
    """

    def forward(self, free: ArrayLike) -> Array:
        free = jnp.asarray(free)
        return jax.nn.softmax(jnp.concatenate([free, jnp.zeros_like(free, shape=(*free.shape[:-1], 1))], -1))

    def inverse(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        logs, off = jnp.log(value), abs(jnp.sum(value, -1, keepdims=True) - 1)
        return jnp.where(off <= slack_of(value), logs[..., :-1] - logs[..., -1:], jnp.nan)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], last_axis("simplex", shape) - 1)

    def problem(self, value: np.ndarray) -> str | None:
        def inside(v: np.ndarray) -> Any:
            return (v > 0) & (abs(v.sum(-1, keepdims=True) - 1) <= slack_of(v))

        hint = f"start every share at 1/{value.shape[-1]}"
        return trouble(value, inside, "be shares greater than 0 that sum to 1 on the last axis", hint)

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        # A lone share can only be one.
        return like(0.0 if np.shape(value)[-1] > 1 else 1.0, value), like(1.0, value)


class Ordered(Constraint):
    """Strictly increasing on the last axis: `value[0] = free[0]`, `value[i] = value[i - 1] + exp(free[i])`.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> print(mle.ordered.forward(jnp.array([-1.0, 0.0, 0.0])))
        [-1.  0.  1.]

    Source: the cut-points of McCullagh (1980), Regression Models for Ordinal Data, as a start and log-gaps.
    """

    def forward(self, free: ArrayLike) -> Array:
        free = jnp.asarray(free)
        return jnp.cumsum(jnp.concatenate([free[..., :1], jnp.exp(free[..., 1:])], -1), -1)

    def inverse(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        return jnp.concatenate([value[..., :1], jnp.log(jnp.diff(value, axis=-1))], -1)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], last_axis("ordered", shape))

    def problem(self, value: np.ndarray) -> str | None:
        hint = f"start it at increasing numbers such as {show(np.arange(1.0 * value.shape[-1]))}"
        return trouble(value, lambda v: np.diff(v) > 0, "increase strictly along the last axis", hint)


simplex = Simplex()
ordered = Ordered()
