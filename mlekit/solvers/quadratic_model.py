"""The quadratic model of an objective around a point."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core.linear_algebra import AbstractFactor, factorise, singular_below

#: A curvature that has shrunk by so much since the search began is fading.
FADING = 1e4
#: A direction is next to flat if its curvature is less than so many times what rounding hides.
RIDGE = 1e3


class QuadraticModel(eqx.Module):
    r"""The quadratic around a point, in the solver's units of the parameters.

    $$f(z + D^{-1} p) \approx f(z) + b^T p + \tfrac12 p^T A p$$

    Args:
        matrix: $A = D^{-1} H D^{-1}$.
        slope: $b = D^{-1} g$.
        factor: the factors of $A$.
        raised: those of $A$ raised by the size of rounding errors.
        scale: the diagonal of $D$.
        scale_ratio: squares of `scale` over the units of this point, in which convergence is judged.
        definite: whether $A$ is positive definite beyond rounding.
        minimiser: $-A^{-1} b$; zero unless positive definite.
        gain: $\tfrac12 b^T A^{-1} b$, the most the quadratic can fall; infinite unless positive definite.
        semidefinite_step: where rounding hides whether a direction is flat, the minimiser that stays put in such
            directions; NaN where $A$ is indefinite.
    """

    matrix: Float[Array, "k k"]
    slope: Float[Array, " k"]
    factor: AbstractFactor
    raised: AbstractFactor
    scale: Float[Array, " k"]
    scale_ratio: Float[Array, " k"]
    definite: Bool[Array, ""]
    minimiser: Float[Array, " k"]
    gain: Float[Array, ""]
    semidefinite_step: Float[Array, " k"]

    @property
    def on_ridge(self) -> Bool[Array, ""]:
        """Whether some direction is next to flat by rounding."""
        least = RIDGE * singular_below(self.slope.shape[0], self.slope.dtype)
        return jnp.min(self.factor.pivots * self.scale_ratio) < least

    @property
    def faded(self) -> Bool[Array, ""]:
        """Whether some parameter's curvature has shrunk to next to nothing since the search began."""
        return self._shrunk(jnp.finfo(self.scale.dtype).eps ** -0.375)

    @property
    def fading(self) -> Bool[Array, ""]:
        """Whether it has shrunk so much that a search which ends without a proof has run away."""
        return self._shrunk(min(FADING, jnp.finfo(self.scale.dtype).eps ** -0.375))

    def _shrunk(self, factor: Any) -> Bool[Array, ""]:
        return jnp.any(self.scale_ratio > factor)


def quadratic_model(
    curvature: Float[Array, "k k"],
    gradient: Float[Array, " k"],
    scale: Float[Array, " k"],
    units: Float[Array, " k"],
) -> QuadraticModel:
    """The quadratic model with this curvature and gradient.

    Args:
        curvature: of the objective.
        gradient: the same.
        scale: the units of the trust region.
        units: those of this point.
    """
    matrix = curvature / scale[:, None] / scale[None, :]
    slope = gradient / scale
    scale_ratio = (scale / units) ** 2
    singular = singular_below(slope.shape[0], slope.dtype)
    # Raised by the size of rounding errors, a semi-definite matrix is definite. Both go through the same code.
    pair = jnp.stack([matrix, matrix + jnp.diag(2 * singular / scale_ratio)])
    factors = jax.vmap(factorise)(pair)
    pivots = jnp.min(jax.vmap(lambda factor: factor.pivots)(factors) * scale_ratio[None, :], axis=1)
    minimisers = -jax.vmap(lambda factor: factor.solve(slope))(factors)
    definite = pivots[0] > singular
    minimiser = jnp.where(definite, minimisers[0], 0.0)
    gain = jnp.where(definite, -0.5 * jnp.sum(slope * minimiser), jnp.inf)
    semidefinite_step = jnp.where(pivots[1] > 0.5 * singular, minimisers[1], jnp.nan)
    factor, raised = (jax.tree.map(lambda leaf: leaf[i], factors) for i in range(2))  # noqa: B023
    return QuadraticModel(
        matrix, slope, factor, raised, scale, scale_ratio, definite, minimiser, gain, semidefinite_step
    )
