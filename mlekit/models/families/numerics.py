"""Formulas that the families share, each without the cancellation of its textbook form.

Large log-gammas that nearly cancel are never formed: a log-density is that at the mean which fits the response
best, by remainders of Stirling's formula, less half a deviance (Loader, *Fast and accurate computation of binomial
probabilities*, 2000). Derivatives are written out, as those of differences computed in several ways would be slow.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...core.special import digamma, gammaln, polygamma
from ...core.special.base import horner

LOG_TAU = math.log(2 * math.pi)
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)
LARGE = 8  #: from here on these terms are exact to rounding
POINTS, WEIGHTS = ((c / 2).tolist() for c in np.polynomial.legendre.leggauss(8) + np.array([[1.0], [0.0]]))


def log1p_remainder(x: Array, ratio: Array | None = None) -> Array:
    r"""$\kappa(x) = (x - \log(1 + x)) / x^2$, with $\kappa(0) = 1/2$: the scaled remainder of $\log(1 + x)$.

    Args:
        x: more than -1, any shape.
        ratio: `1 + x`, from a formula that keeps its digits where `x` is near -1.
    """
    return _log1p_remainder(0, x, 1 + x if ratio is None else ratio)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log1p_remainder(n: int, x: Array, ratio: Array) -> Array:
    """The `n`-th derivative of `log1p_remainder`."""
    small = jnp.abs(x) < 0.3
    t, far, ratio = jnp.where(small, x, 0), jnp.where(small, 1, x), jnp.where(small, 1, ratio)
    # κ is the integral of t / (1 + xt) from 0 to 1: Gauss's formula; farther out, Leibniz's rule for x²κ.
    near = sum(w * (p / (1 + p * t)) ** (n + 1) for p, w in zip(POINTS, WEIGHTS))
    value, before = (1 - jnp.log(ratio) / far) / far, jnp.zeros_like(x)
    for i in range(1, n + 1):
        whole = 1 - 1 / ratio if i == 1 else (-1) ** i * math.factorial(i - 1) / ratio**i
        value, before = (whole - 2 * i * far * value - i * (i - 1) * before) / far**2, value
    return jnp.where(small, (-1) ** n * math.factorial(n) * near, value)


@_log1p_remainder.defjvp
def _log1p_remainder_jvp(
    n: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    return _log1p_remainder(n, *primals), _log1p_remainder(n + 1, *primals) * tangents[0]


@jax.custom_jvp
def deviance(x: Array, ratio: Array) -> Array:
    r"""$x - \log(1 + x) \ge 0$; arguments as for `log1p_remainder`."""
    return x * (x * log1p_remainder(x, ratio))  # in this order nothing overflows


@deviance.defjvp
def _deviance_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, ratio = primals
    # By way of the ratio, whose relative change is exact where it is tiny.
    return deviance(x, ratio), x * (tangents[1] / ratio)


@jax.custom_jvp
def log1p_ratio(x: Array) -> Array:
    r"""$\log(1 + x) / x$ for $x \ge 0$, which tends to 1 as $x \to 0$."""
    small = x < 0.3
    far = jnp.where(small, 1, x)
    return jnp.where(small, 1 - x * log1p_remainder(x), jnp.log1p(far) / far)


@log1p_ratio.defjvp
def _log1p_ratio_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), value = primals, log1p_ratio(*primals)
    small = x < 0.3
    change = jnp.where(small, log1p_remainder(x) - 1 / (1 + x), (1 / (1 + x) - value) / jnp.where(small, 1, x))
    return value, change * tangents[0]


def stirling(x: Array) -> Array:
    r"""The remainder of Stirling's formula, $\log\Gamma(x) - (x - \frac12) \log x + x - \frac12 \log 2\pi$."""
    return _stirling(0, x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _stirling(n: int, x: Array) -> Array:
    """The `n`-th derivative of `stirling`."""
    far = x > LARGE
    q, z = 1 / jnp.where(far, x, LARGE), jnp.where(far, 1, x)
    terms = (c * (-1) ** n * math.prod(range(2 * k + 1, 2 * k + 1 + n)) for k, c in enumerate(STIRLING))
    if n == 0:
        near = gammaln(z) - (z - 0.5) * jnp.log(z) + z - 0.5 * LOG_TAU
    elif n == 1:
        near = digamma(z) - jnp.log(z) + 0.5 / z
    else:
        powers = math.factorial(n - 2) / z ** (n - 1) + math.factorial(n - 1) / (2 * z**n)
        near = polygamma(n - 1, z) - (-1) ** n * powers
    return jnp.where(far, q ** (n + 1) * horner(terms, q * q), near)


@_stirling.defjvp
def _stirling_jvp(n: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _stirling(n, *primals), _stirling(n + 1, *primals) * tangents[0]


def trigamma_excess(x: Array) -> Array:
    r"""$\psi'(x) - 1/x$, for $x > 0$."""
    return 0.5 / x**2 + _stirling(2, x)


@jax.custom_jvp
def log1mexp(x: Array) -> Array:
    r"""$\log(1 - e^{-x})$ for $x \ge 0$: the logarithm of one less a probability $e^{-x}$.

    In a tail the square of a probability is zero to the computer: derivatives, to every order, are products in an
    order in which nothing overflows or vanishes on the way.
    """
    near = x < 0.7
    small, large = jnp.where(near, x, 1), jnp.where(near, 1, x)
    return jnp.where(near, jnp.log(-jnp.expm1(-small)), jnp.log1p(-jnp.exp(-large)))


@log1mexp.defjvp
def _log1mexp_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return log1mexp(*primals), _odds(*primals) * tangents[0]


@jax.custom_jvp
def _odds(x: Array) -> Array:
    r"""$e^{-x} / (1 - e^{-x})$."""
    return 1 / jnp.expm1(x)


@_odds.defjvp
def _odds_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    odds = _odds(*primals)
    return odds, -(odds * ((1 + odds) * tangents[0]))


def log_rest(log_probability: Array) -> Array:
    """The logarithm of one less a probability, without derivative where that is zero."""
    none = log_probability >= 0
    return jnp.where(none, -jnp.inf, log1mexp(jnp.where(none, 1, -log_probability)))


@jax.custom_jvp
def log_probability(p: Array) -> Array:
    """The logarithm, without derivative where the probability has underflowed to zero."""
    return jnp.log(p)


@log_probability.defjvp
def _log_probability_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return log_probability(*primals), _reciprocal(*primals) * tangents[0]


@jax.custom_jvp
def _reciprocal(p: Array) -> Array:
    return jnp.where(p == 0, 0, 1 / jnp.where(p == 0, 1, p))


@_reciprocal.defjvp
def _reciprocal_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    reciprocal = _reciprocal(*primals)
    return reciprocal, -(reciprocal * (reciprocal * tangents[0]))  # its square may be infinite
