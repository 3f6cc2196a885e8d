"""The derivative of a maximiser: the implicit function theorem, as one Newton step that JAX can see."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .linear_algebra import curvature_scale, spectrum
from .objective import Objective


def attach_derivative(
    objective: Objective, constant: Objective, free: Float[Array, " n_free"], proven: Array
) -> Float[Array, " n_free"]:
    r"""The maximiser, with its exact first derivative with respect to everything the objective holds.

    $$z(x) = \bar z - \bar H^{-1} \nabla f(\bar z; x), \qquad
    \frac{\partial z}{\partial x} = -H^{-1} \frac{\partial^2 f}{\partial z\, \partial x}$$

    with bars on what counts as constant. The gradient vanishes at the maximum, so the value stays, and no
    derivative runs through the search. Where no maximum was proven, the derivative is NaN.

    Args:
        objective: the objective, with whatever is to be differentiated.
        constant: the same objective, not to be differentiated.
        free: the maximiser.
        proven: whether the fit converged.
    """
    free = jax.lax.stop_gradient(free)
    _, _, hessian = constant.hessian(free)
    safe = jnp.where(proven, hessian, jnp.eye(free.shape[0], dtype=free.dtype))
    eigen = spectrum(safe, curvature_scale(safe, jnp.zeros_like(free)))

    def loss(z: Array) -> Array:
        likelihood = objective.likelihood
        total = likelihood.log_likelihood(objective.parameters.natural(z))
        return -total.astype(z.dtype) / objective.n_obs

    gradient = jax.grad(loss)(free)
    zero = gradient - jax.lax.stop_gradient(gradient)
    step = eigen.inverse() @ zero
    return free - _only_if(step, proven)


@jax.custom_jvp
def _only_if(value: Array, proven: Array) -> Array:
    """The value, with a derivative of NaN unless `proven`."""
    return value


@_only_if.defjvp
def _only_if_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    return primals[0], tangents[0] * jnp.where(primals[1], 1.0, jnp.nan).astype(primals[0].dtype)
