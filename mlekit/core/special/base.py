"""Helpers of the special functions."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ..dtypes import common_dtype


def floats(*arguments: ArrayLike) -> tuple[Array, ...]:
    """Arguments in their common floating dtype."""
    dtype = common_dtype(*arguments, 0.0)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"special functions here take real numbers, got {dtype}")
    return tuple(jnp.asarray(argument, dtype) for argument in arguments)


def horner(coefficients: Iterable[float], x: Any) -> Any:
    """A polynomial, its coefficients from the constant upwards."""
    return functools.reduce(lambda value, coefficient: value * x + coefficient, reversed(tuple(coefficients)))
