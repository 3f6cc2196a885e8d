"""Eigenvalues of small symmetric matrices, written so that they map over lanes."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float

from .linear_algebra import WRITTEN_OUT

#: Sweeps of Jacobi's rotations, and for up to four parameters: convergence is quadratic, so that the last sweep
#: changes nothing.
SWEEPS, SWEEPS_OF_FOUR = 7, 5


@sequential_vmap
def _eigh(matrix: Float[Array, "k k"]) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    return tuple(jnp.linalg.eigh(matrix))


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


def spectrum(matrix: Float[Array, "k k"], scale: Float[Array, " k"]) -> Spectrum:
    """The eigenvalues of `matrix` after scaling by `scale`; NaN entries give NaN."""
    scaled = matrix / scale[:, None] / scale[None, :]
    return Spectrum(scale, *eigh(scaled))


def eigh(matrix: Float[Array, "k k"]) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """Eigenvalues of a symmetric matrix in ascending order, and its eigenvectors in columns."""
    return _jacobi(matrix) if len(matrix) <= WRITTEN_OUT else _eigh(matrix)


@jax.jit
def _jacobi(matrix: Float[Array, "k k"]) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """Eigenvalues in ascending order and eigenvectors of a small symmetric matrix, by Jacobi's rotations.

    Rows in the upper half are paired with those in the lower half, and each pair is rotated so that its entry
    vanishes. Then all rows but the first move on by one place (the round-robin order): after `k - 1` rounds each
    row has been paired with every other and is back in place. Angles are carried from one round to the next, or
    the compiler would compute them again for every entry. (Brent and Luk 1985.)
    """
    k = len(matrix)
    even = k + k % 2  # a row of zeros makes the number even: nothing rotates with it

    def angles(a: Array) -> tuple[Array, Array]:
        """Cosines and sines of the rotations to come."""
        upper, lower = jnp.split(jnp.diagonal(a), 2)
        half = even // 2
        # Both rows of a pair must use the same number, or rounding makes the matrix no rotation.
        off = 0.5 * (jnp.diagonal(a[:half, half:]) + jnp.diagonal(a[half:, :half]))
        difference = lower - upper
        sign = jnp.where((difference < 0) == (off < 0), 1.0, -1.0).astype(a.dtype)
        # The tangent of the smaller angle; written so that nothing is divided by a vanishing entry.
        tangent = (
            sign
            * 2
            * jnp.abs(off)
            / jnp.where(off == 0, 1.0, jnp.abs(difference) + jnp.hypot(difference, 2 * off))
        )
        cosine = 1 / jnp.sqrt(1 + tangent**2)
        return cosine, tangent * cosine

    def rotate(rows: Array, cosine: Array, sine: Array) -> Array:
        """The rows after their rotations, in their next places."""
        upper, lower = jnp.split(rows, 2)
        c, s = cosine[:, None], sine[:, None]
        upper, lower = c * upper - s * lower, s * upper + c * lower
        if even == 2:
            return jnp.concatenate([upper, lower])
        return jnp.concatenate([upper[:1], lower[:1], upper[1:-1], lower[1:], upper[-1:]])

    def next_round(_: Any, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        a, rows, *rotations = carry
        a = rotate(rotate(a, *rotations).T, *rotations)
        return a, rotate(rows, *rotations), *angles(a)

    a = jnp.pad(matrix, (0, even - k))
    sweeps = SWEEPS_OF_FOUR if even <= 4 else SWEEPS
    begin = (a, jnp.eye(even, dtype=matrix.dtype), *angles(a))
    a, rows, *_ = jax.lax.fori_loop(0, sweeps * (even - 1), next_round, begin)
    values = jnp.diagonal(a)[:k]
    order = jnp.argsort(values)
    return values[order], rows[:k, :k][order].T
