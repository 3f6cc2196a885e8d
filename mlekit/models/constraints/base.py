"""The base class of constraints, and helpers that several share."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ...core.dtypes import common_dtype


class Constraint(eqx.Module):
    """A map between a free array and a parameter in natural units; the base of every constraint."""

    elementwise: ClassVar[bool] = False  #: true if each element has a free number of its own
    closed: ClassVar[bool] = False  #: true if the value may lie on the ends of its range

    @property
    def closed_form(self) -> str:
        """How the constraint is called whose bounds the estimate may lie on; empty where there is none."""
        return ""

    def __call__(self, *_: Any) -> NoReturn:
        """A `TypeError`: a constraint is not called."""
        raise TypeError("a constraint is not called: write mle.positive, not mle.positive()")

    @abc.abstractmethod
    def forward(self, free: ArrayLike) -> Array:
        """Natural value of a free array, in the free array's dtype."""

    @abc.abstractmethod
    def inverse(self, value: ArrayLike) -> Array:
        """Free array of a natural value; NaN or infinite where the value is not inside."""

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        """The ends of the interval each single element lies in: two arrays that broadcast to the value's shape."""
        return like(-np.inf, value), like(np.inf, value)

    def problem(self, value: np.ndarray) -> str | None:
        """The trouble with a concrete value that does not lie strictly inside, in words; else `None`."""
        with jax.ensure_compile_time_eval():  # inside `jit` too, known bounds stay numbers
            ends = self.range(value)
        if any(isinstance(end, jax.core.Tracer) for end in ends):
            return trouble(value, lambda v: True, "", "start it inside its bounds")
        low, high = np.asarray(ends[0]), np.asarray(ends[1])
        least, most, between = (
            ("at least", "at most", "") if self.closed else ("greater than", "less than", ", on neither")
        )
        if np.all(np.isinf(low) & np.isinf(high)):
            wanted, start = "be a number", np.asarray(0.0)
        elif np.all(np.isinf(high)):
            wanted, start = f"be {least} {show(low)}", low + np.maximum(1, abs(low) / 100)
        elif np.all(np.isinf(low)):
            wanted, start = f"be {most} {show(high)}", high - np.maximum(1, abs(high) / 100)
        else:
            wanted, start = f"lie between {show(low)} and {show(high)}{between}", low + (high - low) / 2
        hint = f"start it at a number such as {show(start)}"
        inside = (lambda v: (low <= v) & (v <= high)) if self.closed else (lambda v: (low < v) & (v < high))
        return trouble(value, inside, wanted, hint)

    @property
    def named_bounds(self) -> tuple[str, ...]:
        """The names of the parameters that stand for bounds."""
        return tuple(bound for bound in jax.tree.leaves(self) if isinstance(bound, str))

    def with_bounds(self, value_of: Callable[[str], Any]) -> Constraint:
        """The constraint with numbers in place of the names of parameters."""
        if not self.named_bounds:
            return self
        return jax.tree.map(lambda bound: value_of(bound) if isinstance(bound, str) else bound, self)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the free array of a parameter of `shape`; a `ValueError` where that does not suit."""
        for bound in map(np.shape, jax.tree.leaves(self)):
            if len(bound) > len(shape) or any(b not in (1, n) for b, n in zip(bound[::-1], shape[::-1])):
                raise ValueError(f"bounds of shape {bound} do not broadcast to a parameter of shape {shape}")
        return shape


def checked_bound(caller: str, bound: Any, or_name: bool = False) -> Any:
    """A plain float for one concrete number, so that it hashes and never promotes; an array, or a name."""
    if isinstance(bound, jax.core.Tracer) or (or_name and isinstance(bound, str)):
        return bound
    try:
        number = np.asarray(bound, dtype=float)
    except (TypeError, ValueError) as error:
        text = f"{caller} wants numbers or arrays; it got {bound!r}"
        if isinstance(bound, str):
            text += "; mle.greater_than and mle.less_than take the name of another parameter"
        raise TypeError(text) from error
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
