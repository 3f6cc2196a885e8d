"""Counts, or sums, with more zeros than a model allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...core.dtypes import common_dtype, promoted
from ..model import Model
from .checks import independent, of_params, scalar
from .distribution import HALF, Distribution, Response, distribution, guarded, with_companions
from .weighted_sum import Weighted

NAME = "the chance of zero_inflated"


class ZeroInflated(Weighted):
    """The log-density of a response that is zero with a chance of its own, and otherwise follows a model."""

    distribution: Distribution
    chance: str | Callable[..., Any]
    whole: bool | None

    @property
    def response(self) -> Response:
        """The response of the distribution."""
        return self.distribution.response

    @property
    def atoms(self) -> bool | Callable[[Any], Any]:
        """Zero, and the atoms of the model: of counts all responses."""
        known = self.distribution.model.atoms
        return True if known is True or (known is None and self.whole) else self._is_atom

    def _is_atom(self, obs: PyTree) -> Array:
        return (self.distribution.response_of(obs) == 0) | self._is_atom_of_model(obs)

    def _is_atom_of_model(self, obs: PyTree) -> Any:
        """True if zero has a probability in the model, too, and no density."""
        known = self.distribution.model.atoms
        if known is not None:
            return known(obs) if callable(known) else known
        if self.whole is not None:
            return self.whole
        if not jnp.issubdtype(self.distribution.response_of(obs).dtype, jnp.inexact):
            return True
        raise ValueError(
            "zero_inflated: a log-density of floating-point numbers does not say whether zero has a probability "
            "in it or a density: pass whole=True for counts, whole=False for responses that may be any number"
        )

    def simulate(self, key: PRNGKeyArray, params: PyTree, obs: PyTree, *args: Any) -> PyTree:
        """The observation with its response drawn anew."""
        zero_key, key = jax.random.split(key)
        simulate = self.distribution.model.simulate
        assert simulate is not None
        drawn = simulate(key, params, obs, *args)
        y = self.distribution.response_of(drawn)
        chance = self._chance(params, obs, args)
        zero = jax.random.bernoulli(zero_key, chance)
        return self.distribution.with_response(drawn, jnp.where(zero, jnp.zeros_like(y), y))

    def _terms(self, name: str, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> tuple[Array, Array]:
        # Two terms: a point mass at zero, and the model.
        y, chance = self.distribution.response_of(obs), self._chance(params, obs, args)
        includes_zero = {"log_density": y == 0, "log_cdf": y >= 0, "log_survival": ~(y >= 0)}[name]
        is_atom = self._is_atom_of_model(obs) if name == "log_density" else True
        if is_atom is True:
            rest = guarded(self.distribution.model, name, params, obs, args)
        else:
            zero_alone = (y == 0) & ~jnp.asarray(is_atom)  # zero has a density in the model, and no probability
            conditional = self.distribution.conditional(params, obs, args)
            density = conditional.log_density(promoted(jnp.where, zero_alone, HALF, y), ~zero_alone)
            rest = jnp.where(zero_alone, -jnp.inf, density)
        logs = jnp.stack([jnp.where(includes_zero, 0.0, -jnp.inf), rest])
        return jnp.stack([chance, 1 - chance]).astype(common_dtype(chance, logs)), logs

    def _chance(self, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> Float[Array, ""]:
        return scalar(of_params(self.chance, params, obs, args, NAME), NAME)


def zero_inflated(
    log_density: Any,
    chance: str | Callable[..., Any] = "chance",
    *,
    response: Response = None,
    whole: bool | None = None,
) -> Model:
    r"""A model of a response that is zero with a chance $\pi$ of its own, otherwise what another model says.

    $$\log\,[\pi\, 1\{y = 0\} + (1 - \pi)\, p(y)]$$

    Of a count, whose $p(0)$ is a probability, zeros come from both. If the response may be any number, zero has no
    probability in the model, and all zeros come from $\pi$, as in sums that are often nothing: then the second
    term is left out where $y = 0$. Where counts above zero are to be modelled by themselves, a hurdle, truncate
    them: `mle.zero_inflated(mle.truncated(counts, lower=0))`.

    Args:
        log_density: `log_density(params, obs)`, or `log_density(params, obs, args)`; a `mle.Model` or a
            `mle.regression`. It gets all of `params`.
        chance: $\pi$, from 0 to 1: a key of `params`, or `chance(params, obs)` (with args
            `chance(params, obs, args)`), which predicts it.
        response: where the response lies: the name of a column of `obs`, or a function of `obs` that picks a leaf.
            Left out, it is that of the `mle.regression`, otherwise the column `y`, or `obs` itself if that is a
            number.
        whole: whether the response is a whole number, such as a count. The family of a `mle.regression` says so
            itself, and so do integers; other log-densities of floating-point numbers want it.

    Returns:
        A `mle.Model` with the companions that the model has. It is NaN where the chance is none.

    Raises:
        ValueError: a joint model, or a response other than that of the regression; while tracing, no such key, or
            nothing that says whether the response is a whole number.
        TypeError: `chance` is neither a key nor a function.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> counts = mle.regression(lambda params, obs: params["rate"], mle.families.poisson)
        >>> data = {"y": jnp.array([0, 0, 0, 0, 0, 2, 1, 3, 2, 4])}
        >>> rules = {"chance": mle.unit_interval, "rate": mle.positive}
        >>> fit = mle.fit(mle.zero_inflated(counts), {"chance": 0.5, "rate": 1.0}, data, constraints=rules)
        >>> mean = (1 - fit.params["chance"]) * fit.params["rate"]
        >>> print(f"{fit.params['chance']:.4f}, {mean:.4f} = {data['y'].mean():.4f}")
        0.4309, 1.2000 = 1.2000
    """
    if not (isinstance(chance, str) or callable(chance)):
        raise TypeError(
            f"zero_inflated: chance must be a key of params, or a function chance(params, obs); got {chance!r}"
        )
    model = independent(log_density, "zero_inflated")
    if isinstance(model.atoms, bool) and whole not in (None, model.atoms):
        kind = "whole numbers" if model.atoms else "any number"
        raise ValueError(f"zero_inflated: got whole={whole}, and the responses of this model are {kind}")
    density = ZeroInflated(distribution(model, response, "zero_inflated"), chance, whole)
    return with_companions(density, [model])
