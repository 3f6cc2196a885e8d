"""Newton's method in a trust region, on the exact Hessian; the step is `AbstractTrustRegion.update`."""

from __future__ import annotations

from typing import ClassVar

from .objective import AbstractObjective, Curvature
from .trust_region import AbstractTrustRegion

#: Steps on the expected information at most; a search that takes more is better off with the exact one.
WARM_UP = 15


class Newton(AbstractTrustRegion):
    r"""Newton's method on the exact Hessian, in a trust region; the default while `n_free` is small.

    $$z \leftarrow z + \arg\min_{\|D p\| \le \Delta} g^T p + \tfrac12 p^T H p$$

    Robust where the Hessian is indefinite, and quadratically convergent where it is not. A step costs one
    evaluation of value, gradient and Hessian. The many fits of a `mle.regression` begin with up to `WARM_UP` steps
    on the expected information, which costs first derivatives only.

    Args:
        radius: first radius $\Delta$ of the trust region, in units of the curvature's diagonal.

    Example:
        >>> import mlekit as mle
        >>> mle.Newton(radius=10.0)
        Newton(radius=10.0)
    """

    exact: ClassVar[bool] = True

    def curvature(self, objective: AbstractObjective) -> Curvature:
        """The exact Hessian."""
        return Curvature.exact


class PlainNewton(Newton):
    """Newton's method for likelihoods without walls and kinks, where it ends `OBSTRUCTED`.

    It is compiled in three quarters of the time, and takes the same steps up to there.
    """

    passes_obstacles: ClassVar[bool] = False
