"""The log-density of a response whose distribution is a noise family with predicted parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core.dtypes import common_dtype
from .families import Family, as_family
from .families.base import column, listed, with_column


class Regression(eqx.Module):
    r"""The log-density of a regression, a callable `(params, obs)` that keeps its parts.

    $$\log p(y \mid \eta), \quad \eta = \text{predict}(\theta, x), \qquad
        \nabla = J^\top \frac{\partial \log p}{\partial \eta}, \quad I = J^\top I(\eta) J, \quad
        J = \frac{\partial \eta}{\partial \theta}$$

    `mle.regression` makes a `mle.Model` of it and documents the arguments.
    """

    predict: Callable[..., Any]
    family: Family
    response: str | Callable[[Any], Any] = "y"

    def __check_init__(self) -> None:
        if not callable(self.predict):
            raise TypeError(
                f"predict must be a function predict(params, obs) of one observation, got {self.predict!r}"
            )
        as_family(self.family)
        if not (isinstance(self.response, str) or callable(self.response)):
            raise TypeError(
                "response must be the name of a column of obs, or a function of obs such as lambda obs: obs[0]; "
                f"got {self.response!r}"
            )

    @property
    def atoms(self) -> bool:
        """True if responses are whole numbers: see `Model.atoms`."""
        return self.family.support.whole

    def __call__(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The log-density of one observation."""
        # Unstacked, so that XLA hoists what does not depend on the observation.
        return self.from_predictions(self._parts(params, obs, *args), obs)

    def predictions(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, " m"]:
        """The parameters of the family for one observation, as a vector in the order of `family.parameters`."""
        return jnp.stack(self._parts(params, obs, *args))

    def named_predictions(self, params: PyTree, obs: PyTree, *args: Any) -> dict[str, Float[Array, ""]]:
        """The parameters of the family for one observation, by their names."""
        return dict(zip(self.family.parameters, self._parts(params, obs, *args)))

    def from_predictions(self, predictions: Iterable[Array], obs: PyTree) -> Float[Array, ""]:
        """The log-density of one observation, given what `predictions` returned for it."""
        return self.family.bind(obs).log_density(self.response_of(obs), *predictions)

    def information(self, predictions: Float[Array, " m"], obs: PyTree) -> Float[Array, "m m"]:
        """The expected information of one observation about the parameters of its family."""
        return self.family.bind(obs).information(*predictions)

    def response_of(self, obs: PyTree) -> Array:
        """The response of one observation, in the dtype it has in the data."""
        y = jnp.asarray(column(obs, self.response, "response"))
        if y.shape:
            raise ValueError(
                f"the response must be one number an observation; response={self.response!r} has shape {y.shape}"
            )
        return y

    def simulate(self, key: PRNGKeyArray, params: PyTree, obs: PyTree, *args: Any) -> PyTree:
        """The observation with its response drawn anew: in the dtype it had, unless that cannot hold it."""
        y, family = self.response_of(obs), self.family.bind(obs)
        draw = family.sample(key, *self._parts(params, obs, *args))
        if jnp.issubdtype(y.dtype, jnp.inexact) or family.support.whole:
            # No integer is NaN: let it be one outside every support.
            integer = not jnp.issubdtype(y.dtype, jnp.inexact)
            draw = (jnp.nan_to_num(draw, nan=-1) if integer else draw).astype(y.dtype)
        return with_column(obs, self.response, draw, "response")

    def log_cdf(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The logarithm of the distribution function at the response."""
        return self.family.bind(obs).log_cdf(self.response_of(obs), *self._parts(params, obs, *args))

    def log_survival(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The logarithm of the survival function at the response."""
        return self.family.bind(obs).log_survival(self.response_of(obs), *self._parts(params, obs, *args))

    def _parts(self, params: PyTree, obs: PyTree, *args: Any) -> list[Array]:
        out = self.predict(params, obs, *args)
        whole = isinstance(out, jax.Array) and out.ndim == 1
        parts = list(out) if isinstance(out, tuple | list) or whole else [out]
        wanted = f"predict must return {listed(self.family.parameters)}, for mle.families.{self.family.name}"
        try:
            parts = [jnp.asarray(part) for part in parts]
        except (TypeError, ValueError) as error:
            raise TypeError(f"{wanted}; it returned {out!r}") from error
        if len(parts) != len(self.family.parameters) or any(part.ndim for part in parts):
            shapes = ", ".join(str(part.shape) for part in parts)
            got = (
                f"{len(parts)} numbers of shapes {shapes}"
                if isinstance(out, tuple | list)
                else f"shape {jnp.shape(out)}"
            )
            raise ValueError(f"{wanted}; it returned {got}")
        dtype = common_dtype(*parts, 0.0)
        return [part.astype(dtype) for part in parts]
