"""Sandwich estimators of the covariance: one inverse information, several middle matrices.

Each function that makes one is cached, so that the same options give the same function and compile once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..likelihood.objective import Objective
from ..likelihood.weights import weighted_rows
from .information import in_natural_units, information, inverse

#: Small-sample factors of a sum over G clusters of n observations, with k free parameters.
SMALL_SAMPLE = ("clusters", "regression")


def _sandwich(objective: Objective, free: Array, middle: Float[Array, "n n"]) -> Float[Array, "k k"]:
    r"""$J I^{-1} M I^{-1} J^T$ with the observed information and a middle matrix."""
    bread = inverse(objective, free, "observed")
    return in_natural_units(objective, free, bread @ middle @ bread)


@functools.cache
def robust(small_sample: str | None) -> Callable[[Objective, Array], Array]:
    """The sandwich of independent observations."""

    def of_dataset(objective: Objective, free: Array) -> Array:
        n_obs = objective.n_obs
        factor = _factor(small_sample, n_obs, n_obs, free.shape[0])
        return _sandwich(objective, free, information(objective, free, "opg") * factor)

    return of_dataset


@functools.cache
def clustered(columns: int, small_sample: str | None) -> Callable[[Objective, Array, Any], Array]:
    """The sandwich of independent clusters, in as many ways as there are columns of labels."""

    def of_dataset(objective: Objective, free: Array, labels: Any) -> Array:
        scores, counts = _weighted_scores(objective, free)
        middle = jnp.zeros((free.shape[0],) * 2, free.dtype)
        for size in range(1, columns + 1):
            for chosen in itertools.combinations(range(columns), size):
                sums, groups = sums_of_clusters(scores, counts, tuple(labels[i] for i in chosen))
                factor = _factor(small_sample, groups, objective.n_obs, free.shape[0])
                part = jnp.where(groups > 1, factor, jnp.nan) * (sums.T @ sums)
                middle = middle + (part if size % 2 else -part)
        return _sandwich(objective, free, middle)

    return of_dataset


@functools.cache
def of_series(small_sample: str | None) -> Callable[[Objective, tuple[Array, Array]], Array]:
    """The sandwich of a series with so many lags."""

    def of_dataset(objective: Objective, value: tuple[Array, Array]) -> Array:
        free, lags = value
        n_obs = objective.n_obs
        scores = objective.likelihood.scores(free, objective.parameters.natural)
        factor = _factor(small_sample, n_obs, n_obs, free.shape[0])
        return _sandwich(objective, free, _long_run_squares(scores, lags) * factor)

    return of_dataset


def _factor(small_sample: str | None, groups: Array, n_obs: Array, k: int) -> Any:
    """The factor for `groups` clusters: G/(G-1), and (n-1)/(n-k) with it for regressions."""
    if small_sample is None:
        return 1.0
    few = groups / (groups - 1.0)
    return few if small_sample == "clusters" else few * (n_obs - 1.0) / (n_obs - k)


def _weighted_scores(
    objective: Objective, free: Array
) -> tuple[Float[Array, "rows n_free"], Bool[Array, " rows"]]:
    """Gradients of the weighted contributions, and which rows count."""
    likelihood = objective.likelihood
    scores = likelihood.scores(free, objective.parameters.natural)
    _, weights = likelihood.aligned()
    if weights is None:
        return scores, jnp.ones(scores.shape[0], bool)
    return weighted_rows(scores, weights), weights > 0


def sums_of_clusters(
    rows: Float[Array, "rows m"], counts: Array, labels: tuple[Int[Array, " rows"], ...]
) -> tuple[Float[Array, "rows m"], Int[Array, ""]]:
    """The sums of the rows with the same labels, and how many there are of these clusters."""
    n = rows.shape[0]
    order = jnp.lexsort(labels)
    changes = [jnp.diff(label[order], prepend=label[order][:1]) != 0 for label in labels]
    number = jnp.zeros(n, int).at[order].set(jnp.cumsum(functools.reduce(jnp.logical_or, changes)))
    cluster_sum = functools.partial(jax.ops.segment_sum, segment_ids=number, num_segments=n)
    return cluster_sum(rows), jnp.sum(cluster_sum(counts.astype(int)) > 0)


def _long_run_squares(scores: Float[Array, "rows n_free"], lags: Int[Array, ""]) -> Float[Array, "n_free n_free"]:
    """The long-run sum of squares of a series, with the weights of Bartlett."""
    row = jnp.arange(scores.shape[0])[:, None]

    def add_lag(lag: Array, middle: Array) -> Array:
        before = jnp.where(row >= lag, jnp.roll(scores, lag, axis=0), 0)
        product = scores.T @ before
        return middle + (1 - lag / (lags + 1)).astype(scores.dtype) * (product + product.T)

    return jax.lax.fori_loop(1, lags + 1, add_lag, scores.T @ scores)
