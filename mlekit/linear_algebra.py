"""Small symmetric linear algebra, written so that it maps over lanes."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Bool, Float

#: Up to this size factorisations are written out, one scalar operation after the other, each of which runs across
#: all lanes; LAPACK goes matrix by matrix. Beyond, its cost is small beside that of the derivatives.
WRITTEN_OUT = 10
#: Sweeps of Jacobi's rotations, and of up to four parameters: convergence is quadratic, and the last one finds
#: nothing left to do.
SWEEPS, SWEEPS_OF_FOUR = 7, 5
#: Trial shifts of a trust-region step at most: most need one or two, an indefinite matrix a few more.
SHIFTS = 5


class Factor(eqx.Module):
    r"""What solves with a symmetric matrix, and tells whether it is positive definite."""

    @property
    @abc.abstractmethod
    def pivots(self) -> Float[Array, " k"]:
        """The pivots of Gaussian elimination: all are positive just where the matrix is positive definite."""

    @abc.abstractmethod
    def solve(self, vector: Float[Array, " k"]) -> Float[Array, " k"]:
        """The inverse matrix times `vector`."""

    @abc.abstractmethod
    def inverse_diagonal(self) -> Float[Array, " k"]:
        """The diagonal of the inverse matrix."""

    @abc.abstractmethod
    def inverse_root(self) -> Float[Array, "k k"]:
        r"""The upper triangle $T$ with $T T^T$ the inverse matrix, where that is positive definite."""


class Scalars(Factor):
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
        return jnp.stack([jnp.stack(row) for row in rows]) / jnp.sqrt(self.pivots)


@sequential_vmap
def cholesky(matrix: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """Cholesky's lower triangle; only that of the matrix is read.

    LAPACK goes matrix by matrix: given a stack of them, a CPU's threads may end up waiting for one another.
    """
    return jnp.linalg.cholesky(matrix, symmetrize_input=False)


@sequential_vmap
def _triangular_solve(root: Float[Array, "k k"], right: Float[Array, "k m"]) -> Float[Array, "k m"]:
    return jax.scipy.linalg.solve_triangular(root, right, lower=True)


@sequential_vmap
def _eigh(matrix: Float[Array, "k k"]) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    return tuple(jnp.linalg.eigh(matrix))


class Triangle(Factor):
    """For many parameters: Cholesky's triangle from LAPACK; NaN where the matrix is not positive definite."""

    root: Float[Array, "k k"]

    @property
    def pivots(self) -> Float[Array, " k"]:
        """The squared diagonal of the triangle; NaN compares as not positive."""
        return jnp.diagonal(self.root) ** 2

    def solve(self, vector: Float[Array, " k"]) -> Float[Array, " k"]:
        """Forward and backward substitution."""
        half = _triangular_solve(self.root, vector[:, None])
        # From the last row to the first, the transpose is a lower triangle again.
        return _triangular_solve(self.root.T[::-1, ::-1], half[::-1])[::-1, 0]

    def inverse_diagonal(self) -> Float[Array, " k"]:
        """Column norms of the inverse triangle."""
        return jnp.sum(self.inverse_root() ** 2, axis=1)

    def inverse_root(self) -> Float[Array, "k k"]:
        """The inverse triangle, transposed."""
        eye = jnp.eye(self.root.shape[0], dtype=self.root.dtype)
        return _triangular_solve(self.root, eye).T


def factorise(matrix: Float[Array, "k k"]) -> Factor:
    """What solves with a symmetric matrix; only its lower triangle is read, and nothing is pivoted."""
    k = matrix.shape[0]
    if k > WRITTEN_OUT:
        return Triangle(cholesky(matrix))
    lower: list[list[Array]] = [[] for _ in range(k)]
    diagonal: list[Array] = []
    for i in range(k):
        scaled: list[Array] = []  # row i of L D
        for j in range(i):
            scaled.append(matrix[i, j] - sum(lower[j][m] * scaled[m] for m in range(j)))
            lower[i].append(scaled[j] / diagonal[j])
        diagonal.append(matrix[i, i] - sum(lower[i][m] * scaled[m] for m in range(i)))
    return Scalars(tuple(map(tuple, lower)), tuple(diagonal))


def times(matrix: Float[Array, "k k"], vector: Float[Array, " k"]) -> Float[Array, " k"]:
    """A matrix times a vector; a small one as a sum that fuses with what comes before and after it."""
    return jnp.sum(matrix * vector, axis=-1) if vector.shape[0] <= WRITTEN_OUT else matrix @ vector


class Spectrum(eqx.Module):
    r"""A symmetric matrix scaled to unit diagonal, and its eigenvalues.

    $$A = D^{-1} H D^{-1} = Q \Lambda Q^T$$

    Scaling first makes everything that follows independent of the units of the parameters.

    Args:
        scale: the diagonal of $D$, shape `(k,)`, positive.
        values: eigenvalues in ascending order, shape `(k,)`.
        vectors: eigenvectors in columns, shape `(k, k)`.
    """

    scale: Float[Array, " k"]
    values: Float[Array, " k"]
    vectors: Float[Array, "k k"]

    def inverse(self) -> Float[Array, "k k"]:
        """The inverse matrix."""
        half = self.vectors / jnp.sqrt(self.values) / self.scale[:, None]
        return half @ half.T


def spectrum(matrix: Float[Array, "k k"], scale: Float[Array, " k"]) -> Spectrum:
    """The eigenvalues of `matrix` after scaling by `scale`; NaN entries give NaN."""
    scaled = matrix / scale[:, None] / scale[None, :]
    return Spectrum(scale, *eigh(scaled))


def eigh(matrix: Float[Array, "k k"]) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """Eigenvalues of a symmetric matrix in ascending order, and its eigenvectors in columns."""
    return _jacobi(matrix) if len(matrix) <= WRITTEN_OUT else _eigh(matrix)


def _jacobi(matrix: Float[Array, "k k"]) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """Eigenvalues in ascending order and eigenvectors of a small symmetric matrix, by Jacobi's rotations.

    Rows in the upper half are paired with those in the lower half, and each pair is rotated so that its entry
    vanishes. Then all rows but the first move on by one place, as players do in a tournament: after `k - 1`
    rounds everybody has met everybody and is back in place. Angles are carried from one round to the next, or
    the compiler would compute them again for every entry. (Brent and Luk 1985.)
    """
    k = len(matrix)
    even = k + k % 2  # a row of zeros makes the number even: nothing rotates with it

    def angles(a: Array) -> tuple[Array, Array]:
        """Cosines and sines of the rotations to come."""
        upper, lower = jnp.split(jnp.diagonal(a), 2)
        half = even // 2
        # Both of a pair must see the same number, or rounding makes their turn no rotation.
        off = 0.5 * (jnp.diagonal(a[:half, half:]) + jnp.diagonal(a[half:, :half]))
        apart = lower - upper
        sign = jnp.where((apart < 0) == (off < 0), 1.0, -1.0).astype(a.dtype)
        # The tangent of the smaller angle; written so that nothing is divided by a vanishing entry.
        tangent = sign * 2 * jnp.abs(off) / jnp.where(off == 0, 1.0, jnp.abs(apart) + jnp.hypot(apart, 2 * off))
        cosine = 1 / jnp.sqrt(1 + tangent**2)
        return cosine, tangent * cosine

    def turn(rows: Array, cosine: Array, sine: Array) -> Array:
        """The rows after their rotations, in their next places."""
        upper, lower = jnp.split(rows, 2)
        c, s = cosine[:, None], sine[:, None]
        upper, lower = c * upper - s * lower, s * upper + c * lower
        if even == 2:
            return jnp.concatenate([upper, lower])
        return jnp.concatenate([upper[:1], lower[:1], upper[1:-1], lower[1:], upper[-1:]])

    def round_(_: Any, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        a, rows, *rotations = carry
        a = turn(turn(a, *rotations).T, *rotations)
        return a, turn(rows, *rotations), *angles(a)

    a = jnp.pad(matrix, (0, even - k))
    sweeps = SWEEPS_OF_FOUR if even <= 4 else SWEEPS
    begin = (a, jnp.eye(even, dtype=matrix.dtype), *angles(a))
    a, rows, *_ = jax.lax.fori_loop(0, sweeps * (even - 1), round_, begin)
    values = jnp.diagonal(a)[:k]
    order = jnp.argsort(values)
    return values[order], rows[:k, :k][order].T


def curvature_scale(hessian: Float[Array, "k k"], gradient: Float[Array, " k"]) -> Float[Array, " k"]:
    r"""What one unit of each parameter is worth: the root of the diagonal of its curvature.

    Where a diagonal entry vanishes, the gradient gives the unit instead (a step that changes the mean
    log-likelihood by one nat), and where that vanishes too, it is one.
    """
    curvature = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    slope = jnp.abs(gradient)
    scale = jnp.where(curvature > 1e-3 * slope, curvature, slope)
    return jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1.0)


def singular_below(k: int, dtype: Any) -> float:
    """Curvature smaller than this, in units that make its diagonal one, is zero to rounding."""
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
    # Written with the inverse itself, so that it may be differentiated again, and no factorisation has to be.
    found = inverse(*primals)
    return found, -found @ tangents[0] @ found


def norm(vector: Float[Array, " k"]) -> Float[Array, ""]:
    """The Euclidean norm, as a sum that fuses with what comes before it."""
    return jnp.sqrt(jnp.sum(vector**2))


def trust_region_step(
    matrix: Float[Array, "k k"],
    slope: Float[Array, " k"],
    radius: Float[Array, ""],
    factor: Factor,
    minimiser: Float[Array, " k"],
    definite: Bool[Array, ""],
    wanted: Bool[Array, ""],
) -> Float[Array, " k"]:
    r"""A minimiser of a quadratic on the surface of a ball, to within a tenth of the radius.

    $$\min_p\; b^T p + \tfrac12 p^T A p \quad\text{subject to}\quad \|p\| \le \Delta$$

    is solved by $p = -(A + \mu)^{-1} b$ with $\mu \ge 0$ and $A + \mu$ positive semi-definite. Shifts $\mu$ are
    tried by Newton's method on $1/\|p(\mu)\| = 1/\Delta$, kept between bounds that every trial narrows (Moré and
    Sorensen 1983). In the hard case, where $b$ has next to no part along the lowest eigenvector, inverse iteration
    finds a direction of negative curvature, which fills the step up to the surface.

    Args:
        matrix: $A$, with a diagonal of size one.
        slope: $b$.
        radius: $\Delta$.
        factor: the factors of $A$.
        minimiser: $-A^{-1} b$, where $A$ is positive definite; it lies outside the ball.
        definite: whether it is.
        wanted: whether the step is wanted at all; lanes that need none cost nothing.

    Returns:
        The step, shape `(k,)`.
    """
    k, dtype = slope.shape[0], matrix.dtype
    tiny = jnp.finfo(dtype).tiny
    length, size = norm(slope), jnp.sqrt(jnp.sum(matrix**2))
    low = jnp.maximum(jnp.maximum(0.0, jnp.max(-jnp.diagonal(matrix))), length / radius - size)
    high = length / radius + size

    def newton(shift: Array, move: Array, reach: Array, factor: Factor) -> Array:
        bend = jnp.sum(move * factor.solve(move))
        return shift + (reach / radius - 1.0) * reach**2 / jnp.maximum(bend, tiny)

    def trial(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        shift, low, high, step, lowest, _, tried = carry
        factor = factorise(matrix + shift * jnp.eye(k, dtype=dtype))
        move = -factor.solve(slope)
        reach = norm(move)
        good = (jnp.min(factor.pivots) > 0) & jnp.isfinite(reach)
        short = good & (reach <= radius)
        low, high = jnp.where(short, low, jnp.maximum(low, shift)), jnp.where(short, shift, high)
        better = newton(shift, move, reach, factor)
        between = jnp.maximum(jnp.sqrt(low * high), low + 0.05 * (high - low))
        following = jnp.where(good & (better > low) & (better < high), better, between)
        arrived = good & (jnp.abs(reach - radius) <= 0.1 * radius)
        step = jnp.where(good & (reach <= 1.1 * radius), move, step)
        ahead = factor.solve(lowest)
        ahead = ahead / jnp.maximum(norm(ahead), tiny)
        lowest = jnp.where(good & jnp.all(jnp.isfinite(ahead)), ahead, lowest)
        return following, low, high, step, lowest, arrived, tried + 1

    opening = newton(jnp.zeros((), dtype), minimiser, norm(minimiser), factor)
    inside = definite & (opening > low) & (opening < high)
    opening = jnp.where(inside, opening, jnp.maximum(jnp.sqrt(low * high), low + 1e-3 * (high - low)))
    steepest = -slope * (radius / jnp.maximum(length, tiny))
    # Any direction serves that is not orthogonal to the lowest eigenvector.
    guess = jnp.cos(jnp.arange(1, k + 1, dtype=dtype)) / k**0.5
    carry: tuple[Array, ...] = (opening, low, high, steepest, guess, ~wanted, jnp.asarray(0, jnp.int32))
    carry = jax.lax.while_loop(lambda carry: ~carry[5] & (carry[6] < SHIFTS), trial, carry)
    step, lowest = carry[3:5]

    reach = norm(step)
    step = jnp.where(reach > radius, step * (radius / jnp.maximum(reach, tiny)), step)
    along = jnp.sum(step * lowest)
    room = jnp.sqrt(jnp.maximum(radius**2 - jnp.sum(step**2), 0.0) + along**2)
    sinks = ~definite & (jnp.sum(lowest * times(matrix, lowest)) < 0) & (reach < 0.9 * radius)
    uphill = jnp.sum(lowest * (slope + times(matrix, step))) > 0
    return step + jnp.where(sinks, jnp.where(uphill, -along - room, -along + room), 0.0) * lowest
