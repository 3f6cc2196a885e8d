"""Densities that are sums of others, each with its weight."""

from __future__ import annotations

import abc
from typing import Any

from jaxtyping import Array, Float, PyTree

from .distribution import Density
from .log_probability import from_either_side, log_mixture


class Weighted(Density):
    """The log-density of a weighted sum of distributions; a subclass gives its terms."""

    @abc.abstractmethod
    def _terms(self, name: str, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> tuple[Array, Array]:
        """The weights, and the logarithms of `log_density`, `log_cdf` or `log_survival` of every term."""

    def __call__(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The log-density of one observation."""
        return self._sum("log_density", params, obs, args)

    def log_cdf(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The logarithm of the distribution function at the response."""
        return from_either_side(*(self._sum(name, params, obs, args) for name in ("log_cdf", "log_survival")))

    def log_survival(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, ""]:
        """The logarithm of the survival function at the response."""
        return from_either_side(*(self._sum(name, params, obs, args) for name in ("log_survival", "log_cdf")))

    def _sum(self, name: str, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> Array:
        return log_mixture(*self._terms(name, params, obs, args))
