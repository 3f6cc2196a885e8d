r"""One end of a profile-likelihood interval, and how it moves.

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
from jaxtyping import Array, Float, PyTree

from ...core.linear_algebra import curvature_scale, inverse
from ...core.status import Status
from ...core.trees import differential
from ...engine.implicit import mask_tangents
from ...likelihood.objective import Objective
from ...solvers.objective import Curvature
from ..wald import to_line
from .endpoint_search import LEVEL_SET_WEIGHT, Endpoint, search_endpoint


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


@eqx.filter_custom_jvp
def _search(operands: tuple[Objective, Array], others: tuple[Array, ...]) -> Endpoint:
    (objective, log_likelihood), (free, _, drop, which, sign, low, high) = operands, others
    target = lambda z: sign * to_line(_parameter(objective, which, z), low, high)  # noqa: E731
    return search_endpoint(objective, target, free, log_likelihood, drop)


@_search.def_jvp
def _search_jvp(primals: Any, tangents: Any) -> tuple[Endpoint, Any]:
    (operands, others), (change, _) = primals, tangents
    found = _search(operands, others)
    nothing = jax.tree.map(lambda leaf: None, found)
    if not jax.tree.leaves(change):
        return found, nothing
    proven = others[1] & (found.status == Status.converged) & ~found.better
    ahead = _moves(operands, change, others[3], jax.lax.stop_gradient(proven), found.free)
    return found, eqx.tree_at(lambda it: it.free, nothing, ahead, is_leaf=lambda leaf: leaf is None)


def _moves(operands: PyTree, change: PyTree, which: Array, proven: Array, free: Float[Array, " k"]) -> Array:
    """How the end moves."""
    k = free.shape[0]
    change, spoilt = mask_tangents(proven, change, free)

    def slopes(operands: PyTree) -> tuple[Array, ...]:
        """The height above the maximum, the slope of the mean log-likelihood and that of the parameter."""
        objective, log_likelihood = operands
        here = objective.evaluate(free)
        slope = jax.grad(lambda z: _parameter(objective, which, z))(free)
        return -here.loss * objective.n_obs - log_likelihood, -here.gradient, slope

    _, score, slope = slopes(operands)
    fall = score @ slope / (slope @ slope)  # Lagrange's multiplier
    bend = jax.hessian(lambda z: _parameter(operands[0], which, z))(free)
    hessian = operands[0].evaluate(free, Curvature.exact).curvature
    plain = hessian + fall * bend
    scale = curvature_scale(jax.lax.stop_gradient(plain), jnp.zeros_like(free))
    across = jax.lax.stop_gradient(LEVEL_SET_WEIGHT / jnp.sum((slope / scale) ** 2))
    matrix = plain + across * slope[:, None] * slope[None, :]
    spread = inverse(jnp.where(proven, matrix, jnp.eye(k, dtype=free.dtype)))

    height, turned, twisted = differential(slopes, operands, change)
    further = -height / operands[0].n_obs / fall
    rest = spread @ (turned - fall * twisted)
    along = spread @ slope
    return rest + along * (further - slope @ rest) / (slope @ along) + spoilt
