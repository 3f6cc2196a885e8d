"""Calls of the user's log-density on a block of rows, with errors that say what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..core.dtypes import widened
from ..core.trees import n_rows
from ..models.model import Model
from .density_errors import check_returned, explain_failed_call

#: What a joint model should return where the contributions of observations are needed.
CONTRIBUTIONS = "the vector of log p(x_t | x_<t), shape (n_obs,)"


def values_of_rows(model: Model, args: PyTree, params: PyTree, data: PyTree) -> Array:
    """Log-densities of the rows; of a joint model what it returns for all of them, perhaps a scalar.

    Raises:
        ValueError: a log-density that returns no scalar or does not use its observation, a joint model that
            returns another shape, or a name that is looked up and not there.
        TypeError: numbers that are not real and floating-point.
    """
    if not model.is_joint:
        rows = n_rows(data)

        def of_row(obs: PyTree) -> Array:
            out = _density(model, args, params, obs)
            if rows > 1 and any(map(_is_mapped, jax.tree.leaves(obs))) and not _is_mapped(out):
                raise ValueError(
                    "log_density does not use obs, its second argument: it must return the log-density of ONE "
                    f"observation, and mlekit sums over the {rows:,} rows. A sum over rows that the function "
                    "itself knows would be counted once for each"
                )
            return out

        return jax.vmap(of_row)(data)
    out = _call(model, args, params, data)
    check_returned(out, "a joint model")
    rows = n_rows(data)
    if jnp.shape(out) not in ((), (rows,)):
        raise ValueError(
            f"a joint model must return a scalar or one value an observation, shape ({rows},); "
            f"it returned shape {jnp.shape(out)}"
        )
    return _real(out, "a joint model")


def contributions_of_rows(model: Model, args: PyTree, params: PyTree, data: PyTree) -> Array:
    """`values_of_rows`, one a row.

    Raises:
        ValueError: a joint model that returns a scalar.
    """
    values = values_of_rows(model, args, params, data)
    if values.ndim == 0:
        raise ValueError(
            f"contributions are wanted, but the joint model returns a scalar; return {CONTRIBUTIONS}, instead"
        )
    return values


def scores_of_rows(
    model: Model, args: PyTree, vector: Array, natural: Callable[[Array], PyTree], data: PyTree
) -> tuple[Array, Array]:
    """Log-densities of the rows, and their gradients with respect to `vector`.

    Raises:
        ValueError: a joint model that returns a scalar.
    """
    if not model.is_joint:

        def of_row(z: Array, obs: PyTree) -> Array:
            return _density(model, args, natural(z), obs)

        return jax.vmap(jax.value_and_grad(of_row), in_axes=(None, 0))(vector, data)

    def twice(z: Array) -> tuple[Array, Array]:
        values = values_of_rows(model, args, natural(z), data)
        if values.ndim == 0:
            raise ValueError(
                f"scores are wanted, but the joint model returns a scalar; return {CONTRIBUTIONS}, instead"
            )
        return values, values

    scores, values = jax.jacfwd(twice, has_aux=True)(vector)
    return values, scores


def _density(model: Model, args: PyTree, params: PyTree, obs: PyTree) -> Array:
    out = _call(model, args, params, obs)
    check_returned(out, "log_density")
    if jnp.shape(out) != ():
        raise ValueError(
            "log_density must return one number, the log-density of ONE observation; it returned shape "
            f"{jnp.shape(out)}. obs is one slice of data, of shapes "
            f"{jax.tree.map(jnp.shape, obs)}: mlekit does the summing over observations; sum over the "
            "parts of one observation with jnp.sum"
        )
    return _real(out, "log_density")


def _call(model: Model, args: PyTree, params: PyTree, obs: PyTree) -> Any:
    extra = () if args is None else (args,)
    try:
        return model(params, obs, *extra)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        explain_failed_call(error, model, (params, obs, *extra))
        raise


def _is_mapped(x: Any) -> bool:
    """True if a value inside `jax.vmap` depends on the rows that are mapped over.

    JAX has no public word for it but the type of the tracer. Where another map lies around this one, as over data
    sets, what depends on that one alone is taken for mapped, too.
    """
    return type(x).__name__ == "BatchTracer"


def _real(out: Any, who: str) -> Array:
    kind = jnp.result_type(out)
    if not jnp.issubdtype(kind, jnp.floating):
        raise TypeError(f"{who} must return a real floating-point number, a log-density; it returned dtype {kind}")
    return widened(jnp.asarray(out))
