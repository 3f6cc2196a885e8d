"""A trust region around a quadratic model: the step that `Newton` and `Scoring` share."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..core.compilation import computed_once
from ..core.linear_algebra import curvature_scale, norm, singular_below
from ..core.status import OBSTRUCTED, RUNNING, Status
from ..core.trees import choose
from . import finite_check, kinks, obstacles
from .base import AbstractPointSolver, Stop
from .box import Active, Box, cut_off, hold, predicted_decrease
from .convergence import classify, restart_progress, start_progress
from .objective import Evaluation
from .quadratic_model import QuadraticModel, quadratic_model
from .trust_region_state import TrustRegionState
from .trust_region_step import trust_region_step
from .trust_region_trial import GOOD, Judged, confirmed, judge, next_radius

#: The least relative change of parameters and log-likelihood that the first radius allows, over the precision.
RESOLVED = 1e4
#: A slope in units of the trust region that is larger is more than rounding.
LEVEL = 1e-4
STEPS_WITHOUT_GAIN = 50  #: rejected ones, which shrink the radius by 1e-30
FAR_OUT = 0.4  #: the power of the largest number beyond which a parameter has run away
SMALLEST_RADIUS = 1e-3  #: times the machine precision: below it, no step is a step any more


class AbstractTrustRegion(AbstractPointSolver):
    """Trust-region methods; subclasses choose the curvature.

    Args:
        radius: first radius of the ball, in units of the curvature's diagonal.
    """

    second_order: ClassVar[bool] = True
    #: True if the first point within tolerance ends the search; otherwise full Newton steps go on to prove it.
    stops_within_tolerance: ClassVar[bool] = False

    #: True if walls and kinks are passed; otherwise a search that meets one ends there, `OBSTRUCTED`.
    passes_obstacles: ClassVar[bool] = True

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
            told=jnp.zeros(k, dtype),
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
            fresh,
            scale=state.scale,
            initial_scale=state.initial_scale,
            progress=progress,
            is_newton_step=ahead,
            told=state.told,
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
        if not self.passes_obstacles:  # there are none: what asks for them is left out of the program
            state = dataclasses.replace(state, obstacles=obstacles.none(state.free), kinks=kinks.none(state.free))
        judged = judge(state, trial, n_obs, self.passes_obstacles)
        after, units = self._best_point(state, trial, judged, n_obs)
        after, here = _stand(state, after, units, trial.box, judged, n_obs, stop)
        after = _propose(after, here.model, trial.box)
        after, stuck = _conclude(state, after, judged, here, n_obs)
        if self.passes_obstacles:
            after, let_go = self._past_obstacles(state, after, judged, here, stuck, n_obs, stop)
        else:
            after, let_go = _stopped_by_obstacles(state, after, judged, n_obs), jnp.asarray(False)
        return self._proven(state, after, trial.box, judged, here, let_go, n_obs)

    def _best_point(
        self, state: TrustRegionState, trial: Evaluation, judged: Judged, n_obs: Float[Array, ""]
    ) -> tuple[TrustRegionState, Float[Array, " n_free"]]:
        """The best point after the trial, with its derivatives and the ball around it; and the units there."""
        accept, first, finite = judged.accept, state.first, judged.finite
        radius = next_radius(state, judged.ratio, finite, n_obs)
        # Next to kinks it is the learned curvature that makes steps shorter.
        least = jnp.where(accept, self.radius, jnp.where(state.n_without_gain < kinks.PATIENCE, state.radius, 0.0))
        radius = jnp.where(state.kinks.near & finite, jnp.maximum(radius, least), radius)
        radius = jnp.where(first | ~state.searching, state.radius, radius)

        free = jnp.where(accept, state.trial, state.free)
        loss = jnp.where(accept, trial.loss, state.loss)
        gradient = jnp.where(accept, trial.gradient, state.gradient)
        curvature = jnp.where(accept, trial.curvature, state.curvature)
        # The shortest units met so far, for a parameter that once was stiff may be so again.
        safe, slope = _where_known(state, accept, curvature, gradient)
        units = curvature_scale(safe, slope, jnp.maximum(1.0, jnp.abs(loss)))
        scale = jnp.where(accept, jnp.maximum(units, state.scale), state.scale)
        own = jnp.maximum(jnp.min(scale * jnp.abs(free)), jnp.abs(loss) / jnp.maximum(norm(slope / scale), 1.0))
        resolved = RESOLVED * jnp.finfo(free.dtype).eps * own
        radius = jnp.where(first & judged.finite, jnp.maximum(radius, resolved), radius)
        radius = jnp.where(judged.stopped, jnp.maximum(radius, self.radius), radius)

        n_without_gain = jnp.where(accept & (first | judged.gained), 0, state.n_without_gain + 1)
        n_without_gain = jnp.where(state.obstacles.under_way, state.n_without_gain, n_without_gain)
        n_without_gain = jnp.where(state.check.under_way | judged.stopped, 0, n_without_gain)
        kink = state.kinks
        if self.passes_obstacles:
            learns = kink.near & finite & state.searching
            kink = choose(learns, kinks.learn(kink, judged.step, judged.jump), kink)
        return dataclasses.replace(
            state,
            free=free,
            loss=loss,
            gradient=gradient,
            curvature=curvature,
            scale=scale,
            initial_scale=jnp.where(first & (state.initial_scale == 0), scale, state.initial_scale),
            radius=radius,
            trial_nonfinite=jnp.where(accept, False, ~finite),
            n_without_gain=n_without_gain,
            steps=state.steps + state.searching.astype(jnp.int32),
            obstacles=judged.obstacles,
            told=judged.told,
            kinks=kink,
        ), units

    def _past_obstacles(
        self,
        state: TrustRegionState,
        after: TrustRegionState,
        judged: Judged,
        here: _Stand,
        stuck: Bool[Array, ""],
        n_obs: Float[Array, ""],
        stop: Stop,
    ) -> tuple[TrustRegionState, Bool[Array, ""]]:
        """The search once walls and kinks have been met, and whether entries that they held were let go.

        Entries that are held are let go once the search for the others is over; and what ends next to a kink is
        proven anew, unless it ends in it.
        """
        met, kink, progress, status = after.obstacles, after.kinks, after.progress, after.status
        goes_on = (status == Status.unbounded) | (progress.n_within_tolerance < kinks.POLISHED)
        status = jnp.where(kink.near & ~stuck & goes_on, RUNNING, status)
        over = (status != RUNNING) & state.searching
        left = jnp.sqrt(n_obs) * norm(here.slope / here.units) / jnp.sqrt(2 * stop.tolerance)
        in_kink = over & kink.near & (left > kinks.SLOPE_LEFT) & ~after.check.seemed_to_run_away
        let_go = over & (met.holding | (kink.near & ~in_kink))
        status = jnp.where(in_kink, Status.stalled, status)
        status = jnp.where(let_go, RUNNING, status)
        suspected, bends = _suspected(state, dataclasses.replace(after, status=status), judged, n_obs)
        suspected &= ~let_go & ~kink.near
        bends &= suspected
        status, let_go, suspected, bends = computed_once((status, let_go, suspected, bends))

        kink = choose(bends, kinks.begin(judged.step, judged.jump, here.units), kinks.leave(kink, let_go))
        met = choose(let_go, obstacles.let_go(met), choose(bends, obstacles.at_kink(met, state.length), met))
        begins = suspected & ~judged.accept & ~bends & obstacles.can_be_tried(judged.step)
        met = choose(begins, obstacles.begin(met, judged.step, state.length), met)
        restarts = let_go | bends
        point = jnp.where(restarts, after.free, after.trial)
        return dataclasses.replace(
            after,
            progress=choose(restarts, restart_progress(progress), progress),
            trial=jnp.where(met.under_way, after.free + met.part, point),
            radius=jnp.where(let_go, met.wider_radius, jnp.where(bends, self.radius, after.radius)),
            is_newton_step=after.is_newton_step & ~restarts,
            status=status,
            obstacles=met,
            kinks=kink,
        ), let_go

    def _proven(
        self,
        state: TrustRegionState,
        after: TrustRegionState,
        box: Box | None,
        judged: Judged,
        here: _Stand,
        let_go: Bool[Array, ""],
        n_obs: Float[Array, ""],
    ) -> TrustRegionState:
        """The search with its claim looked at from a distance, where that is called for."""
        status, point, check = after.status, after.trial, state.check
        if self.exact:
            checked = jnp.where(
                status == Status.converged,
                here.doubtful | ~confirmed(after, n_obs),
                judged.accept & (here.verdict != RUNNING),
            )
            # Where no step could tell, and nothing else speaks against it, one pair of points is enough.
            once = ~here.doubtful & jnp.all(after.told == 0)
            begun = finite_check.begin(check, status, here.model, after.progress.step, n_obs, once)
            if box is not None and here.active is not None:
                begun = finite_check.in_box(
                    begun, box, here.active, here.model, after.curvature, after.free, n_obs
                )
                checked |= begun.onto | ((status == Status.converged) & begun.inwards)
            doubted = ~check.under_way & checked & begun.under_way & ~let_go & ~after.kinks.near
            doubted = computed_once(doubted & ~after.obstacles.holding & ~after.obstacles.under_way)
            looking, seen = check.under_way, judged.seen
            check = choose(looking, seen.check, choose(doubted, begun, check))
            status = jnp.where(looking, seen.status, jnp.where(doubted, RUNNING, status))
            point = jnp.where(check.under_way, after.free + check.distance * check.direction, point)
        if box is not None:
            point = box.clip(point)
        status = jnp.where(state.first & ~judged.finite, Status.nonfinite_start, status)
        if self.stops_within_tolerance:
            near = (status == RUNNING) & (after.progress.n_within_tolerance > 0) & ~after.obstacles.holding
            status = jnp.where(near, Status.converged, status)
        return dataclasses.replace(after, trial=point, status=status.astype(jnp.int32), check=check)


def _suspected(
    state: TrustRegionState, after: TrustRegionState, judged: Judged, n_obs: Float[Array, ""]
) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether a ball is so small that an obstacle may be the reason, and whether it is a kink that was crossed."""
    suspected = obstacles.suspected(after.obstacles, state.length, n_obs) & (after.status == RUNNING)
    suspected &= ~after.ran_away & state.searching & ~state.first
    bends = suspected & judged.finite & (judged.ratio < GOOD)
    return suspected, bends & kinks.crossed(judged.step, judged.jump, state.curvature, judged.noise)


def _stopped_by_obstacles(
    state: TrustRegionState, after: TrustRegionState, judged: Judged, n_obs: Float[Array, ""]
) -> TrustRegionState:
    """The search, which ends where `_past_obstacles` would have something to do."""
    suspected, bends = _suspected(state, after, judged, n_obs)
    stops = bends | (suspected & ~judged.accept & obstacles.can_be_tried(judged.step))
    return dataclasses.replace(after, status=jnp.where(stops, OBSTRUCTED, after.status))


class _Stand(NamedTuple):
    """How a search stands at its best point.

    Args:
        model: the quadratic there, of the entries that are not held.
        slope: the gradient of those.
        units: of the parameters at this point.
        active: the active bounds of a box.
        verdict: the `Status` that the point earns.
        doubtful: whether rounding may have forged that.
    """

    model: QuadraticModel
    slope: Float[Array, " k"]
    units: Float[Array, " k"]
    active: Active | None
    verdict: Int[Array, ""]
    doubtful: Bool[Array, ""]


def _where_known(
    state: TrustRegionState, accept: Bool[Array, ""], curvature: Float[Array, "k k"], gradient: Float[Array, " k"]
) -> tuple[Float[Array, "k k"], Float[Array, " k"]]:
    """Curvature and gradient of the best point; a start that is not finite has neither."""
    known = accept | ~state.first
    eye = jnp.eye(gradient.shape[0], dtype=gradient.dtype)
    return jnp.where(known, curvature, eye), jnp.where(known, gradient, 0.0)


def _stand(
    state: TrustRegionState,
    after: TrustRegionState,
    units: Float[Array, " n_free"],
    box: Box | None,
    judged: Judged,
    n_obs: Float[Array, ""],
    stop: Stop,
) -> tuple[TrustRegionState, _Stand]:
    """The search with its progress, and how it stands at its best point; the verdict is in the units of that."""
    known = judged.accept | ~state.first
    curvature, slope = _where_known(state, judged.accept, after.curvature, after.gradient)
    free, active, held = after.free, None, after.obstacles.held
    if box is not None:
        active = box.active(free, slope, units, n_obs, stop.tolerance)
        # A start on a bound from which the way leads inwards: the derivatives are those a hair inside.
        free = jnp.where(state.first & ~active.held, box.inside(free), free)
        held |= active.held
    curvature = jnp.where(after.kinks.near & known, curvature + after.kinks.curvature, curvature)
    curvature, slope = hold(curvature, slope, held, units)
    model = quadratic_model(curvature, slope, jnp.where(known, after.scale, 1.0), units)

    looked_in_vain = state.check.under_way & (judged.seen.higher | judged.seen.refuted)
    anew = looked_in_vain | judged.stopped
    before = choose(anew, restart_progress(state.progress), state.progress)
    full = state.is_newton_step & state.searching
    shrunk = jnp.any(after.scale * jnp.sqrt(jnp.finfo(free.dtype).eps) > after.initial_scale)
    progress, verdict, doubtful = computed_once(classify(before, model, n_obs, stop.tolerance, full, free, shrunk))
    after = dataclasses.replace(after, free=free, progress=choose(judged.accept, progress, before))
    return after, _Stand(model, slope, units, active, verdict, doubtful)


def _propose(after: TrustRegionState, model: QuadraticModel, box: Box | None) -> TrustRegionState:
    """The search with its next trial point: where the quadratic is least in the ball and the box."""
    is_newton_step = model.definite & (norm(model.minimiser) <= after.radius)
    # A direction that seems flat but has a slope is one that the search has far to go along.
    farthest = LEVEL / singular_below(model.slope.shape[0], model.slope.dtype)
    level_length = norm(model.semidefinite_step)
    is_level = ~model.definite & (level_length <= jnp.minimum(after.radius, farthest))
    bounded = trust_region_step(model, after.radius, ~(is_newton_step | is_level))
    move = jnp.where(is_newton_step, model.minimiser, jnp.where(is_level, model.semidefinite_step, bounded))
    if box is not None:
        move, cut = cut_off(box, model, after.free, move, after.radius)
        is_newton_step &= ~cut
    return dataclasses.replace(
        after,
        trial=after.free + move / model.scale,
        length=norm(move),
        predicted=predicted_decrease(model, move),
        is_newton_step=is_newton_step,
    )


def _conclude(
    state: TrustRegionState, after: TrustRegionState, judged: Judged, here: _Stand, n_obs: Float[Array, ""]
) -> tuple[TrustRegionState, Bool[Array, ""]]:
    """The search with the `Status` that its steps have earned, and whether no step leads on."""
    eps = jnp.finfo(after.free.dtype).eps
    met, model = after.obstacles, here.model
    stuck = ~judged.accept & ((after.radius < SMALLEST_RADIUS * eps) | jnp.all(after.trial == after.free))
    stuck = (stuck | (after.n_without_gain >= STEPS_WITHOUT_GAIN)) & ~state.obstacles.under_way
    # What steps too small to be taken still promise is endless; and what ran away once ends by rounding.
    rising = after.trial_nonfinite | met.wall | ~(n_obs * state.predicted <= jnp.sqrt(eps))
    rising |= after.ran_away | jnp.any(jnp.abs(after.free) > float(jnp.finfo(after.free.dtype).max) ** FAR_OUT)
    rising |= model.fading & ~met.any_met
    rising |= model.on_ridge & jnp.any(after.scale * eps ** (1 / 3) > after.initial_scale)
    status = jnp.where(stuck, jnp.where(rising, Status.unbounded, Status.stalled), RUNNING)
    status = jnp.where(judged.accept & (here.verdict != RUNNING), here.verdict, status)
    status = jnp.where(~judged.accept & after.progress.certain, Status.converged, status)
    if here.active is not None:
        lost = jnp.any(here.active.lost(after.free, here.units, after.scale))
        claimed = (status == Status.converged) | (status == Status.unbounded)
        status = jnp.where(lost & claimed, Status.not_identified, status)
    return dataclasses.replace(after, status=status), stuck
