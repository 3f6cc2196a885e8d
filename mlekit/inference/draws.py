"""Draws from the asymptotic normal distribution of the estimates."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, UInt32

from ..core.checks import check_count
from ..core.compilation import Compiled
from ..core.eigen import eigh
from ..core.linear_algebra import singular_below
from ..core.random_keys import check_key, from_seed, seeds
from ..core.trees import vmap_if
from ..models.parameters import Parameters
from .covariance import covariance, errors_of
from .record import FitRecord, check_one_axis, index


def vectors(
    fit: FitRecord, key: Any, n_draws: int, kind: str = "observed", **options: Any
) -> Float[Array, "... n k"]:
    """`Fit.draws`, which says what the arguments are, as vectors over `parameter_names`."""
    check_key(key, "draws")
    check_count(n_draws, "n_draws")
    check_one_axis(fit)
    if kind == "expected" and fit.model.regression is None:
        key, options["key"] = jax.random.split(key)
    matrix = covariance(fit, kind, **options)
    return _draw(seeds(key, index(fit)), fit._solution.free, matrix, fit.parameters, int(n_draws), fit.batched)


@Compiled
def _draw(words: Array, free: Array, matrix: Array, parameters: Parameters, n: int, batched: bool) -> Array:
    def of_set(words: UInt32[Array, "2"], free: Array, matrix: Array, parameters: Parameters) -> Array:
        normal = jax.random.normal(from_seed(words), (n, free.size), free.dtype)
        every = dataclasses.replace(parameters, active=None)  # those at bounds too, whose variance is zero
        moved = free[None] + normal @ _root(matrix, every.jacobian(free))
        moved = moved if parameters.box is None else jax.vmap(parameters.box.clip)(moved)
        return jax.vmap(parameters.natural_vector)(moved)

    return vmap_if(batched, of_set)(words, free, matrix, parameters)


def _root(matrix: Float[Array, "k k"], jacobian: Float[Array, "k n_free"]) -> Float[Array, "n_free n_free"]:
    r"""A root of the covariance $V_z$ of the free vector, where $V = J V_z J^T$.

    Free parameters follow from the natural ones, so the columns of $J$ are independent and there is one $V_z$. The
    root is symmetric in units of the errors, and so the same on every machine.
    """
    if not jacobian.shape[1]:  # every parameter is fixed
        return jnp.zeros((0, 0), matrix.dtype)
    error = errors_of(matrix)
    unit = 1 / jnp.where(error > 0, error, 1.0)
    q, r = jnp.linalg.qr(jacobian * unit[:, None])
    back = solve_triangular(r, q.T * unit[None, :])
    spread = back @ matrix @ back.T
    size = errors_of(spread)
    known = jnp.all(jnp.isfinite(spread)) & jnp.all(jnp.isfinite(size))
    scale = jnp.where(known & (size > 0), size, 1.0)
    safe = jnp.where(known, spread / scale[:, None] / scale[None, :], jnp.eye(len(size), dtype=spread.dtype))
    values, directions = eigh(safe)
    # A sum over few clusters has variance zero in some directions, but no variance is negative.
    known &= jnp.all(values > -singular_below(len(size), spread.dtype))
    root = (directions * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]) @ directions.T
    return jnp.where(known, root * scale[None, :], jnp.nan)
