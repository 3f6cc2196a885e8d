"""Marks for parameters that do not move by themselves."""

from __future__ import annotations

from typing import Any

import equinox as eqx


class Fixed(eqx.Module):
    """Marks a parameter that keeps its starting value; it is no `Constraint`, for it has nothing to map.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> density = lambda p, x: -0.5 * ((x - p["mean"]) / p["sd"]) ** 2 - jnp.log(p["sd"])
        >>> start = {"mean": 0.0, "sd": 2.0}
        >>> fit = mle.fit(density, start, jnp.array([1.0, 2.0, 6.0]), constraints={"sd": mle.fixed})
        >>> print(fit.n_free, fit.params["mean"].round(4), fit.params["sd"])
        1 3.0 2.0
    """

    def __call__(self, *values: Any) -> Any:
        """A `TypeError`: it takes no value."""
        given = ", ".join(map(repr, values))
        raise TypeError(
            f"mle.fixed({given}): mle.fixed is no function. It keeps a parameter at its value in init: write "
            f"init={{'name': {given or 1.0}}} and constraints={{'name': mle.fixed}}"
        )


class Tied(eqx.Module):
    """Marks a parameter that always equals another one.

    Args:
        to: name of the other parameter, as in `Fit.parameter_names`; a `TypeError` if it is no text.

    Example:
        >>> import mlekit as mle
        >>> mle.tied(to="scale")
        Tied(to='scale')
    """

    to: str = eqx.field(static=True)

    def __init__(self, to: Any):
        if not isinstance(to, str):
            raise TypeError(f"tied(to=...) wants the name of a parameter such as 'scale'; it got {to!r}")
        self.to = to


fixed = Fixed()
tied = Tied
