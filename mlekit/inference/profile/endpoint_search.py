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
from ...solvers.box import Box, hold
from ...solvers.objective import Curvature

#: Points evaluated at most; ends that need more than ten are rare.
MAX_STEPS = 100
#: Curvature that is added across the level sets of the target where it is indefinite, in units of the diagonal.
LEVEL_SET_WEIGHT = 100.0
#: How close to the level an end must lie, as a share of the drop; steps may be small elsewhere.
CLOSE = 1e-3
#: Points this many times as deep below the maximum as the level say nothing of where it is reached.
TOO_DEEP = 4.0
#: A point lies beyond the end if the other parameters can gain no more than this share of its depth.
SETTLED = 0.1
#: A search this many times as far from the maximum as a quadratic likelihood would end, and still above the level,
#: has no end to find: if it got stuck there, or if it went on.
FAR, ENDLESS = 20.0, 1000.0
#: In nats, by the bits of the dtype: the change by a step after which the next one is the last; and the height
#: above the supposed maximum from which a point is a better one.
TOLERANCE, BETTER = {64: 1e-9, 32: 1e-4}, {64: 1e-5, 32: 1e-2}


class Endpoint(eqx.Module):
    """The end of a search.

    Args:
        free: the free vector there.
        log_likelihood: at the last point that was evaluated.
        status: `converged`; `unbounded`, where the log-likelihood stays above the level as far as the search went,
            or as far as a closed bound;
            `stalled` or `max_steps`.
        better: whether the search met a point above the supposed maximum, and stopped there.
        steps: points evaluated.
    """

    free: Float[Array, " n_free"]
    log_likelihood: Float[Array, ""]
    status: Int[Array, ""]
    better: Bool[Array, ""]
    steps: Int[Array, ""]


class _State(eqx.Module):
    trial: Float[Array, " n_free"]  # the point to evaluate next
    anchor: Float[Array, " n_free"]  # the last point from which the search could go on
    height: Float[Array, ""]  # of the log-likelihood there, above the level
    multiplier: Float[Array, ""]  # Lagrange's: the slope of the profile at its end, per unit of the target
    reach: Float[Array, ""]  # distance at which the likelihood would end if it were quadratic
    max_step: Float[Array, ""]  # in units of the target
    inner: Float[Array, ""]  # the target takes this value inside the region,
    outer: Float[Array, ""]  # and this one beyond the end
    steps: Int[Array, ""]
    status: Int[Array, ""]
    better: Bool[Array, ""]


class _ProfileModel(eqx.Module):
    r"""The quadratic model of the profile around a point.

    Among the points whose target is larger by $t$, the highest is `centre + t * direction`, seen from there, and
    its log-likelihood is `top + slope * t - curvature * t^2 / 2`, above the level.
    """

    direction: Float[Array, " n_free"]
    centre: Float[Array, " n_free"]
    top: Float[Array, ""]
    gain: Float[Array, ""]  # of the move to the centre
    slope: Float[Array, ""]
    curvature: Float[Array, ""]
    matrix: Float[Array, "n_free n_free"]
    definite: Bool[Array, ""]  # along the level sets of the target


def _profile_model(
    information: Array, lagrangian: Array, target_gradient: Array, score: Array, height: Array
) -> _ProfileModel:
    """The profile around a point.

    Only along the level sets of the target need the curvature be definite. Across them any amount may be added,
    as long as it is taken off the profile's curvature again; so a profile may be followed through its inflection.

    Args:
        information: the negative Hessian of the log-likelihood.
        lagrangian: the same of the Lagrangian, where the target has a part in it.
        target_gradient: the gradient of the target.
        score: the gradient of the log-likelihood.
        height: the log-likelihood above the level.
    """
    k = information.shape[0]
    scale = curvature_scale(information, jnp.zeros(k, information.dtype))
    unit = target_gradient / scale
    weight = LEVEL_SET_WEIGHT / jnp.sum(unit**2)
    across = weight * unit[:, None] * unit[None, :]
    scaled = jnp.stack([lagrangian, lagrangian, information]) / scale[None, :, None] / scale[None, None, :]
    trials = scaled + jnp.stack([0 * across, across, across])
    factors = jax.vmap(factorise)(trials)
    pivots = jnp.min(jax.vmap(lambda factor: factor.pivots)(factors), axis=1)
    definite = pivots > singular_below(k, information.dtype)
    which = jnp.argmax(definite)
    factor = jax.tree.map(lambda leaf: leaf[which], factors)

    def inverse(v: Array) -> Array:
        return factor.solve(v / scale) / scale

    outward, newton = inverse(target_gradient), inverse(score)
    size = jnp.sum(target_gradient * outward)
    direction = outward / size
    centre = newton - direction * jnp.sum(target_gradient * newton)
    gain = 0.5 * jnp.sum(score * centre)
    return _ProfileModel(
        direction=direction,
        centre=centre,
        top=height + gain,
        gain=gain,
        slope=jnp.sum(score * direction),
        curvature=1 / size - jnp.where(which > 0, weight, 0.0),
        matrix=trials[which] * scale[:, None] * scale[None, :],
        definite=jnp.any(definite),
    )


def held_by(
    box: Box,
    free: Float[Array, " n_free"],
    gradient: Float[Array, " n_free"],
    target_gradient: Float[Array, " n_free"],
    own: Bool[Array, " n_free"],
    units: Float[Array, " n_free"],
) -> Bool[Array, " n_free"]:
    r"""The entries that stay on their bounds where the target is given.

    They are those that the Lagrangian $-\ell - \lambda t$ would have beyond, with the multiplier that makes its
    gradient inside of the box as small as can be.

    Args:
        box: the bounds.
        free: a point of the box.
        gradient: of minus the log-likelihood there.
        target_gradient: of the target.
        own: the entry that is the target itself, which is never held.
        units: roots of the diagonal of the information.
    """
    across = jnp.where((box.inwards(free) == 0) | own, target_gradient / units, 0.0)
    square = jnp.sum(across**2)
    multiplier = jnp.sum(gradient / units * across) / jnp.where(square > 0, square, 1.0)
    return box.stays(free, gradient - multiplier * target_gradient) & ~own


def search_endpoint(
    objective: Objective,
    target: Callable[[Array], Array],
    free: Float[Array, " n_free"],
    log_likelihood: Float[Array, ""],
    drop: Float[Array, ""],
    own: Bool[Array, " n_free"],
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
        own: the entry that is the target itself, where that has closed bounds: it goes as far as these.
    """
    dtype, k = free.dtype, free.shape[0]
    bits = jnp.finfo(dtype).bits
    n_obs, box = objective.n_obs, objective.box
    level = log_likelihood - drop
    noise = 10 * jnp.finfo(dtype).eps * jnp.maximum(1.0, jnp.abs(log_likelihood))
    start = target(free)
    zero = jnp.zeros((), dtype)

    def gradient_twice(z: Array) -> tuple[Array, Array]:
        gradient = jax.grad(target)(z)
        return gradient, gradient

    def advance(state: _State) -> _State:
        found = objective.evaluate(state.trial, Curvature.exact, n_obs)
        loss, gradient, hessian = found.loss, found.gradient, found.curvature
        hessian_of_target, target_gradient = jax.jacfwd(gradient_twice, has_aux=True)(state.trial)
        parts = (loss, gradient, hessian, hessian_of_target, target_gradient)
        known = functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(part)) for part in parts])
        height = -n_obs * loss - level
        information = jnp.where(known, n_obs * hessian, jnp.eye(k, dtype=dtype))
        lagrangian = jnp.where(known, information - state.multiplier * hessian_of_target, information)
        at_end = jnp.asarray(False)
        if box is not None:
            unit = curvature_scale(information, gradient)
            held = held_by(box, state.trial, gradient, target_gradient, own, unit)
            information, gradient = hold(information, gradient, held, unit)
            lagrangian, target_gradient = hold(lagrangian, target_gradient, held, unit)
            at_end = jnp.any(box.stays(state.trial, -target_gradient) & own)
        model = _profile_model(information, lagrangian, target_gradient, -n_obs * gradient, height)
        good = known & model.definite & (height > -(TOO_DEEP - 1) * drop)
        better = known & (height - drop > BETTER[bits] + noise)

        # The nearer root of the quadratic, or where it comes closest to the level from below.
        square = model.slope**2 + 2 * model.curvature * model.top
        root = jnp.sqrt(jnp.maximum(square, 0.0))
        falls = root > model.slope
        distance = jnp.where(falls, 2 * model.top / jnp.where(falls, root - model.slope, 1.0), jnp.inf)
        distance = jnp.where((model.curvature > 0) & (square < 0), model.slope / model.curvature, distance)

        now, first = target(state.trial), state.steps == 0
        inside = good & (height >= 0)
        inner = jnp.where(inside, jnp.maximum(state.inner, now), state.inner)
        beyond = good & (model.gain < -SETTLED * height) & (now > inner)
        outer = jnp.where(beyond, jnp.minimum(state.outer, now), state.outer)
        outer = jnp.where(inside & (inner >= outer), jnp.inf, outer)
        reach = jnp.where(first, distance, state.reach)
        max_step = jnp.where(first, jnp.inf, jnp.minimum(state.max_step, 2 * jnp.maximum(reach, now - start)))
        distance = jnp.clip(distance, -max_step, max_step)
        out_of_bounds = (now + distance <= inner) & (now > inner) | (now + distance >= outer)
        middle = 0.5 * (inner + outer) - now
        distance = jnp.where(out_of_bounds & jnp.isfinite(middle), middle, distance)
        step = model.centre + distance * model.direction
        at_stake = 0.5 * jnp.abs(jnp.sum(step * (model.matrix @ step)))
        arrived = good & (at_stake <= TOLERANCE[bits] * jnp.maximum(drop, 1.0) + noise**2)
        # Where the likelihood has become flat above the level, no step changes anything, either.
        arrived &= (jnp.abs(height) <= CLOSE * drop + noise) & ~first

        anchor = jnp.where(good, state.trial, state.anchor)
        height = jnp.where(good, height, state.height)
        trial = jnp.where(good, state.trial + step, 0.5 * (state.anchor + state.trial))
        trial = trial if box is None else box.clip(trial)
        tried = jnp.abs(now - target(state.anchor))
        max_step = jnp.where(good, 2 * state.max_step, 0.5 * jnp.where(jnp.isfinite(tried), tried, state.max_step))
        gone = (target(anchor) - start) / reach
        far = (height > 0) & (gone > FAR)
        stuck = jnp.all(trial == anchor) | (~good & (gone > FAR) & (tried <= reach))
        status = jnp.where((height > 0) & (gone > ENDLESS), Status.unbounded, RUNNING)
        status = jnp.where(stuck, jnp.where(far, Status.unbounded, Status.stalled), status)
        status = jnp.where(at_end & known & (height >= 0), Status.unbounded, status)
        status = jnp.where(arrived, Status.converged, status)
        status = jnp.where(better, Status.stalled, status)
        return _State(
            trial=jnp.where(better, state.trial, trial),
            anchor=anchor,
            height=height,
            multiplier=jnp.where(good & jnp.isfinite(root), root, state.multiplier),
            reach=reach,
            max_step=max_step,
            inner=inner,
            outer=outer,
            steps=state.steps + 1,
            status=status.astype(jnp.int32),
            better=better,
        )

    endless = jnp.full_like(zero, jnp.inf)
    begin = _State(
        trial=free,
        anchor=free,
        height=drop.astype(dtype),
        multiplier=zero,
        reach=zero,
        max_step=endless,
        inner=start,
        outer=endless,
        steps=jnp.asarray(0, jnp.int32),
        status=jnp.asarray(RUNNING, jnp.int32),
        better=jnp.asarray(False),
    )
    last = jax.lax.while_loop(lambda s: (s.status == RUNNING) & (s.steps < MAX_STEPS), advance, begin)
    status = jnp.where(last.status == RUNNING, Status.max_steps, last.status)
    return Endpoint(last.trial, last.height + level, status.astype(jnp.int32), last.better, last.steps)
