"""What densities made of another share: where its response lies, and that density at other responses."""

from __future__ import annotations

import abc
import dataclasses
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..families.base import column, with_column
from ..model import Model, as_model
from ..regression import Regression

Response = str | Callable[[Any], Any] | None
Bound = str | Callable[[Any], Any] | ArrayLike | None

HALF = 0.5  #: lies in the support of nearly every distribution


class Density(eqx.Module):
    """A log-density, a callable `(params, obs)`, that says where the response lies."""

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
        model = self.distribution.model
        assert model.log_cdf is not None
        # Another function may stand in for that of the family.
        if model.regression is None or getattr(model.log_cdf, "__func__", None) is not Regression.log_cdf:
            return jnp.asarray(model.log_cdf(self.params, self.distribution.place(self.obs, y), *self.args))
        return model.regression.family.given(self.obs).log_cdf(*self._numbers(y, wanted))

    def ends(
        self, lower: Array | None, upper: Array | None, wanted: Any = True
    ) -> tuple[Float[Array, ""], Float[Array, ""], Array]:
        """Logarithms of the distribution function at two bounds, and a response between them.

        Args:
            lower: the lower bound, which may be infinite; `None` if there never is one.
            upper: the upper bound.
            wanted: whether they are wanted.

        Returns:
            Minus infinity at a lower bound, and zero at an upper one, that is infinite or not wanted. A bound that
            nothing lies below is none, as the derivatives of a logarithm are not finite there. Where the bounds
            are one number, this is the response between them.
        """
        low = jnp.asarray(-jnp.inf) if lower is None else lower
        high = jnp.asarray(jnp.inf) if upper is None else upper
        above, below = jnp.isfinite(low), jnp.isfinite(high)
        one = jnp.where(below, high, HALF)
        if lower is not None:
            above &= self.log_cdf(jnp.where(above, low, one), False) != -jnp.inf
        between = jnp.where(above & below, 0.5 * low + 0.5 * high, jnp.where(above, low, one))
        above, below = above & wanted, below & wanted
        bottom, top = jnp.asarray(-jnp.inf), jnp.asarray(0.0)
        if lower is not None:
            bottom = jnp.where(above, self.log_cdf(jnp.where(above, low, between), above), bottom)
        if upper is not None:
            top = jnp.where(below, self.log_cdf(jnp.where(below, high, between), below), top)
        return bottom, top, between

    def _numbers(self, y: Array, wanted: Any) -> tuple[Array, ...]:
        """The response and the predictions, which do not move where nothing is wanted."""
        return tuple(jnp.where(wanted, number, jax.lax.stop_gradient(number)) for number in (y, *self.parts))


def guarded(model: Model, name: str, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> Float[Array, ""]:
    """The `log_density` or `log_cdf` of an observation, without derivative where the response is not possible."""
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


def with_log_cdf(log_density: Any, log_cdf: Callable[..., Any] | None, who: str) -> Model:
    """The model with its distribution function, or another one in its place.

    Raises:
        ValueError: there is none.
    """
    model = independent(log_density, who)
    if log_cdf is not None:
        return dataclasses.replace(model, log_cdf=log_cdf)
    if model.log_cdf is None:
        raise ValueError(
            f"{who} wants the distribution function, and this model has no log_cdf: pass log_cdf(params, obs), "
            "write mle.Model(log_density, log_cdf=log_cdf), or use mle.regression"
        )
    return model


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
