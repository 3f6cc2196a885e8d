r"""One end of a profile-likelihood interval, and its derivatives.

With $t$ the parameter in question, the end is where

$$\nabla \ell(z; x) = \lambda \nabla t(z; x), \qquad \ell(z; x) = \hat\ell(x) - \text{drop}$$

and differentials of both give those of $z$. The curvature $-\nabla^2 (\ell - \lambda t)$ need only be definite
along the level sets of $t$. Across them any amount may be added: the second equation decides how far $t$ goes.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ...core.linear_algebra import curvature_scale, inverse
from ...core.status import Status
from ...core.trees import differential
from ...engine.implicit import mask_tangents
from ...likelihood.objective import Objective
from ...solvers.box import hold
from ...solvers.objective import Curvature
from ..wald import to_line
from .endpoint_search import LEVEL_SET_WEIGHT, Endpoint, held_by, search_endpoint


def end(objective: Objective, value: Any) -> tuple[Endpoint, Array]:
    """One end of one parameter, and its value there in natural units.

    Args:
        objective: the data set's objective.
        value: the maximum, whether it is proven, the log-likelihood there, how far that falls to the end, which
            parameter, which way it goes, and its open range.
    """
    free, proven, log_likelihood, drop, which, sign, low, high = value
    found = _search((objective, log_likelihood), (free, proven, drop, which, sign, low, high))
    return found, _parameter(objective, which, found.free)


def _parameter(objective: Objective, which: Array, free: Array) -> Float[Array, ""]:
    return objective.parameters.natural_vector(free)[which]


def _own(objective: Objective, which: Array, free: Array) -> Bool[Array, " k"]:
    """The entry of the free vector that is the parameter itself, where that has closed bounds."""
    closed = objective.parameters.at_bounds(jnp.ones_like(free), 0.0)[which] > 0
    return closed & (jax.grad(lambda z: _parameter(objective, which, z))(free) != 0)


@eqx.filter_custom_jvp
def _search(operands: tuple[Objective, Array], others: tuple[Array, ...]) -> Endpoint:
    (objective, log_likelihood), (free, _, drop, which, sign, low, high) = operands, others
    target = lambda z: sign * to_line(_parameter(objective, which, z), low, high)  # noqa: E731
    return search_endpoint(objective, target, free, log_likelihood, drop, _own(objective, which, free))


@_search.def_jvp
def _search_jvp(primals: Any, tangents: Any) -> tuple[Endpoint, Any]:
    (operands, others), (moving, _) = primals, tangents
    found = _search(operands, others)
    nothing = jax.tree.map(lambda leaf: None, found)
    if not jax.tree.leaves(moving):
        return found, nothing
    proven = others[1] & (found.status == Status.converged) & ~found.better
    tangent = _tangent(operands, moving, others[3], jax.lax.stop_gradient(proven), found.free)
    return found, eqx.tree_at(lambda end: end.free, nothing, tangent, is_leaf=lambda leaf: leaf is None)


def _tangent(operands: PyTree, tangents: PyTree, which: Array, proven: Array, free: Float[Array, " k"]) -> Array:
    """The tangent of the end, a free vector."""
    k = free.shape[0]
    tangents, poison = mask_tangents(proven, tangents, free)

    box, held = operands[0].box, None
    found = operands[0].evaluate(free, Curvature.exact)
    if box is not None:
        of_target = jax.grad(lambda z: _parameter(operands[0], which, z))(free)
        own = _own(operands[0], which, free)
        held = held_by(box, free, found.gradient, of_target, own, curvature_scale(found.curvature, found.gradient))

    def gradients(operands: PyTree) -> tuple[Array, ...]:
        """The height above the maximum, the gradients of the mean log-likelihood and of the target; the point."""
        objective, log_likelihood = operands
        point = free if objective.box is None else objective.box.pinned(free, held)
        here = objective.evaluate(point)
        moves = lambda gradient: gradient if held is None else jnp.where(held, 0.0, gradient)  # noqa: E731
        of_target = moves(jax.grad(lambda z: _parameter(objective, which, z))(point))
        return -here.loss * objective.n_obs - log_likelihood, moves(-here.gradient), of_target, point

    _, score, of_target, _ = gradients(operands)
    multiplier = score @ of_target / (of_target @ of_target)
    hessian_of_target = jax.hessian(lambda z: _parameter(operands[0], which, z))(free)
    lagrangian = found.curvature + multiplier * hessian_of_target
    if held is not None:
        lagrangian, _ = hold(lagrangian, score, held, jnp.ones_like(free))
    scale = curvature_scale(jax.lax.stop_gradient(lagrangian), jnp.zeros_like(free))
    across = jax.lax.stop_gradient(LEVEL_SET_WEIGHT / jnp.sum((of_target / scale) ** 2))
    matrix = lagrangian + across * of_target[:, None] * of_target[None, :]
    spread = inverse(jnp.where(proven, matrix, jnp.eye(k, dtype=free.dtype)))

    height_tangent, score_tangent, target_tangent, point_tangent = differential(gradients, operands, tangents)
    distance = -height_tangent / operands[0].n_obs / multiplier
    rest = spread @ (score_tangent - multiplier * target_tangent)
    direction = spread @ of_target
    moved = rest + direction * (distance - of_target @ rest) / (of_target @ direction)
    return point_tangent + moved + poison
