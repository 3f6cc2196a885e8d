"""Noise families on the whole real line, each with a location and a scale in the units of the response."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ...core.special import log_ndtr, student_t_log_cdf, trigamma
from ...core.special.base import horner
from .base import POSITIVE, REAL, Family
from .numerics import LOG_TAU, log1p_ratio, log1p_remainder, stirling

#: Of the series of (ψ'(ν/2) - ψ'((ν+1)/2)) / 4 in 1/ν, from the fifth power on in steps of two.
ALTERNATING = (-1 / 2, 3 / 2, -17 / 2, 155 / 2, -2073 / 2, 38227 / 2, -929569 / 2, 28820619 / 2, -1109652905 / 2)


class Symmetric(Family):
    """A family whose first parameter is a center of symmetry."""

    def _log_survival(self, y: Array, location: Array, *others: Array) -> Array:
        return self._log_cdf(-y, -location, *others)


class Normal(Symmetric):
    r"""The normal distribution; parameters `mean` and `scale`, its standard deviation.

    $$\log p = -\log(\sigma\sqrt{2\pi}) - \frac{(y - \mu)^2}{2\sigma^2}, \qquad
        I = \begin{pmatrix} 1/\sigma^2 & 0 \\ 0 & 2/\sigma^2 \end{pmatrix}$$

    SciPy: `norm(mean, scale)`; numpyro: `Normal(mean, scale)`.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.normal.log_density(1.0, 1.0, 0.5):.4f}")
        -0.2258
    """

    parameters = ("mean", "scale")
    domains = (REAL, POSITIVE)
    support = REAL

    def _log_density(self, y: Array, mean: Array, scale: Array) -> Array:
        return -0.5 * ((y - mean) / scale) ** 2 - jnp.log(scale) - 0.5 * LOG_TAU

    def _information(self, mean: Array, scale: Array) -> Any:
        return (1 / scale**2, 0), (0, 2 / scale**2)

    def _sample(self, key: PRNGKeyArray, mean: Array, scale: Array) -> Array:
        return mean + scale * jax.random.normal(key, (), scale.dtype)

    def _log_cdf(self, y: Array, mean: Array, scale: Array) -> Array:
        return log_ndtr((y - mean) / scale)


class Laplace(Symmetric):
    r"""The Laplace distribution; parameters `location`, its median, and `scale`, the mean distance from there.

    $$\log p = -\log 2 b - \frac{|y - m|}{b}, \qquad I = \begin{pmatrix} 1/b^2 & 0 \\ 0 & 1/b^2 \end{pmatrix}$$

    SciPy: `laplace(location, scale)`; numpyro: `Laplace(location, scale)`.

    The log-density has a kink at the response: its second derivative with respect to `location` is zero almost
    everywhere and says nothing of the information, so Newton's method is of no use there; scoring is.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.laplace.log_density(3.0, 1.0, 2.0):.4f}")
        -2.3863
    """

    parameters = ("location", "scale")
    domains = (REAL, POSITIVE)
    support = REAL

    def _log_density(self, y: Array, location: Array, scale: Array) -> Array:
        return -jnp.abs((y - location) / scale) - jnp.log(2 * scale)

    def _information(self, location: Array, scale: Array) -> Any:
        return (1 / scale**2, 0), (0, 1 / scale**2)

    def _sample(self, key: PRNGKeyArray, location: Array, scale: Array) -> Array:
        return location + scale * jax.random.laplace(key, (), scale.dtype)

    def _log_cdf(self, y: Array, location: Array, scale: Array) -> Array:
        z = (y - location) / scale
        upper = jnp.log1p(-0.5 * jnp.exp(-jnp.where(z > 0, z, 0)))
        return jnp.where(z > 0, upper, jnp.where(z > 0, 0, z) - math.log(2))


class StudentT(Symmetric):
    r"""Student's t; parameters `location`, `scale` and `degrees_of_freedom`, which need not be whole.

    $$\log p = \log\frac{\Gamma(\frac{\nu+1}{2})}{\Gamma(\frac{\nu}{2})\sqrt{\pi\nu}\,\sigma}
        - \frac{\nu+1}{2} \log\left(1 + \frac{z^2}{\nu}\right), \qquad z = \frac{y - \mu}{\sigma}$$

    $$I_{\mu\mu} = \frac{\nu+1}{(\nu+3)\sigma^2}, \quad I_{\sigma\sigma} = \frac{2\nu}{(\nu+3)\sigma^2}, \quad
        I_{\sigma\nu} = \frac{-2}{(\nu+1)(\nu+3)\sigma}, \quad I_{\mu\sigma} = I_{\mu\nu} = 0,$$

    $$I_{\nu\nu} = \tfrac14 \psi'(\tfrac\nu2) - \tfrac14 \psi'(\tfrac{\nu+1}{2})
        - \frac{\nu+5}{2\nu(\nu+1)(\nu+3)}$$

    SciPy: `t(degrees_of_freedom, location, scale)`; numpyro: `StudentT(degrees_of_freedom, location, scale)`.

    Source: Lange, Little and Taylor, *Robust statistical modeling using the t distribution*, 1989.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.student_t.log_density(0.0, 0.0, 1.0, 1.0):.4f}")  # Cauchy: 1/π
        -1.1447
    """

    parameters = ("location", "scale", "degrees_of_freedom")
    domains = (REAL, POSITIVE, POSITIVE)
    support = REAL

    def _log_density(self, y: Array, location: Array, scale: Array, degrees_of_freedom: Array) -> Array:
        # In q, which vanishes where the normal is reached.
        q, square = 1 / degrees_of_freedom, ((y - location) / scale) ** 2
        half = degrees_of_freedom / 2
        constant = stirling(half + 0.5) - stirling(half) - 0.5 * q * log1p_remainder(q) - 0.5 * LOG_TAU
        return constant - jnp.log(scale) - 0.5 * (1 + q) * square * log1p_ratio(q * square)

    def _information(self, location: Array, scale: Array, degrees_of_freedom: Array) -> Any:
        nu, q = degrees_of_freedom, 1 / degrees_of_freedom
        mixed = -2 / ((nu + 1) * (nu + 3) * scale)
        # The trigamma functions less q²/2 + q³/2: their own series; those two terms meet the fraction exactly.
        far = nu > 20
        near = jnp.where(far, 20, nu)
        rest = (trigamma(near / 2) - trigamma((near + 1) / 2)) / 4 - (1 / near**2 + 1 / near**3) / 2
        series = q**5 * horner(ALTERNATING, q * q)
        last = q**4 * (7 + 3 * q) / (2 * (1 + q) * (1 + 3 * q)) + jnp.where(far, series, rest)
        return (
            ((nu + 1) / ((nu + 3) * scale**2), 0, 0),
            (0, 2 * nu / ((nu + 3) * scale**2), mixed),
            (0, mixed, last),
        )

    def _sample(self, key: PRNGKeyArray, location: Array, scale: Array, degrees_of_freedom: Array) -> Array:
        return location + scale * jax.random.t(key, degrees_of_freedom, (), scale.dtype)

    def _log_cdf(self, y: Array, location: Array, scale: Array, degrees_of_freedom: Array) -> Array:
        return student_t_log_cdf((y - location) / scale, degrees_of_freedom)


class Logistic(Symmetric):
    r"""The logistic distribution; parameters `location`, its mean, and `scale`, $\sqrt3/\pi$ standard deviations.

    $$\log p = -z - 2 \log(1 + e^{-z}) - \log s, \quad z = \frac{y - m}{s}, \qquad
        I = \begin{pmatrix} \frac{1}{3 s^2} & 0 \\ 0 & \frac{3 + \pi^2}{9 s^2} \end{pmatrix}$$

    SciPy: `logistic(location, scale)`; numpyro: `Logistic(location, scale)`.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.logistic.log_density(0.0, 0.0, 1.0):.4f}")  # 1/4
        -1.3863
    """

    parameters = ("location", "scale")
    domains = (REAL, POSITIVE)
    support = REAL

    def _log_density(self, y: Array, location: Array, scale: Array) -> Array:
        z = (y - location) / scale
        return -jax.nn.softplus(z) - jax.nn.softplus(-z) - jnp.log(scale)

    def _information(self, location: Array, scale: Array) -> Any:
        return (1 / (3 * scale**2), 0), (0, (3 + math.pi**2) / (9 * scale**2))

    def _sample(self, key: PRNGKeyArray, location: Array, scale: Array) -> Array:
        return location + scale * jax.random.logistic(key, (), scale.dtype)

    def _log_cdf(self, y: Array, location: Array, scale: Array) -> Array:
        return -jax.nn.softplus((location - y) / scale)


normal = Normal()
laplace = Laplace()
student_t = StudentT()
logistic = Logistic()
