"""The delta method: the uncertainty of any function of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..core.checks import check_level
from ..core.dtypes import common_dtype
from ..core.trees import vmap_if
from ..data.arrays import as_arrays
from ..models.parameters import Parameters
from .covariance import covariance
from .record import FitRecord
from .wald import wald


class Estimate(eqx.Module):
    """A function of the parameters at their estimates, with its uncertainty.

    Args:
        value: what the function returned, any PyTree of arrays.
        standard_error: a PyTree like `value`.
        covariance: over the flattened value, shape `(m, m)`.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, jnp.array([1.0, 2.0, 6.0]))
        >>> square = fit.estimate(lambda mean: mean**2)
        >>> print(f"{square.value:.2f} ± {square.standard_error:.2f}")
        9.00 ± 3.46
        >>> print(jnp.array(square.interval(0.9)).round(2))
        [ 3.3 14.7]
    """

    value: PyTree
    standard_error: PyTree
    covariance: Float[Array, "... m m"]

    def __repr__(self) -> str:
        return eqx.tree_pformat(self, short_arrays=False)

    def interval(self, level: float = 0.95) -> PyTree:
        """Wald intervals, a PyTree like `value` of `(lower, upper)`.

        Args:
            level: confidence level, between 0 and 1.

        Returns:
            `(lower, upper)` in place of every leaf of `value`.

        Raises:
            ValueError: a level outside (0, 1).
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

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> density = lambda slope, obs: -0.5 * (obs["y"] - slope * obs["x"]) ** 2
        >>> fit = mle.fit(density, 0.0, {"x": jnp.array([1.0, 2.0]), "y": jnp.array([2.0, 4.5])})
        >>> ahead = fit.predict(lambda slope, obs: slope * obs["x"], {"x": jnp.array([3.0, 4.0])})
        >>> print(ahead.value.round(2), ahead.standard_error.round(2))
        [6.6 8.8] [1.34 1.79]
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
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, common_dtype(leaf, 0.0)), tree)


def prediction_of(
    fit: FitRecord,
    fn: Callable[..., Any] | None,
    data: PyTree,
    level: float,
    data_axis: int | None,
    kind: str,
    **options: Any,
) -> Prediction:
    """`Fit.predict`, which says what the arguments are."""
    if fn is None:
        if fit.model.regression is None:
            raise ValueError("fn: say what to predict, fn(params, obs); only a mle.regression knows by itself")
        fn = fit.model.regression.named_predictions
    if data is None:
        raise ValueError("data: the observations to predict are missing; pass arrays such as those of the fit")
    if data_axis not in (None, 0):
        raise ValueError(f"data_axis must be None or 0, got {data_axis!r}")
    if data_axis == 0 and not fit.batched:
        raise ValueError("data_axis=0 is for a batch of fits; this is a single one")
    check_level(level)
    data = as_arrays(data, axes=1 if data_axis is None else 2)
    n_sets = jnp.shape(jax.tree.leaves(data)[0])[0]
    if data_axis == 0 and n_sets != fit.n_sets:
        raise ValueError(
            f"data: with data_axis=0 leaves have an axis of {fit.n_sets} data sets first, not {n_sets}"
        )
    matrix = covariance(fit, kind, **options)

    def of_set(vector: Array, spread: Array, parameters: Parameters, data: PyTree, args: PyTree) -> Prediction:
        return predict(fn, vector, spread, parameters, data, args, level)

    axes = (0, 0, eqx.if_array(0), data_axis, eqx.if_array(0))
    return vmap_if(fit.batched, of_set, in_axes=axes)(
        fit._solution.estimates, matrix, fit.parameters, data, fit.args
    )


def predict(
    fn: Callable[..., Any],
    vector: Float[Array, " k"],
    spread: Float[Array, "k k"],
    parameters: Parameters,
    data: PyTree,
    args: PyTree,
    level: float,
) -> Prediction:
    r"""$g(\hat\theta, x_i)$ with variance $G_i V G_i^T$ for every row of the data."""
    extra = () if args is None else (args,)

    def of_row(obs: PyTree) -> tuple[PyTree, PyTree]:
        predicted = lambda v: _floats(fn(parameters.tree(v), obs, *extra))  # noqa: E731
        value, unravel = ravel_pytree(predicted(vector))
        jacobian = jax.jacfwd(lambda v: ravel_pytree(predicted(v))[0])(vector)
        return unravel(value), unravel(jnp.sqrt(jnp.sum((jacobian @ spread) * jacobian, axis=1)))

    value, error = jax.vmap(of_row)(data)
    ends = jax.tree.map(lambda v, e: wald(v, e, level), value, error)
    lower, upper = (jax.tree.map(lambda v, pair: pair[i], value, ends) for i in (0, 1))  # noqa: B023
    return Prediction(value, error, lower, upper)


def estimate_of(fit: FitRecord, fn: Callable[[PyTree], Any], kind: str, **options: Any) -> Estimate:
    """`Fit.estimate`, which says what the arguments are."""
    matrix = covariance(fit, kind, **options)

    def of_set(vector: Array, spread: Array, parameters: Parameters) -> Estimate:
        return estimate(fn, vector, spread, parameters)

    return vmap_if(fit.batched, of_set)(fit._solution.estimates, matrix, fit.parameters)


def estimate(
    fn: Callable[[PyTree], Any],
    vector: Float[Array, " k"],
    spread: Float[Array, "k k"],
    parameters: Parameters,
) -> Estimate:
    r"""$g(\hat\theta)$ with covariance $G V G^T$, $G = \partial g / \partial \theta$, exactly differentiated."""
    value = _floats(fn(parameters.tree(vector)))
    _, unravel = ravel_pytree(value)
    jacobian = jax.jacfwd(lambda v: ravel_pytree(_floats(fn(parameters.tree(v))))[0])(vector)
    matrix = jacobian @ spread @ jacobian.T
    return Estimate(value, unravel(jnp.sqrt(jnp.diagonal(matrix))), matrix)
