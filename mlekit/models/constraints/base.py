"""The base class of constraints, and helpers that several share."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ...core.dtypes import common_dtype


class Constraint(eqx.Module):
    """A map between a free array and a parameter in natural units; the base of every constraint."""

    elementwise: ClassVar[bool] = False  #: true if each element has a free number of its own

    @abc.abstractmethod
    def forward(self, free: ArrayLike) -> Array:
        """Natural value of a free array, in the free array's dtype."""

    @abc.abstractmethod
    def inverse(self, value: ArrayLike) -> Array:
        """Free array of a natural value; NaN or infinite where the value is not inside."""

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        """The open interval each single element lies in: two arrays that broadcast to the value's shape."""
        return like(-np.inf, value), like(np.inf, value)

    def problem(self, value: np.ndarray) -> str | None:
        """The trouble with a concrete value that does not lie strictly inside, in words; else `None`."""
        with jax.ensure_compile_time_eval():  # inside `jit` too, known bounds stay numbers
            ends = self.range(value)
        if any(isinstance(end, jax.core.Tracer) for end in ends):
            return trouble(value, lambda v: True, "", "start it inside its bounds")
        low, high = np.asarray(ends[0]), np.asarray(ends[1])
        if np.all(np.isinf(low) & np.isinf(high)):
            wanted, start = "be a number", np.asarray(0.0)
        elif np.all(np.isinf(high)):
            wanted, start = f"be greater than {show(low)}", low + np.maximum(1, abs(low) / 100)
        elif np.all(np.isinf(low)):
            wanted, start = f"be less than {show(high)}", high - np.maximum(1, abs(high) / 100)
        else:
            wanted, start = f"lie between {show(low)} and {show(high)}, on neither", low + (high - low) / 2
        hint = f"start it at a number such as {show(start)}"
        return trouble(value, lambda v: (low < v) & (v < high), wanted, hint)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the free array of a parameter of `shape`; a `ValueError` where that does not suit."""
        for bound in map(np.shape, jax.tree.leaves(self)):
            if len(bound) > len(shape) or any(b not in (1, n) for b, n in zip(bound[::-1], shape[::-1])):
                raise ValueError(f"bounds of shape {bound} do not broadcast to a parameter of shape {shape}")
        return shape


def checked_bound(caller: str, bound: Any) -> float | Array:
    """A plain float for one concrete number, so that it hashes and never promotes; else an array."""
    if isinstance(bound, jax.core.Tracer):
        return bound
    try:
        number = np.asarray(bound, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{caller} wants numbers or arrays; it got {bound!r}") from error
    if not np.all(np.isfinite(number)):
        raise ValueError(f"{caller} wants finite numbers; it got {bound!r}")
    with jax.ensure_compile_time_eval():  # inside `jit` the bound must stay a value that `problem` can read
        return jnp.asarray(number) if number.ndim else float(number)


def like(bound: ArrayLike, other: ArrayLike) -> Array:
    """The bound in the other's float dtype: float64 bounds must not promote a float32 parameter."""
    bound = jnp.asarray(bound, common_dtype(other, float))
    # It may have fewer axes than the other, whose last ones it belongs to.
    fewer = jnp.ndim(other) - bound.ndim
    return jnp.expand_dims(bound, range(fewer)) if bound.ndim and fewer > 0 else bound


def trouble(value: np.ndarray, inside: Callable[[np.ndarray], Any], wanted: str, hint: str) -> str | None:
    """The trouble with a value that is not finite or not `inside`, in words; else `None`."""
    value = np.asarray(value)
    if not np.all(np.isfinite(value)):
        return f"must be finite; {hint}"
    return None if np.all(inside(value)) else f"must {wanted}; {hint}"


def show(number: ArrayLike) -> str:
    """A number or array as short text."""
    array = np.asarray(number)
    return np.array2string(array, separator=", ", threshold=8) if array.ndim else str(array)


def last_axis(name: str, shape: tuple[int, ...], square: bool = False) -> int:
    """The length of the last axis; a `ValueError` where there is none, or it makes no square."""
    suits = len(shape) > square and shape[-1] > 0 and (not square or shape[-2] == shape[-1])
    if not suits:
        wanted = "square matrices on the last two axes" if square else "a last axis with at least one entry"
        raise ValueError(f"{name} wants {wanted}; the parameter has shape {shape}")
    return shape[-1]


def slack_of(value: ArrayLike) -> float:
    """Tolerance on sums and symmetry, for rounding and for starts typed with seven digits."""
    return max(1e-6, np.shape(value)[-1] * float(jnp.finfo(common_dtype(value, float)).eps))
