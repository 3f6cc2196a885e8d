"""Truncated responses: observed only if they lie between bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...core.dtypes import common_dtype, promoted
from ..model import Model
from .checks import Bound, bound_of, check_bounds, with_tails
from .distribution import ConditionalDistribution, Density, Distribution, Response, ResponseInterval, distribution
from .inverse_cdf import draw
from .log_probability import from_either_side, log_between


class Truncated(Density):
    """The log-density of a response, given that it lies between bounds."""

    distribution: Distribution
    lower: Bound
    upper: Bound

    @property
    def response(self) -> Response:
        """The response of the distribution."""
        return self.distribution.response

    @property
    def atoms(self) -> bool | Callable[[Any], Any] | None:
        """The atoms of the distribution that is truncated."""
        return self.distribution.model.atoms

    def __call__(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The log-density of one observation."""
        conditional, y = self.distribution.conditional(params, obs, args), self.distribution.response_of(obs)
        window = self._window(conditional)
        inside = _holds(window, y)
        density = conditional.log_density(promoted(jnp.where, inside, y, window.tail.low), inside)
        return _possible(window, jnp.where(inside, density - window.mass, -jnp.inf))

    def log_cdf(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The logarithm of the distribution function at the response."""
        conditional = self.distribution.conditional(params, obs, args)
        return _log_cdf(conditional, self._window(conditional), self.distribution.response_of(obs))

    def log_survival(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The logarithm of the survival function at the response."""
        conditional, y = self.distribution.conditional(params, obs, args), self.distribution.response_of(obs)
        window = self._window(conditional)
        splits = _splits(window, y)
        # The window may be measured by one tail, and its part above the response by the other.
        rest = conditional.interval(promoted(jnp.where, splits, y, window.tail.low), self._bounds(obs)[1], splits)
        value = from_either_side(rest.mass - window.mass, _parts(conditional, window, y)[0])
        return _possible(window, jnp.where(splits, value, jnp.where(_below(window, y), 0.0, -jnp.inf)))

    def simulate(self, key: PRNGKeyArray, params: PyTree, obs: PyTree, *args: Any) -> PyTree:
        """The observation with its response drawn anew: in the dtype it had, unless that cannot hold it."""
        conditional = self.distribution.conditional(params, obs, args)
        window, dtype = self._window(conditional), self.distribution.response_of(obs).dtype
        regression = self.distribution.model.regression
        if regression is not None and not regression.family.support.whole:
            dtype = common_dtype(dtype, 0.0)
        y = draw(key, lambda y: _log_cdf(conditional, window, y), window.lower, window.upper, dtype)
        return self.distribution.with_response(obs, y)

    def _window(self, conditional: ConditionalDistribution) -> ResponseInterval:
        """The interval of the responses that could be observed."""
        return conditional.interval(*self._bounds(conditional.obs))

    def _bounds(self, obs: PyTree) -> tuple[Array | None, Array | None]:
        lower = None if self.lower is None else bound_of(obs, self.lower, "lower")
        return lower, None if self.upper is None else bound_of(obs, self.upper, "upper")


def _below(window: ResponseInterval, y: Array) -> Array:
    """True where a response lies below all that could be observed."""
    return promoted(jnp.less_equal, y, window.lower)


def _holds(window: ResponseInterval, y: Array) -> Array:
    """True for a response that could be observed, and for NaN, which then shows in the result."""
    return ~(_below(window, y) | promoted(jnp.greater, y, window.upper))


def _splits(window: ResponseInterval, y: Array) -> Array:
    """True if a response lies inside the window, below its upper end."""
    return _holds(window, y) & ~promoted(jnp.greater_equal, y, window.upper)


def _possible(window: ResponseInterval, value: Array) -> Array:
    """The value; NaN where nothing could be observed."""
    return jnp.where((window.lower < window.upper) & (window.mass > -jnp.inf), value, jnp.nan)


def _parts(conditional: ConditionalDistribution, window: ResponseInterval, y: Array) -> tuple[Array, Array]:
    """Logarithms of the shares of the window up to a response and beyond it."""
    log_tail = conditional.log_tail(window.tail, y, _holds(window, y))
    near = log_between(window.log_tail_near, log_tail) - window.mass
    far = log_between(log_tail, window.log_tail_far) - window.mass
    return window.tail.choose(far, near), window.tail.choose(near, far)


def _log_cdf(conditional: ConditionalDistribution, window: ResponseInterval, y: Array) -> Array:
    value = from_either_side(*_parts(conditional, window, y))
    return _possible(window, jnp.where(_splits(window, y), value, jnp.where(_below(window, y), -jnp.inf, 0.0)))


def truncated(
    log_density: Any,
    *,
    lower: Bound = None,
    upper: Bound = None,
    response: Response = None,
    log_cdf: Callable[..., Any] | None = None,
    log_survival: Callable[..., Any] | None = None,
) -> Model:
    r"""A model of responses that are observed only if they lie in `(lower, upper]`; of others nothing is known.

    $$\log p(y) - \log\,[F(\text{upper}) - F(\text{lower})]$$

    and minus infinity outside. Counts above zero: `lower=0`. Delayed entry, where who failed before is never seen:
    `lower="entry"`.

    Args:
        log_density: `log_density(params, obs)`, or `log_density(params, obs, args)`; a `mle.Model` or a
            `mle.regression`.
        lower: what the response must exceed: a number, the name of a column of `obs`, or a function of `obs`; left
            out, or minus infinity, there is no such bound.
        upper: what it must not exceed; left out, or infinity, there is no such bound.
        response: where the response lies: the name of a column of `obs`, or a function of `obs` that picks a leaf;
            bounds are put there, too. Left out, it is that of the `mle.regression`, otherwise the column `y`, or
            `obs` itself if that is a number.
        log_cdf: `log_cdf(params, obs)`, the logarithm of the distribution function, if the model carries none, or
            to stand in for its own. It is never called with an infinite response. Families say where theirs lacks
            derivatives, as those of `gamma`, `beta` and `negative_binomial` do.
        log_survival: `log_survival(params, obs)`, the logarithm of the survival function, in the same way. Either
            is enough; both together keep the digits of both tails, as families do.

    Returns:
        A `mle.Model` with `log_cdf` and `log_survival`, so that it may be censored, and `simulate`, which draws
        by inverting the former.
        All is NaN where a response between the bounds has no chance that the computer can tell from zero.

    Raises:
        ValueError: no bounds, no `log_cdf`, a joint model, or a response other than that of the regression.
        TypeError: a bound that is no name, function or number.

    Example:
        How many came in each car, where empty ones do not come:

        >>> import jax.numpy as jnp, mlekit as mle
        >>> counts = mle.regression(lambda rate, obs: rate, mle.families.poisson, response=lambda obs: obs)
        >>> cars = jnp.array([1, 1, 2, 4, 1, 3, 2, 1, 2, 2])
        >>> fit = mle.fit(mle.truncated(counts, lower=0), 1.0, cars, constraints=mle.positive)
        >>> mean = fit.params / (1 - jnp.exp(-fit.params))  # of those that come
        >>> print(f"{fit.params:.4f}, {mean:.4f} = {cars.mean():.4f}")
        1.4578, 1.9000 = 1.9000
    """
    check_bounds(lower, upper, "truncated")
    model = with_tails(log_density, log_cdf, log_survival, "truncated")
    density = Truncated(distribution(model, response, "truncated"), lower, upper)
    return Model(density, density.simulate, density.log_cdf, density.log_survival)
