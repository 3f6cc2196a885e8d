"""Newton's method in a trust region, on the exact Hessian."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Array, Float

from ..likelihood import Objective
from . import trust_region
from .base import Solver, Stop


class Newton(Solver):
    r"""Newton's method on the exact Hessian, in a trust region; the default while `n_free` is small.

    $$z \leftarrow z + \arg\min_{\|D p\| \le \Delta} g^T p + \tfrac12 p^T H p$$

    Robust where the Hessian is indefinite, and quadratically convergent where it is not. A step costs one
    evaluation of value, gradient and Hessian.

    Args:
        radius: first radius $\Delta$ of the trust region, in units of the curvature's diagonal.

    Example:
        >>> import mlekit as mle
        >>> mle.Newton(radius=10.0)
        Newton(radius=10.0)
    """

    exact: ClassVar[bool] = True
    radius: float = 1.0

    def init(self, free: Float[Array, " n_free"]) -> trust_region.TrustRegionState:
        """The state before the first step."""
        return trust_region.init(free, self.radius)

    def step(
        self, objective: Objective, state: trust_region.TrustRegionState, stop: Stop
    ) -> trust_region.TrustRegionState:
        """One step."""
        return trust_region.step(objective.hessian, objective.n_obs, state, stop.tolerance)
