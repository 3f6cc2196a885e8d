r"""When a maximum is proven, when it lies at infinity, and when there is none: one definition for all.

The decrement $\delta = \tfrac12 n\, g^T H^{-1} g$ is the log-likelihood that a perfect next step could still
gain. Small alone it proves nothing: towards a maximum at infinity it shrinks by a constant factor while
Newton steps keep their length and direction. So a maximum counts as proven once a full Newton step, taken
from a point within tolerance, ends in another one and does *not* repeat the step before it.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..linear_algebra import Spectrum
from ..status import RUNNING, Status

#: So many Newton steps in a row that repeat their predecessor are no accident: steps that keep their length
#: lead to infinity, steps that shrink too slowly to a maximum without curvature.
LASTING = 0.9
DRIFT_STEPS, CRAWL_STEPS = 4, 20
#: A drift counts once no more than so many nats are at stake, and a long one while there are more. It shows long
#: before the tolerance is reached, and stopping while the log-density is still exact is better: far out,
#: cancellation invents likelihood.
LOST, LOST_LONG = 1e-5, 1e-2
#: Two points within tolerance are enough where the second lies so far below it, else a third polishes.
SHARP = 1e-10
#: So many points in a row without positive-definite information, on a scale that shrank below what numbers
#: resolve, lie on the way to a singularity.
ASTRAY_STEPS = 30


class Progress(eqx.Module):
    r"""What one point tells of convergence, and what of the points before is worth remembering.

    Args:
        decrement: $\delta$ at the best point, in nats; infinite where the information is not positive
            definite.
        step: the full Newton step from there, shape `(n_free,)`.
        quiet: how many points in a row lay within tolerance.
        drift: how many Newton steps in a row kept direction and length.
        crawl: how many kept direction and at least half their length.
        astray: how many points in a row lay on the way to a singularity.
        runaway: whether there once was a drift with little at stake; a search that gets stuck after that has
            met nothing but rounding.
        sure: whether this point proves the maximum, though a further step may polish its last digits.
    """

    decrement: Float[Array, ""]
    step: Float[Array, " n_free"]
    quiet: Int[Array, ""]
    drift: Int[Array, ""]
    crawl: Int[Array, ""]
    astray: Int[Array, ""]
    runaway: Bool[Array, ""]
    sure: Bool[Array, ""]


def start_progress(free: Float[Array, " n_free"]) -> Progress:
    """Nothing is known before the first evaluation."""
    none, no = jnp.asarray(0, jnp.int32), jnp.asarray(False)
    unknown = jnp.asarray(jnp.inf, free.dtype)
    return Progress(unknown, jnp.zeros_like(free), none, none, none, none, no, no)


def singular_below(eigen: Spectrum) -> Float[Array, ""]:
    """Scaled eigenvalues smaller than this are zero to rounding."""
    return 10 * eigen.values.shape[0] * jnp.finfo(eigen.values.dtype).eps * jnp.ones(())


def decrement(eigen: Spectrum, slope: Float[Array, " k"], n_obs: Float[Array, ""]) -> Float[Array, ""]:
    """The decrement in nats, from the gradient along the eigenvectors; infinite if not positive definite."""
    definite = eigen.values[0] > singular_below(eigen)
    total = 0.5 * n_obs * jnp.sum(slope**2 / jnp.where(definite, eigen.values, 1.0))
    return jnp.where(definite, total, jnp.inf)


def judge(
    before: Progress,
    eigen: Spectrum,
    slope: Float[Array, " k"],
    n_obs: Float[Array, ""],
    tolerance: Float[Array, ""],
    full: Bool[Array, ""],
    free: Float[Array, " k"],
    units: Float[Array, " k"],
    shrunk: Bool[Array, ""],
) -> tuple[Progress, Int[Array, ""]]:
    """The progress at a new point, and the status it earns.

    Args:
        before: the progress at the previous point.
        eigen: the scaled information per observation at the new point.
        slope: the gradient there, along its eigenvectors.
        n_obs: number of observations.
        tolerance: on the decrement, in nats.
        full: whether the new point was reached by a full Newton step.
        free: the new point.
        units: what steps are measured in: the shortest units met so far, for in those of the new point a parameter
            that runs away seems not to move.
        shrunk: whether some parameter's unit has shrunk below what numbers resolve, since the start.
    """
    eps = jnp.finfo(slope.dtype).eps
    singular = singular_below(eigen)
    delta = decrement(eigen, slope, n_obs)
    definite = jnp.isfinite(delta)
    newton = eigen.vector(jnp.where(definite, -slope / jnp.where(definite, eigen.values, 1.0), 0.0))

    # Rounding of the gradient alone makes a decrement of this size.
    floor = 0.5 * n_obs * (32 * eps) ** 2 / jnp.maximum(eigen.values[0], singular)
    within = delta <= jnp.maximum(tolerance, floor)

    now, last = newton * units, before.step * units
    length, length_before = jnp.linalg.norm(now), jnp.linalg.norm(last)
    aligned = jnp.dot(now, last) > 0.95 * length * length_before
    # A step that the parameters cannot resolve repeats itself because it leads nowhere.
    moves = jnp.any(jnp.abs(newton) > 16 * eps * jnp.maximum(1.0, jnp.abs(free)))
    repeats = full & definite & aligned & (length > 0.5 * length_before) & (delta > floor) & moves
    strays = jnp.isfinite(eigen.values[0]) & ~definite & shrunk
    quiet = jnp.where(within, before.quiet + 1, 0)
    drift = jnp.where(repeats & (length > LASTING * length_before), before.drift + 1, 0)
    crawl = jnp.where(repeats, before.crawl + 1, 0)
    astray = jnp.where(strays, before.astray + 1, 0)

    sharp = delta <= jnp.maximum(SHARP * tolerance, floor)
    sure = (quiet >= 2) & full & ~repeats
    proven = sure & (sharp | (quiet >= 3))
    lost = (drift >= DRIFT_STEPS) & (delta <= jnp.maximum(jnp.maximum(tolerance, LOST), eps**0.375))
    lost |= (drift >= 2 * DRIFT_STEPS - 1) & (delta <= LOST_LONG)
    runaway = before.runaway | ((drift >= DRIFT_STEPS - 1) & (delta <= LOST_LONG))
    slow = (crawl >= CRAWL_STEPS) & within

    flat = jnp.abs(eigen.values) <= singular
    rest = 0.5 * n_obs * jnp.sum(jnp.where(flat, 0.0, slope**2 / jnp.where(flat, 1.0, eigen.values)))
    level = jnp.all(jnp.where(flat, jnp.abs(slope) <= jnp.sqrt(eps), True))
    vanished = (eigen.values[0] >= -singular) & flat[0] & level & (rest <= tolerance)

    status = jnp.where(vanished | slow, Status.not_identified, RUNNING)
    status = jnp.where(vanished & runaway, Status.unbounded, status)
    status = jnp.where(lost | (astray >= ASTRAY_STEPS), Status.unbounded, status)
    status = jnp.where(proven, Status.converged, status)
    return Progress(delta, newton, quiet, drift, crawl, astray, runaway, sure), status.astype(jnp.int32)
