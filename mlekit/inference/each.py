"""What is wanted of each data set, as functions that stay the same and so compile once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..objective import Objective
from . import information as information_


@functools.cache
def contributions(width: int) -> Callable[[Objective, Any], Array]:
    """Log-densities of the rows of a data set at the free vector, shape `(width,)`."""

    def at(objective: Objective, free: Array) -> Array:
        return _to_width(objective.likelihood.contributions(objective.parameters.natural(free)), width)

    return at


@functools.cache
def scores(width: int) -> Callable[[Objective, Any], Array]:
    """Their gradients, shape `(width, n_free)`."""

    def at(objective: Objective, free: Array) -> Array:
        return _to_width(objective.likelihood.scores(free, objective.parameters.natural), width)

    return at


def _to_width(rows: Array, width: int) -> Array:
    """Zero rows added, or padding cut off, so that there are `width` rows."""
    missing = max(0, width - rows.shape[0])
    return jnp.pad(rows[:width], [(0, missing)] + [(0, 0)] * (rows.ndim - 1))


@functools.cache
def information(kind: str) -> Callable[[Objective, Any], Array]:
    """The information about the free vector."""
    return lambda objective, free: information_.information(objective, free, kind)


@functools.cache
def covariance(kind: str, clustered: bool) -> Callable[[Objective, Any], Array]:
    """The covariance in natural units; `clustered` ones want `(free, clusters)`."""
    if clustered:
        return lambda objective, value: information_.covariance(objective, value[0], kind, value[1])
    return lambda objective, free: information_.covariance(objective, free, kind)
