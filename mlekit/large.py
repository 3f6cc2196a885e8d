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
    likelihood = objective.likelihood
    start, few = state.free, jnp.minimum(stop.max_steps, SAMPLE_STEPS)

    def goes_on(state: Any, phase: Array, steps: Array) -> Array:
        spent = jnp.where(phase == SAMPLE, state.steps >= few, steps >= stop.max_steps)
        return (state.status == RUNNING) & ~spent

    def go(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        before, phase, steps = carry
        sampled = phase == SAMPLE
        stride = jnp.where(sampled, likelihood.n_blocks // SAMPLE_BLOCKS, 1)
        part = dataclasses.replace(objective, likelihood=dataclasses.replace(likelihood, stride=stride))
        loose = jnp.maximum(stop.tolerance, jnp.asarray(SAMPLE_TOLERANCE, stop.tolerance.dtype))
        until = Stop(jnp.where(sampled, loose, stop.tolerance), stop.max_steps)
        state = solver.learn(before, _derivatives(solver, part, before, phase), part.n_obs, until)
        steps = steps + ~sampled
        over, following, new = _hand_over(solver, before, state, phase, start)
        over = (phase != WHOLE) & (over | ~goes_on(state, phase, steps))
        state = jax.tree.map(lambda new, old: jnp.where(over, new, old), new, state)
        return state, jnp.where(over, following, phase), steps

    def on(carry: tuple[Any, Array, Array]) -> Array:
        state, phase, steps = carry
        return (phase != WHOLE) | goes_on(state, phase, steps)

    state, _, steps = jax.lax.while_loop(on, go, (state, jnp.asarray(SAMPLE), jnp.zeros_like(state.steps)))
    return eqx.tree_at(lambda s: s.steps, state, steps)


def _derivatives(solver: Stepwise, objective: Objective, state: Any, phase: Array) -> Any:
    """What the solver learns from; where its curvature will do as it is, that comes from the state."""
    point, kind = solver.candidate(state), solver.derivatives(objective)
    if not isinstance(solver, TrustRegion):
        return objective.derivatives(kind, point)
    # The point that only polishes the last digits of a proven maximum needs no curvature of its own.
    kept = (phase == CHORD) | ((phase == WHOLE) & state.progress.sure)
    return jax.lax.cond(
        kept,
        lambda: (*objective.gradient(point), state.curvature),
        lambda: objective.derivatives(kind, point),
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
