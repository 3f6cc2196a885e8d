"""Kinks: where the slope jumps, a curvature that is learned from slopes joins the exact one.

Next to the corner of an absolute value the Hessian knows nothing of it, so steps that look good fail, and a ball
that shrinks stops the search wherever it is. The change of the gradient across the corner tells what the Hessian
does not: as a secant it is a curvature that grows without end as the points draw near. With the BFGS formula the
search goes on along the corner, and into the corners of corners: least absolute deviations end in the corner of as
many absolute values as there are coefficients.
(Lewis and Overton 2013, Nonsmooth optimization via quasi-Newton methods, *Mathematical Programming* 141. To learn
only what the exact curvature lacks: Dennis, Gay and Welsch 1981, *ACM Trans. Math. Softw.* 7.)
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core.linear_algebra import matvec

#: A slope jumps if it rises by so many times what the curvature says, and by so many times its rounding.
JUMP, BEYOND = 10.0, 10.0
#: The least share of the curvature along a step that is kept: where the slope does not rise, steps grow tenfold.
LEAST_KEPT = 0.1
#: Rejected steps in a row after which the ball shrinks as well.
PATIENCE = 3
#: Points in a row within tolerance that end it: a curvature that is learned polishes digits more slowly.
POLISHED = 8
#: A search ends in a kink if the slope is still so many times that of a smooth maximum with as little to gain.
SLOPE_LEFT = 100.0


class Kinks(eqx.Module):
    """The curvature of kinks.

    Args:
        curvature: what was learned beyond the exact one.
        near: whether the search goes by it.
    """

    curvature: Float[Array, "n_free n_free"]
    near: Bool[Array, ""]


def none(free: Float[Array, " n_free"]) -> Kinks:
    """None was met."""
    return Kinks(jnp.eye(free.shape[0], dtype=free.dtype), jnp.asarray(False))


def crossed(
    step: Float[Array, " k"], jump: Float[Array, " k"], curvature: Float[Array, "k k"], noise: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether a step crossed a kink: the slope along it rose by far more than the curvature says.

    Args:
        step: the step.
        jump: the change of the gradient beyond that of the curvature.
        curvature: before the step.
        noise: of the objective, by rounding.
    """
    expected = jnp.abs(jnp.sum(step * matvec(curvature, step)))
    return jnp.sum(step * jump) > JUMP * expected + BEYOND * noise


def begin(step: Float[Array, " k"], jump: Float[Array, " k"], units: Float[Array, " k"]) -> Kinks:
    """The first kink was crossed; nothing but the units of the parameters is known of other directions."""
    return learn(Kinks(jnp.diag(units**2), jnp.asarray(True)), step, jump)


def learn(kinks: Kinks, step: Float[Array, " k"], jump: Float[Array, " k"]) -> Kinks:
    r"""The curvature that explains this jump of the gradient on this step, nearest to the one before.

    $$B \leftarrow B - \frac{B s s^T B}{s^T B s} + \frac{y y^T}{y^T s}$$

    with $s$ the step and $y$ the change of the gradient beyond that of the exact curvature, mixed with $B s$ where
    the curvature along the step would fall too far.
    (Nocedal and Wright 2006, *Numerical Optimization*, chapters 6 and 18.3.)
    """
    curvature = kinks.curvature
    bent = matvec(curvature, step)
    before, after = jnp.sum(step * bent), jnp.sum(step * jump)
    falls_far = after < LEAST_KEPT * before
    share = jnp.where(falls_far, (1 - LEAST_KEPT) * before / jnp.where(falls_far, before - after, 1.0), 1.0)
    mixed = share * jump + (1 - share) * bent
    after = jnp.sum(step * mixed)
    usable = (before > 0) & (after > 0) & jnp.all(jnp.isfinite(jump))
    without = curvature - jnp.outer(bent, bent) / jnp.where(usable, before, 1.0)
    learned = without + jnp.outer(mixed, mixed) / jnp.where(usable, after, 1.0)
    return dataclasses.replace(kinks, curvature=jnp.where(usable, learned, curvature))


def leave(kinks: Kinks, leaves: Bool[Array, ""]) -> Kinks:
    """The exact curvature is back, if the search leaves the kinks."""
    return dataclasses.replace(kinks, near=kinks.near & ~leaves)
