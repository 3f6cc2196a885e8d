"""One large data set: a sample of its rows says where to begin, and how the likelihood bends."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .objective import Objective
from .solvers import Stop
from .solvers.base import Stepwise
from .solvers.trust_region import TrustRegion
from .status import RUNNING, Status

#: A data set of at least three times as many blocks of rows is first fitted to so many of them, in so many steps.
SAMPLE_BLOCKS, SAMPLE_STEPS = 8, 50
#: And to so many nats, far below what the sample's own noise leaves to be gained.
SAMPLE_TOLERANCE = 0.01
#: A curvature is kept while each step leaves at most this share of what was to be gained.
CHORD_GAIN = 0.1
#: A search that may take fewer steps than this goes without.
FEWEST_STEPS = 10
#: The phases of a search: on the sample; on all rows, with the curvature of the sample; on all rows.
SAMPLE, CHORD, WHOLE = 0, 1, 2


def is_large(objective: Objective) -> bool:
    """Whether the data set is worth a sample."""
    return objective.likelihood.n_blocks >= 3 * SAMPLE_BLOCKS


def run(solver: Stepwise, objective: Objective, state: Any, stop: Stop) -> Any:
    """The solver's last state on a large data set.

    It searches a sample first, blocks of rows from all over the data set. From its maximum, a method in a trust
    region goes on with the sample's curvature, on gradients of all rows, for as long as every step gains much
    (the chord method). Then it goes on by itself. If the sample has no maximum, it begins where it was told to.
    One compiled step serves all phases.

    Args:
        solver: the solver.
        objective: the objective.
        state: where the solver begins.
        stop: when to stop; steps on the sample do not count.
    """
    start = state.free
    loose = jnp.maximum(stop.tolerance, jnp.asarray(SAMPLE_TOLERANCE, stop.tolerance.dtype))

    def rows(stride: Any) -> Objective:
        likelihood = dataclasses.replace(objective.likelihood, stride=stride)
        return dataclasses.replace(objective, likelihood=likelihood)

    all_obs, stride = objective.n_obs, jnp.asarray(objective.likelihood.n_blocks // SAMPLE_BLOCKS)
    sample_obs = rows(stride).n_obs

    def runs(state: Any, phase: Array, steps: Array) -> Array:
        # The last step is for all rows with their own curvature: what came before proves nothing.
        most = jnp.where(phase == CHORD, stop.max_steps - 1, stop.max_steps)
        spent = jnp.where(phase == SAMPLE, state.steps >= SAMPLE_STEPS, steps >= most)
        return (state.status == RUNNING) & ~spent

    def step(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        before, phase, steps = carry
        sampled = phase == SAMPLE
        n_obs = jnp.where(sampled, sample_obs, all_obs)
        found = _derivatives(solver, rows(jnp.where(sampled, stride, 1)), n_obs, before, phase)
        state = solver.learn(before, found, n_obs, Stop(jnp.where(sampled, loose, stop.tolerance), stop.max_steps))
        steps = steps + ~sampled
        over, following, new = _hand_over(solver, before, state, phase, start)
        over = (phase != WHOLE) & (over | ~runs(state, phase, steps))
        # Other rows may forbid where the sample has its maximum.
        forbidden = ~sampled & (steps == 1) & (state.status == Status.nonfinite_start)
        new = jax.tree.map(lambda new, fresh: jnp.where(forbidden, fresh, new), new, solver.init(start))
        following, over = jnp.where(forbidden, WHOLE, following), over | forbidden
        state = jax.tree.map(lambda new, old: jnp.where(over, new, old), new, state)
        return state, jnp.where(over, following, phase), steps

    def unfinished(carry: tuple[Any, Array, Array]) -> Array:
        state, phase, steps = carry
        return (phase != WHOLE) | runs(state, phase, steps)

    first = jnp.where(stop.max_steps >= FEWEST_STEPS, SAMPLE, WHOLE)
    state, _, steps = jax.lax.while_loop(unfinished, step, (state, first, jnp.zeros_like(state.steps)))
    return eqx.tree_at(lambda s: s.steps, state, steps)


def _derivatives(solver: Stepwise, objective: Objective, n_obs: Array, state: Any, phase: Array) -> Any:
    """What the solver learns from; where its curvature will do as it is, that comes from the state."""
    point, kind = solver.candidate(state), solver.derivatives(objective)
    if not isinstance(solver, TrustRegion):
        return objective.derivatives(kind, point, n_obs)
    # The point that only polishes the last digits of a proven maximum needs no curvature of its own.
    kept = (phase == CHORD) | ((phase == WHOLE) & state.progress.sure)
    return jax.lax.cond(
        kept,
        lambda: (*objective.derivatives("gradient", point, n_obs), state.curvature),
        lambda: objective.derivatives(kind, point, n_obs),
    )


def _hand_over(solver: Stepwise, before: Any, state: Any, phase: Array, start: Array) -> tuple[Array, Array, Any]:
    """Whether the phase has done its work, which one follows, and with which state."""
    found = (state.status == Status.converged) | (state.status == RUNNING)
    fresh = solver.init(jnp.where(found, state.free, start))
    whole = jnp.full_like(phase, WHOLE)
    if not isinstance(solver, TrustRegion):
        return jnp.asarray(False), whole, fresh
    sampled, chord = phase == SAMPLE, phase == CHORD
    maximum = sampled & ((state.status == Status.converged) | state.progress.sure)
    slow = state.progress.decrement > CHORD_GAIN * before.progress.decrement
    bent = dataclasses.replace(fresh, curvature=state.curvature, scale=state.scale)
    choose = lambda bent, onwards, fresh: jnp.select([maximum, chord], [bent, onwards], fresh)  # noqa: E731
    new = jax.tree.map(choose, bent, solver.take_over(state), fresh)
    return maximum | (chord & (slow | (state.progress.quiet > 0))), jnp.where(maximum, CHORD, whole), new
