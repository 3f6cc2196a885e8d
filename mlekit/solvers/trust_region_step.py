"""The trust-region subproblem: a quadratic minimised on a ball."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core.linear_algebra import AbstractFactor, factorise, matvec, norm
from .quadratic_model import QuadraticModel

#: Shifts to try at most: most steps need one or two, those of an indefinite matrix a few more.
SHIFTS = 5


def trust_region_step(
    model: QuadraticModel,
    radius: Float[Array, ""],
    active: Bool[Array, ""],
) -> Float[Array, " k"]:
    r"""A minimiser of a quadratic on the surface of a ball, to within a tenth of the radius.

    $$\min_p\; b^T p + \tfrac12 p^T A p \quad\text{subject to}\quad \|p\| \le \Delta$$

    is solved by $p = -(A + \mu)^{-1} b$ with $\mu \ge 0$ and $A + \mu$ positive semi-definite. Shifts $\mu$ are
    tried by Newton's method on $1/\|p(\mu)\| = 1/\Delta$, kept between bounds that every trial narrows (Moré and
    Sorensen 1983). In the hard case, where $b$ has next to no part along the lowest eigenvector, inverse iteration
    finds a direction of negative curvature, which fills the step up to the surface.

    Args:
        model: the quadratic, $A$ with a diagonal of size one; a minimiser that it has lies outside the ball.
        radius: $\Delta$.
        active: whether the step is needed; without it the loop ends at once.

    Returns:
        The step, shape `(k,)`.
    """
    matrix, slope, factor = model.matrix, model.slope, model.factor
    minimiser, definite = model.minimiser, model.definite
    k, dtype = slope.shape[0], matrix.dtype
    tiny = jnp.finfo(dtype).tiny
    length, size = norm(slope), jnp.sqrt(jnp.sum(matrix**2))
    low = jnp.maximum(jnp.maximum(0.0, jnp.max(-jnp.diagonal(matrix))), length / radius - size)
    high = length / radius + size

    def newton_shift(shift: Array, step: Array, length: Array, factor: AbstractFactor) -> Array:
        derivative = jnp.sum(step * factor.solve(step))
        return shift + (length / radius - 1.0) * length**2 / jnp.maximum(derivative, tiny)

    def try_shift(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        shift, low, high, step, lowest, _, tried = carry
        factor = factorise(matrix + shift * jnp.eye(k, dtype=dtype))
        move = -factor.solve(slope)
        reach = norm(move)
        good = (jnp.min(factor.pivots) > 0) & jnp.isfinite(reach)
        short = good & (reach <= radius)
        low, high = jnp.where(short, low, jnp.maximum(low, shift)), jnp.where(short, shift, high)
        better = newton_shift(shift, move, reach, factor)
        between = jnp.maximum(jnp.sqrt(low * high), low + 0.05 * (high - low))
        next_shift = jnp.where(good & (better > low) & (better < high), better, between)
        # The last is large enough in any case, so that a direction of negative curvature is always found.
        next_shift = jnp.where(~good & (tried == SHIFTS - 2), high, next_shift)
        arrived = good & (jnp.abs(reach - radius) <= 0.1 * radius)
        step = jnp.where(good & (reach <= 1.1 * radius), move, step)
        iterate = factor.solve(lowest)
        iterate = iterate / jnp.maximum(norm(iterate), tiny)
        lowest = jnp.where(good & jnp.all(jnp.isfinite(iterate)), iterate, lowest)
        return next_shift, low, high, step, lowest, arrived, tried + 1

    shift = newton_shift(jnp.zeros((), dtype), minimiser, norm(minimiser), factor)
    inside = definite & (shift > low) & (shift < high)
    shift = jnp.where(inside, shift, jnp.maximum(jnp.sqrt(low * high), low + 1e-3 * (high - low)))
    steepest = -slope * (radius / jnp.maximum(length, tiny))
    # Any direction serves that is not orthogonal to the lowest eigenvector.
    guess = jnp.cos(jnp.arange(1, k + 1, dtype=dtype)) / k**0.5
    # Two steps of the power method bring it nearer to that.
    for _ in range(2):
        guess = guess - matvec(matrix, guess) / jnp.maximum(size, tiny)
    carry: tuple[Array, ...] = (shift, low, high, steepest, guess, ~active, jnp.asarray(0, jnp.int32))
    carry = jax.lax.while_loop(lambda carry: ~carry[5] & (carry[6] < SHIFTS), try_shift, carry)
    step, lowest = carry[3:5]

    reach = norm(step)
    step = jnp.where(reach > radius, step * (radius / jnp.maximum(reach, tiny)), step)
    along = jnp.sum(step * lowest)
    room = jnp.sqrt(jnp.maximum(radius**2 - jnp.sum(step**2), 0.0) + along**2)
    negative = ~definite & (jnp.sum(lowest * matvec(matrix, lowest)) < 0) & (reach < 0.9 * radius)
    uphill = jnp.sum(lowest * (slope + matvec(matrix, step))) > 0
    return step + jnp.where(negative, jnp.where(uphill, -along - room, -along + room), 0.0) * lowest
