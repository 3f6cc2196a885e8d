"""One large data set: a sample of its rows gives the start and the first curvature."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core.status import RUNNING, Status
from ..core.trees import choose
from ..likelihood.objective import Objective
from ..solvers import Stop
from ..solvers.base import AbstractPointSolver, updated
from ..solvers.objective import Evaluation

#: A large data set is first fitted to a sample of its rows, in so many steps.
SAMPLE_STEPS = 50
#: And to so many nats, far below what the sample's own noise leaves to be gained.
SAMPLE_TOLERANCE = 0.01
#: A curvature is kept while each step leaves at most this share of what was to be gained.
CHORD_GAIN = 0.1
#: A search that may take fewer steps than this goes without.
FEWEST_STEPS = 10
#: The phases of a search: on the sample; on all rows, with the curvature of the sample; on all rows.
SAMPLE, CHORD, WHOLE = 0, 1, 2


def is_large(objective: Objective) -> bool:
    """True if the data set is worth a sample."""
    return objective.likelihood.has_sample


class SubsampledSteps(eqx.Module):
    """The steps of a solver on a large data set, as `search.Steps` are those on any.

    It searches a sample first, blocks of rows from all over the data set. From its maximum, a method in a trust
    region goes on with the sample's curvature, on gradients of all rows, for as long as every step gains much
    (the chord method). Then it goes on by itself. If the sample has no maximum, it begins where it was told to.
    One compiled step serves all phases.

    Args:
        solver: the solver.
        objective: the objective.
        stop: when to stop; steps on the sample do not count.
        start: where the solver begins.
        n_obs: number of observations, of the sample and in all.
    """

    solver: AbstractPointSolver
    objective: Objective
    stop: Stop
    start: Float[Array, " n_free"]
    n_obs: tuple[Array, Array]

    def begin(self, state: Any) -> tuple[Any, Array, Array]:
        """The state, the phase, and the steps on all rows."""
        first = jnp.where(self.stop.max_steps >= FEWEST_STEPS, SAMPLE, WHOLE)
        return state, first, jnp.zeros_like(state.steps)

    def unfinished(self, carry: tuple[Any, Array, Array]) -> Array:
        """True if there is anything left to do."""
        return (carry[1] != WHOLE) | self._runs(*carry)

    def step(self, carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        """A step, and what follows if its phase has done its work."""
        solver, objective, stop = self.solver, self.objective, self.stop
        before, phase, steps = carry
        sampled = phase == SAMPLE
        n_obs = jnp.where(sampled, *self.n_obs)
        part = _of_sample(objective, sampled)
        loose = jnp.maximum(stop.tolerance, jnp.asarray(SAMPLE_TOLERANCE, stop.tolerance.dtype))
        found = _evaluate(solver, part, n_obs, before, phase)
        until = Stop(jnp.where(sampled, loose, stop.tolerance), stop.max_steps)
        state = updated(solver, before, found, n_obs, until)
        steps = steps + (~sampled).astype(jnp.int32)
        over, following, new = _hand_over(solver, before, state, phase, self.start)
        over = (phase != WHOLE) & (over | ~self._runs(state, phase, steps))
        # Other rows may forbid where the sample has its maximum.
        forbidden = ~sampled & (steps == 1) & (state.status == Status.nonfinite_start)
        new = choose(forbidden, solver.init(self.start), new)
        following, over = jnp.where(forbidden, WHOLE, following), over | forbidden
        state = choose(over, new, state)
        return state, jnp.where(over, following, phase), steps

    def state(self, carry: tuple[Any, Array, Array]) -> Any:
        """The solver's state, with the steps on all rows."""
        return eqx.tree_at(lambda s: s.steps, carry[0], carry[2])

    def of_all_rows(self, carry: tuple[Any, Array, Array]) -> Array:
        """True if that state knows the log-likelihood of the whole data set."""
        return (carry[1] != SAMPLE) & jnp.isfinite(carry[0].loss)

    def _runs(self, state: Any, phase: Array, steps: Array) -> Array:
        # The last step is for all rows with their own curvature: what came before proves nothing.
        most = jnp.where(phase == CHORD, self.stop.max_steps - 1, self.stop.max_steps)
        spent = jnp.where(phase == SAMPLE, state.steps >= SAMPLE_STEPS, steps >= most)
        return (state.status == RUNNING) & ~spent


def subsampled_steps(
    solver: AbstractPointSolver, objective: Objective, stop: Stop, start: Float[Array, " n_free"]
) -> SubsampledSteps:
    """The steps, with what all of them need computed once."""
    return SubsampledSteps(solver, objective, stop, start, (_of_sample(objective, True).n_obs, objective.n_obs))


def _of_sample(objective: Objective, yes: Any) -> Objective:
    """The objective of a sample of the rows where `yes`."""
    return dataclasses.replace(objective, likelihood=objective.likelihood.of_sample(yes))


def _evaluate(
    solver: AbstractPointSolver, objective: Objective, n_obs: Array, state: Any, phase: Array
) -> Evaluation:
    """The evaluation at the trial point; a curvature that will do as it is comes from the state."""
    point, curvature = solver.trial_point(state), solver.curvature(objective)
    if not solver.second_order:
        return objective.evaluate(point, curvature, n_obs)
    # The point that only polishes the last digits of a proven maximum needs no curvature of its own.
    kept = (phase == CHORD) | ((phase == WHOLE) & state.progress.certain & ~state.check.under_way)

    def with_kept() -> Evaluation:
        found = objective.evaluate(point, n_obs=n_obs)
        return dataclasses.replace(found, curvature=state.curvature)

    return jax.lax.cond(kept, with_kept, lambda: objective.evaluate(point, curvature, n_obs))


def _hand_over(solver: Any, before: Any, state: Any, phase: Array, start: Array) -> tuple[Array, Array, Any]:
    """True if the phase is over; the next one; and the state it begins with."""
    found = (state.status == Status.converged) | (state.status == RUNNING)
    fresh = solver.init(jnp.where(found, state.free, start))
    whole = jnp.full_like(phase, WHOLE)
    if not solver.second_order:
        return jnp.asarray(False), whole, fresh
    sampled, chord = phase == SAMPLE, phase == CHORD
    maximum = sampled & ((state.status == Status.converged) | state.progress.certain)
    slow = state.progress.decrement > CHORD_GAIN * before.progress.decrement
    bent = dataclasses.replace(fresh, curvature=state.curvature, scale=state.scale)
    choose = lambda bent, onwards, fresh: jnp.select([maximum, chord], [bent, onwards], fresh)  # noqa: E731
    new = jax.tree.map(choose, bent, solver.warm_start(state), fresh)
    return (
        maximum | (chord & (slow | (state.progress.n_within_tolerance > 0))),
        jnp.where(maximum, CHORD, whole),
        new,
    )
