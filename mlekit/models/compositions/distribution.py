"""What densities made of another share: where its response lies, and that density at other responses."""

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

from ..families import Family
from ..families.base import column, with_column
from ..model import Complement, Model
from ..regression_density import Regression
from .checks import independent, scalar
from .log_probability import log_between

Response = str | Callable[[Any], Any] | None

HALF = 0.5  #: lies in the support of nearly every distribution


class Density(eqx.Module):
    """A log-density, a callable `(params, obs)`, that says where the response lies."""

    @abc.abstractmethod
    def __call__(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The log-density of one observation."""

    @property
    @abc.abstractmethod
    def response(self) -> Response:
        """Where the response lies; `None` if that is for `obs` to say."""

    @property
    @abc.abstractmethod
    def atoms(self) -> bool | Callable[[Any], Any] | None:
        """Which responses are atoms of the distribution, as in `Model.atoms`."""


class Distribution(eqx.Module):
    """A model of one response, which may be asked about other responses than the observed one.

    Args:
        model: the model.
        response: the name of the response among the columns of `obs`, a function that picks it, or `None`: the
            column `y`, or `obs` itself if that is a number.
    """

    model: Model
    response: Response

    def of(self, obs: PyTree) -> Array:
        """The response of one observation, in the dtype it has in the data."""
        return scalar(column(obs, self._which(obs), "response"), "the response")

    def place(self, obs: PyTree, y: Array) -> PyTree:
        """The observation with another response."""
        which = self._which(obs)
        if callable(which):
            scalar(which(obs), "the response")
        return with_column(obs, which, y, "response")

    def at(self, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> ConditionalDistribution:
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
    """The end of the distribution from which probabilities are measured, and responses that may be asked for.

    Args:
        upper: whether it is the upper end, by the survival function.
        low: a response that has something below it, to ask the distribution function for what is not wanted.
        high: one that has something above it, for the survival function.
    """

    upper: bool | Array
    low: Array
    high: Array

    def choose(self, if_upper: Any, if_lower: Any) -> Any:
        """The one or the other."""
        if isinstance(self.upper, bool):
            return if_upper if self.upper else if_lower
        return jnp.where(self.upper, if_upper, if_lower)


class Interval(NamedTuple):
    """An interval of responses and its probability, measured from that end of the distribution that is nearer.

    Args:
        lower: where it begins, itself excluded.
        upper: where it ends, itself included.
        side: the nearer end.
        near: the logarithm of the chance of what lies between that end and the interval.
        far: that of this and of the interval together.
    """

    lower: Array
    upper: Array
    side: Tail
    near: Array
    far: Array

    @property
    def mass(self) -> Array:
        """The logarithm of its probability."""
        return log_between(self.near, self.far)


@dataclasses.dataclass
class ConditionalDistribution:
    """A distribution given parameters and the rest of one observation.

    Where a value is not wanted, it should have no derivative either, as zero times infinity is not zero. Of a
    regression it has none; of any other model it is up to the caller to ask for it at a harmless response.

    Args:
        distribution: the distribution.
        params: parameters.
        obs: one observation.
        args: what else the model is given.
        parts: what a regression predicts.
    """

    distribution: Distribution
    params: PyTree
    obs: PyTree
    args: tuple[Any, ...]
    parts: tuple[Array, ...]

    def log_density(self, y: Array, wanted: Any) -> Float[Array, ""]:
        """The log-density of a response."""
        model = self.distribution.model
        if model.regression is None:
            return jnp.asarray(model(self.params, self.distribution.place(self.obs, y), *self.args))
        return model.regression.family.bind(self.obs).log_density(*self._numbers(y, wanted))

    def log_cdf(self, y: Array, wanted: Any) -> Float[Array, ""]:
        """The logarithm of the distribution function."""
        return self._companion("log_cdf", y, wanted)

    def log_survival(self, y: Array, wanted: Any) -> Float[Array, ""]:
        """The logarithm of the survival function."""
        return self._companion("log_survival", y, wanted)

    def interval(self, lower: Array | None, upper: Array | None, wanted: Any = True) -> Interval:
        """What is known of an interval of responses.

        Args:
            lower: where it begins, which may be minus infinity; `None` if it always is.
            upper: where it ends, itself included; infinity if `None`.
            wanted: whether it is wanted; if not, its probability is one.

        Returns:
            An interval. A bound that nothing lies beyond is none, as the derivatives of a logarithm are not finite
            there.
        """
        low = jnp.asarray(-jnp.inf) if lower is None else lower
        high = jnp.asarray(jnp.inf) if upper is None else upper
        above, below = jnp.isfinite(low), jnp.isfinite(high)
        known, start = jnp.where(below, high, HALF), jnp.asarray(-jnp.inf)
        if lower is not None:
            start = self.log_cdf(jnp.where(above, low, known), False)
            above &= start != -jnp.inf
        known = jnp.where(above, low, known)
        known_above, empty = jnp.where(below, high, known), jnp.asarray(False)
        if upper is not None and self._may_end_above():
            empty = self.log_survival(known_above, False) == -jnp.inf
            below &= ~empty
        above, below = above & wanted, below & wanted
        # An observed response may have nothing above it: in its place one that lies nearly everywhere.
        known_above = jnp.where(empty, jnp.where(above, low, HALF), known_above)
        side = Tail(self._from_above(lower, upper, above & (~below | (start > -math.log(2)))), known, known_above)

        def end(bound: Array | None, there: Array, otherwise: float) -> Array:
            return jnp.asarray(
                otherwise if bound is None else jnp.where(there, self.beyond(side, bound, there), otherwise)
            )

        near = end(side.choose(upper, lower), side.choose(below, above), -jnp.inf)
        return Interval(low, high, side, near, end(side.choose(lower, upper), side.choose(above, below), 0.0))

    def beyond(self, side: Tail, y: Array, wanted: Array) -> Float[Array, ""]:
        """The logarithm of the chance of what lies between that end of the distribution and a response."""
        if isinstance(side.upper, bool):
            ask, known = (self.log_survival, side.high) if side.upper else (self.log_cdf, side.low)
            return ask(jnp.where(wanted, y, known), wanted)
        upper, lower = wanted & side.upper, wanted & ~side.upper
        return jnp.where(
            side.upper,
            self.log_survival(jnp.where(upper, y, side.high), upper),
            self.log_cdf(jnp.where(lower, y, side.low), lower),
        )

    def _from_above(self, lower: Array | None, upper: Array | None, upper_half: Array) -> bool | Array:
        """Whether to measure from above: known before tracing if one function serves every interval."""
        model = self.distribution.model
        if lower is None or isinstance(model.log_survival, Complement):
            return False
        return True if upper is None or isinstance(model.log_cdf, Complement) else upper_half

    def _may_end_above(self) -> bool:
        """Whether the upper tail may become zero to the computer, and its logarithm lose its derivative there."""
        survival = self.distribution.model.log_survival
        return self._family_of("log_survival") is None and not isinstance(survival, Complement)

    def _family_of(self, name: str) -> Family | None:
        """The family whose companion this is; another function may stand in for it."""
        model = self.distribution.model
        own = getattr(getattr(model, name), "__func__", None) is getattr(Regression, name)
        return model.regression.family.bind(self.obs) if model.regression is not None and own else None

    def _companion(self, name: str, y: Array, wanted: Any) -> Array:
        family = self._family_of(name)
        if family is not None:
            return getattr(family, name)(*self._numbers(y, wanted))
        companion = getattr(self.distribution.model, name)
        return jnp.asarray(companion(self.params, self.distribution.place(self.obs, y), *self.args))

    def _numbers(self, y: Array, wanted: Any) -> tuple[Array, ...]:
        """The response and the predictions, which do not move where nothing is wanted."""
        return tuple(jnp.where(wanted, number, jax.lax.stop_gradient(number)) for number in (y, *self.parts))


def guarded(model: Model, name: str, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> Float[Array, ""]:
    """The log-density or a companion at an observation, without derivative where the response is not possible."""
    if model.regression is None:
        value = jnp.asarray(getattr(model, name)(params, obs, *args))
        return jnp.where(value == -jnp.inf, -jnp.inf, value)
    y, support = model.regression.response_of(obs), model.regression.family.support
    at = Distribution(model, model.regression.response).at(params, obs, args)
    return getattr(at, name)(y, support._replace(whole=False).holds(y))


def distribution(log_density: Any, response: Response, who: str) -> Distribution:
    """The distribution of a model, after all that can be known before tracing was checked."""
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
    """Where the model itself says that its response lies, if it does."""
    density = model.log_density
    return density.response if isinstance(density, Regression | Density) else None


def with_companions(density: Density, models: Iterable[Model]) -> Model:
    """A model of a density that has the companions which all the models have that it is made of."""
    names, models = ("simulate", "log_cdf", "log_survival"), list(models)
    return Model(density, *(getattr(density, n) if all(getattr(m, n) for m in models) else None for n in names))


def _itself(obs: Any) -> Any:
    return obs
