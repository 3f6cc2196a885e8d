"""A trust region around a quadratic model: the step that `Newton` and `Scoring` share."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..core.linear_algebra import curvature_scale, matvec, norm
from ..core.status import RUNNING, Status
from .base import AbstractPointSolver, Stop
from .convergence import Progress, classify, start_progress
from .quadratic_model import quadratic_model
from .trust_region_step import trust_region_step

ACCEPT = 1e-4  #: least share of the predicted decrease that a step must bring
GROWTH = 3.0  #: of the radius after a step that kept its promise
IDLE_STEPS = 50  #: a radius shrinks by 1e-30 meanwhile, so this is no impatience
SMALLEST_RADIUS = 1e-3  #: times the machine precision: below it, no step is a step any more


class TrustRegionState(eqx.Module):
    """The best point so far, all that is known there, and the candidate to evaluate next."""

    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    gradient: Float[Array, " n_free"]
    curvature: Float[Array, "n_free n_free"]
    scale: Float[Array, " n_free"]  # units of the parameters: the largest curvature met so far
    opening: Float[Array, " n_free"]  # the same at the start
    progress: Progress
    candidate: Float[Array, " n_free"]
    length: Float[Array, ""]  # of the step to the candidate, in scaled units
    radius: Float[Array, ""]
    predicted: Float[Array, ""]
    full: Bool[Array, ""]  # whether the step to the candidate is a full Newton step
    wall: Bool[Array, ""]  # whether the last rejected candidate had no finite log-likelihood
    idle: Int[Array, ""]  # steps in a row that brought nothing beyond rounding
    steps: Int[Array, ""]
    status: Int[Array, ""]

    @property
    def decrement(self) -> Float[Array, ""]:
        """The log-likelihood still to be gained, in nats."""
        return self.progress.decrement


class AbstractTrustRegion(AbstractPointSolver):
    """Methods that step inside a ball where they trust a quadratic: they differ in its curvature.

    Args:
        radius: first radius of the ball, in units of the curvature's diagonal.
    """

    radius: float = 1.0

    def init(self, free: Float[Array, " n_free"]) -> TrustRegionState:
        """The state whose first step evaluates `free`."""
        k, dtype = free.shape[0], free.dtype
        no = jnp.asarray(False)
        return TrustRegionState(
            free=free,
            loss=jnp.asarray(jnp.inf, dtype),
            gradient=jnp.full(k, jnp.nan, dtype),
            curvature=jnp.full((k, k), jnp.nan, dtype),
            scale=jnp.zeros(k, dtype),
            opening=jnp.zeros(k, dtype),
            progress=start_progress(free),
            candidate=free,
            length=jnp.zeros((), dtype),
            radius=jnp.asarray(self.radius, dtype),
            predicted=jnp.zeros((), dtype),
            full=no,
            wall=no,
            idle=jnp.asarray(0, jnp.int32),
            steps=jnp.asarray(0, jnp.int32),
            status=jnp.asarray(RUNNING, jnp.int32),
        )

    def take_over(self, state: Any) -> TrustRegionState:
        """The state in which to go on from where another solver stands, mindful of what it proved."""
        if not isinstance(state, TrustRegionState):
            return self.init(state.free)
        # What is within tolerance stays so at the candidate, which the other solver did not get to see.
        ahead = state.full & (state.progress.quiet > 0)
        fresh = self.init(jnp.where(ahead, state.candidate, state.free))
        keep = lambda old, new: jnp.where(ahead, old, new)  # noqa: E731
        progress = jax.tree.map(keep, state.progress, fresh.progress)
        return dataclasses.replace(fresh, scale=state.scale, opening=state.opening, progress=progress, full=ahead)

    def candidate(self, state: TrustRegionState) -> Float[Array, " n_free"]:
        """The point that the last step proposed."""
        return state.candidate

    def learn(
        self, state: TrustRegionState, found: tuple[Array, Array, Array], n_obs: Float[Array, ""], stop: Stop
    ) -> TrustRegionState:
        """Keep the candidate if it is better, and propose the next one.

        The model is solved in the ball (`trust_region_step`); scaling by the curvature's diagonal makes the ball
        independent of units. (Conn, Gould and Toint 2000, *Trust-Region Methods*, chapters 6, 7 and 17.4.)

        Args:
            state: where the solver stands.
            found: loss, gradient and curvature at the candidate.
            n_obs: number of observations.
            stop: when to stop.
        """
        eps = jnp.finfo(state.free.dtype).eps
        loss, gradient, curvature = found
        finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(curvature))
        first = state.steps == 0

        # Near the maximum both changes drown in rounding; then the step is judged as a success. Gradients keep
        # their digits longer than the log-likelihood does, so steps within tolerance are trusted further.
        noise = 10 * eps * jnp.maximum(1.0, jnp.abs(jnp.where(first, 0.0, state.loss)))
        ratio = (state.loss - loss + noise) / (state.predicted + noise)
        polish = state.full & (state.progress.quiet > 0) & (jnp.abs(state.loss - loss) <= 1e3 * noise)
        accept = finite & (first | (ratio > ACCEPT) | polish)

        at_edge = state.length > 0.9 * state.radius
        smaller = 0.25 * jnp.minimum(state.length, state.radius)
        radius = jnp.where(~finite | (ratio < 0.25), smaller, state.radius)
        radius = jnp.where(finite & (ratio > 0.75) & at_edge, GROWTH * state.radius, radius)
        radius = jnp.where(first, state.radius, radius)

        gained = state.loss - loss > noise
        free = jnp.where(accept, state.candidate, state.free)
        loss = jnp.where(accept, loss, state.loss)
        gradient = jnp.where(accept, gradient, state.gradient)
        curvature = jnp.where(accept, curvature, state.curvature)

        known = accept | ~first  # otherwise the start itself is not finite
        safe = jnp.where(known, curvature, jnp.eye(free.shape[0], dtype=free.dtype))
        slope_free = jnp.where(known, gradient, 0.0)
        # The verdict is in the units of this point; the trust region keeps the shortest units met so far, for a
        # parameter that once was stiff may be so again.
        units = curvature_scale(safe, slope_free)
        scale = jnp.where(accept, jnp.maximum(units, state.scale), state.scale)
        opening = jnp.where(first & (state.opening == 0), scale, state.opening)
        shrunk = jnp.any(scale * jnp.sqrt(eps) > opening)
        local = quadratic_model(safe, slope_free, jnp.where(known, scale, 1.0))
        seen, verdict = classify(state.progress, local, n_obs, stop.tolerance, state.full, free, shrunk)
        progress = jax.tree.map(lambda new, old: jnp.where(accept, new, old), seen, state.progress)

        full = local.definite & (norm(local.minimiser) <= radius)
        level = ~local.definite & (norm(local.level) <= radius)
        bounded = trust_region_step(
            local.matrix, local.slope, radius, local.factor, local.minimiser, local.definite, ~(full | level)
        )
        move = jnp.where(full, local.minimiser, jnp.where(level, local.level, bounded))
        length = norm(move)
        predicted = -jnp.sum(move * (local.slope + 0.5 * matvec(local.matrix, move)))
        candidate = free + move / local.scale

        wall = jnp.where(accept, False, ~finite)
        idle = jnp.where(accept & (first | gained), 0, state.idle + 1)
        stuck = ~accept & ((radius < SMALLEST_RADIUS * eps) | jnp.all(candidate == free))
        stuck |= idle >= IDLE_STEPS
        aground = jnp.where(wall | progress.runaway, Status.unbounded, Status.stalled)
        status = jnp.where(stuck, aground, RUNNING)
        status = jnp.where(accept & (verdict != RUNNING), verdict, status)
        status = jnp.where(~accept & progress.sure, Status.converged, status)
        status = jnp.where(first & ~finite, Status.nonfinite_start, status)
        return TrustRegionState(
            free=free,
            loss=loss,
            gradient=gradient,
            curvature=curvature,
            scale=scale,
            opening=opening,
            progress=progress,
            candidate=candidate,
            length=length,
            radius=radius,
            predicted=predicted,
            full=full,
            wall=wall,
            idle=idle,
            steps=state.steps + 1,
            status=status.astype(jnp.int32),
        )
