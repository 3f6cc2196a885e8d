"""The delta method: the uncertainty of any function of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..arguments import check_level
from ..parameters import Parameters
from .intervals import wald


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

    def __repr__(self) -> str:
        return eqx.tree_pformat(self, short_arrays=False)

    def interval(self, level: float = 0.95) -> PyTree:
        """Wald intervals, a PyTree like `value` of `(lower, upper)`.

        Args:
            level: confidence level, between 0 and 1; a `ValueError` outside.
        """
        return _pairs(self.value, self.standard_error, level)


class Prediction(eqx.Module):
    """A function of parameters and observations, for many observations, with its uncertainty.

    The errors are those of the estimates; the noise of an observation comes on top.

    Args:
        value: what the function returned for each observation, leaves with a leading axis of observations.
        standard_error: a PyTree like `value`.
        lower: where the Wald interval begins.
        upper: where it ends.
    """

    value: PyTree
    standard_error: PyTree
    lower: PyTree
    upper: PyTree

    def __repr__(self) -> str:
        return eqx.tree_pformat(self, short_arrays=False)


def _pairs(value: PyTree, errors: PyTree, level: float) -> PyTree:
    check_level(level)
    return jax.tree.map(lambda v, e: wald(v, e, level), value, errors)


def _floats(tree: PyTree) -> PyTree:
    """The tree with whole numbers, which have no derivative, as floating-point ones."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf, 0.0)), tree)


def predict(
    fn: Callable[..., Any],
    vector: Float[Array, " k"],
    covariance: Float[Array, "k k"],
    parameters: Parameters,
    data: PyTree,
    args: PyTree,
    level: float,
) -> Prediction:
    r"""$g(\hat\theta, x_i)$ with variance $G_i V G_i^T$ for every row of the data."""
    extra = () if args is None else (args,)

    def one(obs: PyTree) -> tuple[PyTree, PyTree]:
        on = lambda v: _floats(fn(parameters.tree(v), obs, *extra))  # noqa: E731
        value, unravel = ravel_pytree(on(vector))
        slope = jax.jacfwd(lambda v: ravel_pytree(on(v))[0])(vector)
        return unravel(value), unravel(jnp.sqrt(jnp.sum((slope @ covariance) * slope, axis=1)))

    value, error = jax.vmap(one)(data)
    ends = jax.tree.map(lambda v, e: wald(v, e, level), value, error)
    pick = lambda i: jax.tree.map(lambda v, pair: pair[i], value, ends)  # noqa: E731
    return Prediction(value, error, pick(0), pick(1))


def estimate(
    fn: Callable[[PyTree], Any],
    vector: Float[Array, " k"],
    covariance: Float[Array, "k k"],
    parameters: Parameters,
) -> Estimate:
    r"""$g(\hat\theta)$ with covariance $G V G^T$, $G = \partial g / \partial \theta$, exactly differentiated."""
    value = _floats(fn(parameters.tree(vector)))
    _, unravel = ravel_pytree(value)
    jacobian = jax.jacfwd(lambda v: ravel_pytree(_floats(fn(parameters.tree(v))))[0])(vector)
    spread = jacobian @ covariance @ jacobian.T
    return Estimate(value, unravel(jnp.sqrt(jnp.diagonal(spread))), spread)
