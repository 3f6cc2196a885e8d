"""The base class of noise families, and the ranges of their parameters and responses."""

from __future__ import annotations

import abc
import functools
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray

from ...core.dtypes import as_float, common_dtype
from .numerics import log_rest


class Range(NamedTuple):
    """The numbers between two ends, the ends included if `closed`, and whole ones alone if `whole`."""

    low: float
    high: float
    closed: bool = False
    whole: bool = False

    def holds(self, x: Array) -> Bool[Array, "..."]:
        """True for finite numbers in the range."""
        x = as_float(x)
        inside = (self.low <= x) & (x <= self.high) if self.closed else (self.low < x) & (x < self.high)
        return inside & jnp.isfinite(x) & (jnp.floor(x) == x if self.whole else True)


REAL = Range(-np.inf, np.inf)
POSITIVE = Range(0.0, np.inf)
NONNEGATIVE = Range(0.0, np.inf, closed=True)
SHARE = Range(0.0, 1.0)
YES_OR_NO = Range(0.0, 1.0, closed=True, whole=True)
COUNT = Range(0.0, np.inf, closed=True, whole=True)


class Family(eqx.Module):
    r"""The distribution of one response given its parameters; the base of every noise family.

    A subclass names its `parameters`, where they and the response may lie, and writes four formulas,
    `_log_density(y, *parameters)`, `_information(*parameters)`, `_sample(key, *parameters)` and
    `_log_cdf(y, *parameters)`; a fifth, `_log_survival(y, *parameters)`, is optional and keeps the digits of the
    upper tail. These get floating-point numbers of one dtype and need not care what lies outside: here such a
    response has log-density $-\infty$, and a parameter outside its domain makes all NaN, never a plausible number.

    Example:
        The methods take the response first, then the parameters in their order:

        >>> import jax, mlekit as mle
        >>> poisson = mle.families.poisson
        >>> print(poisson.parameters, f"{poisson.log_density(2, 3.0):.4f} {poisson.log_cdf(2, 3.0):.4f}")
        ('rate',) -1.4959 -0.8599
        >>> print(poisson.information(4.0), poisson.sample(jax.random.key(0), 3.0) >= 0)
        [[0.25]] True
    """

    parameters: ClassVar[tuple[str, ...]]
    domains: ClassVar[tuple[Range, ...]]
    support: ClassVar[Range]
    cheap_information: ClassVar[bool] = True  #: true if the information is cheap enough for the steps of a solver

    @property
    def name(self) -> str:
        """The name of the family: `mle.families.<name>`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def bind(self, obs: Any) -> Family:
        """The family of one observation: itself, unless it has a known number to look up in `obs`.

        Args:
            obs: one observation.

        Returns:
            A family with nothing left to look up.
        """
        return self

    def log_density(self, y: ArrayLike, *parameters: ArrayLike) -> Float[Array, "..."]:
        """The log-density of one response.

        Args:
            y: the response.
            parameters: numbers in the order of `parameters`.

        Returns:
            In nats; minus infinity outside the support, NaN where a parameter lies outside its domain.
        """
        y, *p = self._floats(parameters, y)
        value = jnp.where(self.support.holds(y) | jnp.isnan(y), self._log_density(y, *p), -jnp.inf)
        return jnp.where(self._valid(p), value, jnp.nan)

    def information(self, *parameters: ArrayLike) -> Float[Array, "m m"]:
        r"""The expected information of one observation about its parameters, exact.

        $$I_{ij} = E\left[\frac{\partial \log p}{\partial \eta_i} \frac{\partial \log p}{\partial \eta_j}\right]$$

        Args:
            parameters: numbers in the order of `parameters`.

        Returns:
            A matrix of shape `(m, m)` over the `m` parameters.
        """
        p = self._floats(parameters)
        return jnp.where(self._valid(p), jnp.array(self._information(*p), p[0].dtype), jnp.nan)

    def sample(self, key: PRNGKeyArray, *parameters: ArrayLike) -> Float[Array, "..."]:
        """One response, drawn at random.

        Args:
            key: random key, such as `jax.random.key(0)`.
            parameters: numbers in the order of `parameters`.

        Returns:
            The draw; counts come as floating-point numbers, too.
        """
        p = self._floats(parameters)
        valid = self._valid(p)
        # One half lies in every domain: a rejection sampler might never end outside of it.
        return jnp.where(valid, self._sample(key, *(jnp.where(valid, q, 0.5) for q in p)), jnp.nan)

    def log_cdf(self, y: ArrayLike, *parameters: ArrayLike) -> Float[Array, "..."]:
        """The logarithm of the distribution function, the chance of a response of at most `y`.

        Args:
            y: the response.
            parameters: numbers in the order of `parameters`.

        Returns:
            In nats; NaN where a parameter lies outside its domain.
        """
        return self._tail(self._log_cdf, -jnp.inf, 0.0, y, parameters)

    def log_survival(self, y: ArrayLike, *parameters: ArrayLike) -> Float[Array, "..."]:
        """The logarithm of the survival function, the chance of a response above `y`.

        That is the logarithm of one less the distribution function, with its digits where little is left. Where
        it comes from an incomplete gamma or beta function (`gamma`, `beta` and the counts) it ends,
        as `log_cdf` does, where the probability is below the smallest number.

        Args:
            y: the response.
            parameters: numbers in the order of `parameters`.

        Returns:
            In nats; NaN where a parameter lies outside its domain.
        """
        return self._tail(self._log_survival, 0.0, -jnp.inf, y, parameters)

    def _tail(
        self, formula: Callable[..., Array], below: float, above: float, y: ArrayLike, parameters: tuple[Any, ...]
    ) -> Array:
        """A formula inside the support, its limits below and above."""
        y, *p = self._floats(parameters, y)
        y = jnp.floor(y) if self.support.whole else y
        under = y < self.support.low if self.support.closed else y <= self.support.low
        value = jnp.where(under, below, jnp.where(y >= self.support.high, above, formula(y, *p)))
        return jnp.where(self._valid(p), value, jnp.nan)

    def _floats(self, parameters: tuple[ArrayLike, ...], *y: ArrayLike) -> list[Array]:
        """The response, if any, and the parameters in one floating dtype."""
        if len(parameters) != len(self.parameters):
            raise TypeError(f"mle.families.{self.name} takes {listed(self.parameters)}; it got {len(parameters)}")
        dtype = common_dtype(*y, *parameters, 0.0)
        return [jnp.asarray(number, dtype) for number in (*y, *parameters)]

    def _valid(self, parameters: list[Array]) -> Bool[Array, "..."]:
        return functools.reduce(operator.and_, (d.holds(p) for d, p in zip(self.domains, parameters)))

    @abc.abstractmethod
    def _log_density(self, *args: Any, **kwargs: Any) -> Array: ...

    @abc.abstractmethod
    def _information(self, *args: Any, **kwargs: Any) -> Any: ...

    @abc.abstractmethod
    def _sample(self, *args: Any, **kwargs: Any) -> Array: ...

    @abc.abstractmethod
    def _log_cdf(self, *args: Any, **kwargs: Any) -> Array: ...

    def _log_survival(self, *args: Any, **kwargs: Any) -> Array:
        return log_rest(self._log_cdf(*args, **kwargs))


def column(obs: Any, which: Any, argument: str) -> Any:
    """A number of one observation: by the name of its column, or by a function of `obs`."""
    if callable(which):
        return which(obs)
    if not isinstance(obs, Mapping):
        raise ValueError(
            f"{argument}={which!r} is the name of a column, and obs is no dict of columns but a "
            f"{type(obs).__name__}: pass a function such as {argument}=lambda obs: obs[0]"
        )
    if which not in obs:
        raise ValueError(f"{argument}={which!r} is not a column of obs, which has {sorted(map(str, obs))}")
    return obs[which]


def with_column(obs: Any, which: Any, value: Any, argument: str) -> Any:
    """The observation with another number in that place."""
    if not callable(which):
        if not isinstance(obs, Mapping):
            column(obs, which, argument)  # raises an error
        return {**obs, which: value}
    try:
        return eqx.tree_at(which, obs, value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{argument} must pick a leaf of obs as it is, for another to take its place, and {which!r} does not: "
            "pass the data as a dict or tuple of columns"
        ) from error


def listed(names: tuple[str, ...]) -> str:
    """Names in words: `mean and scale, 2 numbers`."""
    if len(names) == 1:
        return f"{names[0]}, 1 number"
    return f"{', '.join(names[:-1])} and {names[-1]}, {len(names)} numbers"
