"""Noise families of positive numbers: durations, sizes, sums of money; and of shares between 0 and 1.

The support is open: a response of zero has log-density minus infinity, except under `exponential`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, gammainc, gammaincc
from jaxtyping import Array, PRNGKeyArray

from ...core.special import log_ndtr
from ...core.special.normal import inverse_mills_ratio
from .base import NONNEGATIVE, POSITIVE, REAL, SHARE, Family
from .numerics import LOG_TAU, deviance, log1mexp, log_probability, stirling, trigamma_excess


class LogNormal(Family):
    r"""A number whose logarithm is normal; parameters `mean_of_log` and `scale`, both of that logarithm.

    $$\log p = -\log(y \sigma\sqrt{2\pi}) - \frac{(\log y - \mu)^2}{2\sigma^2}, \qquad
        I = \begin{pmatrix} 1/\sigma^2 & 0 \\ 0 & 2/\sigma^2 \end{pmatrix}$$

    SciPy: `lognorm(scale, scale=exp(mean_of_log))`; numpyro: `LogNormal(mean_of_log, scale)`.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.log_normal.log_density(1.0, 0.0, 1.0):.4f}")
        -0.9189
    """

    parameters = ("mean_of_log", "scale")
    domains = (REAL, POSITIVE)
    support = POSITIVE

    def _log_density(self, y: Array, mean_of_log: Array, scale: Array) -> Array:
        z = (jnp.log(y) - mean_of_log) / scale
        return -0.5 * z**2 - jnp.log(scale) - jnp.log(y) - 0.5 * LOG_TAU

    def _information(self, mean_of_log: Array, scale: Array) -> Any:
        return (1 / scale**2, 0), (0, 2 / scale**2)

    def _sample(self, key: PRNGKeyArray, mean_of_log: Array, scale: Array) -> Array:
        return jnp.exp(mean_of_log + scale * jax.random.normal(key, (), scale.dtype))

    def _log_cdf(self, y: Array, mean_of_log: Array, scale: Array) -> Array:
        return log_ndtr((jnp.log(y) - mean_of_log) / scale)

    def _log_survival(self, y: Array, mean_of_log: Array, scale: Array) -> Array:
        return log_ndtr((mean_of_log - jnp.log(y)) / scale)


class Exponential(Family):
    r"""The exponential distribution; parameter `mean`.

    $$\log p = -\log\mu - \frac{y}{\mu}, \qquad I = 1/\mu^2$$

    SciPy: `expon(scale=mean)`; numpyro: `Exponential(1 / mean)`.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.exponential.log_density(3.0, 2.0):.4f}")
        -2.1931
    """

    parameters = ("mean",)
    domains = (POSITIVE,)
    support = NONNEGATIVE

    def _log_density(self, y: Array, mean: Array) -> Array:
        return -jnp.log(mean) - y / mean

    def _information(self, mean: Array) -> Any:
        return ((1 / mean**2,),)

    def _sample(self, key: PRNGKeyArray, mean: Array) -> Array:
        return mean * jax.random.exponential(key, (), mean.dtype)

    def _log_cdf(self, y: Array, mean: Array) -> Array:
        return log1mexp(y / mean)

    def _log_survival(self, y: Array, mean: Array) -> Array:
        return -y / mean


class Gamma(Family):
    r"""The gamma distribution; parameters `mean` and `shape`; its variance is $\mu^2/k$.

    $$\log p = k \log\frac{k y}{\mu} - \frac{k y}{\mu} - \log y - \log\Gamma(k), \qquad
        I = \begin{pmatrix} k/\mu^2 & 0 \\ 0 & \psi'(k) - 1/k \end{pmatrix}$$

    SciPy: `gamma(shape, scale=mean / shape)`; numpyro: `Gamma(shape, shape / mean)`.

    `log_cdf` has a first derivative with respect to `shape`, but no second.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.gamma.log_density(3.0, 2.0, 1.0):.4f}")  # exponential
        -2.1931
    """

    parameters = ("mean", "shape")
    domains = (POSITIVE, POSITIVE)
    support = POSITIVE

    def _log_density(self, y: Array, mean: Array, shape: Array) -> Array:
        best = 0.5 * (jnp.log(shape) - LOG_TAU) - stirling(shape) - jnp.log(y)
        return best - shape * deviance((y - mean) / mean, y / mean)

    def _information(self, mean: Array, shape: Array) -> Any:
        return (shape / mean**2, 0), (0, trigamma_excess(shape))

    def _sample(self, key: PRNGKeyArray, mean: Array, shape: Array) -> Array:
        # The logarithm, as small shapes make numbers below the smallest float.
        return jnp.exp(jax.random.loggamma(key, shape, (), shape.dtype) + jnp.log(mean) - jnp.log(shape))

    def _log_cdf(self, y: Array, mean: Array, shape: Array) -> Array:
        return log_probability(gammainc(shape, shape * (y / mean)))

    def _log_survival(self, y: Array, mean: Array, shape: Array) -> Array:
        return log_probability(gammaincc(shape, shape * (y / mean)))


class Weibull(Family):
    r"""The Weibull distribution; parameters `scale`, the 63rd percentile, and `shape`.

    $$\log p = \log k - \log y + k z - e^{k z}, \qquad z = \log\frac{y}{\lambda}$$

    $$I = \begin{pmatrix} k^2/\lambda^2 & (\gamma - 1)/\lambda \\
        (\gamma - 1)/\lambda & (\pi^2/6 + (1 - \gamma)^2)/k^2 \end{pmatrix}, \qquad
        \gamma = 0.5772\ldots \text{ (Euler)}$$

    SciPy: `weibull_min(shape, scale=scale)`; numpyro: `Weibull(scale, shape)`.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.weibull.log_density(3.0, 2.0, 1.0):.4f}")  # exponential
        -2.1931
    """

    parameters = ("scale", "shape")
    domains = (POSITIVE, POSITIVE)
    support = POSITIVE

    def _log_density(self, y: Array, scale: Array, shape: Array) -> Array:
        z = shape * (jnp.log(y) - jnp.log(scale))
        return jnp.log(shape) - jnp.log(y) + z - jnp.exp(z)

    def _information(self, scale: Array, shape: Array) -> Any:
        mixed = (np.euler_gamma - 1) / scale
        last = (math.pi**2 / 6 + (1 - np.euler_gamma) ** 2) / shape**2
        return ((shape / scale) ** 2, mixed), (mixed, last)

    def _sample(self, key: PRNGKeyArray, scale: Array, shape: Array) -> Array:
        return scale * jax.random.exponential(key, (), scale.dtype) ** (1 / shape)

    def _log_cdf(self, y: Array, scale: Array, shape: Array) -> Array:
        z = shape * (jnp.log(y) - jnp.log(scale))
        small = z < math.log(jnp.finfo(z.dtype).eps)  # where the probability is e^z, which may be too small
        return jnp.where(small, z, log1mexp(jnp.exp(jnp.where(small, 0, z))))

    def _log_survival(self, y: Array, scale: Array, shape: Array) -> Array:
        return -jnp.exp(shape * (jnp.log(y) - jnp.log(scale)))


class InverseGaussian(Family):
    r"""The inverse Gaussian distribution; parameters `mean` and `shape`; its variance is $\mu^3/\lambda$.

    $$\log p = \frac12 \log\frac{\lambda}{2\pi y^3} - \frac{\lambda (y - \mu)^2}{2 \mu^2 y}, \qquad
        I = \begin{pmatrix} \lambda/\mu^3 & 0 \\ 0 & \frac{1}{2\lambda^2} \end{pmatrix}$$

    SciPy: `invgauss(mean / shape, scale=shape)`; numpyro: none.

    Source of the draws: Michael, Schucany and Haas, *Generating random variates using transformations with
    multiple roots*, 1976.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.inverse_gaussian.log_density(1.0, 1.0, 1.0):.4f}")
        -0.9189
    """

    parameters = ("mean", "shape")
    domains = (POSITIVE, POSITIVE)
    support = POSITIVE

    def _log_density(self, y: Array, mean: Array, shape: Array) -> Array:
        z = (y - mean) / mean
        return 0.5 * (jnp.log(shape) - LOG_TAU - 3 * jnp.log(y)) - 0.5 * (shape / y) * z**2

    def _information(self, mean: Array, shape: Array) -> Any:
        return (shape / mean**3, 0), (0, 0.5 / shape**2)

    def _sample(self, key: PRNGKeyArray, mean: Array, shape: Array) -> Array:
        normal_key, root_key = jax.random.split(key)
        w = (0.5 * mean / shape) * jax.random.normal(normal_key, (), mean.dtype) ** 2
        small = 1 / (1 + w + jnp.sqrt(w * (2 + w)))  # of two roots whose product is 1, without cancellation
        first = jax.random.uniform(root_key, (), mean.dtype) * (1 + small) < 1
        return mean * jnp.where(first, small, 1 / small)

    # With φ and h of `special.normal`, at u = √(λ/y) (y - μ) / μ and v = √(λ/y) (y + μ) / μ, the distribution
    # function is Φ(u) + φ(u) / h(-v), which leaves over φ(u) (1 / h(-u) - 1 / h(-v)).

    def _log_cdf(self, y: Array, mean: Array, shape: Array) -> Array:
        _, u, v = self._places(y, mean, shape)
        return jnp.logaddexp(log_ndtr(u), -0.5 * (u * u + LOG_TAU) - jnp.log(inverse_mills_ratio(-v)[0]))

    def _log_survival(self, y: Array, mean: Array, shape: Array) -> Array:
        root, u, v = self._places(y, mean, shape)
        beyond = u > 0
        (h_u, g_u), (h_v, g_v) = inverse_mills_ratio(-jnp.where(beyond, u, 0)), inverse_mills_ratio(-v)
        more = 2 * root + g_v - g_u  # not from v - u, which would cancel
        gap = jnp.where(beyond, jnp.log1p(more / h_u), log_ndtr(-u) + 0.5 * (u * u + LOG_TAU))
        return log_ndtr(-u) + log1mexp(gap + jnp.where(beyond, 0, jnp.log(h_v)))

    def _places(self, y: Array, mean: Array, shape: Array) -> tuple[Array, Array, Array]:
        root = jnp.sqrt(shape / y)
        return root, root * ((y - mean) / mean), root * ((y + mean) / mean)


class Beta(Family):
    r"""The beta distribution of a share; parameters `mean` and `precision`; variance $\mu(1-\mu)/(1+\phi)$.

    With $a = \mu\phi$ and $b = (1 - \mu)\phi$,

    $$\log p = (a - 1) \log y + (b - 1) \log(1 - y) - \log B(a, b)$$

    $$I_{\mu\mu} = \phi^2 (\psi'(a) + \psi'(b)), \quad I_{\mu\phi} = a \psi'(a) - b \psi'(b), \quad
        I_{\phi\phi} = \mu^2 \psi'(a) + (1 - \mu)^2 \psi'(b) - \psi'(\phi)$$

    SciPy: `beta(mean * precision, (1 - mean) * precision)`; numpyro: `BetaProportion(mean, precision)`.

    `log_cdf` has no derivative with respect to the parameters.

    Source: Ferrari and Cribari-Neto, *Beta regression for modelling rates and proportions*, 2004.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.beta.log_density(0.5, 0.5, 4.0):.4f}")  # 3/2
        0.4055
    """

    parameters = ("mean", "precision")
    domains = (SHARE, POSITIVE)
    support = SHARE

    def _log_density(self, y: Array, mean: Array, precision: Array) -> Array:
        rest, a, b = 1 - mean, mean * precision, (1 - mean) * precision
        d = y - mean
        divergence = mean * deviance(d / mean, y / mean) + rest * deviance(-d / rest, (1 - y) / rest)
        best = stirling(precision) - stirling(a) - stirling(b)
        best += 0.5 * (jnp.log(a) + jnp.log(rest) - LOG_TAU) - jnp.log(y) - jnp.log1p(-y)
        return best - precision * divergence

    def _information(self, mean: Array, precision: Array) -> Any:
        rest = 1 - mean
        # Each trigamma less the reciprocal of its argument: those meet exactly.
        a, b = trigamma_excess(mean * precision), trigamma_excess(rest * precision)
        mixed = precision * (mean * a - rest * b)
        last = mean**2 * a + rest**2 * b - trigamma_excess(precision)
        return (precision**2 * (a + b) + precision / (mean * rest), mixed), (mixed, last)

    def _sample(self, key: PRNGKeyArray, mean: Array, precision: Array) -> Array:
        return jax.random.beta(key, mean * precision, (1 - mean) * precision, (), mean.dtype)

    def _log_cdf(self, y: Array, mean: Array, precision: Array) -> Array:
        return log_probability(betainc(mean * precision, (1 - mean) * precision, y))

    def _log_survival(self, y: Array, mean: Array, precision: Array) -> Array:
        return log_probability(betainc((1 - mean) * precision, mean * precision, 1 - y))


log_normal = LogNormal()
exponential = Exponential()
gamma = Gamma()
weibull = Weibull()
inverse_gaussian = InverseGaussian()
beta = Beta()
