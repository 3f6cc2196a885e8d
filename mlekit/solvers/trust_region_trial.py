"""What a trial point of a trust region has shown, and how that changes the ball."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core.compilation import computed_once
from ..core.linear_algebra import matvec
from ..core.trees import choose
from . import finite_check, obstacles
from .objective import Evaluation
from .trust_region_state import TrustRegionState

ACCEPT = 1e-4  #: least share of the predicted decrease that a step must bring
#: Shares of the predicted decrease below which the ball shrinks to a quarter of the step, and from which it grows.
POOR, GOOD = 0.25, 0.75
#: Growth of the radius after a good step; the most where the model missed no more than so small a share of the
#: decrease, with so many nats at stake. Searches that start far off have far to go.
GROWTH, MOST_GROWTH, MISSED, AT_STAKE = 3.0, 100.0, 1e-3, 1.0
#: A step tells whether the quadratic holds if so many nats are at stake; it does if no more than so large a
#: share of them, or of half a nat, is missing or too much. Where rounding is larger than so many nats nothing can
#: be told.
TELLING, MISTOLD, HIDDEN = 1e-3, 0.25, 0.1
#: A change that was not promised is no rounding if it is so many times what that should be.
SURPRISE = 100.0
#: The most by which the curvature along a parameter may have changed since.
STEADY = 4.0


class Judged(NamedTuple):
    """What a trial point has shown.

    Args:
        finite: whether the objective and its derivatives are finite there.
        accept: whether it is the best point from now on.
        gained: whether it is better beyond rounding.
        ratio: the share of the predicted decrease that it brought.
        noise: of the objective, by rounding.
        step: from the best point before.
        jump: the change of the gradient beyond that of the curvature.
        seen: what it decides if it was one to be looked at.
        obstacles: what is known of walls now.
        stopped: whether that was what the search waited for, and some entries are held from now on.
        told: the curvature of the parameters at the last step that showed the quadratic to hold.
    """

    finite: Bool[Array, ""]
    accept: Bool[Array, ""]
    gained: Bool[Array, ""]
    ratio: Float[Array, ""]
    noise: Float[Array, ""]
    step: Float[Array, " k"]
    jump: Float[Array, " k"]
    seen: finite_check.Judgement
    obstacles: obstacles.Obstacles
    stopped: Bool[Array, ""]
    told: Float[Array, " k"]


def judge(state: TrustRegionState, trial: Evaluation, n_obs: Float[Array, ""], passes_obstacles: bool) -> Judged:
    """What the trial point has shown.

    Near the maximum the predicted and the actual change drown in rounding; then a step is judged as a success.
    Gradients keep their digits longer than the log-likelihood does, so steps within tolerance are trusted further.
    """
    loss, gradient, curvature = trial.loss, trial.gradient, trial.curvature
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(curvature))
    noise = rounding(jnp.where(state.first, 0.0, state.loss))
    ratio = (state.loss - loss + noise) / (state.predicted + noise)
    if trial.box is not None:  # a step that was cut off need not go downhill
        ratio = jnp.where(state.predicted < -noise, -1.0, ratio)
    polish = (
        state.is_newton_step
        & (state.progress.n_within_tolerance > 0)
        & (jnp.abs(state.loss - loss) <= 1e3 * noise)
    )
    # A point to be looked at is taken just where it is higher ground; then the search begins anew there. The part
    # of a step that is tried alone is not taken.
    looking, trying = state.check.under_way, state.obstacles.under_way
    rise = jnp.where(finite, loss - state.loss, jnp.inf)
    seen = finite_check.judge(state.check, n_obs * rise, state.decrement, n_obs * noise)
    better = finite & (state.first | (ratio > ACCEPT) | polish)
    accept = jnp.where(looking, seen.higher & finite, better) & ~trying
    accept, seen = computed_once((accept, seen))

    met = state.obstacles
    if passes_obstacles:
        tried = obstacles.judge(met, rise, state.gradient, state.curvature, noise)
        met = computed_once(choose(trying, tried, met))
    step = state.trial - state.free
    return Judged(
        finite=finite,
        accept=accept,
        gained=state.loss - loss > noise,
        ratio=ratio,
        noise=noise,
        step=step,
        jump=gradient - state.gradient - matvec(state.curvature, step),
        seen=seen,
        obstacles=met,
        stopped=trying & ~met.under_way & met.holding,
        told=_told(state, trial, accept, n_obs, noise),
    )


def _told(
    state: TrustRegionState,
    trial: Evaluation,
    accept: Bool[Array, ""],
    n_obs: Float[Array, ""],
    noise: Float[Array, ""],
) -> Float[Array, " k"]:
    """The curvature where a step last showed the quadratic to hold; NaN if that did not, zeros before any step."""
    promised, brought = n_obs * state.predicted, n_obs * (state.loss - trial.loss)
    missed = jnp.abs(brought - promised)
    holds = missed <= MISTOLD * jnp.minimum(promised, 0.5)
    at_stake = promised > jnp.maximum(TELLING, 20 * n_obs * noise)
    # Even with less at stake another change than promised tells: rounding is larger than it should be.
    surprises = missed > jnp.maximum(promised, SURPRISE * n_obs * noise)
    tells = accept & state.searching & ~state.first & (at_stake | surprises)
    return jnp.where(tells, jnp.where(holds, jnp.diagonal(trial.curvature), jnp.nan), state.told)


def confirmed(state: TrustRegionState, n_obs: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether a step has shown that the quadratic around a point is no work of rounding.

    The curvature must be about what it was at that step: rounding makes some of any size. Where rounding hides
    what a step brings, none can tell.
    """
    now = jnp.diagonal(state.curvature)
    steady = jnp.all((now < STEADY * state.told) & (state.told < STEADY * now))
    return steady | (n_obs * rounding(state.loss) > HIDDEN)


def rounding(loss: Float[Array, ""]) -> Float[Array, ""]:
    """The noise that rounding makes in an objective of this size."""
    return 10 * jnp.finfo(loss.dtype).eps * jnp.maximum(1.0, jnp.abs(loss))


def next_radius(
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
    radius = jnp.where(~finite | (ratio < POOR), smaller, state.radius)
    missed = jnp.maximum(jnp.abs(1.0 - ratio), jnp.finfo(ratio.dtype).eps)
    growth = jnp.where(n_obs * state.predicted > AT_STAKE, jnp.clip(MISSED / missed, GROWTH, MOST_GROWTH), GROWTH)
    grows = finite & (ratio > GOOD) & at_edge
    # Not at once after a step that was too long.
    grows &= state.n_without_gain == 0
    return jnp.where(grows, growth * state.radius, radius)
