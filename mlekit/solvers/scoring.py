"""Scoring: Newton's method on the outer product of the scores (BHHH)."""

from __future__ import annotations

from jaxtyping import Array, Float

from ..likelihood import Objective
from . import trust_region
from .base import Solver, Stop


class Scoring(Solver):
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

    radius: float = 1.0

    def init(self, free: Float[Array, " n_free"]) -> trust_region.TrustRegionState:
        """The state before the first step."""
        return trust_region.init(free, self.radius)

    def step(
        self, objective: Objective, state: trust_region.TrustRegionState, stop: Stop
    ) -> trust_region.TrustRegionState:
        """One step."""
        return trust_region.step(objective.outer_product, objective.n_obs, state, stop.tolerance)
