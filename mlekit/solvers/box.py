"""A box that the free vector must stay in: the bounds of closed constraints, and which of them are active."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core.linear_algebra import factorise, matvec, norm
from .quadratic_model import QuadraticModel

#: Information has vanished where its root is less than so many times that of the machine precision.
VANISHED = 10.0
#: Nats that the last hair before a bound must bring where the log-likelihood is infinite on it.
ENDLESS = 1e-4


class Active(NamedTuple):
    r"""The bounds that are active at a point: entries of the free vector that stay where they are.

    Args:
        held: entries on a bound from which the objective does not fall inwards.
        weak: those of them whose multiplier is zero as far as the tolerance sees: $\tfrac12 n g_j^2 / H_{jj}$, the
            log-likelihood that they could gain alone, lies within it.
        slope: the slope of the objective inwards, zero for entries that are not held.
    """

    held: Bool[Array, " n_free"]
    weak: Bool[Array, " n_free"]
    slope: Float[Array, " n_free"]

    def multiplier(self, n_obs: Float[Array, ""]) -> Float[Array, " n_free"]:
        """The nats that a unit beyond each active bound would bring: zero if it is weak, NaN for other entries."""
        return jnp.where(self.weak, 0.0, jnp.where(self.held, n_obs * self.slope, jnp.nan))

    def lost(
        self, free: Float[Array, " n_free"], units: Float[Array, " n_free"], scale: Float[Array, " n_free"]
    ) -> Bool[Array, " n_free"]:
        """Entries of which the data say nothing while the active bounds hold.

        Such is the mean of a component of no weight. What information is left comes from the hair that keeps
        log-densities off their bounds.

        Args:
            free: the point.
            units: roots of the diagonal of the curvature there.
            scale: the largest of them that the search has met.
        """
        eps = jnp.finfo(free.dtype).eps
        relative = units * jnp.maximum(1.0, jnp.abs(free))
        vanished = (relative < VANISHED * eps**0.5) & (units < VANISHED * eps**0.5 * scale)
        return ~self.held & jnp.any(self.held) & (vanished | (relative < eps))


class Box(eqx.Module):
    """Bounds of the free vector, infinite where there is none.

    Args:
        low: the least value of each entry.
        high: the greatest.
    """

    low: Float[Array, " n_free"]
    high: Float[Array, " n_free"]

    def clip(self, free: Float[Array, " n_free"]) -> Float[Array, " n_free"]:
        """The nearest point in the box. On a bound its derivative is one, as inside."""
        return jnp.where(free < self.low, self.low, jnp.where(free > self.high, self.high, free))

    def inside(self, free: Float[Array, " n_free"]) -> Float[Array, " n_free"]:
        """The nearest point a hair inside the box, where log-densities are evaluated that lie on a bound."""
        return hair_inside(free, self.low, self.high)

    def infinite_at(
        self, free: Float[Array, " n_free"], multiplier: Float[Array, " n_free"]
    ) -> Bool[Array, " n_free"]:
        r"""The entries on whose bounds the log-likelihood seems to be infinite.

        Where it is finite the last hair before the bound brings next to nothing; where it rises as $-\log x$ does
        towards zero, a nat.

        Args:
            free: the point.
            multiplier: of the active bounds, in nats per unit, NaN for other entries.
        """
        end = jnp.where(free <= self.low, self.low, self.high)
        return multiplier * _hair(end) > ENDLESS

    def active(
        self,
        free: Float[Array, " n_free"],
        gradient: Float[Array, " n_free"],
        units: Float[Array, " n_free"],
        n_obs: Float[Array, ""],
        tolerance: Float[Array, ""],
    ) -> Active:
        """The bounds that are active at a point of the box.

        Args:
            free: the point.
            gradient: of the objective there.
            units: roots of the diagonal of its curvature.
            n_obs: number of observations.
            tolerance: on the decrement, in nats.
        """
        below, above = free <= self.low, free >= self.high
        slope = jnp.where(below, gradient, jnp.where(above, -gradient, 0.0))
        weak = (below | above) & (0.5 * n_obs * (slope / units) ** 2 <= tolerance)
        held = weak | (slope > 0)
        return Active(held, weak, jnp.where(held, slope, 0.0))

    def inner_gradient(
        self, free: Float[Array, " n_free"], gradient: Float[Array, " n_free"]
    ) -> Float[Array, " n_free"]:
        """The gradient, with zeros for entries on a bound from which the objective does not fall inwards."""
        return jnp.where(self.stays(free, gradient), 0.0, gradient)

    def stays(self, free: Float[Array, " n_free"], gradient: Float[Array, " n_free"]) -> Bool[Array, " n_free"]:
        """The entries on a bound from which an objective with this gradient does not fall inwards."""
        return ((free <= self.low) & (gradient >= 0)) | ((free >= self.high) & (gradient <= 0))

    def inwards(self, free: Float[Array, " n_free"]) -> Float[Array, " n_free"]:
        """The sign of a move into the box for each entry on a bound, and zero for the others."""
        return jnp.where(free <= self.low, 1.0, jnp.where(free >= self.high, -1.0, 0.0)).astype(free.dtype)

    def pinned(
        self, free: Float[Array, " n_free"], held: Bool[Array, " n_free"] | None
    ) -> Float[Array, " n_free"]:
        """The point with the entries `held` written as the bounds that they lie on, and moving with these."""
        return free if held is None else jnp.where(held, jnp.where(free <= self.low, self.low, self.high), free)

    def room(self, free: Float[Array, " n_free"], direction: Float[Array, " n_free"]) -> Float[Array, ""]:
        """How many times the direction fits into the box, both ways."""
        gap = jnp.minimum(free - self.low, self.high - free)
        moves = direction != 0
        return jnp.min(jnp.where(moves, gap / jnp.where(moves, jnp.abs(direction), 1.0), jnp.inf))


def hair_inside(value: Array, low: Array, high: Array) -> Array:
    r"""The nearest value in an interval, a hair from its ends.

    There many log-densities have derivatives that they lack at the ends: $0 \log p$ at $p = 0$.
    """
    return jnp.clip(value, low + _hair(low), high - _hair(high))


def _hair(end: Array) -> Array:
    """The distance from the end of an interval where log-densities are evaluated instead.

    It stands in denominators of derivatives: its powers must neither vanish nor overflow.
    """
    limits = jnp.finfo(end.dtype)
    beside = jnp.where(jnp.isfinite(end), jnp.abs(end) * limits.eps, 0.0)
    return jnp.where(end == 0, limits.tiny**0.2, beside)


def hold(
    curvature: Float[Array, "k k"],
    gradient: Float[Array, " k"],
    held: Bool[Array, " k"],
    units: Float[Array, " k"],
) -> tuple[Float[Array, "k k"], Float[Array, " k"]]:
    """Curvature and gradient of the other entries: those that are held want to stay, and no other feels them."""
    apart = jnp.where(held[:, None] | held[None, :], 0.0, curvature)
    return apart + jnp.diag(jnp.where(held, units**2, 0.0)), jnp.where(held, 0.0, gradient)


def predicted_decrease(model: QuadraticModel, move: Float[Array, " k"]) -> Float[Array, ""]:
    """How much the quadratic falls along a move in the solver's units."""
    return -jnp.sum(move * (model.slope + 0.5 * matvec(model.matrix, move)))


def with_others(
    model: QuadraticModel, move: Float[Array, " k"], which: Bool[Array, " k"]
) -> tuple[Float[Array, " k"], Bool[Array, ""]]:
    """A move of some entries, with the others where the quadratic is least then, and whether there is such a
    place.
    """
    given = jnp.where(which, move, 0.0)
    slope = model.slope + matvec(model.matrix, given)
    matrix, slope = hold(model.matrix, slope, which, jnp.ones_like(slope))
    factor = factorise(matrix)
    definite = jnp.min(factor.pivots) > 0
    return jnp.where(which, given, jnp.where(definite, -factor.solve(slope), 0.0)), definite


def cut_off(
    box: Box,
    model: QuadraticModel,
    free: Float[Array, " k"],
    move: Float[Array, " k"],
    radius: Float[Array, ""],
) -> tuple[Float[Array, " k"], Bool[Array, ""]]:
    """A move cut off at the box, and whether it had to be.

    Entries that would leave the box stop at their bounds. The minimiser over the others, given those, is the
    better move as a rule; where it is not, or lies outside the ball, the rest of the move stays as it was. Either
    way small moves along the gradient go downhill, so that a ball that shrinks leads to progress. (Bertsekas 1982
    for the projection; Conn, Gould and Toint 1988 for the ball.)
    """
    point = free + move / model.scale
    inside = box.clip(point)
    cut = inside != point
    plain = jnp.where(cut, (inside - free) * model.scale, move)
    rest, definite = with_others(model, plain, cut)
    rest = (box.clip(free + rest / model.scale) - free) * model.scale
    better = definite & (norm(rest) <= radius)
    better &= predicted_decrease(model, rest) > predicted_decrease(model, plain)
    return jnp.where(better, rest, plain), jnp.any(cut)
