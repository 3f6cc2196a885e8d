"""The second-order proof that a point is a maximum."""

from __future__ import annotations

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from ..core.format.numbers import NOTHING, counted, number
from ..core.format.renderers import TextRenderer

#: Share of the least certain direction that a parameter has at least to be named, unless none has.
SHARE = 0.1


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
        multiplier: of the active bound of each parameter, the nats that a unit beyond it would bring; NaN where it
            lies on none. `None` where no constraint is closed.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, jnp.array([1.0, 2.0, 6.0]))
        >>> fit.certificate
        Certificate
        <BLANKLINE>
        decrement         0
        gradient norm     0
        least eigenvalue  1.00
        condition number  1.00
    """

    decrement: Float[Array, "..."]
    gradient_norm: Float[Array, "..."]
    min_eigenvalue: Float[Array, "..."]
    condition_number: Float[Array, "..."]
    weak: Float[Array, "... k"]
    names: tuple[str, ...] = eqx.field(static=True)
    multiplier: Float[Array, "... k"] | None = None

    @property
    def multipliers(self) -> dict[str, Array]:
        """The multipliers of active bounds, `{parameter name: nats per unit}`; of a batch NaN where none is.

        A multiplier of zero leaves open whether the bound holds the estimate, or the estimate lies there anyway.
        """
        if self.multiplier is None:
            return {}
        active = np.any(~np.isnan(np.asarray(self.multiplier).reshape(-1, len(self.names))), axis=0)
        return {name: self.multiplier[..., i] for i, name in enumerate(self.names) if active[i]}

    @property
    def weak_direction(self) -> dict[str, Array]:
        """The least certain direction, `{parameter name: weight}`, in each parameter's own units, norm one."""
        return {name: self.weak[..., i] for i, name in enumerate(self.names)}

    @property
    def weak_parameters(self) -> tuple[str, ...]:
        """The parameters that make up the least certain direction of a single fit."""
        weights = np.abs(np.asarray(self.weak))
        # Where many take part alike, each has a small share.
        least = min(SHARE, 0.5 * float(np.max(weights, initial=0.0)))
        return tuple(name for name, weight in zip(self.names, weights) if weight > least)

    @property
    def words(self) -> str:
        """The least certain direction of a single fit in words: `coef[2] and coef[5] move together`."""
        *others, last = self.weak_parameters or ("nothing",)
        return f"{', '.join(others)} and {last} move together" if others else f"{last} is the least certain"

    def __repr__(self) -> str:
        if isinstance(self.decrement, jax.core.Tracer):
            return f"Certificate(<traced>, parameters={', '.join(self.names)})"
        return certificate_text(self)


#: Condition number beyond which the least certain direction is worth a word.
WEAK = 1e3
#: Decrement beyond which there is no maximum nearby.
SETTLED = 1e-5


def certificate_text(proof: Certificate) -> str:
    """The numbers of a certificate; of a batch the median and the worst of each."""
    out = TextRenderer()
    numbers = {
        "decrement": (proof.decrement, 2, np.max),
        "gradient norm": (proof.gradient_norm, 2, np.max),
        "least eigenvalue": (proof.min_eigenvalue, 3, np.min),
        "condition number": (proof.condition_number, 3, np.max),
    }
    if not np.ndim(proof.decrement):
        out.title("Certificate")
        out.table([[name, number(value, digits)] for name, (value, digits, _) in numbers.items()])
        if not (float(proof.condition_number) < WEAK and float(proof.decrement) < SETTLED):
            out.paragraph(f"{proof.words}.")
        return out.render()
    out.title(f"Certificates of {counted(np.size(proof.decrement), 'data set')}")
    rows = []
    for name, (values, digits, worst) in numbers.items():
        known = np.asarray(values)[~np.isnan(values)]
        rows.append([name, *(number(of(known), digits) if known.size else NOTHING for of in (np.median, worst))])
    out.table(rows, ["", "median", "worst"], ("left", "right", "right"))
    return out.render()
