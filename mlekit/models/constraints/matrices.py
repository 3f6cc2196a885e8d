"""Constraints on matrices: positive definite, and correlations."""

# ruff: noqa: D102 - the five methods are documented in `Constraint`, their formulas and shapes by each class
from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ...core.dtypes import common_dtype
from .base import Constraint, last_axis, like, slack_of, trouble


class PositiveDefinite(Constraint):
    """Symmetric positive-definite matrices `(..., d, d)`: `value = L Lᵀ`, the diagonal of `L` in logs.

    The free array, `(..., d (d + 1) / 2)`, is the lower triangle of `L` row by row.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> print(mle.positive_definite.forward(jnp.array([0.0, 3.0, 0.0])))
        [[ 1.  3.]
         [ 3. 10.]]

    Source: the log-Cholesky form of Pinheiro & Bates (1996), Unconstrained Parametrizations for
    Variance-Covariance Matrices, Statistics and Computing 6.
    """

    def forward(self, free: ArrayLike) -> Array:
        lower, diagonal = _fill_lower(free, 0)
        # The inner `where` keeps large entries off the diagonal out of `exp`: its overflow would turn the
        # derivative into NaN although it is not selected.
        return _gram(jnp.where(diagonal, jnp.exp(jnp.where(diagonal, lower, 0)), lower))

    def inverse(self, value: ArrayLike) -> Array:
        root = jnp.linalg.cholesky(jnp.asarray(value))
        diagonal = np.eye(root.shape[-1], dtype=bool)
        free = _take_lower(jnp.where(diagonal, jnp.log(jnp.where(diagonal, root, 1)), root), 0)
        return jnp.where(_symmetric(value, jnp)[..., None], free, jnp.nan)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        d = last_axis("positive_definite", shape, square=True)
        return (*shape[:-2], d * (d + 1) // 2)

    def problem(self, value: np.ndarray) -> str | None:
        hint = f"start it at a matrix such as np.eye({value.shape[-1]})"
        return trouble(value, _definite, "be symmetric and positive definite", hint)

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        diagonal = np.eye(np.shape(value)[-1], dtype=bool)
        return like(np.where(diagonal, 0.0, -np.inf), value), like(np.inf, value)


class Correlation(Constraint):
    """Correlation matrices `(..., d, d)`: `value = L Lᵀ`, the rows of `L` of length one.

    The free array, `(..., d (d - 1) / 2)`, goes row by row below the diagonal. `z = tanh(free)` are partial
    correlations: `L[i, j] = z[i, j] Π_{k<j} √(1 - z[i, k]²)` and `L[i, i] = Π_{k<i} √(1 - z[i, k]²)`.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> print(mle.correlation.forward(jnp.zeros(1)))
        [[1. 0.]
         [0. 1.]]

    Source: partial correlations as free coordinates, from Lewandowski, Kurowicka & Joe (2009), Generating
    Random Correlation Matrices Based on Vines and Extended Onion Method, J. Multivariate Analysis 100.
    """

    def forward(self, free: ArrayLike) -> Array:
        lower, diagonal = _fill_lower(free, 1)
        # √(1 - tanh²) = 1 / cosh, whose log stays exact where 1 - tanh² would round to zero.
        log_cosh = jnp.logaddexp(lower, -lower) - math.log(2)
        before = jnp.pad(jnp.cumsum(log_cosh, -1)[..., :-1], [(0, 0)] * (lower.ndim - 1) + [(1, 0)])
        product = _gram(jnp.where(diagonal, 1, jnp.tanh(lower)) * jnp.exp(-before))
        return jnp.where(diagonal, 1, jnp.clip(product, -1, 1))

    def inverse(self, value: ArrayLike) -> Array:
        value = jnp.asarray(value)
        root = jnp.linalg.cholesky(value)
        # tanh f = L_ij / √(Σ_{k≥j} L_ik²) is the same as sinh f = L_ij / √(Σ_{k>j} L_ik²), which keeps its
        # digits near ±1. Only places below the diagonal are divided: the others would be 0 / 0.
        rest = jnp.cumsum((root**2)[..., ::-1], -1)[..., ::-1]
        free = jnp.arcsinh(_take_lower(root, 1) / jnp.sqrt(_take_lower(jnp.roll(rest, -1, -1), 1)))
        return jnp.where((_unit(value) & _symmetric(value, jnp))[..., None], free, jnp.nan)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        d = last_axis("correlation", shape, square=True)
        return (*shape[:-2], d * (d - 1) // 2)

    def problem(self, value: np.ndarray) -> str | None:
        wanted = "be symmetric and positive definite with ones on the diagonal"
        hint = f"start it at a matrix such as np.eye({value.shape[-1]})"
        return trouble(value, lambda v: np.all(_unit(v)) and _definite(v), wanted, hint)

    def range(self, value: ArrayLike) -> tuple[Array, Array]:
        return like(np.where(np.eye(np.shape(value)[-1], dtype=bool), 1.0, -1.0), value), like(1.0, value)


def _fill_lower(free: ArrayLike, below: int) -> tuple[Array, np.ndarray]:
    """Vectors laid row by row into lower triangles that begin `below` the diagonal; where the diagonal is."""
    free = jnp.asarray(free)
    d = int((8 * free.shape[-1] + 1) ** 0.5 - 1) // 2 + below
    matrix = jnp.zeros_like(free, shape=(*free.shape[:-1], d, d))
    return matrix.at[(..., *np.tril_indices(d, -below))].set(free), np.eye(d, dtype=bool)


def _take_lower(matrix: Array, below: int) -> Array:
    return matrix[(..., *np.tril_indices(matrix.shape[-1], -below))]


def _gram(root: Array) -> Array:
    """`L Lᵀ` as plain sums: exactly symmetric, and no device shortens the digits as in a matrix product."""
    return jnp.sum(root[..., :, None, :] * root[..., None, :, :], -1)


def _unit(matrix: Any) -> Any:
    return (abs(matrix.diagonal(0, -2, -1) - 1) <= slack_of(matrix)).all(-1)


def _symmetric(matrix: Any, xp: Any) -> Any:
    """True for matrices that are symmetric to rounding in units of each row; rows may differ a million-fold."""
    matrix = xp.asarray(matrix)
    scale = xp.sqrt(abs(matrix.diagonal(0, -2, -1)))
    off = abs(matrix - xp.swapaxes(matrix, -1, -2))
    return xp.all(off <= slack_of(matrix) * scale[..., :, None] * scale[..., None, :], (-2, -1))


def _definite(matrix: np.ndarray) -> bool:
    """True if all matrices are symmetric and their Cholesky factors exist in floating point.

    Demmel (1989, LAPACK working note 14): scaled to a unit diagonal, eigenvalues above d (d + 1) roundings.
    """
    diagonal = matrix.diagonal(0, -2, -1).astype(float)
    if not (np.all(_symmetric(matrix, np)) and np.all(diagonal > 0)):
        return False
    d, scale = matrix.shape[-1], np.sqrt(diagonal)
    scaled = matrix / scale[..., :, None] / scale[..., None, :]
    eps = float(jnp.finfo(common_dtype(matrix, float)).eps)
    return bool(np.all(np.linalg.eigvalsh(scaled) > d * (d + 1) * eps))


positive_definite = PositiveDefinite()
correlation = Correlation()
