"""The negative binomial family, from the Poisson, its limit, to the widest."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, gammainc, gammaincc
from jaxtyping import Array, Float, PRNGKeyArray

from ...core.special import gammaln_difference
from ...core.special.base import horner
from .base import COUNT, NONNEGATIVE, Family
from .numerics import LARGE, LOG_TAU, STIRLING, deviance, log1p_ratio, log1p_remainder, log_probability, stirling

NODES = 80  #: of the quadrature in `_dispersion_information`
WIDEST = 1e12  #: of `spread` for which `NODES` are enough


class NegativeBinomial(Family):
    r"""A count with parameters `mean` and `dispersion`, whose variance is $\mu + \alpha\mu^2$ (NB2).

    $$\log p = \sum_{j<y} \log(1 + \alpha j) + y \log\mu - \left(y + \frac1\alpha\right) \log(1 + \alpha\mu)
        - \log y!$$

    $$I = \begin{pmatrix} \frac{1}{\mu + \alpha\mu^2} & 0 \\ 0 & I_{\alpha\alpha} \end{pmatrix}, \qquad
        I_{\alpha\alpha} = \frac{1}{\alpha^4} E \sum_{j<Y} \frac{1}{(1/\alpha + j)^2}
        - \frac{\mu}{\alpha^2 (1 + \alpha\mu)}$$

    SciPy: `nbinom(1 / dispersion, 1 / (1 + dispersion * mean))`;
    numpyro: `NegativeBinomial2(mean, 1 / dispersion)`.

    At dispersion 0 it is the Poisson, with all derivatives. $I_{\alpha\alpha}$ is NaN where
    $\alpha (1 + \alpha) \mu > 10^{12}$; its relative error stays below 2e-9 there, and below 2e-13 up to $10^5$.
    `log_cdf` has no derivative with respect to `dispersion`.

    Source: Lawless, *Negative binomial and mixed Poisson regression*, 1987.

    Example:
        >>> import mlekit as mle
        >>> print(f"{mle.families.negative_binomial.log_density(0, 1.0, 1.0):.4f}")  # 1/2
        -0.6931
    """

    parameters = ("mean", "dispersion")
    domains = (NONNEGATIVE, NONNEGATIVE)
    cheap_information = False
    support = COUNT

    def _log_density(self, y: Array, mean: Array, dispersion: Array) -> Array:
        return _log_density(y, mean, dispersion)

    def _information(self, mean: Array, dispersion: Array) -> Any:
        return (1 / (mean * (1 + dispersion * mean)), 0), (0, _dispersion_information(mean, dispersion))

    def _sample(self, key: PRNGKeyArray, mean: Array, dispersion: Array) -> Array:
        first, second = jax.random.split(key)
        shape = 1 / jnp.maximum(dispersion, 1e-15)  # a Poisson to rounding
        log_rate = jax.random.loggamma(first, shape, (), shape.dtype) - jnp.log(shape)
        return jax.random.poisson(second, mean * jnp.exp(log_rate)).astype(mean.dtype)

    def _log_cdf(self, y: Array, mean: Array, dispersion: Array) -> Array:
        close, size, change = self._from_poisson(y, mean, dispersion)
        near, odds = gammaincc(y + 1, mean) - change, dispersion * mean
        return log_probability(jnp.where(close, jnp.maximum(near, 0), betainc(size, y + 1, 1 / (1 + odds))))

    def _log_survival(self, y: Array, mean: Array, dispersion: Array) -> Array:
        close, size, change = self._from_poisson(y, mean, dispersion)
        near, odds = gammainc(y + 1, mean) + change, dispersion * mean
        return log_probability(jnp.where(close, jnp.maximum(near, 0), betainc(y + 1, size, odds / (1 + odds))))

    def _from_poisson(self, y: Array, mean: Array, dispersion: Array) -> tuple[Array, Array, Array]:
        """The Poisson limit, for where betainc runs out of digits.

        True there; the first argument of betainc elsewhere; and the change of the Poisson's distribution function,
        to the second power of the dispersion.
        """
        close = (dispersion * mean) ** 3 * dispersion < 8 * jnp.finfo(mean.dtype).eps
        d, a = y - mean, jnp.where(close, dispersion, 0)
        bracket = d / 2 + a * ((d**2 - y) / 3 + (d**3 - 3 * d * y + 2 * y) / 8)
        change = jnp.exp(_log_density(y, mean, jnp.zeros_like(mean))) * a * mean * bracket
        return close, 1 / jnp.where(close, 1, dispersion), change


@jax.custom_jvp
def _log_density(y: Array, mean: Array, dispersion: Array) -> Array:
    a, some = dispersion, jnp.where(y == 0, 1, y)
    up, down = 1 + a * some, 1 + a * mean
    d = (some - mean) / down
    half_deviance = some * deviance(-d / some, (mean / some) * (up / down)) + d * (
        a * d * log1p_remainder(a * d, up / down)
    )
    # In powers of the dispersion where it is small, as its reciprocal is large without bound.
    near = a < 1 / LARGE
    b, size = jnp.where(near, a, 0), 1 / jnp.where(near, 1, a)
    inner, outer = b / up, stirling(size + some) - stirling(size)
    series = inner * horner(STIRLING, inner**2) - b * horner(STIRLING, b**2)
    best = jnp.where(near, series, outer) - stirling(some) - 0.5 * (LOG_TAU + jnp.log(some * up))
    return jnp.where(y == 0, -mean * log1p_ratio(a * mean), best - half_deviance)


@_log_density.defjvp
def _log_density_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    y, mean, a = primals
    none = y == 0
    about_mean = jnp.where(none, -1, (y - mean) / jnp.where(none, 1, mean)) / (1 + a * mean)
    return _log_density(*primals), about_mean * tangents[1] + _score(*primals) * tangents[2]


def _score(y: Array, mean: Array, dispersion: Array) -> Array:
    """The derivative of the log-density with respect to the dispersion."""
    near, down = dispersion < 1 / LARGE, 1 + dispersion * mean
    a = jnp.where(near, dispersion, 0)
    up = 1 + a * y
    terms = [c * (2 * k + 1) for k, c in enumerate(STIRLING)]
    inner = horner(terms, (a / up) ** 2) / up**2 - horner(terms, a**2)
    inner += y**2 * log1p_remainder(a * y, up) - 0.5 * y / up
    size = 1 / jnp.where(near, 1, dispersion)
    _, change = jax.jvp(lambda s: gammaln_difference(s, y), (size,), (jnp.ones_like(size),))
    rise = jnp.where(near, inner, size * (y - size * change))  # Σ j / (1 + α j) over j < y
    return rise - mean**2 * log1p_remainder(dispersion * mean, down) - mean * (y - mean) / down


def _dispersion_information(mean: Float[Array, ""], dispersion: Float[Array, ""]) -> Float[Array, ""]:
    r"""The expected information of a negative binomial about its dispersion $\alpha$.

    With $r = 1/\alpha$ and the generating function $M(u) = E e^{-uY} = (1 + \alpha\mu(1 - e^{-u}))^{-r}$,

    $$I = r^4 \left[E \sum_{j<Y} \frac{1}{(r + j)^2} - \frac{\mu}{r (r + \mu)}\right]
        = r^4 \int_0^\infty e^{-ru} \left[\frac{u (1 - M(u))}{1 - e^{-u}} - 1 + e^{-\mu u}\right] du,$$

    for $1/s^2 = \int u e^{-su} du$ turns sums over counts into one smooth integral, whatever the mean.
    With $u = \alpha\tau$ and the powers of $\alpha$ divided out, nothing cancels as $\alpha \to 0$; there it is
    $\mu^2/2$.
    """
    a, mu = dispersion, mean
    # Double exponential quadrature in log τ, from where the generating function begins to fall. Node by node, as
    # the terms of all of them for many observations would take much memory.
    spread = a * mu * (1 + a)
    start = -jnp.log1p(spread)
    step = (math.log(40.0) - (start - 3)) / (NODES - 1)

    def add_node(node: Array, total: Array) -> Array:
        y = start - 3 + step * node
        tail = jnp.exp(start - y)
        t = jnp.exp(y - tail)
        u = a * t
        tiny = u < 0.5
        # (1 - e^-u) / α
        v = jnp.where(tiny, t * (1 - u * _expm1_remainder(u)), -jnp.expm1(-u) / jnp.where(tiny, 1, a))
        d = t * t * _expm1_remainder(u)  # (u - α v) / α²
        curve, flat = log1p_remainder(a * a * mu * v), log1p_ratio(a * a * mu * v)
        fall = mu * v * flat
        m = a * fall  # M = e^-m
        mgf = jnp.exp(-m)
        g = mu * d + curve * a * (mu * v) ** 2  # e^-µu = M e^-α²g
        # The integrand over α³, in two forms. The first leaves out the common part of its terms as α → 0,
        convex = jnp.where(
            m < 0.5, mgf * _expm1_remainder(-m), (1 - mgf * (1 + m)) / jnp.where(m < 0.5, 1, m) ** 2
        )
        first = mu * d * (flat * fall * convex - mgf * curve * a * mu * v)
        near = first - mgf * curve * (mu * v) ** 2 + a * mgf * _expm1_remainder(a * a * g) * g**2
        # the second their common part as it grows.
        large = (a * a * g > 0.5) & (a > 1e-3)
        b = jnp.where(large, a, 1)
        far = (-jnp.expm1(-m) * d / v + mgf * jnp.expm1(-a * a * g) / b) / b**2
        return total + (1 + tail) * t * jnp.exp(-t) * jnp.where(large, far, near)

    total = step * jax.lax.fori_loop(0, NODES, add_node, jnp.zeros_like(a))
    return jnp.where(spread < WIDEST, total, jnp.nan)


def _expm1_remainder(x: Array) -> Array:
    r"""$(e^{-x} - 1 + x) / x^2$, for $x \ge -1/2$, which tends to 1/2 as $x \to 0$."""
    small = x < 0.5
    t, far = jnp.where(small, x, 0), jnp.where(small, 1, x)
    series = horner(((-1) ** k / math.factorial(k + 2) for k in range(15)), t)
    return jnp.where(small, series, (jnp.expm1(-far) / far + 1) / far)


negative_binomial = NegativeBinomial()
