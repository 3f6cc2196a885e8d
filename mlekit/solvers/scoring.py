"""Scoring: Newton's method on the outer product of the scores (BHHH)."""

from __future__ import annotations

from typing import ClassVar

from .objective import AbstractObjective, Curvature
from .trust_region import AbstractTrustRegion


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

    #: A step that ends within tolerance is the last: the exact Hessian polishes faster.
    stops_within_tolerance: ClassVar[bool] = True

    def curvature(self, objective: AbstractObjective) -> Curvature:
        """The expected information of a regression, the outer product of the scores of any other model."""
        return objective.cheap_curvature
