"""A trust region around a quadratic model: the step that `Newton` and `Scoring` share."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..core.compilation import computed_once
from ..core.linear_algebra import curvature_scale, matvec, norm
from ..core.status import RUNNING, Status
from ..core.trees import choose
from . import finite_check, kinks, obstacles
from .base import AbstractPointSolver, Stop
from .box import Active, cut_off, hold, predicted_decrease
from .convergence import Progress, classify, restart_progress, start_progress
from .objective import Evaluation
from .quadratic_model import quadratic_model
from .trust_region_step import trust_region_step

ACCEPT = 1e-4  #: least share of the predicted decrease that a step must bring
#: Shares of the predicted decrease below which the ball shrinks, to a quarter or to half of itself, and from which
#: it grows.
POOR, GOOD = 0.25, 0.75
#: Growth of the radius after a good step; the most where the model missed no more than so small a share of the
#: decrease, with so many nats at stake. Searches that start far off have far to go.
GROWTH, MOST_GROWTH, MISSED, AT_STAKE = 3.0, 100.0, 1e-3, 1.0
#: The least relative change of a parameter that the first radius allows, over the machine precision.
RESOLVED = 1e4
STEPS_WITHOUT_GAIN = 50  #: rejected ones, which shrink the radius by 1e-30
SMALLEST_RADIUS = 1e-3  #: times the machine precision: below it, no step is a step any more


class TrustRegionState(eqx.Module):
    """The best point so far, all that is known there, and the trial point to evaluate next."""

    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    gradient: Float[Array, " n_free"]
    curvature: Float[Array, "n_free n_free"]
    scale: Float[Array, " n_free"]  # units of the parameters: the largest curvature met so far
    initial_scale: Float[Array, " n_free"]  # the same at the start
    progress: Progress
    trial: Float[Array, " n_free"]
    length: Float[Array, ""]  # of the step to the trial point, in scaled units
    radius: Float[Array, ""]
    predicted: Float[Array, ""]
    is_newton_step: Bool[Array, ""]  # whether the step to the trial point is a full Newton step
    trial_nonfinite: Bool[Array, ""]  # whether the last rejected trial point had no finite log-likelihood
    n_without_gain: Int[Array, ""]  # steps in a row that brought nothing beyond rounding
    steps: Int[Array, ""]
    status: Int[Array, ""]
    # The last fields, for states that earlier versions saved have none of them.
    check: finite_check.FiniteCheck
    obstacles: obstacles.Obstacles
    kinks: kinks.Kinks

    @property
    def decrement(self) -> Float[Array, ""]:
        """The log-likelihood still to be gained, in nats."""
        return self.progress.decrement


class AbstractTrustRegion(AbstractPointSolver):
    """Trust-region methods; subclasses choose the curvature.

    Args:
        radius: first radius of the ball, in units of the curvature's diagonal.
    """

    second_order: ClassVar[bool] = True
    #: True if the first point within tolerance ends the search; otherwise full Newton steps go on to prove it.
    stops_within_tolerance: ClassVar[bool] = False

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
            initial_scale=jnp.zeros(k, dtype),
            progress=start_progress(free),
            trial=free,
            length=jnp.zeros((), dtype),
            radius=jnp.asarray(self.radius, dtype),
            predicted=jnp.zeros((), dtype),
            is_newton_step=no,
            trial_nonfinite=no,
            n_without_gain=jnp.asarray(0, jnp.int32),
            steps=jnp.asarray(0, jnp.int32),
            status=jnp.asarray(RUNNING, jnp.int32),
            check=finite_check.none(free),
            obstacles=obstacles.none(free),
            kinks=kinks.none(free),
        )

    def warm_start(self, state: Any) -> TrustRegionState:
        """The state that goes on from that of another solver, with the progress it has made."""
        if not isinstance(state, TrustRegionState):
            return self.init(state.free)
        # A point within tolerance stays so at the trial point, which the other solver did not evaluate.
        ahead = state.is_newton_step & (state.progress.n_within_tolerance > 0)
        fresh = self.init(jnp.where(ahead, state.trial, state.free))
        # How steps compare with one another is another matter with another curvature.
        known = dataclasses.replace(
            restart_progress(state.progress), n_within_tolerance=state.progress.n_within_tolerance
        )
        progress = choose(ahead, known, fresh.progress)
        return dataclasses.replace(
            fresh, scale=state.scale, initial_scale=state.initial_scale, progress=progress, is_newton_step=ahead
        )

    def trial_point(self, state: TrustRegionState) -> Float[Array, " n_free"]:
        """The point that the last step proposed."""
        return state.trial

    def update(
        self, state: TrustRegionState, trial: Evaluation, n_obs: Float[Array, ""], stop: Stop
    ) -> TrustRegionState:
        """Keep the trial point if it is better, and propose the next one.

        The model is solved in the ball (`trust_region_step`); scaling by the curvature's diagonal makes the ball
        independent of units. In a box, entries with an active bound are held, and the step is cut off at the
        others. (Conn, Gould and Toint 2000, *Trust-Region Methods*, chapters 6, 7, 12 and 17.4.) At walls
        `obstacles` says what is held, and `kinks` knows the curvature of what has none.

        Args:
            state: the state so far.
            trial: loss, gradient and curvature at the trial point.
            n_obs: number of observations.
            stop: when to stop.
        """
        eps = jnp.finfo(state.free.dtype).eps
        loss, gradient, curvature = trial.loss, trial.gradient, trial.curvature
        finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(curvature))
        first = state.steps == 0

        # Near the maximum both changes drown in rounding; then the step is judged as a success. Gradients keep
        # their digits longer than the log-likelihood does, so steps within tolerance are trusted further.
        noise = 10 * eps * jnp.maximum(1.0, jnp.abs(jnp.where(first, 0.0, state.loss)))
        ratio = (state.loss - loss + noise) / (state.predicted + noise)
        box = trial.box
        if box is not None:  # a step that was cut off need not go downhill
            ratio = jnp.where(state.predicted < -noise, -1.0, ratio)
        polish = (
            state.is_newton_step
            & (state.progress.n_within_tolerance > 0)
            & (jnp.abs(state.loss - loss) <= 1e3 * noise)
        )
        # A point to be looked at is taken just where it is higher ground; then the search begins anew there. The
        # part of a step that is tried alone is not taken.
        looking = state.check.under_way
        fall = n_obs * jnp.where(finite, loss - state.loss, jnp.inf)
        seen = finite_check.judge(state.check, fall, state.decrement, n_obs * noise)
        trying = state.obstacles.under_way
        searching = ~looking & ~trying
        accept = jnp.where(looking, seen.higher & finite, finite & (first | (ratio > ACCEPT) | polish)) & ~trying

        accept, seen = computed_once((accept, seen))
        radius = _next_radius(state, ratio, finite, n_obs)
        # Next to kinks it is the learned curvature that makes steps shorter.
        least = jnp.where(accept, self.radius, jnp.where(state.n_without_gain < kinks.PATIENCE, state.radius, 0.0))
        radius = jnp.where(state.kinks.near & finite, jnp.maximum(radius, least), radius)
        radius = jnp.where(first | ~searching, state.radius, radius)

        gained = state.loss - loss > noise
        free = jnp.where(accept, state.trial, state.free)
        loss = jnp.where(accept, loss, state.loss)
        gradient = jnp.where(accept, gradient, state.gradient)
        curvature = jnp.where(accept, curvature, state.curvature)

        known = accept | ~first  # otherwise the start itself is not finite
        safe = jnp.where(known, curvature, jnp.eye(free.shape[0], dtype=free.dtype))
        slope_free = jnp.where(known, gradient, 0.0)
        # The verdict is in the units of this point; the trust region keeps the shortest units met so far, for a
        # parameter that once was stiff may be so again.
        units = curvature_scale(safe, slope_free, jnp.maximum(1.0, jnp.abs(loss)))
        scale = jnp.where(accept, jnp.maximum(units, state.scale), state.scale)
        resolved = RESOLVED * eps * jnp.min(scale * jnp.abs(free))
        radius = jnp.where(first, jnp.maximum(radius, resolved), radius)
        initial_scale = jnp.where(first & (state.initial_scale == 0), scale, state.initial_scale)
        shrunk = jnp.any(scale * jnp.sqrt(eps) > initial_scale)
        rise = jnp.where(finite, trial.loss - state.loss, jnp.inf)
        met = obstacles.judge(state.obstacles, rise, state.gradient, state.curvature, noise)
        met = computed_once(choose(trying, met, state.obstacles))
        stopped = trying & ~met.under_way & met.holding
        step = state.trial - state.free
        jump = trial.gradient - state.gradient - matvec(state.curvature, step)
        learns = state.kinks.near & finite & searching
        kink = choose(learns, kinks.learn(state.kinks, step, jump), state.kinks)
        radius = jnp.where(stopped, jnp.maximum(radius, self.radius), radius)
        active: Active | None = None
        held = met.held
        if box is not None:
            active = box.active(free, slope_free, units, n_obs, stop.tolerance)
            # A start on a bound from which the way leads inwards: the derivatives are those a hair inside.
            free = jnp.where(first & ~active.held, box.inside(free), free)
            held |= active.held
        safe = jnp.where(kink.near & known, safe + kink.curvature, safe)
        safe, slope_free = hold(safe, slope_free, held, units)
        model = quadratic_model(safe, slope_free, jnp.where(known, scale, 1.0), units)
        anew = (looking & (seen.higher | seen.refuted)) | stopped
        before = choose(anew, restart_progress(state.progress), state.progress)
        full = state.is_newton_step & searching
        here, verdict, doubtful = computed_once(classify(before, model, n_obs, stop.tolerance, full, free, shrunk))
        progress = choose(accept, here, before)

        is_newton_step = model.definite & (norm(model.minimiser) <= radius)
        is_level = ~model.definite & (norm(model.semidefinite_step) <= radius)
        bounded = trust_region_step(model, radius, ~(is_newton_step | is_level))
        move = jnp.where(is_newton_step, model.minimiser, jnp.where(is_level, model.semidefinite_step, bounded))
        if box is not None:
            move, cut = cut_off(box, model, free, move, radius)
            is_newton_step &= ~cut
        length = norm(move)
        predicted = predicted_decrease(model, move)
        point = free + move / model.scale

        trial_nonfinite = jnp.where(accept, False, ~finite)
        n_without_gain = jnp.where(accept & (first | gained), 0, state.n_without_gain + 1)
        n_without_gain = jnp.where(looking | stopped, 0, jnp.where(trying, state.n_without_gain, n_without_gain))
        stuck = ~accept & ((radius < SMALLEST_RADIUS * eps) | jnp.all(point == free))
        stuck = (stuck | (n_without_gain >= STEPS_WITHOUT_GAIN)) & ~trying
        # What steps too small to be taken still promise is endless; and what ran away once ends by rounding.
        rising = trial_nonfinite | met.wall | (n_obs * state.predicted > jnp.sqrt(eps))
        rising |= progress.diverging | (state.check.claim == Status.unbounded)
        rising |= model.fading & ~met.any_met
        rising |= model.on_ridge & jnp.any(scale * eps ** (1 / 3) > initial_scale)
        status = jnp.where(stuck, jnp.where(rising, Status.unbounded, Status.stalled), RUNNING)
        status = jnp.where(accept & (verdict != RUNNING), verdict, status)
        status = jnp.where(~accept & progress.certain, Status.converged, status)

        # Entries that are held are let go once the search for the others is over; and what ends next to a kink is
        # proven anew, unless it ends in it.
        goes_on = (status == Status.unbounded) | (progress.n_within_tolerance < kinks.POLISHED)
        status = jnp.where(kink.near & ~stuck & goes_on, RUNNING, status)
        over = (status != RUNNING) & searching
        left = jnp.sqrt(n_obs) * norm(slope_free / units) / jnp.sqrt(2 * stop.tolerance)
        in_kink = over & kink.near & (left > kinks.SLOPE_LEFT)
        free_again = over & (met.holding | (kink.near & ~in_kink))
        status = jnp.where(in_kink, Status.stalled, status)
        status = jnp.where(free_again, RUNNING, status)
        suspected = obstacles.suspected(met, state.length, n_obs) & (status == RUNNING) & ~progress.diverging
        suspected &= searching & ~free_again & ~kink.near & ~first
        bends = suspected & finite & (ratio < GOOD) & kinks.crossed(step, jump, state.curvature, noise)
        status, free_again, suspected, bends = computed_once((status, free_again, suspected, bends))
        kink = choose(bends, kinks.begin(step, jump, units), kinks.leave(kink, free_again))
        met = choose(free_again, obstacles.let_go(met), choose(bends, obstacles.at_kink(met, state.length), met))
        begins = suspected & ~accept & ~bends & obstacles.can_be_tried(step)
        met = choose(begins, obstacles.begin(met, step, state.length), met)
        radius = jnp.where(free_again, met.wider_radius, jnp.where(bends, self.radius, radius))
        restarts = free_again | bends
        progress = choose(restarts, restart_progress(progress), progress)
        point = jnp.where(restarts, free, point)
        is_newton_step &= ~restarts
        point = jnp.where(met.under_way, free + met.part, point)

        check = state.check
        if self.exact:
            checked = jnp.where(status == Status.converged, doubtful, accept & (verdict != RUNNING))
            begun = finite_check.begin(state.check, status, model, progress.step, n_obs)
            if box is not None and active is not None:
                begun = finite_check.in_box(begun, box, active, model, curvature, free, n_obs)
                checked |= begun.onto | ((status == Status.converged) & begun.inwards)
            doubted = ~looking & checked & begun.under_way & ~free_again & ~kink.near
            doubted = computed_once(doubted & ~met.holding & ~met.under_way)
            check = choose(looking, seen.check, choose(doubted, begun, state.check))
            status = jnp.where(looking, seen.status, jnp.where(doubted, RUNNING, status))
            point = jnp.where(check.under_way, free + check.distance * check.direction, point)
        if box is not None:
            point = box.clip(point)
        status = jnp.where(first & ~finite, Status.nonfinite_start, status)
        if self.stops_within_tolerance:
            near = (status == RUNNING) & (progress.n_within_tolerance > 0) & ~met.holding
            status = jnp.where(near, Status.converged, status)
        return TrustRegionState(
            free=free,
            loss=loss,
            gradient=gradient,
            curvature=curvature,
            scale=scale,
            initial_scale=initial_scale,
            progress=progress,
            trial=point,
            length=length,
            radius=radius,
            predicted=predicted,
            is_newton_step=is_newton_step,
            trial_nonfinite=trial_nonfinite,
            n_without_gain=n_without_gain,
            steps=state.steps + searching.astype(jnp.int32),
            status=status.astype(jnp.int32),
            check=check,
            obstacles=met,
            kinks=kink,
        )


def _next_radius(
    state: TrustRegionState, ratio: Float[Array, ""], finite: Bool[Array, ""], n_obs: Float[Array, ""]
) -> Float[Array, ""]:
    """The radius after a step that brought this share of the decrease that was predicted.

    Args:
        state: before the step.
        ratio: that share.
        finite: whether the objective is finite there.
        n_obs: number of observations.
    """
    at_edge = state.length > 0.9 * state.radius
    smaller = 0.25 * jnp.minimum(state.length, state.radius)
    radius = jnp.where((ratio < GOOD) & at_edge, 0.5 * state.radius, state.radius)
    radius = jnp.where(~finite | (ratio < POOR), smaller, radius)
    missed = jnp.maximum(jnp.abs(1.0 - ratio), jnp.finfo(ratio.dtype).eps)
    growth = jnp.where(n_obs * state.predicted > AT_STAKE, jnp.clip(MISSED / missed, GROWTH, MOST_GROWTH), GROWTH)
    grows = finite & (ratio > GOOD) & at_edge
    # Not at once after a step that was too long.
    grows &= state.n_without_gain == 0
    return jnp.where(grows, growth * state.radius, radius)
