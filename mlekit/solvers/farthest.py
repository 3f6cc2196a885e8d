"""The farthest point of a likelihood region in one direction: an end of a profile-likelihood interval."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..linear_algebra import curvature_scale, factorise
from ..objective import Objective
from ..status import RUNNING, Status
from .convergence import singular_below

#: Steps at most; ends that need more than ten are rare.
PATIENCE = 100
#: Points this many times as deep below the maximum as the level say nothing of where it is reached.
TOO_DEEP = 4.0
#: A search this many times as far from the maximum as a quadratic likelihood would end, and still above the level,
#: has no end to find: if it got stuck there, or if it went on.
FAR, ENDLESS = 20.0, 1000.0
#: What a step may still change, in nats, for the next one to be the last; and how many nats above what was taken
#: for the maximum are a better one.
TOLERANCE, BETTER = {64: 1e-9, 32: 1e-4}, {64: 1e-5, 32: 1e-2}


class Farthest(eqx.Module):
    """Where a search ended.

    Args:
        free: the free vector there.
        log_likelihood: at the last point that was evaluated.
        status: `converged`; `unbounded`, where the log-likelihood stays above the level as far as the search went;
            `stalled` or `max_steps`.
        better: whether the search met a point above what was taken for the maximum, and stopped there.
        steps: points evaluated.
    """

    free: Float[Array, " n_free"]
    log_likelihood: Float[Array, ""]
    status: Int[Array, ""]
    better: Bool[Array, ""]
    steps: Int[Array, ""]


class _State(eqx.Module):
    candidate: Float[Array, " n_free"]
    anchor: Float[Array, " n_free"]  # the last point that was any good
    height: Float[Array, ""]  # of the log-likelihood there, above the level
    weight: Float[Array, ""]  # of the target beside the log-likelihood: one over Lagrange's multiplier
    reach: Float[Array, ""]  # how far a quadratic likelihood would go
    steps: Int[Array, ""]
    status: Int[Array, ""]
    better: Bool[Array, ""]


def farthest(
    objective: Objective,
    target: Callable[[Array], Array],
    free: Float[Array, " n_free"],
    log_likelihood: Float[Array, ""],
    drop: Float[Array, ""],
) -> Farthest:
    r"""The largest value of a function over the region where the likelihood is high enough.

    $$\max_z\; t(z) \quad\text{subject to}\quad \ell(z) \ge \hat\ell - \text{drop}$$

    which is where the profile likelihood of $t$ has fallen by `drop`. Each step maximises the linear part of
    $t$ over an ellipsoid, the region as the quadratic around the present point has it, in closed form; the
    curvature of $t$, weighted by Lagrange's multiplier, is added to that of the likelihood, so that convergence
    is quadratic. Where a step leads too deep or to where the information is indefinite, half of it is tried.
    (The equations are those of Venzon and Moolgavkar 1988.)

    Args:
        objective: the data set's objective.
        target: $t$, a function of the free vector.
        free: where the likelihood has its maximum.
        log_likelihood: $\hat\ell$, its height there.
        drop: how far below the maximum the region reaches, in nats.
    """
    dtype, k = free.dtype, free.shape[0]
    bits = jnp.finfo(dtype).bits
    n_obs = objective.n_obs
    level = log_likelihood - drop
    noise = 10 * jnp.finfo(dtype).eps * jnp.maximum(1.0, jnp.abs(log_likelihood))
    start = target(free)
    zero = jnp.zeros((), dtype)

    def slope_of(z: Array) -> tuple[Array, Array]:
        slope = jax.grad(target)(z)
        return slope, slope

    def solve(matrix: Array) -> tuple[Callable[[Array], Array], Array]:
        scale = curvature_scale(matrix, jnp.zeros(k, dtype))
        factor = factorise(matrix / scale[:, None] / scale)
        return lambda v: factor.solve(v / scale) / scale, jnp.min(factor.pivots) > singular_below(k, dtype)

    def step(state: _State) -> _State:
        loss, gradient, hessian = objective.derivatives("hessian", state.candidate, n_obs)
        known = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(hessian))
        height = -n_obs * loss - level
        score, information = -n_obs * gradient, n_obs * hessian
        bend, slope = jax.jacfwd(slope_of, has_aux=True)(state.candidate)
        known &= jnp.all(jnp.isfinite(bend))
        plain = jnp.where(known, information, jnp.eye(k, dtype=dtype))
        bent = jnp.where(known, plain - state.weight * bend, plain)
        solve_bent, bent_definite = solve(bent)
        solve_plain, definite = solve(plain)
        inverse = lambda v: jnp.where(bent_definite, solve_bent(v), solve_plain(v))  # noqa: E731
        good = known & (bent_definite | definite) & (height > -(TOO_DEEP - 1) * drop)
        better = known & (height - drop > BETTER[bits] + noise)

        centre, outward = inverse(score), inverse(slope)
        room = jnp.maximum(height + 0.5 * jnp.sum(score * centre), 0.0)
        weight = jnp.sqrt(2 * room / jnp.sum(slope * outward))
        move = centre + weight * outward
        at_stake = 0.5 * jnp.abs(jnp.sum(move * jnp.where(bent_definite, bent, plain) @ move))
        arrived = good & (at_stake <= TOLERANCE[bits] * jnp.maximum(drop, 1.0) + noise**2) & (state.steps > 0)

        reach = jnp.where(state.steps == 0, jnp.sum(slope * move), state.reach)
        anchor = jnp.where(good, state.candidate, state.anchor)
        height = jnp.where(good, height, state.height)
        candidate = jnp.where(good, state.candidate + move, 0.5 * (state.anchor + state.candidate))
        gone = (target(anchor) - start) / reach
        stuck = jnp.all(candidate == anchor)
        status = jnp.where((height > 0) & (gone > ENDLESS), Status.unbounded, RUNNING)
        status = jnp.where(stuck, jnp.where((height > 0) & (gone > FAR), Status.unbounded, Status.stalled), status)
        status = jnp.where(arrived, Status.converged, status)
        status = jnp.where(better, Status.stalled, status)
        return _State(
            candidate=jnp.where(better, state.candidate, candidate),
            anchor=anchor,
            height=height,
            weight=jnp.where(good & jnp.isfinite(weight), weight, state.weight),
            reach=reach,
            steps=state.steps + 1,
            status=status.astype(jnp.int32),
            better=better,
        )

    none, running = jnp.asarray(0, jnp.int32), jnp.asarray(RUNNING, jnp.int32)
    begin = _State(free, free, drop.astype(dtype), zero, zero, none, running, jnp.asarray(False))
    last = jax.lax.while_loop(lambda s: (s.status == RUNNING) & (s.steps < PATIENCE), step, begin)
    status = jnp.where(last.status == RUNNING, Status.max_steps, last.status)
    return Farthest(last.candidate, last.height + level, status.astype(jnp.int32), last.better, last.steps)
