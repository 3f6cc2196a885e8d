"""Small symmetric linear algebra, written so that it maps over lanes."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float

#: Up to this size factorisations are written out in scalar operations, each of which runs across all lanes; LAPACK
#: goes matrix by matrix. Beyond it, the cost of LAPACK is small beside that of the derivatives.
WRITTEN_OUT = 10


class AbstractFactor(eqx.Module):
    r"""A factorisation of a symmetric matrix: solves with it, and tells if it is positive definite."""

    @property
    @abc.abstractmethod
    def pivots(self) -> Float[Array, " k"]:
        """The pivots of Gaussian elimination: all are positive just where the matrix is positive definite."""

    @abc.abstractmethod
    def solve(self, vector: Float[Array, " k"]) -> Float[Array, " k"]:
        """The inverse matrix times `vector`."""

    @abc.abstractmethod
    def solve_root(self, vector: Float[Array, " k"]) -> Float[Array, " k"]:
        r"""$x$ with $x^T A x$ the square of the norm of `vector`; NaN where $A$ is not positive definite."""

    @abc.abstractmethod
    def inverse_diagonal(self) -> Float[Array, " k"]:
        """The diagonal of the inverse matrix."""

    @abc.abstractmethod
    def inverse_root(self) -> Float[Array, "k k"]:
        r"""The upper triangle $T$ with $T T^T$ the inverse matrix, where that is positive definite."""


class ScalarFactor(AbstractFactor):
    """For few parameters: $L D L^T$ with a unit lower triangle, entry by entry."""

    lower: tuple[tuple[Array, ...], ...]
    diagonal: tuple[Array, ...]

    @property
    def pivots(self) -> Float[Array, " k"]:
        """The diagonal of $D$."""
        return jnp.stack(self.diagonal)

    def solve(self, vector: Float[Array, " k"]) -> Float[Array, " k"]:
        """Forward and backward substitution."""
        k = len(self.diagonal)
        x = [vector[i] for i in range(k)]
        for i in range(k):
            x[i] = x[i] - sum(self.lower[i][j] * x[j] for j in range(i))
        x = [x[i] / self.diagonal[i] for i in range(k)]
        return self._solve_upper(x)

    def solve_root(self, vector: Float[Array, " k"]) -> Float[Array, " k"]:
        """Backward substitution."""
        return self._solve_upper(list(vector / jnp.sqrt(self.pivots)))

    def _solve_upper(self, right: list[Array]) -> Float[Array, " k"]:
        x, k = [*right], len(right)
        for i in reversed(range(k)):
            x[i] = x[i] - sum(self.lower[j][i] * x[j] for j in range(i + 1, k))
        return jnp.stack(x)

    def _inverse_columns(self) -> list[dict[int, Array]]:
        """The columns of the inverse triangle, below its diagonal of ones."""
        k = len(self.diagonal)
        columns = []
        for j in range(k):
            column: dict[int, Array] = {}
            for i in range(j + 1, k):
                column[i] = -self.lower[i][j] - sum(self.lower[i][m] * column[m] for m in range(j + 1, i))
            columns.append(column)
        return columns

    def inverse_diagonal(self) -> Float[Array, " k"]:
        """From the columns of the inverse triangle."""
        columns, diagonal = self._inverse_columns(), self.diagonal
        return jnp.stack(
            [
                1 / diagonal[j] + sum(column[i] ** 2 / diagonal[i] for i in column)
                for j, column in enumerate(columns)
            ]
        )

    def inverse_root(self) -> Float[Array, "k k"]:
        """The inverse triangle, transposed and scaled."""
        columns, k = self._inverse_columns(), len(self.diagonal)
        zero, one = jnp.zeros_like(self.diagonal[0]), jnp.ones_like(self.diagonal[0])
        rows = [[one if i == j else columns[i].get(j, zero) for j in range(k)] for i in range(k)]
        return jnp.stack([jnp.stack(row) for row in rows]) / jnp.sqrt(self.pivots)[None, :]


@sequential_vmap
def cholesky(matrix: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """Cholesky's lower triangle; only that of the matrix is read.

    One matrix at a time: given a stack of them, the threads of a CPU have been seen to wait for one another for
    ever, for the reason given, with links, at `WAITING` in compilation.py, and until the same version.
    """
    return jnp.linalg.cholesky(matrix, symmetrize_input=False)


@sequential_vmap
def _triangular_solve(root: Float[Array, "k k"], right: Float[Array, "k m"]) -> Float[Array, "k m"]:
    return jax.scipy.linalg.solve_triangular(root, right, lower=True)


class CholeskyFactor(AbstractFactor):
    """For many parameters: Cholesky's triangle from LAPACK; NaN where the matrix is not positive definite."""

    root: Float[Array, "k k"]

    @property
    def pivots(self) -> Float[Array, " k"]:
        """The squared diagonal of the triangle; NaN compares as not positive."""
        return jnp.diagonal(self.root) ** 2

    def solve(self, vector: Float[Array, " k"]) -> Float[Array, " k"]:
        """Forward and backward substitution."""
        return self.solve_root(_triangular_solve(self.root, vector[:, None])[:, 0])

    def solve_root(self, vector: Float[Array, " k"]) -> Float[Array, " k"]:
        """Backward substitution."""
        # From the last row to the first, the transpose is a lower triangle again.
        return _triangular_solve(self.root.T[::-1, ::-1], vector[::-1, None])[::-1, 0]

    def inverse_diagonal(self) -> Float[Array, " k"]:
        """Column norms of the inverse triangle."""
        return jnp.sum(self.inverse_root() ** 2, axis=1)

    def inverse_root(self) -> Float[Array, "k k"]:
        """The inverse triangle, transposed."""
        eye = jnp.eye(self.root.shape[0], dtype=self.root.dtype)
        return _triangular_solve(self.root, eye).T


def factorise(matrix: Float[Array, "k k"]) -> AbstractFactor:
    """The factorisation of a symmetric matrix; only its lower triangle is read, and nothing is pivoted."""
    k = matrix.shape[0]
    if k > WRITTEN_OUT:
        return CholeskyFactor(cholesky(matrix))
    lower: list[list[Array]] = [[] for _ in range(k)]
    diagonal: list[Array] = []
    for i in range(k):
        scaled: list[Array] = []  # row i of L D
        for j in range(i):
            scaled.append(matrix[i, j] - sum(lower[j][m] * scaled[m] for m in range(j)))
            lower[i].append(scaled[j] / diagonal[j])
        diagonal.append(matrix[i, i] - sum(lower[i][m] * scaled[m] for m in range(i)))
    return ScalarFactor(tuple(map(tuple, lower)), tuple(diagonal))


def matvec(matrix: Float[Array, "k k"], vector: Float[Array, " k"]) -> Float[Array, " k"]:
    """A matrix times a vector; a small one as a sum that fuses with what comes before and after it."""
    return jnp.sum(matrix * vector[None, :], axis=-1) if vector.shape[0] <= WRITTEN_OUT else matrix @ vector


def curvature_scale(
    hessian: Float[Array, "k k"], gradient: Float[Array, " k"], size: Float[Array, ""] | float = 1.0
) -> Float[Array, " k"]:
    r"""The scale of each parameter: the root of the diagonal of its curvature.

    Where a diagonal entry vanishes it is the gradient (one unit then changes the mean log-likelihood by one nat),
    and where that vanishes too, it is one. It counts as vanished where one unit of it would change the mean
    log-likelihood by a thousand times its own size.

    Args:
        hessian: the curvature.
        gradient: the gradient.
        size: of the mean log-likelihood, at least one.
    """
    curvature = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    slope = jnp.abs(gradient)
    scale = jnp.where(curvature > 1e-3 * slope / size, curvature, slope)
    return jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1.0)


def singular_below(k: int, dtype: Any) -> float:
    """The curvature below which, in units that make its diagonal one, it is zero to rounding."""
    return 10 * k * float(jnp.finfo(dtype).eps)


def root_of_inverse(matrix: Float[Array, "k k"]) -> Float[Array, "k k"]:
    r"""$T$ with $T T^T = A^{-1}$ and so $T^T A\, T = 1$; NaN where $A$ is not positive definite."""
    k = matrix.shape[0]
    known = jnp.all(jnp.isfinite(matrix))
    safe = jnp.where(known, matrix, jnp.eye(k, dtype=matrix.dtype))
    scale = curvature_scale(safe, jnp.zeros(k, matrix.dtype))
    factor = factorise(safe / scale[:, None] / scale[None, :])
    definite = known & (jnp.min(factor.pivots) > singular_below(k, matrix.dtype))
    return jnp.where(definite, factor.inverse_root() / scale[:, None], jnp.nan)


@jax.custom_jvp
def inverse(matrix: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """The inverse of a symmetric matrix; NaN where it is not positive definite. Differentiable in every way."""
    if not matrix.size:
        return matrix
    root = root_of_inverse(matrix)
    return root @ root.T


@inverse.defjvp
def _inverse_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Written with the inverse itself: it may be differentiated again, and no factorisation need be.
    found = inverse(*primals)
    return found, -found @ tangents[0] @ found


def norm(vector: Float[Array, " k"]) -> Float[Array, ""]:
    """The Euclidean norm, as a sum that fuses with what comes before it."""
    return jnp.sqrt(jnp.sum(vector**2))
