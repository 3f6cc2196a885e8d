"""Solvers know nothing but an objective; a solver of one's own is one class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Int

import mlekit as mle
from mlekit.core.status import RUNNING, Status
from mlekit.solvers import Stop
from mlekit.solvers.base import AbstractPointSolver
from mlekit.solvers.box import Box
from mlekit.solvers.objective import AbstractObjective, Curvature, Evaluation
from tests.helpers.models import RULES, START, least_squares, line, line_data


class Valley(AbstractObjective):
    """Rosenbrock's function: no likelihood, no data."""

    least: Float[Array, "2"] | None = None

    @property
    def box(self) -> Box | None:
        return None if self.least is None else Box(self.least, jnp.full(2, jnp.inf))

    @property
    def n_obs(self) -> Float[Array, ""]:
        return jnp.asarray(100.0)

    @property
    def cheap_curvature(self) -> Curvature:
        return Curvature.exact

    def __call__(self, free: Array) -> Array:
        return (1 - free[0]) ** 2 + 100 * (free[1] - free[0] ** 2) ** 2

    def evaluate(
        self, free: Array, curvature: Curvature = Curvature.none, n_obs: Array | None = None
    ) -> Evaluation:
        free = free if self.box is None else self.box.clip(free)
        matrix = None if curvature is Curvature.none else jax.hessian(self)(free)
        return Evaluation(*jax.value_and_grad(self)(free), matrix, self.box)

    def minibatches(self, key: Any, steps: Any, size: int) -> tuple[int, Callable[[Array], AbstractObjective]]:
        return 1, lambda j: self


@pytest.mark.parametrize("solver", [mle.Newton(), mle.Scoring(), mle.BFGS(), mle.LBFGS()], ids=lambda s: s.name)
def test_solvers_minimise_any_objective(solver: Any) -> None:
    state = minimise(solver, Valley(), [-1.2, 1.0])
    assert int(state.status) == Status.converged
    np.testing.assert_allclose(state.free, 1.0, atol=1e-4)


@pytest.mark.parametrize("solver", [mle.Newton(), mle.BFGS(), mle.LBFGS()], ids=lambda s: s.name)
def test_solvers_minimise_in_a_box(solver: Any) -> None:
    # On the edge x = 1.5 the valley's floor is y = x^2.
    state = minimise(solver, Valley(jnp.array([1.5, -1.0])), [2.0, 0.0])
    assert int(state.status) == Status.converged
    np.testing.assert_allclose(state.free, [1.5, 2.25], atol=1e-4)
    assert state.free[0] == 1.5


def minimise(solver: Any, objective: AbstractObjective, start: list[float]) -> Any:
    """The solver's last state."""
    stop = Stop(jnp.asarray(1e-9), jnp.asarray(1000))
    step = lambda state: solver.step(objective, state, stop)  # noqa: E731
    going = lambda state: (state.status == RUNNING) & (state.steps < stop.max_steps)  # noqa: E731
    return jax.jit(lambda free: jax.lax.while_loop(going, step, solver.init(free)))(jnp.array(start))


class DescentState(eqx.Module):
    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    decrement: Float[Array, ""]
    steps: Int[Array, ""]
    status: Int[Array, ""]


class Descent(AbstractPointSolver):
    """Steps against the gradient, of one length."""

    rate: float = 0.3

    def init(self, free: Array) -> DescentState:
        unknown = jnp.asarray(jnp.inf, free.dtype)
        none, running = jnp.asarray(0, jnp.int32), jnp.asarray(RUNNING, jnp.int32)
        return DescentState(free, unknown, unknown, none, running)

    def curvature(self, objective: AbstractObjective) -> Curvature:
        return Curvature.none

    def trial_point(self, state: DescentState) -> Array:
        return state.free

    def update(self, state: DescentState, trial: Evaluation, n_obs: Array, stop: Stop) -> DescentState:
        decrement = 0.5 * n_obs * jnp.sum(trial.gradient**2)
        status = jnp.where(decrement < 1e-2, Status.converged, RUNNING).astype(jnp.int32)
        free = state.free - self.rate * trial.gradient
        return DescentState(free, trial.loss, decrement, state.steps + 1, status)


def test_a_solver_of_ones_own() -> None:
    """A class and nothing else: Newton's method proves what it found, in batches as for one data set."""
    data = line_data(30)
    fit = mle.fit(line, START, data, constraints=RULES, solver=Descent())
    assert fit.status == "converged"
    assert fit.solver == "Descent"
    wanted = least_squares(data)
    np.testing.assert_allclose([fit.params[k] for k in wanted], list(wanted.values()), rtol=1e-8)
    twice = jax.tree.map(lambda column: np.stack([column, column]), data)
    fits = mle.fit_batch(line, START, twice, constraints=RULES, solver=Descent())
    np.testing.assert_allclose(fits._solution.estimates, np.stack([fit._solution.estimates] * 2), rtol=1e-9)
