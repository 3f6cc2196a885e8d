"""Constraints on single numbers: none, or bounds on one side or both."""

# ruff: noqa: D102 - the methods are documented in `Constraint`, their formulas and shapes by each class
from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ...core.dtypes import as_float
from .base import Constraint, checked_bound, like, show


class Unconstrained(Constraint):
    """Any real number: `value = free`.

    Example:
        >>> import mlekit as mle
        >>> print(mle.constraints.unconstrained.forward(-2.5))
        -2.5
    """

    elementwise = True

    def forward(self, free: ArrayLike) -> Array:
        return jnp.asarray(free)

    def inverse(self, value: ArrayLike) -> Array:
        return jnp.asarray(value)


class GreaterThan(Constraint):
    """Greater than a bound: `value = low + exp(free)`, any shape; `positive` is the one with bound zero.

    Args:
        low: a finite number, or an array that broadcasts against the parameter; else a `ValueError`. Or the name
            of another parameter, `mle.greater_than("a")`: greater than that, wherever it lies.

    Example:
        >>> import numpy as np, mlekit as mle
        >>> print(mle.greater_than(2.0).forward(0.0), mle.positive.problem(np.zeros(())))
        3.0 must be greater than 0.0; start it at a number such as 1.0
    """

    elementwise = True
    low: Any  # a number, an array, or the name of a parameter

    def __init__(self, low: Any):
        self.low = checked_bound("greater_than(low)", low, or_name=True)

    @property
    def closed_form(self) -> str:
        if self.named_bounds:
            return ""
        return "mle.nonnegative" if np.ndim(self.low) == 0 and self.low == 0 else f"mle.at_least({show(self.low)})"

    def forward(self, free: ArrayLike) -> Array:
        return like(self.low, free) + jnp.exp(free)

    def inverse(self, value: ArrayLike) -> Array:
        return jnp.log(as_float(value) - like(self.low, value))

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return like(self.low, value), like(np.inf, value)


class LessThan(Constraint):
    """Less than a bound: `value = high - exp(free)`, any shape; it falls as `free` rises.

    Args:
        high: a finite number, or an array that broadcasts against the parameter; else a `ValueError`. Or the name
            of another parameter: less than that, wherever it lies.

    Example:
        >>> import mlekit as mle
        >>> print(mle.less_than(2.0).forward(0.0))
        1.0
    """

    elementwise = True
    high: Any  # likewise

    def __init__(self, high: Any):
        self.high = checked_bound("less_than(high)", high, or_name=True)

    @property
    def closed_form(self) -> str:
        return "" if self.named_bounds else f"mle.at_most({show(self.high)})"

    def forward(self, free: ArrayLike) -> Array:
        return like(self.high, free) - jnp.exp(free)

    def inverse(self, value: ArrayLike) -> Array:
        return jnp.log(like(self.high, value) - as_float(value))

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return like(-np.inf, value), like(self.high, value)


class Interval(Constraint):
    """Between two bounds: `value = low + (high - low) * sigmoid(free)`, any shape.

    Args:
        low: a finite number, or an array that broadcasts against the parameter.
        high: likewise, greater than `low` everywhere.

    Raises:
        ValueError: bounds that are not finite or not in order.

    Example:
        >>> import mlekit as mle
        >>> print(mle.interval(-1.0, 3.0).forward(0.0))
        1.0
    """

    elementwise = True
    low: float | Array
    high: float | Array

    def __init__(self, low: Any, high: Any):
        self.low, self.high = checked_bound("interval(low, high)", low), checked_bound("interval(low, high)", high)
        if isinstance(self.low, jax.core.Tracer) or isinstance(self.high, jax.core.Tracer):
            return  # known only while a compiled function runs
        with np.errstate(over="ignore"):  # a width that overflows would make every value infinite
            width = np.asarray(self.high) - np.asarray(self.low)
        if not np.all((width > 0) & np.isfinite(width)):
            raise ValueError(f"interval(low, high) wants low < high, finitely apart; it got {low=}, {high=}")

    @property
    def closed_form(self) -> str:
        return f"mle.between({show(self.low)}, {show(self.high)})"

    def forward(self, free: ArrayLike) -> Array:
        free, low, high = jnp.asarray(free), like(self.low, free), like(self.high, free)
        # Measured from the nearer bound the sigmoid is at most one half: no digits are lost beside either
        # bound, and rounding cannot carry the value past one.
        lower_half = free < 0
        step = (high - low) * jax.nn.sigmoid(jnp.where(lower_half, free, -free))
        return jnp.where(lower_half, low + step, high - step)

    def inverse(self, value: ArrayLike) -> Array:
        value, low, high = as_float(value), like(self.low, value), like(self.high, value)
        # Shares of the width, because a difference of the logs of very large numbers would cancel.
        return jnp.log((value - low) / (high - low)) - jnp.log((high - value) / (high - low))

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return like(self.low, value), like(self.high, value)


unconstrained = Unconstrained()
positive = GreaterThan(0.0)
"""Greater than zero: `mle.greater_than(0.0)`, so `value = exp(free)`."""
greater_than = GreaterThan
less_than = LessThan
interval = Interval
unit_interval = Interval(0.0, 1.0)
"""Between zero and one: `mle.interval(0.0, 1.0)`, so `value = sigmoid(free)`."""
