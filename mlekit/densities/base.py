"""What densities made of another share: where its response lies, and that density at other responses."""

from __future__ import annotations

import abc
import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..families.base import column, with_column
from ..model import Complement, Model, as_model
from ..regression import Regression
from .logarithms import log_between

Response = str | Callable[[Any], Any] | None
Bound = str | Callable[[Any], Any] | ArrayLike | None

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
    def jumps(self) -> bool | Callable[[Any], Any] | None:
        """Whether the distribution function jumps at a response, as in `Model.jumps`."""


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

    def at(self, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> At:
        """The distribution given parameters and the rest of one observation."""
        regression = self.model.regression
        parts = () if regression is None else tuple(regression.named_predictions(params, obs, *args).values())
        return At(self, params, obs, args, parts)

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


class Interval(NamedTuple):
    """An interval of responses and its probability, measured from the end of the distribution that is nearer.

    Args:
        lower: where it begins, itself excluded.
        upper: where it ends, itself included.
        known: a response at which the distribution is there: a bound, if there is one.
        from_above: whether it is measured from above, by the survival function.
        outside: the logarithm of the chance from that end to the interval.
        inside: that of the chance from that end to the other bound.
    """

    lower: Array
    upper: Array
    known: Array
    from_above: bool | Array
    outside: Array
    inside: Array

    @property
    def mass(self) -> Array:
        """The logarithm of its probability."""
        return log_between(self.outside, self.inside)

    def choose(self, from_above: Any, from_below: Any) -> Any:
        """What holds from the end from which it is measured."""
        if isinstance(self.from_above, bool):
            return from_above if self.from_above else from_below
        return jnp.where(self.from_above, from_above, from_below)


@dataclasses.dataclass
class At:
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
        return model.regression.family.given(self.obs).log_density(*self._numbers(y, wanted))

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
            wanted: whether it is wanted; if not, it is all there is.

        Returns:
            An interval. A bound that nothing lies below is none, as the derivatives of a logarithm are not finite
            there.
        """
        low = jnp.asarray(-jnp.inf) if lower is None else lower
        high = jnp.asarray(jnp.inf) if upper is None else upper
        above, below = jnp.isfinite(low), jnp.isfinite(high)
        known, upper_half = jnp.where(below, high, HALF), jnp.asarray(False)
        if lower is not None:
            start = self.log_cdf(jnp.where(above, low, known), False)
            above &= start != -jnp.inf
            known, upper_half = jnp.where(above, low, known), above & (~below | (start > -math.log(2)))
        above, below = above & wanted, below & wanted
        from_above = self._from_above(lower, upper, upper_half)
        whole = Interval(low, high, known, from_above, jnp.asarray(-jnp.inf), jnp.asarray(0.0))

        def end(bound: Array | None, there: Array, otherwise: float) -> Array:
            return jnp.asarray(
                otherwise if bound is None else jnp.where(there, self.beyond(whole, bound, there), otherwise)
            )

        return whole._replace(
            outside=end(whole.choose(upper, lower), whole.choose(below, above), -jnp.inf),
            inside=end(whole.choose(lower, upper), whole.choose(above, below), 0.0),
        )

    def beyond(self, interval: Interval, y: Array, wanted: Array) -> Float[Array, ""]:
        """The logarithm of the chance from an end of the distribution to a response in the interval.

        From that end from which the interval is measured.
        """
        y = jnp.where(wanted, y, interval.known)
        if interval.from_above is False:
            return self.log_cdf(y, wanted)
        # No logarithm of a tail that may be empty, unless it is wanted.
        upper = self.log_survival(interval.choose(y, interval.known), interval.from_above & wanted)
        return upper if interval.from_above is True else interval.choose(upper, self.log_cdf(y, wanted))

    def _from_above(self, lower: Array | None, upper: Array | None, upper_half: Array) -> bool | Array:
        """Whether to measure from above: known before tracing if one function serves every interval."""
        model = self.distribution.model
        if lower is None or isinstance(model.log_survival, Complement):
            return False
        return True if upper is None or isinstance(model.log_cdf, Complement) else upper_half

    def _companion(self, name: str, y: Array, wanted: Any) -> Array:
        model = self.distribution.model
        companion = getattr(model, name)
        # Another function may stand in for that of the family.
        if model.regression is None or getattr(companion, "__func__", None) is not getattr(Regression, name):
            return jnp.asarray(companion(self.params, self.distribution.place(self.obs, y), *self.args))
        return getattr(model.regression.family.given(self.obs), name)(*self._numbers(y, wanted))

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


def independent(log_density: Any, who: str) -> Model:
    """The model of one observation."""
    model = as_model(log_density)
    if model.is_joint:
        raise ValueError(f"{who} wants the log-density of ONE observation; a joint model has none")
    return model


def own_response(model: Model) -> Response:
    """Where the model itself says that its response lies, if it does."""
    density = model.log_density
    return density.response if isinstance(density, Regression | Density) else None


def with_log_cdf(
    log_density: Any, log_cdf: Callable[..., Any] | None, log_survival: Callable[..., Any] | None, who: str
) -> Model:
    """The model with its distribution function, or another one in its place.

    Raises:
        ValueError: there is none.
    """
    model = independent(log_density, who)
    if log_cdf is not None or log_survival is not None:
        return Model(model.log_density, model.simulate, log_cdf, log_survival)
    if model.log_cdf is None:
        raise ValueError(
            f"{who} wants the distribution function, and this model has no log_cdf: pass log_cdf(params, obs) or "
            "log_survival(params, obs), write mle.Model(log_density, log_cdf=log_cdf), or use mle.regression"
        )
    return model


def with_companions(density: Density, models: Iterable[Model]) -> Model:
    """A model of a density that has the companions which all the models have that it is made of."""
    names, models = ("simulate", "log_cdf", "log_survival"), list(models)
    return Model(density, *(getattr(density, n) if all(getattr(m, n) for m in models) else None for n in names))


def check_bounds(lower: Bound, upper: Bound, who: str) -> None:
    """A complaint unless there is a bound, and each is one of the things that a bound may be."""
    if lower is None and upper is None:
        raise ValueError(f"{who} wants lower, upper or both")
    for name, bound in (("lower", lower), ("upper", upper)):
        number = isinstance(bound, numbers.Real) or (isinstance(bound, np.ndarray | jax.Array) and bound.ndim == 0)
        if not (bound is None or isinstance(bound, str) or callable(bound) or number):
            raise TypeError(
                f"{who}: {name} must be the name of a column of obs, a function of obs, or a number; got {bound!r}"
            )


def bound_of(obs: PyTree, bound: Bound, name: str) -> Array:
    """A bound of one observation."""
    return scalar(column(obs, bound, name) if isinstance(bound, str) or callable(bound) else bound, name)


def of_params(which: Any, params: PyTree, obs: PyTree, args: tuple[Any, ...], name: str) -> Any:
    """Something predicted by a function, or looked up in `params`."""
    if callable(which):
        return which(params, obs, *args)
    if not (isinstance(params, Mapping) and which in params):
        has = f"which has {sorted(map(str, params))}" if isinstance(params, Mapping) else "which is no dict"
        raise ValueError(f"{name}: there is no {which!r} in params, {has}")
    return params[which]


def scalar(value: Any, name: str) -> Array:
    """A number as an array."""
    value = jnp.asarray(value)
    if value.shape:
        raise ValueError(f"{name} must be one number an observation; it has shape {value.shape}")
    return value


def _itself(obs: Any) -> Any:
    return obs
