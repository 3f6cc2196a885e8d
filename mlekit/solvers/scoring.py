"""Scoring: Newton's method on the outer product of the scores (BHHH)."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core.status import RUNNING, Status
from ..likelihood.objective import Objective
from .base import Stop
from .trust_region import AbstractTrustRegion, TrustRegionState


class Scoring(AbstractTrustRegion):
    r"""Newton's method with the outer product of the scores in place of the Hessian (BHHH).

    $$H \approx \frac1n \sum_i w_i\, s_i s_i^T, \qquad s_i = \nabla_z \log p(x_i \mid z)$$

    It costs first derivatives only and is positive semi-definite everywhere. It approximates the Hessian
    when the model is right and observations are many; with few it converges slowly, and `Newton` is better.
    (Berndt, Hall, Hall and Hausman 1974.)

    Args:
        radius: first radius of the trust region, in units of the curvature's diagonal.

    Example:
        >>> import mlekit as mle
        >>> mle.Scoring(radius=10.0)
        Scoring(radius=10.0)
    """

    def derivatives(self, objective: Objective) -> str:
        """The expected information of a regression, the outer product of the scores of any other model."""
        return "scoring" if objective.likelihood.model.regression else "outer_product"

    def learn(
        self,
        state: TrustRegionState,
        found: tuple[Array, Array, Array],
        n_obs: Float[Array, ""],
        stop: Stop,
    ) -> TrustRegionState:
        """A step that ends within tolerance is the last: the exact Hessian polishes faster."""
        after = super().learn(state, found, n_obs, stop)
        near = (after.status == RUNNING) & (after.progress.quiet > 0)
        return eqx.tree_at(lambda s: s.status, after, jnp.where(near, Status.converged, after.status))
