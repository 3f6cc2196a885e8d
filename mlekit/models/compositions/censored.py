"""Censored responses: known only to lie between bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...core.dtypes import promoted
from ..model import Model
from .checks import Bound, bound_of, check_bounds, with_tails
from .distribution import Density, Distribution, Response, distribution


class Censored(Density):
    """The log-density of observations whose response may be known only to lie between bounds."""

    distribution: Distribution
    lower: Bound
    upper: Bound

    @property
    def response(self) -> Response:
        """The response of the distribution."""
        return self.distribution.response

    @property
    def atoms(self) -> None:
        """Not known: an interval is no response."""

    def __call__(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The logarithm of the density, or of the probability of an interval."""
        lower, upper = self._bound(obs, "lower"), self._bound(obs, "upper")
        conditional = self.distribution.conditional(params, obs, args)
        valid = promoted(jnp.less_equal, lower, upper)
        valid &= promoted(jnp.less, lower, jnp.inf) & promoted(jnp.greater, upper, -jnp.inf)
        exact = promoted(jnp.equal, lower, upper)
        interval = conditional.interval(lower, upper, valid & ~exact)
        density = conditional.log_density(promoted(jnp.where, exact, upper, interval.tail.low), valid & exact)
        return jnp.where(valid, jnp.where(exact, density, interval.mass), jnp.nan)

    def _bound(self, obs: PyTree, name: str) -> Array:
        bound = getattr(self, name)
        return self.distribution.response_of(obs) if bound is None else bound_of(obs, bound, name)


def censored(
    log_density: Any,
    *,
    lower: Bound = None,
    upper: Bound = None,
    response: Response = None,
    log_cdf: Callable[..., Any] | None = None,
    log_survival: Callable[..., Any] | None = None,
) -> Model:
    r"""A model of observations of which some are censored: the response is known to lie in `(lower, upper]`.

    $$\log p(y) \quad \text{where lower} = \text{upper} = y, \qquad
        \log\,[F(\text{upper}) - F(\text{lower})] \quad \text{elsewhere}$$

    One row may be exact, the next censored on the left, on the right or on both sides; an infinite bound is none.

    | what is known | bounds |
    |---|---|
    | survival times, some cut off | `upper=lambda obs: jnp.where(obs["event"], obs["y"], jnp.inf)` |
    | nothing below zero is seen (Tobit) | `lower=lambda obs: jnp.where(obs["y"] <= 0, -jnp.inf, obs["y"])` |
    | the last visit before and the first after | `lower="before", upper="after"` |

    The lower bound itself is left out, which matters for counts: 10 or more is `(9, inf]`.

    Args:
        log_density: `log_density(params, obs)`, or `log_density(params, obs, args)`; a `mle.Model` or a
            `mle.regression`.
        lower: where the interval begins: the name of a column of `obs`, a function of `obs`, or a number; left
            out, it is the response itself.
        upper: where it ends, the end included.
        response: where the model looks for the response, as bounds are put there: the name of a column of `obs`,
            which need not exist if both bounds are given, or a function of `obs` that picks a leaf. Left out, it
            is that of the `mle.regression`, otherwise the column `y`, or `obs` itself if that is a number.
        log_cdf: `log_cdf(params, obs)`, the logarithm of the distribution function, if the model carries none, or
            to stand in for its own. It is never called with an infinite response. Families say where theirs lacks
            derivatives, as those of `gamma`, `beta` and `negative_binomial` do.
        log_survival: `log_survival(params, obs)`, the logarithm of the survival function, in the same way. Either
            is enough; both together keep the digits of both tails, as families do.

    Returns:
        A `mle.Model` without companions, as nothing says how a response that is drawn comes to be censored. The
        log-density is NaN where `lower` is above `upper`.

    Raises:
        ValueError: no bounds, no `log_cdf`, a joint model, or a response other than that of the regression.
        TypeError: a bound that is no name, function or number.

    Example:
        Of six lamps two still burn; the rate is the number of failures over the total time:

        >>> import jax.numpy as jnp, mlekit as mle
        >>> lives = mle.regression(lambda params, obs: 1 / params["rate"], mle.families.exponential)
        >>> model = mle.censored(lives, upper=lambda obs: jnp.where(obs["failed"], obs["y"], jnp.inf))
        >>> data = {"y": jnp.array([2.0, 3, 5, 7, 9, 9]), "failed": jnp.array([1, 1, 1, 1, 0, 0])}
        >>> fit = mle.fit(model, {"rate": 1.0}, data, constraints={"rate": mle.positive})
        >>> print(f"{fit.params['rate']:.4f} = {4 / 35:.4f}")
        0.1143 = 0.1143

    See also `mle.truncated`, where what lies outside of bounds is not even counted. Both together are
    `mle.censored(mle.truncated(...))`.
    """
    check_bounds(lower, upper, "censored")
    model = with_tails(log_density, log_cdf, log_survival, "censored")
    return Model(Censored(distribution(model, response, "censored"), lower, upper))
