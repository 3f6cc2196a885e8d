r"""Convergence: one definition, for all solvers, of a proven maximum, one at infinity, and none.

The decrement $\delta = \tfrac12 n\, g^T H^{-1} g$ is the log-likelihood that a perfect next step could still
gain. Small alone it proves nothing: towards a maximum at infinity it shrinks by a constant factor while
Newton steps keep their length and direction. So a maximum counts as proven once a full Newton step, taken
from a point within tolerance, ends in another one and does *not* repeat the step before it.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..core.linear_algebra import norm, singular_below
from ..core.status import RUNNING, Status
from .quadratic_model import QuadraticModel

#: So many Newton steps in a row repeat their predecessor only with a reason: steps that keep their length lead to
#: infinity, steps that shrink too slowly lead to a maximum without curvature.
LASTING = 0.9
SAME_STEPS, HALF_STEPS = 4, 20
#: Steps that repeat count as divergence once no more than so many nats are at stake, and about twice as many steps
#: while there are more. They show long before the tolerance is reached, and it is better to stop while the
#: log-density is still exact: far out, cancellation raises the computed likelihood.
LOST, LOST_LONG = 1e-5, 1e-3
#: Two points within tolerance are enough where the second lies so far below it, else a third polishes.
SHARP = 1e-10
#: So many points in a row without positive-definite information, on a scale that has shrunk below the resolution
#: of the dtype, lie on the way to a singularity.
INDEFINITE_STEPS = 30
#: A maximum is looked at from a distance where the least pivot of the scaled information is smaller than this, or
#: where a Newton step was longer than so many times the one before.
WEAK_PIVOT, LINEAR = 1e-3, 0.1


class Progress(eqx.Module):
    r"""The state of convergence at a point, with counts over the points before.

    Args:
        decrement: $\delta$ at the best point, in nats; infinite where the information is not positive
            definite.
        step: the full Newton step from there, shape `(n_free,)`.
        n_within_tolerance: how many points in a row lay within tolerance.
        n_same_step: how many Newton steps in a row kept their direction and length.
        n_half_step: how many kept their direction and at least half their length.
        n_indefinite: how many points in a row lay on the way to a singularity.
        diverging: whether steps repeated once with little at stake; a search that gets stuck after that is
            stopped by rounding alone.
        certain: whether this point proves the maximum, though a further step may polish its last digits.
    """

    decrement: Float[Array, ""]
    step: Float[Array, " n_free"]
    n_within_tolerance: Int[Array, ""]
    n_same_step: Int[Array, ""]
    n_half_step: Int[Array, ""]
    n_indefinite: Int[Array, ""]
    diverging: Bool[Array, ""]
    certain: Bool[Array, ""]


def start_progress(free: Float[Array, " n_free"]) -> Progress:
    """Nothing is known before the first evaluation."""
    none, no = jnp.asarray(0, jnp.int32), jnp.asarray(False)
    unknown = jnp.asarray(jnp.inf, free.dtype)
    return Progress(unknown, jnp.zeros_like(free), none, none, none, none, no, no)


def restart_progress(progress: Progress) -> Progress:
    """The progress at the same point, where a search begins anew."""
    fresh = start_progress(progress.step)
    return dataclasses.replace(fresh, decrement=progress.decrement, step=progress.step)


def classify(
    before: Progress,
    model: QuadraticModel,
    n_obs: Float[Array, ""],
    tolerance: Float[Array, ""],
    full: Bool[Array, ""],
    free: Float[Array, " k"],
    shrunk: Bool[Array, ""],
) -> tuple[Progress, Int[Array, ""], Bool[Array, ""]]:
    """The progress at a new point, the status it earns, and whether rounding may have forged that.

    Args:
        before: the progress at the previous point.
        model: the quadratic model around the new point.
        n_obs: number of observations.
        tolerance: on the decrement, in nats.
        full: whether the new point was reached by a full Newton step.
        free: the new point.
        shrunk: whether some parameter's unit has shrunk below the resolution of the dtype since the start.
    """
    eps = jnp.finfo(free.dtype).eps
    singular = singular_below(free.shape[0], free.dtype)
    definite = model.definite
    delta = n_obs * model.gain
    newton = model.minimiser / model.scale

    # Rounding of the gradient alone makes a decrement of this size.
    widths = jnp.where(definite, model.factor.inverse_diagonal() / model.scale_ratio, 1.0)
    floor = 0.5 * n_obs * (32 * eps) ** 2 * jnp.minimum(jnp.sum(widths), 1 / singular)
    within = delta <= jnp.maximum(tolerance, floor)

    # Steps are measured in the shortest units met so far, for in those of the new point a parameter that runs away
    # seems not to move.
    now, last = model.minimiser, before.step * model.scale
    length, length_before = norm(now), norm(last)
    aligned = jnp.sum(now * last) > 0.95 * length * length_before
    # A step that the parameters cannot resolve repeats itself because it leads nowhere.
    size = jnp.maximum(1.0, jnp.abs(free))
    moves = jnp.any(jnp.abs(newton) > 16 * eps * size)
    goes_on = aligned & (delta > floor) & moves
    long, half = goes_on & (length > LASTING * length_before), goes_on & (length > 0.5 * length_before)
    # With nothing left to gain, one parameter that keeps moving is enough: all others may have converged.
    drifting = within & (newton * before.step > 0) & (jnp.abs(newton) > jnp.sqrt(eps) * size)
    repeat = jnp.abs(newton) / jnp.where(before.step == 0, 1.0, jnp.abs(before.step))
    lasting = full & definite & (long | jnp.any(drifting & (repeat > LASTING)))
    repeats = full & definite & (half | jnp.any(drifting & (repeat > 0.5)))
    towards_singularity = ~definite & jnp.all(jnp.isfinite(model.matrix)) & shrunk
    n_within_tolerance = jnp.where(within, before.n_within_tolerance + 1, 0)
    n_same_step = jnp.where(lasting, before.n_same_step + 1, 0)
    n_half_step = jnp.where(repeats, before.n_half_step + 1, 0)
    n_indefinite = jnp.where(towards_singularity, before.n_indefinite + 1, 0)

    sharp = delta <= jnp.maximum(SHARP * tolerance, floor)
    certain = (n_within_tolerance >= 2) & full & ~repeats
    proven = certain & (sharp | (n_within_tolerance >= 3))
    lost = (n_same_step >= SAME_STEPS) & (delta <= jnp.maximum(jnp.maximum(tolerance, LOST), eps**0.375))
    lost |= (n_same_step >= 2 * SAME_STEPS - 1) & (delta <= LOST_LONG)
    # A single repeat is enough where the curvature has shrunk to next to nothing since the start.
    faded = repeats & model.faded
    diverging = before.diverging | (((n_same_step >= SAME_STEPS - 1) | faded) & (delta <= LOST_LONG))
    slow = (n_half_step >= HALF_STEPS) & within
    # Newton's method squares what is left to gain, wherever derivatives are those of the function.
    linear = full & definite & (delta > floor) & (length > LINEAR * length_before)
    weak = jnp.min(model.factor.pivots * model.scale_ratio) < WEAK_PIVOT
    doubtful = linear | weak | model.faded | (floor > tolerance)

    vanished = ~definite & (-0.5 * n_obs * jnp.sum(model.slope * model.semidefinite_step) <= tolerance)

    status = jnp.where(vanished | slow, Status.not_identified, RUNNING)
    status = jnp.where(vanished & diverging, Status.unbounded, status)
    status = jnp.where(lost | (n_indefinite >= INDEFINITE_STEPS), Status.unbounded, status)
    status = jnp.where(proven, Status.converged, status)
    progress = Progress(
        decrement=delta,
        step=newton,
        n_within_tolerance=n_within_tolerance,
        n_same_step=n_same_step,
        n_half_step=n_half_step,
        n_indefinite=n_indefinite,
        diverging=diverging,
        certain=certain,
    )
    return progress, status.astype(jnp.int32), doubtful
