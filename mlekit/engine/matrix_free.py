"""Many parameters: proof and derivatives from products of the Hessian with vectors, without a matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..core.devices import CORE_NUMBERS
from ..core.linear_algebra import norm, singular_below
from ..core.status import RUNNING, Status
from ..core.trees import choose, n_rows
from ..likelihood.objective import Objective
from ..likelihood.weights import weighted_rows
from ..solvers import Stop
from ..solvers.box import Active
from ..solvers.convergence import LASTING, LOST_LONG, SAME_STEPS
from ..solvers.objective import Evaluation

#: Newton steps that prove a maximum at most.
STEPS = 12
#: How small conjugate gradients leave the residual of a derivative, by the bits of a number; that of a step, which
#: others follow; and that of an eigenvector.
RESIDUAL, OF_STEP, OF_EIGENVECTOR = {64: 1e-10, 32: 1e-5}, 1e-5, 1e-5
#: Products with vectors for one solution at most: for each parameter, and in all.
PATIENCE, IN_ALL = 2, 10_000
#: Vectors of signs for the diagonal, and the share of it below which squared scores are no guess at it.
SIGNS, VANISHING = 8, 0.05
#: Steps of power iteration for the largest eigenvalue, and solutions for the least.
LARGEST, LEAST = 30, 6


def product(objective: Objective, free: Float[Array, " n_free"]) -> Callable[[Array], Array]:
    """The Hessian of the loss times a vector: one pass over the data, two to three times as dear as a gradient."""
    return lambda vector: jax.jvp(lambda z: objective.evaluate(z).gradient, (free,), (vector,))[1]


def units(objective: Objective, free: Float[Array, " n_free"]) -> Float[Array, " n_free"]:
    """Units of the parameters: about the root of the diagonal of the curvature, one where that is zero.

    At a maximum the mean squared scores are about that diagonal, unless a parameter has a single row, or runs
    away: then they vanish beside it. There the mean of $v * H v$ over signs $v$ at random takes their place, whose
    errors are of the size of the rest of $H$ (Bekas, Kokiopoulou and Saad 2007).
    """
    times = product(objective, free)

    def diagonal(key: Array) -> Array:
        signs = jax.random.rademacher(key, free.shape, free.dtype)
        return signs * times(signs)

    estimate = jnp.mean(jax.lax.map(diagonal, jax.random.split(jax.random.key(0), SIGNS)), axis=0)
    squares = _squared_scores(objective, free)
    unit = jnp.sqrt(jnp.where(squares < VANISHING * estimate, estimate, squares))
    return jnp.where((unit > 0) & jnp.isfinite(unit), unit, 1.0)


def _squared_scores(objective: Objective, free: Float[Array, " n_free"]) -> Float[Array, " n_free"]:
    """The mean squared scores; zeros for a joint model, which has none."""
    likelihood, parameters = objective.likelihood, objective.parameters
    if likelihood.model.is_joint:
        return jnp.zeros_like(free)

    def squares(data: PyTree, weights: Array | None) -> Array:
        def row(values: tuple[PyTree, Array]) -> Array:
            one, weight = jax.tree.map(lambda leaf: leaf[None], values)
            _, scores = likelihood.block_scores(free, parameters.natural, one)
            return weighted_rows(scores.astype(free.dtype) ** 2, weight)[0]

        count = jnp.ones(n_rows(data), free.dtype) if weights is None else weights
        width = max(1, CORE_NUMBERS // free.size)
        rows = jax.lax.map(row, (data, count), batch_size=min(width, n_rows(data)))
        return jnp.sum(rows, axis=0)

    return likelihood.total(squares, jnp.zeros_like(free)) / objective.n_obs


class Solved(eqx.Module):
    """The result of conjugate gradients.

    Args:
        vector: the solution.
        definite: True if every curvature that was met is positive.
        settled: True if the residual is as small as was asked for.
    """

    vector: Float[Array, " k"]
    definite: Bool[Array, ""]
    settled: Bool[Array, ""]


def conjugate_gradients(times: Callable[[Array], Array], right: Float[Array, " k"], residual: float) -> Solved:
    """The solution of a symmetric system, and whether its matrix is positive definite as far as that is seen.

    With a right-hand side that has a part along every eigenvector, a small residual leaves no room for an
    eigenvalue that is not positive: there the polynomial that the residual is cannot be small while all curvatures
    that were met are positive. (Hestenes and Stiefel 1952.)

    Args:
        times: the matrix times a vector, with a diagonal of size one.
        right: the right-hand side.
        residual: how small to make the residual, as a share of the right-hand side.
    """
    k, dtype = right.size, right.dtype
    target = residual**2 * jnp.sum(right**2)

    def going(carry: Any) -> Array:
        *_, square, definite, steps = carry
        return (square > target) & definite & (steps < min(PATIENCE * k, IN_ALL))

    def step(carry: Any) -> Any:
        x, rest, direction, square, _, steps = carry
        image = times(direction)
        curvature = jnp.sum(direction * image)
        definite = curvature > singular_below(k, dtype) * jnp.sum(direction**2)
        along = jnp.where(definite, square / jnp.where(definite, curvature, 1.0), 0.0)
        x, rest = x + along * direction, rest - along * image
        fresh = jnp.sum(rest**2)
        return x, rest, rest + fresh / square * direction, fresh, definite, steps + 1

    none = jnp.asarray(0, jnp.int32)
    carry = (jnp.zeros_like(right), right, right, jnp.sum(right**2), jnp.asarray(True), none)
    x, _, _, square, definite, _ = jax.lax.while_loop(going, step, carry)
    return Solved(x, definite, square <= target)


class Claim(eqx.Module):
    """The claim of a solver that it converged, which is still to be proven.

    Args:
        free: the free vector.
        loss: there, as the solver knows it.
        status: its claim.
    """

    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    status: Int[Array, ""]


class Proof(eqx.Module):
    """The proof of a maximum, or its refutation: fields of a `Solution`, `weak` being on the free scale."""

    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    status: Int[Array, ""]
    steps: Int[Array, ""]
    decrement: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    min_eigenvalue: Float[Array, ""]
    condition_number: Float[Array, ""]
    weak: Float[Array, " n_free"]
    multiplier: Float[Array, " n_free"] | None


def with_held(times: Callable[[Array], Array], held: Bool[Array, " k"] | None) -> Callable[[Array], Array]:
    """The product with a matrix in whose rows and columns `held` there is a unit matrix."""
    if held is None:
        return times
    return lambda vector: jnp.where(held, vector, times(jnp.where(held, 0.0, vector)))


def prove(objective: Objective, state: Claim, stop: Stop) -> Proof:
    """Newton steps from a point where a solver claims convergence, and the extreme eigenvalues there.

    A maximum is proven as `solvers.convergence` says, by two points in a row within tolerance, the second reached
    by a full Newton step that does not repeat the one before; and by eigenvalues that are all positive. Parameters
    whose own steps keep their length run away, however little is left to gain.

    Args:
        objective: the objective.
        state: where the solver came to.
        stop: when to stop.
    """
    claimed = (state.status != RUNNING) & (state.status != Status.nonfinite_start)
    n_obs, dtype, box = objective.n_obs, state.free.dtype, objective.box
    eps, k = jnp.finfo(dtype).eps, state.free.size
    scale, here = jax.lax.cond(
        claimed,
        lambda: (units(objective, state.free), objective.evaluate(state.free)),
        lambda: (jnp.ones_like(state.free), Evaluation(state.loss, jnp.zeros_like(state.free), box=box)),
    )
    floor = 0.5 * n_obs * (32 * eps) ** 2 * k

    def active(free: Array, here: Evaluation) -> Active | None:
        return None if box is None else box.active(free, here.gradient, scale, n_obs, stop.tolerance)

    def scaled(free: Array, active: Active | None) -> Callable[[Array], Array]:
        times = lambda vector: product(objective, free)(vector / scale) / scale  # noqa: E731
        return with_held(times, None if active is None else active.held)

    def slope(here: Evaluation, active: Active | None) -> Array:
        unscaled = here.gradient if active is None else jnp.where(active.held, 0.0, here.gradient)
        return unscaled / scale

    def step(carry: Any) -> Any:
        free, here, last, n_within, n_same, _, _, steps = carry
        held = active(free, here)
        downwards = -slope(here, held)
        found = conjugate_gradients(scaled(free, held), downwards, OF_STEP)
        sound = found.definite & found.settled
        delta = jnp.where(sound, 0.5 * n_obs * jnp.sum(downwards * found.vector), jnp.inf)
        length, before = norm(found.vector), norm(last)
        repeats = (length > LASTING * before) & (jnp.sum(found.vector * last) > 0.95 * length * before)
        repeats &= (delta > floor) & (steps > 0)
        n_within = jnp.where(delta <= jnp.maximum(stop.tolerance, floor), n_within + 1, 0)
        drifting = (found.vector * last > 0) & (jnp.abs(found.vector) > LASTING * jnp.abs(last))
        drifting &= jnp.abs(found.vector) > jnp.sqrt(eps) * jnp.maximum(1.0, jnp.abs(free)) * scale
        n_same = jnp.where(drifting & sound, n_same + 1, 0)
        proven = (n_within >= 2) & ~repeats & ~jnp.any(drifting)
        lost = jnp.any(n_same >= SAME_STEPS) & (delta <= LOST_LONG)
        trial = free + found.vector / scale
        if box is not None:
            cut = trial != box.clip(trial)
            trial, n_within = box.clip(trial), jnp.where(jnp.any(cut), 0, n_within)
        there = objective.evaluate(trial)
        noise = 10 * eps * jnp.maximum(1.0, jnp.abs(here.loss))
        better = sound & jnp.all(jnp.isfinite(there.gradient)) & (there.loss <= here.loss + noise)
        status = jnp.where(better, RUNNING, Status.stalled)
        status = jnp.where(~found.definite & (steps > 0), Status.not_identified, status)
        status = jnp.where(lost, Status.unbounded, status)
        status = jnp.where(proven, Status.converged, status).astype(jnp.int32)
        free, here = choose(better, (trial, there), (free, here))
        return free, here, found.vector, n_within, n_same, delta, status, steps + 1

    none, unknown = jnp.asarray(0, jnp.int32), jnp.asarray(jnp.nan, dtype)
    spent = jnp.where(state.status == RUNNING, Status.max_steps, state.status)
    status = jnp.where(claimed, RUNNING, spent).astype(jnp.int32)
    zero = jnp.zeros_like(state.free)
    carry = (state.free, here, zero, none, jnp.zeros(k, jnp.int32), unknown, status, none)
    carry = jax.lax.while_loop(lambda carry: (carry[-2] == RUNNING) & (carry[-1] < STEPS), step, carry)
    free, here, last, _, n_same, delta, status, steps = carry
    held = active(free, here)
    status = jnp.where(status == RUNNING, Status.stalled, status)

    verdict, least, weak, largest = jax.lax.cond(
        status == Status.converged,
        lambda: _extremes(scaled(free, held), k, dtype),
        lambda: (status, unknown, jnp.full(k, jnp.nan, dtype), unknown),
    )
    weak = jnp.where(status == Status.unbounded, jnp.where(n_same >= SAME_STEPS, last, 0.0), weak)
    return Proof(
        free=free,
        loss=here.loss,
        status=verdict,
        steps=steps,
        decrement=delta,
        gradient_norm=jnp.where(claimed, norm(slope(here, held)), jnp.nan),
        min_eigenvalue=least,
        condition_number=largest / least,
        weak=weak / scale,
        multiplier=None if held is None else held.multiplier(n_obs),
    )


def _extremes(times: Callable[[Array], Array], k: int, dtype: Any) -> tuple[Array, ...]:
    """A status; the least eigenvalue with its eigenvector, by inverse iteration; and the largest."""
    # Numbers at random have a part along every eigenvector.
    begin = jax.random.normal(jax.random.key(0), (k,), dtype) / k**0.5

    def inwards(carry: Any, _: Any) -> tuple[Any, None]:
        vector, _, definite, settled = carry
        found = conjugate_gradients(times, vector, OF_EIGENVECTOR)
        size = norm(found.vector)
        least = jnp.sum(vector * found.vector) / size**2
        return (found.vector / size, least, definite & found.definite, settled & found.settled), None

    unknown, yes = jnp.asarray(jnp.nan, dtype), jnp.asarray(True)
    (weak, least, definite, settled), _ = jax.lax.scan(inwards, (begin, unknown, yes, yes), length=LEAST)

    def outwards(_: Any, vector: Array) -> Array:
        image = times(vector)
        return image / norm(image)

    largest = norm(times(jax.lax.fori_loop(0, LARGEST, outwards, begin)))
    definite &= ~(least <= singular_below(k, dtype))
    proven = definite & settled
    status = jnp.where(proven, Status.converged, jnp.where(definite, Status.stalled, Status.not_identified))
    return status.astype(jnp.int32), jnp.where(proven, least, jnp.nan), weak, largest


def solve(
    objective: Objective,
    free: Float[Array, " n_free"],
    right: Float[Array, " n_free"],
    held: Bool[Array, " n_free"] | None = None,
) -> Array:
    """The inverse Hessian of the loss times a vector, differentiable in every way; NaN where none was found."""
    scale = jax.lax.stop_gradient(units(objective, free))
    times = product(objective, free)

    def found(times: Callable[[Array], Array], right: Array) -> Array:
        solved = conjugate_gradients(times, right, RESIDUAL[jnp.finfo(free.dtype).bits])
        return jnp.where(solved.definite & solved.settled, solved.vector, jnp.nan)

    scaled = with_held(lambda vector: times(vector / scale) / scale, held)
    return jax.lax.custom_linear_solve(scaled, right / scale, found, symmetric=True) / scale
