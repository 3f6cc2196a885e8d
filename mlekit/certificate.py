"""The second-order proof that a point is a maximum."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import Array, Float


class Certificate(eqx.Module):
    r"""The second-order proof that a point is a maximum.

    Args:
        decrement: $\tfrac12 g^T I^{-1} g$, the log-likelihood a perfect next step could still gain, in nats;
            infinite where the information is not positive definite.
        gradient_norm: norm of the gradient of the mean log-likelihood, in units of the curvature's diagonal.
        min_eigenvalue: least eigenvalue of the information scaled to unit diagonal; positive at a maximum.
        condition_number: its largest eigenvalue over its least.
        weak: the least certain direction, one entry a scalar parameter; of an unbounded fit the direction in
            which it runs away.
        names: the names of those parameters.
    """

    decrement: Float[Array, "..."]
    gradient_norm: Float[Array, "..."]
    min_eigenvalue: Float[Array, "..."]
    condition_number: Float[Array, "..."]
    weak: Float[Array, "... k"]
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def weak_direction(self) -> dict[str, Array]:
        """The least certain direction, `{parameter name: weight}`, in each parameter's own units, norm one."""
        return {name: self.weak[..., i] for i, name in enumerate(self.names)}
