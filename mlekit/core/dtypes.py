"""Which dtype numbers of several dtypes have together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array


def common_dtype(*values: Any) -> np.dtype:
    """The dtype of arrays, numbers and dtypes together, by JAX's standard rules whatever a user has set.

    Where a user asks JAX for strict promotion, numbers of unlike types meet only where it is written how, and
    here it is.
    """
    with jax.numpy_dtype_promotion("standard"):
        return np.dtype(jnp.result_type(*values))


def computed_dtype(dtype: Any) -> Any:
    """The dtype that numbers of this dtype are computed in: JAX's default for floats of fewer than 32 bits.

    Those hold data, and two or three digits are too few to add up a likelihood, or to tell where it is highest.

    Example:
        >>> [str(computed_dtype(np.dtype(kind))) for kind in ("float16", "float32", "int8")]
        ['float64', 'float32', 'int8']
    """
    small = jnp.issubdtype(dtype, jnp.floating) and np.dtype(dtype).itemsize < 4
    return jnp.result_type(float) if small else dtype


def widened(leaf: Any) -> Any:
    """An array in the dtype that it is computed in; whatever else as it is."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or (wanted := computed_dtype(dtype)) == dtype:
        return leaf
    return leaf.astype(wanted)


def promoted(fn: Callable[..., Any], *arguments: Any) -> Any:
    """`fn(*arguments)` by JAX's standard rules for unlike dtypes and ranks, whatever a user has set.

    For arguments that are meant to be unlike, and for functions of other packages, which count on these rules.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return fn(*arguments)


def as_float(value: ArrayLike) -> Array:
    """An array of floating-point numbers; those that are have their dtype."""
    return jnp.asarray(value, common_dtype(value, 0.0))


def as_index(number: ArrayLike) -> Array | int:
    """A position in an array, in the dtype of integers that `jnp.arange` has; a plain number stays one."""
    return number if isinstance(number, int) else jnp.asarray(number, jnp.result_type(int))
