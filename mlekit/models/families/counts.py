"""Noise families of counts, and of successes among trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, gammainc, gammaincc
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from ...core.special import betaln
from .base import COUNT, NONNEGATIVE, REAL, YES_OR_NO, Family, column
from .numerics import LOG_TAU, deviance, log_probability, stirling


class Poisson(Family):
    r"""The Poisson distribution of a count; parameter `rate`, its mean.

    $$\log p = y \log\mu - \mu - \log y!, \qquad I = 1/\mu$$

    SciPy: `poisson(rate)`; numpyro: `Poisson(rate)`.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.poisson.log_density(0, 2.5):.4f}")
        -2.5000
    """

    parameters = ("rate",)
    domains = (NONNEGATIVE,)
    support = COUNT

    def _log_density(self, y: Array, rate: Array) -> Array:
        none = y == 0
        some, mean = jnp.where(none, 1, y), jnp.where(none, 1, rate)  # a rate of zero must not reach the quotients
        half_deviance = some * deviance((mean - some) / some, mean / some)
        return jnp.where(none, -rate, -0.5 * (LOG_TAU + jnp.log(some)) - stirling(some) - half_deviance)

    def _information(self, rate: Array) -> Any:
        return ((1 / rate,),)

    def _sample(self, key: PRNGKeyArray, rate: Array) -> Array:
        return jax.random.poisson(key, rate).astype(rate.dtype)

    def _log_cdf(self, y: Array, rate: Array) -> Array:
        return log_probability(gammaincc(y + 1, rate))

    def _log_survival(self, y: Array, rate: Array) -> Array:
        return log_probability(gammainc(y + 1, rate))


class Bernoulli(Family):
    r"""A yes or a no (1 or 0, true or false); parameter `logit`, the log-odds of a yes.

    $$\log p = y \eta - \log(1 + e^\eta), \qquad I = \pi (1 - \pi), \quad \pi = \frac{1}{1 + e^{-\eta}}$$

    SciPy: `bernoulli(expit(logit))`; numpyro: `Bernoulli(logits=logit)`.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.bernoulli.log_density(True, 0.0):.4f}")
        -0.6931
    """

    parameters = ("logit",)
    domains = (REAL,)
    support = YES_OR_NO

    def _log_density(self, y: Array, logit: Array) -> Array:
        return -jax.nn.softplus((1 - 2 * y) * logit)

    def _information(self, logit: Array) -> Any:
        return ((jax.nn.sigmoid(logit) * jax.nn.sigmoid(-logit),),)

    def _sample(self, key: PRNGKeyArray, logit: Array) -> Array:
        return (jax.random.logistic(key, (), logit.dtype) < logit).astype(logit.dtype)

    def _log_cdf(self, y: Array, logit: Array) -> Array:
        return -jax.nn.softplus(logit)

    def _log_survival(self, y: Array, logit: Array) -> Array:
        return -jax.nn.softplus(-logit)


class Binomial(Family):
    r"""The number of successes among trials; parameter `logit`, the log-odds of a success.

    $$\log p = \log\binom{n}{y} + y \eta - n \log(1 + e^\eta), \qquad I = n \pi (1 - \pi), \quad
        \pi = \frac{1}{1 + e^{-\eta}}$$

    SciPy: `binom(trials, expit(logit))`; numpyro: `Binomial(trials, logits=logit)`.

    Args:
        trials: number of trials $n$, known: the name of a column of `obs`, a function of `obs`, or a number.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.binomial(trials=4).log_density(2, 0.0):.4f}")  # 6/16
        -0.9808
        >>> print(mle.families.binomial(trials="n").bind({"y": 2, "n": 4}))
        Binomial(trials=4)
    """

    trials: str | Callable[[Any], Any] | ArrayLike

    parameters = ("logit",)
    domains = (REAL,)
    support = COUNT

    def bind(self, obs: Any) -> Binomial:
        """The family of one observation, with its number of trials.

        Args:
            obs: one observation.

        Returns:
            A binomial family that knows its number of trials.
        """
        known = isinstance(self.trials, str) or callable(self.trials)
        return Binomial(column(obs, self.trials, "trials")) if known else self

    def _n(self, like: Array) -> Array:
        if isinstance(self.trials, str) or callable(self.trials):
            raise TypeError(
                f"the number of trials is to be looked up with {self.trials!r}: family.bind(obs) is the family "
                "of one observation"
            )
        trials = jnp.asarray(self.trials, like.dtype)
        return jnp.where(COUNT.holds(trials), trials, jnp.nan)

    def _log_density(self, y: Array, logit: Array) -> Array:
        n = self._n(logit)
        some = jnp.where(y > n, 0, y)
        ways = -jnp.log1p(n) - betaln(n - some + 1, some + 1)
        value = ways - some * jax.nn.softplus(-logit) - (n - some) * jax.nn.softplus(logit)
        return jnp.where(y > n, -jnp.inf, value)

    def _information(self, logit: Array) -> Any:
        return ((self._n(logit) * jax.nn.sigmoid(logit) * jax.nn.sigmoid(-logit),),)

    def _sample(self, key: PRNGKeyArray, logit: Array) -> Array:
        return jax.random.binomial(key, self._n(logit), jax.nn.sigmoid(logit), (), logit.dtype)

    def _log_cdf(self, y: Array, logit: Array) -> Array:
        n = self._n(logit)
        some = jnp.where(y < n, y, 0)
        return jnp.where(y >= n, 0, log_probability(betainc(n - some, some + 1, jax.nn.sigmoid(-logit))))

    def _log_survival(self, y: Array, logit: Array) -> Array:
        n = self._n(logit)
        some = jnp.where(y < n, y, 0)
        return jnp.where(y >= n, -jnp.inf, log_probability(betainc(some + 1, n - some, jax.nn.sigmoid(logit))))


poisson = Poisson()
bernoulli = Bernoulli()
binomial = Binomial
