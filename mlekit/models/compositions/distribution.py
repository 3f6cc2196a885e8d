"""The distribution that a composition is made of: its response, and its density and tails at other responses."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...core.dtypes import promoted
from ..families import Family
from ..families.base import column, with_column
from ..model import Complement, Model
from ..regression_density import Regression
from .checks import independent, scalar
from .log_probability import log_between

Response = str | Callable[[Any], Any] | None

HALF = 0.5  #: a response inside nearly every support


class Density(eqx.Module):
    """A log-density, a callable `(params, obs)`, that knows which part of an observation is the response."""

    @abc.abstractmethod
    def __call__(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The log-density of one observation."""

    @property
    @abc.abstractmethod
    def response(self) -> Response:
        """The response, as in `Distribution`; `None` if that depends on `obs`."""

    @property
    @abc.abstractmethod
    def atoms(self) -> bool | Callable[[Any], Any] | None:
        """The responses that are atoms of the distribution, as in `Model.atoms`."""


class Distribution(eqx.Module):
    """A model of one response, to be evaluated at other responses than the observed one.

    Args:
        model: the model.
        response: the name of the response among the columns of `obs`, a function that picks it, or `None`: the
            column `y`, or `obs` itself if that is a number.
    """

    model: Model
    response: Response

    def response_of(self, obs: PyTree) -> Array:
        """The response of one observation, in the dtype it has in the data."""
        return scalar(column(obs, self._which(obs), "response"), "the response")

    def with_response(self, obs: PyTree, y: Array) -> PyTree:
        """The observation with another response."""
        which = self._which(obs)
        if callable(which):
            scalar(which(obs), "the response")
        return with_column(obs, which, y, "response")

    def conditional(self, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> ConditionalDistribution:
        """The distribution given parameters and the rest of one observation."""
        regression = self.model.regression
        parts = () if regression is None else tuple(regression.named_predictions(params, obs, *args).values())
        return ConditionalDistribution(self, params, obs, args, parts)

    def _which(self, obs: PyTree) -> Any:
        if self.response is not None:
            return self.response
        if isinstance(obs, Mapping):
            return "y"
        if jax.tree_util.all_leaves([obs]):
            return _itself
        raise ValueError(
            f"obs is a {type(obs).__name__}: say where the response lies with a function such as "
            "response=lambda obs: obs[0]"
        )


class Tail(NamedTuple):
    """The tail of the distribution by which probabilities are measured, and harmless responses.

    A function that is not active is evaluated at a harmless response, where its value and derivatives are finite.

    Args:
        upper: whether it is the upper tail, by the survival function.
        low: a harmless response for the distribution function: one that has something below it.
        high: one for the survival function, that has something above it.
    """

    upper: bool | Array
    low: Array
    high: Array

    def choose(self, if_upper: Any, if_lower: Any) -> Any:
        """The one or the other."""
        if isinstance(self.upper, bool):
            return if_upper if self.upper else if_lower
        return promoted(jnp.where, self.upper, if_upper, if_lower)


class ResponseInterval(NamedTuple):
    """An interval of responses and its probability, measured by the tail that is nearer.

    Args:
        lower: where it begins, itself excluded.
        upper: where it ends, itself included.
        tail: the nearer tail.
        log_tail_near: the logarithm of the probability of that tail up to the nearer end of the interval.
        log_tail_far: the same up to the farther end.
    """

    lower: Array
    upper: Array
    tail: Tail
    log_tail_near: Array
    log_tail_far: Array

    @property
    def mass(self) -> Array:
        """The logarithm of its probability."""
        return log_between(self.log_tail_near, self.log_tail_far)


@dataclasses.dataclass
class ConditionalDistribution:
    """A distribution given parameters and the rest of one observation.

    A value that is not active should have no derivative either, as zero times infinity is not zero. Of a
    regression it has none; of any other model the caller must evaluate it at a harmless response.

    Args:
        distribution: the distribution.
        params: parameters.
        obs: one observation.
        args: further arguments of the model.
        parts: the predictions of a regression.
    """

    distribution: Distribution
    params: PyTree
    obs: PyTree
    args: tuple[Any, ...]
    parts: tuple[Array, ...]

    def log_density(self, y: Array, active: Any) -> Float[Array, ""]:
        """The log-density of a response."""
        model = self.distribution.model
        if model.regression is None:
            return jnp.asarray(model(self.params, self.distribution.with_response(self.obs, y), *self.args))
        return model.regression.family.bind(self.obs).log_density(*self._numbers(y, active))

    def log_cdf(self, y: Array, active: Any) -> Float[Array, ""]:
        """The logarithm of the distribution function."""
        return self._companion("log_cdf", y, active)

    def log_survival(self, y: Array, active: Any) -> Float[Array, ""]:
        """The logarithm of the survival function."""
        return self._companion("log_survival", y, active)

    def interval(self, lower: Array | None, upper: Array | None, active: Any = True) -> ResponseInterval:
        """An interval of responses and its probability.

        Args:
            lower: where it begins, which may be minus infinity; `None` if it always is.
            upper: where it ends, itself included; infinity if `None`.
            active: whether it is needed; if not, its probability is one.

        Returns:
            The interval. A bound with nothing beyond it counts as infinite, as the derivatives of a logarithm are
            not finite there.
        """
        low = jnp.asarray(-jnp.inf) if lower is None else lower
        high = jnp.asarray(jnp.inf) if upper is None else upper
        above, below = jnp.isfinite(low), jnp.isfinite(high)
        harmless, log_cdf_low = promoted(jnp.where, below, high, HALF), jnp.asarray(-jnp.inf)
        if lower is not None:
            log_cdf_low = self.log_cdf(promoted(jnp.where, above, low, harmless), False)
            above &= log_cdf_low != -jnp.inf
        harmless = promoted(jnp.where, above, low, harmless)
        harmless_high, empty = promoted(jnp.where, below, high, harmless), jnp.asarray(False)
        if upper is not None and self._may_end_above():
            empty = self.log_survival(harmless_high, False) == -jnp.inf
            below &= ~empty
        above, below = above & active, below & active
        # An observed response may have nothing above it: in its place one inside nearly every support.
        harmless_high = promoted(jnp.where, empty, promoted(jnp.where, above, low, HALF), harmless_high)
        upper_half = above & (~below | (log_cdf_low > -math.log(2)))
        tail = Tail(self._from_above(lower, upper, upper_half), harmless, harmless_high)

        def log_tail_at(bound: Array | None, finite: Array, otherwise: float) -> Array:
            if bound is None:
                return jnp.asarray(otherwise)
            return jnp.where(finite, self.log_tail(tail, bound, finite), otherwise)

        near = log_tail_at(tail.choose(upper, lower), tail.choose(below, above), -jnp.inf)
        far = log_tail_at(tail.choose(lower, upper), tail.choose(above, below), 0.0)
        return ResponseInterval(low, high, tail, near, far)

    def log_tail(self, tail: Tail, y: Array, active: Array) -> Float[Array, ""]:
        """The logarithm of the probability of a tail up to a response."""
        if isinstance(tail.upper, bool):
            function, harmless = (self.log_survival, tail.high) if tail.upper else (self.log_cdf, tail.low)
            return function(promoted(jnp.where, active, y, harmless), active)
        upper, lower = active & tail.upper, active & ~tail.upper
        return jnp.where(
            tail.upper,
            self.log_survival(promoted(jnp.where, upper, y, tail.high), upper),
            self.log_cdf(promoted(jnp.where, lower, y, tail.low), lower),
        )

    def _from_above(self, lower: Array | None, upper: Array | None, upper_half: Array) -> bool | Array:
        """True if the upper tail is to serve: known before tracing if one tail serves every interval."""
        model = self.distribution.model
        if lower is None or isinstance(model.log_survival, Complement):
            return False
        return True if upper is None or isinstance(model.log_cdf, Complement) else upper_half

    def _may_end_above(self) -> bool:
        """True if the upper tail may underflow, where its logarithm has no derivative."""
        survival = self.distribution.model.log_survival
        return self._family_of("log_survival") is None and not isinstance(survival, Complement)

    def _family_of(self, name: str) -> Family | None:
        """The family whose companion this is; `None` if another function stands in for it."""
        model = self.distribution.model
        own = getattr(getattr(model, name), "__func__", None) is getattr(Regression, name)
        return model.regression.family.bind(self.obs) if model.regression is not None and own else None

    def _companion(self, name: str, y: Array, active: Any) -> Array:
        family = self._family_of(name)
        if family is not None:
            return getattr(family, name)(*self._numbers(y, active))
        companion = getattr(self.distribution.model, name)
        return jnp.asarray(companion(self.params, self.distribution.with_response(self.obs, y), *self.args))

    def _numbers(self, y: Array, active: Any) -> tuple[Array, ...]:
        """The response and the predictions, without derivatives where they are not active."""
        return tuple(jnp.where(active, number, jax.lax.stop_gradient(number)) for number in (y, *self.parts))


def guarded(model: Model, name: str, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> Float[Array, ""]:
    """The log-density or a companion at an observation, without derivative outside the support."""
    if model.regression is None:
        value = jnp.asarray(getattr(model, name)(params, obs, *args))
        return jnp.where(value == -jnp.inf, -jnp.inf, value)
    y, support = model.regression.response_of(obs), model.regression.family.support
    conditional = Distribution(model, model.regression.response).conditional(params, obs, args)
    return getattr(conditional, name)(y, support._replace(whole=False).holds(y))


def distribution(log_density: Any, response: Response, who: str) -> Distribution:
    """The distribution of a model, checked as far as that is possible before tracing."""
    model = independent(log_density, who)
    if not (response is None or isinstance(response, str) or callable(response)):
        raise TypeError(
            f"{who}: response must be the name of a column of obs, or a function of obs such as lambda obs: "
            f"obs[0]; got {response!r}"
        )
    own = own_response(model)
    if own is not None and response is not None and own != response:
        raise ValueError(f"{who}: the response of this model is {own!r}, not {response!r}: leave out response")
    return Distribution(model, response if own is None else own)


def own_response(model: Model) -> Response:
    """The response that the model itself names, if it does."""
    density = model.log_density
    return density.response if isinstance(density, Regression | Density) else None


def with_companions(density: Density, models: Iterable[Model]) -> Model:
    """A model of a density, with those companions that all its parts have."""
    names, models = ("simulate", "log_cdf", "log_survival"), list(models)
    return Model(density, *(getattr(density, n) if all(getattr(m, n) for m in models) else None for n in names))


def _itself(obs: Any) -> Any:
    return obs
