"""The delta method: the uncertainty of any function of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..parameters import Parameters


class Estimate(eqx.Module):
    """A function of the parameters at their estimates, with its uncertainty.

    Args:
        value: what the function returned, any PyTree of arrays.
        standard_error: a PyTree like `value`.
        covariance: over the flattened value, shape `(m, m)`.
    """

    value: PyTree
    standard_error: PyTree
    covariance: Float[Array, "... m m"]


def estimate(
    fn: Callable[[PyTree], Any],
    vector: Float[Array, " k"],
    covariance: Float[Array, "k k"],
    parameters: Parameters,
) -> Estimate:
    r"""$g(\hat\theta)$ with covariance $G V G^T$, $G = \partial g / \partial \theta$, exactly differentiated."""
    value = jax.tree.map(jnp.asarray, fn(parameters.tree(vector)))
    _, unravel = ravel_pytree(value)
    jacobian = jax.jacfwd(lambda v: ravel_pytree(fn(parameters.tree(v)))[0])(vector)
    spread = jacobian @ covariance @ jacobian.T
    return Estimate(value, unravel(jnp.sqrt(jnp.diagonal(spread))), spread)
