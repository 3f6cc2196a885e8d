"""Checks of the arguments of compositions, before tracing."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from ..families.base import column
from ..model import Model, as_model

Bound = str | Callable[[Any], Any] | ArrayLike | None


def independent(log_density: Any, who: str) -> Model:
    """The model; a `ValueError` if it is joint."""
    model = as_model(log_density)
    if model.is_joint:
        raise ValueError(f"{who} wants the log-density of ONE observation; a joint model has none")
    return model


def with_tails(
    log_density: Any, log_cdf: Callable[..., Any] | None, log_survival: Callable[..., Any] | None, who: str
) -> Model:
    """The model with its distribution function, or another one in its place.

    Raises:
        ValueError: there is none.
    """
    model = independent(log_density, who)
    if log_cdf is not None or log_survival is not None:
        return Model(model.log_density, model.simulate, log_cdf, log_survival)
    if model.log_cdf is None:
        raise ValueError(
            f"{who} wants the distribution function, and this model has no log_cdf: pass log_cdf(params, obs) or "
            "log_survival(params, obs), write mle.Model(log_density, log_cdf=log_cdf), or use mle.regression"
        )
    return model


def check_bounds(lower: Bound, upper: Bound, who: str) -> None:
    """An error unless there is a bound, and each is a name, a function or a number."""
    if lower is None and upper is None:
        raise ValueError(f"{who} wants lower, upper or both")
    for name, bound in (("lower", lower), ("upper", upper)):
        number = isinstance(bound, numbers.Real) or (isinstance(bound, np.ndarray | jax.Array) and bound.ndim == 0)
        if not (bound is None or isinstance(bound, str) or callable(bound) or number):
            raise TypeError(
                f"{who}: {name} must be the name of a column of obs, a function of obs, or a number; got {bound!r}"
            )


def bound_of(obs: PyTree, bound: Bound, name: str) -> Array:
    """A bound of one observation."""
    return scalar(column(obs, bound, name) if isinstance(bound, str) or callable(bound) else bound, name)


def of_params(which: Any, params: PyTree, obs: PyTree, args: tuple[Any, ...], name: str) -> Any:
    """Something predicted by a function, or looked up in `params`."""
    if callable(which):
        return which(params, obs, *args)
    if not (isinstance(params, Mapping) and which in params):
        has = f"which has {sorted(map(str, params))}" if isinstance(params, Mapping) else "which is no dict"
        raise ValueError(f"{name}: there is no {which!r} in params, {has}")
    return params[which]


def scalar(value: Any, name: str) -> Array:
    """A number as an array."""
    value = jnp.asarray(value)
    if value.shape:
        raise ValueError(f"{name} must be one number an observation; it has shape {value.shape}")
    return value
