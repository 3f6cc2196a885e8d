"""Newton's method in a trust region, on the exact Hessian."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..likelihood import Objective
from .trust_region import TrustRegion, TrustRegionState

#: Steps on the expected information at most; a search that takes more is better off with the exact one.
WARM_UP = 15


class Newton(TrustRegion):
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

    def derivatives(self, objective: Objective) -> str:
        """The exact Hessian."""
        return "hessian"

    def take_over(self, state: Any) -> TrustRegionState:
        """The state in which to go on from where another solver stands, mindful of what it proved."""
        if not isinstance(state, TrustRegionState):
            return self.init(state.free)
        # What is within tolerance stays so at the candidate, which the other solver did not get to see.
        ahead = state.full & (state.progress.quiet > 0)
        fresh = self.init(jnp.where(ahead, state.candidate, state.free))
        keep = lambda old, new: jnp.where(ahead, old, new)  # noqa: E731
        progress = jax.tree.map(keep, state.progress, fresh.progress)
        return dataclasses.replace(fresh, scale=state.scale, opening=state.opening, progress=progress, full=ahead)
