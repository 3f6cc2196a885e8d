"""Closed constraints: bounds that the estimate may lie on."""

# ruff: noqa: D102 - the five methods are documented in `Constraint`, their formulas and shapes by each class
from __future__ import annotations

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ...core.dtypes import as_float
from ...solvers.box import hair_inside
from .base import Constraint, checked_bound, like
from .bounds import GreaterThan, Interval, LessThan, Unconstrained
from .fixed_tied import Fixed


class AbstractClosed(Constraint):
    """Bounds that are part of the range: the free array is the value itself, and solvers keep it in a box."""

    elementwise: ClassVar[bool] = True
    closed: ClassVar[bool] = True

    def forward(self, free: ArrayLike) -> Array:
        return jnp.asarray(free)

    def inverse(self, value: ArrayLike) -> Array:
        value = as_float(value)
        low, high = self.range(value)
        return jnp.where((value >= low) & (value <= high), value, jnp.nan)

    def inside(self, value: ArrayLike) -> Array:
        """The nearest value a hair inside the interval, with the derivative one: see `hair_inside`."""
        value = jnp.asarray(value)
        return value + jax.lax.stop_gradient(hair_inside(value, *self.range(value)) - value)

    @abc.abstractmethod
    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        """The ends of the interval, both of which belong to it."""


class AtLeast(AbstractClosed):
    """At least a bound, which the estimate may lie on; `nonnegative` is the one with bound zero.

    Where the log-likelihood still rises at the bound, the bound is the estimate: `Fit.at_bound` says so, and the
    certificate holds the multiplier, the nats that a unit beyond would bring.

    Args:
        low: a finite number, or an array that broadcasts against the parameter; else a `ValueError`.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> density = lambda mean, x: -0.5 * (x - mean) ** 2
        >>> fit = mle.fit(density, 1.0, jnp.array([-1.0, 0.5, -2.5]), constraints=mle.at_least(0.0))
        >>> print(fit.status, fit.params, fit.at_bound, fit.certificate.multipliers["params"])
        converged 0.0 True 3.0

    Source: Karush 1939; Kuhn and Tucker 1951.
    """

    low: float | Array

    def __init__(self, low: Any):
        self.low = checked_bound("at_least(low)", low)

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return like(self.low, value), like(np.inf, value)


class AtMost(AbstractClosed):
    """At most a bound, which the estimate may lie on.

    Args:
        high: a finite number, or an array that broadcasts against the parameter; else a `ValueError`.

    Example:
        A shift can be no later than the first event:

        >>> import jax.numpy as jnp, mlekit as mle
        >>> times = jnp.array([500.0, 600.0, 700.0, 800.0])
        >>> density = lambda p, t: -jnp.log(p["scale"]) - (t - p["shift"]) / p["scale"]
        >>> fit = mle.fit(density, {"shift": 400.0, "scale": 100.0}, times,
        ...               constraints={"shift": mle.at_most(500.0), "scale": mle.positive})
        >>> print(f"{fit.params['shift']:.0f}, {fit.params['scale']:.1f} ± {fit.standard_errors()['scale']:.1f}")
        500, 150.0 ± 75.0
    """

    high: float | Array

    def __init__(self, high: Any):
        self.high = checked_bound("at_most(high)", high)

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return like(-np.inf, value), like(self.high, value)


class Between(AbstractClosed):
    """Between two bounds, both of which the estimate may lie on.

    Args:
        low: a finite number, or an array that broadcasts against the parameter.
        high: likewise, greater than `low` everywhere.

    Raises:
        ValueError: bounds that are not finite or not in order.

    Example:
        No failure in 20 trials:

        >>> import jax.numpy as jnp, jax.scipy as jsp, mlekit as mle
        >>> density = lambda rate, y: jsp.special.xlogy(y, rate) + jsp.special.xlog1py(1 - y, -rate)
        >>> fit = mle.fit(density, 0.5, jnp.zeros(20), constraints=mle.between(0.0, 1.0))
        >>> print(fit.status, fit.params, fit.certificate.multipliers["params"])
        converged 0.0 20.0
    """

    low: float | Array
    high: float | Array

    def __init__(self, low: Any, high: Any):
        self.low, self.high = checked_bound("between(low, high)", low), checked_bound("between(low, high)", high)
        if isinstance(self.low, jax.core.Tracer) or isinstance(self.high, jax.core.Tracer):
            return  # known only while a compiled function runs
        if not np.all(np.asarray(self.low) < np.asarray(self.high)):
            raise ValueError(f"between(low, high) wants low < high; it got {low=}, {high=}")

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return like(self.low, value), like(self.high, value)


class BesideHeld(AbstractClosed):
    """Between two ends, one of which is the name of a parameter that is held; the other may be infinite."""

    low: Any
    high: Any

    def inverse(self, value: ArrayLike) -> Array:
        return jnp.clip(as_float(value), *self.range(value))  # the start was made where nothing was held

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return like(self.low, value), like(self.high, value)


def beside_held(rule: Constraint | Fixed, name: str, below: bool) -> BesideHeld | None:
    """A constraint on numbers with a held parameter as a further end; `None` where there is an end already.

    Args:
        rule: the constraint.
        name: of the held parameter.
        below: whether that is the upper end.
    """
    if not isinstance(rule, (Unconstrained, GreaterThan, LessThan, Interval, AbstractClosed)) or rule.named_bounds:
        return None
    low, high = getattr(rule, "low", -np.inf), getattr(rule, "high", np.inf)
    if not isinstance(high if below else low, float) or np.isfinite(high if below else low):
        return None
    return BesideHeld(low, name) if below else BesideHeld(name, high)


nonnegative = AtLeast(0.0)
"""At least zero, which the estimate may be: `mle.at_least(0.0)`."""
at_least = AtLeast
at_most = AtMost
between = Between
