"""Small symmetric linear algebra, written so that it maps over lanes."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SECULAR_STEPS = 12  #: Newton steps on the secular equation; it converges quadratically from the left


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

    def coordinates(self, vector: Float[Array, " k"]) -> Float[Array, " k"]:
        """The gradient-like `vector` in scaled units, along the eigenvectors: $Q^T D^{-1} v$."""
        return self.vectors.T @ (vector / self.scale)

    def vector(self, coordinates: Float[Array, " k"]) -> Float[Array, " k"]:
        """The step-like vector with these `coordinates`, in the matrix's own units: $D^{-1} Q c$."""
        return (self.vectors @ coordinates) / self.scale

    def inverse(self) -> Float[Array, "k k"]:
        """The inverse matrix."""
        half = self.vectors / jnp.sqrt(self.values) / self.scale[:, None]
        return half @ half.T


def spectrum(matrix: Float[Array, "k k"], scale: Float[Array, " k"]) -> Spectrum:
    """The eigenvalues of `matrix` after scaling by `scale`; NaN entries give NaN."""
    values, vectors = jnp.linalg.eigh(matrix / scale[:, None] / scale[None, :])
    return Spectrum(scale, values, vectors)


def curvature_scale(hessian: Float[Array, "k k"], gradient: Float[Array, " k"]) -> Float[Array, " k"]:
    r"""What one unit of each parameter is worth: the root of the diagonal of its curvature.

    Where a diagonal entry vanishes, the gradient gives the unit instead (a step that changes the mean
    log-likelihood by one nat), and where that vanishes too, it is one.
    """
    curvature = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    slope = jnp.abs(gradient)
    scale = jnp.where(curvature > 1e-3 * slope, curvature, slope)
    return jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1.0)


def trust_region_step(
    eigen: Spectrum, slope: Float[Array, " k"], radius: Float[Array, ""]
) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    r"""The minimiser of a quadratic in a ball, exact even where the matrix is indefinite.

    $$\min_p\; b^T p + \tfrac12 p^T \Lambda p \quad\text{subject to}\quad \|p\| \le \Delta$$

    solved by $p = -(\Lambda + \mu)^{-1} b$ with $\mu \ge \max(0, -\lambda_1)$ from the secular equation
    $1/\|p(\mu)\| = 1/\Delta$ (Moré and Sorensen 1983, in the eigenbasis). In the hard case, where $b$ has no
    part along the lowest eigenvector, that eigenvector fills the step up to the boundary.

    Args:
        eigen: the scaled matrix.
        slope: $b$, the gradient in the eigenbasis, shape `(k,)`.
        radius: $\Delta$, in scaled units.

    Returns:
        The step in the eigenbasis, shape `(k,)`, and the predicted decrease.
    """
    values = eigen.values
    tiny = jnp.finfo(values.dtype).tiny
    noise = values.shape[0] * 10 * jnp.finfo(values.dtype).eps
    # Directions without curvature and without slope, beside the others, stay where they are.
    small = lambda part: jnp.abs(part) <= noise * jnp.max(jnp.abs(part))  # noqa: E731
    dead = small(values) & small(slope)

    def step_at(shift: Array) -> Array:
        denominator = values + shift
        return jnp.where(dead | (slope == 0), 0.0, -slope / jnp.where(denominator > tiny, denominator, tiny))

    def norm(step: Array) -> Array:
        return jnp.sqrt(jnp.sum(step**2))

    # Each |p_i| <= Δ alone bounds μ from below; Newton on the reciprocal rises from there to the root.
    lowest = jnp.maximum(0.0, jnp.max(jnp.where(dead | (slope == 0), 0.0, jnp.abs(slope) / radius - values)))

    def newton(_: Array, shift: Array) -> Array:
        step = step_at(shift)
        length = norm(step)
        denominator = jnp.maximum(values + shift, tiny)
        slope_of_length = jnp.sum(jnp.where(step == 0, 0.0, step**2 / denominator))
        change = length**2 / jnp.maximum(slope_of_length, tiny) * (length - radius) / radius
        return jnp.maximum(shift + jnp.where(jnp.isfinite(change), change, 0.0), lowest)

    interior = (values[0] > 0) & (norm(step_at(jnp.zeros(()).astype(values.dtype))) <= radius)
    shift = jax.lax.fori_loop(0, SECULAR_STEPS, newton, jnp.maximum(lowest, -values[0]))
    step = step_at(jnp.where(interior, 0.0, shift))
    length = norm(step)
    step = jnp.where(length > radius, step * (radius / jnp.maximum(length, tiny)), step)
    missing = jnp.sqrt(jnp.maximum(radius**2 - jnp.sum(step**2), 0.0))
    hard = (values[0] < -noise) & (missing > 1e-2 * radius)
    downhill = jnp.where(slope[0] > 0, -1.0, 1.0)
    step = step.at[0].add(jnp.where(hard, downhill * missing, 0.0))
    predicted = -jnp.sum(slope * step + 0.5 * values * step**2)
    return step, predicted
