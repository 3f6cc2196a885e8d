"""The farthest point of a likelihood region in one direction: an end of a profile-likelihood interval."""

from __future__ import annotations

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...core.linear_algebra import curvature_scale, factorise, singular_below
from ...core.status import RUNNING, Status
from ...likelihood.objective import Objective
from ...solvers.objective import Curvature

#: Points evaluated at most; ends that need more than ten are rare.
PATIENCE = 100
#: What is added to the curvature across the level sets of the target where it is indefinite, in units of itself.
LEVEL_SET_WEIGHT = 100.0
#: How close to the level an end must lie, as a share of the drop; steps may be small elsewhere.
CLOSE = 1e-3
#: Points this many times as deep below the maximum as the level say nothing of where it is reached.
TOO_DEEP = 4.0
#: What the other parameters may still gain, as a share of the depth of a point, for it to lie beyond the end.
SETTLED = 0.1
#: A search this many times as far from the maximum as a quadratic likelihood would end, and still above the level,
#: has no end to find: if it got stuck there, or if it went on.
FAR, ENDLESS = 20.0, 1000.0
#: What a step may still change, in nats, for the next one to be the last; and how many nats above what was taken
#: for the maximum are a better one.
TOLERANCE, BETTER = {64: 1e-9, 32: 1e-4}, {64: 1e-5, 32: 1e-2}


class Endpoint(eqx.Module):
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
    fall: Float[Array, ""]  # of the profile at its end, per unit of the target: Lagrange's multiplier
    reach: Float[Array, ""]  # how far a quadratic likelihood would go
    most: Float[Array, ""]  # how far a step may go
    inner: Float[Array, ""]  # the target takes this value inside the region,
    outer: Float[Array, ""]  # and this one beyond the end
    steps: Int[Array, ""]
    status: Int[Array, ""]
    better: Bool[Array, ""]


class _Quadratic(eqx.Module):
    r"""The likelihood around a point as its profile sees it.

    Among the points whose target is larger by $t$, the highest is `rest + t * along`, and its log-likelihood
    is `top + fall * t - bow * t^2 / 2`, above the level.
    """

    along: Float[Array, " n_free"]
    rest: Float[Array, " n_free"]
    top: Float[Array, ""]
    gain: Float[Array, ""]  # what the rest alone gains
    fall: Float[Array, ""]
    bow: Float[Array, ""]
    matrix: Float[Array, "n_free n_free"]
    definite: Bool[Array, ""]  # along the level sets of the target


def _quadratic(plain: Array, bent: Array, slope: Array, score: Array, height: Array) -> _Quadratic:
    """The profile around a point, from the information, what it is with the target's curvature, and both slopes.

    Only along the level sets of the target need the curvature be definite. Across them any amount may be added,
    as long as it is taken off the bow again; so a profile may be followed through its inflection.
    """
    k = plain.shape[0]
    scale = curvature_scale(plain, jnp.zeros(k, plain.dtype))
    unit = slope / scale
    stiff = LEVEL_SET_WEIGHT / jnp.sum(unit**2)
    wall = stiff * unit[:, None] * unit[None, :]
    trials = jnp.stack([bent, bent, plain]) / scale[None, :, None] / scale[None, None, :]
    trials = trials + jnp.stack([0 * wall, wall, wall])
    factors = jax.vmap(factorise)(trials)
    definite = jnp.min(jax.vmap(lambda factor: factor.pivots)(factors), axis=1) > singular_below(k, plain.dtype)
    which = jnp.argmax(definite)
    factor = jax.tree.map(lambda leaf: leaf[which], factors)

    def inverse(v: Array) -> Array:
        return factor.solve(v / scale) / scale

    outward, centre = inverse(slope), inverse(score)
    size = jnp.sum(slope * outward)
    along = outward / size
    rest = centre - along * jnp.sum(slope * centre)
    gain = 0.5 * jnp.sum(score * rest)
    bow = 1 / size - jnp.where(which > 0, stiff, 0.0)
    matrix = trials[which] * scale[:, None] * scale[None, :]
    return _Quadratic(along, rest, height + gain, gain, jnp.sum(score * along), bow, matrix, jnp.any(definite))


def search_endpoint(
    objective: Objective,
    target: Callable[[Array], Array],
    free: Float[Array, " n_free"],
    log_likelihood: Float[Array, ""],
    drop: Float[Array, ""],
) -> Endpoint:
    r"""The largest value of a function over the region where the likelihood is high enough.

    $$\max_z\; t(z) \quad\text{subject to}\quad \ell(z) \ge \hat\ell - \text{drop}$$

    which is where the profile likelihood of $t$ has fallen by `drop`. Each step goes to where the profile of the
    quadratic around the present point has its end, in closed form. The curvature of $t$, weighted by Lagrange's
    multiplier, is added to that of the likelihood, so that convergence is quadratic. Values of $t$ that are known
    to lie inside and outside keep the steps between them; where a step leads too deep, half of it is tried. (The
    equations are those of Venzon and Moolgavkar 1988.)

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

    def step(state: _State) -> _State:
        found = objective.evaluate(state.candidate, Curvature.exact, n_obs)
        loss, gradient, hessian = found.loss, found.gradient, found.curvature
        bend, slope = jax.jacfwd(slope_of, has_aux=True)(state.candidate)
        parts = (loss, gradient, hessian, bend, slope)
        known = functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(part)) for part in parts])
        height = -n_obs * loss - level
        plain = jnp.where(known, n_obs * hessian, jnp.eye(k, dtype=dtype))
        bent = jnp.where(known, plain - state.fall * bend, plain)
        local = _quadratic(plain, bent, slope, -n_obs * gradient, height)
        good = known & local.definite & (height > -(TOO_DEEP - 1) * drop)
        better = known & (height - drop > BETTER[bits] + noise)

        # The nearer root of the quadratic, or where it comes closest to the level from below.
        square = local.fall**2 + 2 * local.bow * local.top
        root = jnp.sqrt(jnp.maximum(square, 0.0))
        falls = root > local.fall
        ahead = jnp.where(falls, 2 * local.top / jnp.where(falls, root - local.fall, 1.0), jnp.inf)
        ahead = jnp.where((local.bow > 0) & (square < 0), local.fall / local.bow, ahead)

        now, first = target(state.candidate), state.steps == 0
        inside = good & (height >= 0)
        inner = jnp.where(inside, jnp.maximum(state.inner, now), state.inner)
        beyond = good & (local.gain < -SETTLED * height) & (now > inner)
        outer = jnp.where(beyond, jnp.minimum(state.outer, now), state.outer)
        outer = jnp.where(inside & (inner >= outer), jnp.inf, outer)
        reach = jnp.where(first, ahead, state.reach)
        most = jnp.where(first, jnp.inf, jnp.minimum(state.most, 2 * jnp.maximum(reach, now - start)))
        ahead = jnp.clip(ahead, -most, most)
        out_of_bounds = (now + ahead <= inner) & (now > inner) | (now + ahead >= outer)
        middle = 0.5 * (inner + outer) - now
        ahead = jnp.where(out_of_bounds & jnp.isfinite(middle), middle, ahead)
        move = local.rest + ahead * local.along
        at_stake = 0.5 * jnp.abs(jnp.sum(move * (local.matrix @ move)))
        arrived = good & (at_stake <= TOLERANCE[bits] * jnp.maximum(drop, 1.0) + noise**2)
        # Where the likelihood has become flat above the level, no step changes anything, either.
        arrived &= (jnp.abs(height) <= CLOSE * drop + noise) & ~first

        anchor = jnp.where(good, state.candidate, state.anchor)
        height = jnp.where(good, height, state.height)
        candidate = jnp.where(good, state.candidate + move, 0.5 * (state.anchor + state.candidate))
        tried = jnp.abs(now - target(state.anchor))
        most = jnp.where(good, 2 * state.most, 0.5 * jnp.where(jnp.isfinite(tried), tried, state.most))
        gone = (target(anchor) - start) / reach
        far = (height > 0) & (gone > FAR)
        stuck = jnp.all(candidate == anchor) | (~good & (gone > FAR) & (tried <= reach))
        status = jnp.where((height > 0) & (gone > ENDLESS), Status.unbounded, RUNNING)
        status = jnp.where(stuck, jnp.where(far, Status.unbounded, Status.stalled), status)
        status = jnp.where(arrived, Status.converged, status)
        status = jnp.where(better, Status.stalled, status)
        return _State(
            candidate=jnp.where(better, state.candidate, candidate),
            anchor=anchor,
            height=height,
            fall=jnp.where(good & jnp.isfinite(root), root, state.fall),
            reach=reach,
            most=most,
            inner=inner,
            outer=outer,
            steps=state.steps + 1,
            status=status.astype(jnp.int32),
            better=better,
        )

    endless = jnp.full_like(zero, jnp.inf)
    begin = _State(
        candidate=free,
        anchor=free,
        height=drop.astype(dtype),
        fall=zero,
        reach=zero,
        most=endless,
        inner=start,
        outer=endless,
        steps=jnp.asarray(0, jnp.int32),
        status=jnp.asarray(RUNNING, jnp.int32),
        better=jnp.asarray(False),
    )
    last = jax.lax.while_loop(lambda s: (s.status == RUNNING) & (s.steps < PATIENCE), step, begin)
    status = jnp.where(last.status == RUNNING, Status.max_steps, last.status)
    return Endpoint(last.candidate, last.height + level, status.astype(jnp.int32), last.better, last.steps)
