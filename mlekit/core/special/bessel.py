r"""Modified Bessel functions of the first kind by their logarithms, for directions and circles.

Values and derivatives come from the same formulas, none of which takes a difference of what nearly cancels. So the
digits that a density's second derivative needs are there, however large the argument.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .base import floats, horner

#: Up to here the series of powers, beyond it the one in powers of 1/x, and how many terms they take.
FAR, NEAR_TERMS, FAR_TERMS = 20.0, 45, 26
#: Beyond this, and four times the square of the order, Hankel's series with the order in it, and its terms.
FAR_OF_ORDERS, ORDER_TERMS = 100.0, 12
#: The uniform expansion is used so many orders above the one that is wanted, and takes so many terms.
ORDERS_ABOVE, UNIFORM_TERMS = 16, 12


def log_i0e(x: ArrayLike) -> Float[Array, "..."]:
    r"""The logarithm of the modified Bessel function of order zero, scaled.

    $$\log\left(e^{-|x|} I_0(x)\right)$$

    by the series in powers of $x^2 / 4$, and beyond 20 by Hankel's in powers of $1 / x$ (Abramowitz and
    Stegun, 9.6.12 and 9.7.1): the normalisation of von Mises' distribution. Its first three derivatives keep 12
    digits at any concentration, and the fourth one 10.

    Args:
        x: any shape; integers become the default float.

    Returns:
        The shape and the floating dtype of `x`.

    Example:
        >>> import jax, mlekit as mle
        >>> print(f"{mle.special.log_i0e(2.0):.6f}")
        -1.176006
        >>> print(f"{jax.grad(jax.grad(mle.special.log_i0e))(1e8):.4e}")  # 1 / (2 x²)
        5.0000e-17
    """
    (x,) = floats(x)
    return _log_i0e(x)


@jax.jit
def _log_i0e(x: Array) -> Array:
    size = jnp.abs(x)
    near = size < FAR
    quarter = jnp.where(near, x * x / 4, 1.0)
    series = jnp.ones_like(x)
    for k in range(NEAR_TERMS, 1, -1):
        series = 1 + quarter / k**2 * series
    far = jnp.where(near, FAR, size)
    rest = horner(_hankel(FAR_TERMS)[1:], 1 / far) / far
    beyond = jnp.log1p(rest) - 0.5 * jnp.log(2 * math.pi * far)
    return jnp.where(near, jnp.log1p(quarter * series) - size, beyond)


@functools.cache
def _hankel(terms: int) -> tuple[float, ...]:
    r"""The coefficients $\prod_{j \le k} (2j - 1)^2 / (8^k k!)$."""
    found = [Fraction(1)]
    for k in range(1, terms):
        found.append(found[-1] * Fraction((2 * k - 1) ** 2, 8 * k))
    return tuple(map(float, found))


def log_iv(order: ArrayLike, x: ArrayLike) -> Float[Array, "..."]:
    r"""The logarithm of the modified Bessel function of the first kind.

    $$\log I_\nu(x), \qquad I_\nu(x) = \sum_k \frac{(x / 2)^{2k + \nu}}{k!\, \Gamma(\nu + k + 1)}$$

    by Debye's uniform expansion at order $\nu + 16$ (Abramowitz and Stegun, 9.7.7), and from there down by the
    recurrence of ratios, $I_\nu / I_{\nu - 1} = 1 / (2 \nu / x + I_{\nu + 1} / I_\nu)$, in which nothing cancels.
    Where $x$ is above 100 and $4 \nu^2$ the order hardly matters: there Hankel's series (9.7.1) keeps the digits
    of what depends on it, however large $x$ is. The normalisation of von Mises and Fisher's distribution. It has
    derivatives by the order, too.

    Args:
        order: $\nu$, not negative; any shape.
        x: not negative; any shape that goes with it. At zero a positive order has infinite value and derivatives.

    Returns:
        The common shape and floating dtype.

    Example:
        >>> import jax, mlekit as mle
        >>> print(f"{mle.special.log_iv(0.5, 2.0):.6f} {mle.special.log_iv(3.0, 1e6):.4f}")
        0.716002 999992.1733
        >>> print(f"{jax.grad(mle.special.log_iv)(2.0, 5.0):.6f}")  # by the order
        -0.431883
    """
    order, x = jnp.broadcast_arrays(*floats(order, x))
    return _log_iv(order, x)


@jax.jit
def _log_iv(order: Array, x: Array) -> Array:
    far = (x > FAR_OF_ORDERS) & (x > 4 * order * order)
    positive = jnp.where((x > 0) & ~far, x, 1.0)
    high = order + ORDERS_ABOVE
    log_value = _uniform(high, positive)
    ratio = jnp.exp(_uniform(high + 1, positive) - log_value)
    for k in range(ORDERS_ABOVE):
        ratio = 1 / (2 * (high - k) / positive + ratio)
        log_value -= jnp.log(ratio)
    edge = order * jnp.log(jnp.where((order == 0) & (x == 0), 1.0, x))
    return jnp.where(far, _far(order, jnp.where(far, x, FAR_OF_ORDERS)), jnp.where(x > 0, log_value, edge))


def _far(order: Array, x: Array) -> Array:
    """Hankel's series, less 1, from its last term inwards."""
    square, inverse = 4 * order * order, 0.125 / x
    rest = jnp.zeros_like(x)
    for k in range(ORDER_TERMS, 0, -1):
        rest = inverse / k * ((2 * k - 1) ** 2 - square) * (1 + rest)
    return x - 0.5 * jnp.log(2 * math.pi * x) + jnp.log1p(rest)


def _uniform(order: Array, x: Array) -> Array:
    r"""Debye's expansion of $\log I_\nu(x)$ in powers of $1 / s$, where $s^2 = \nu^2 + x^2$."""
    size = jnp.hypot(order, x)
    square = (order / size) ** 2
    rest = horner([horner(polynomial, square) for polynomial in _debye(UNIFORM_TERMS)], 1 / size) / size
    return size + order * jnp.log(x / (order + size)) - 0.5 * jnp.log(2 * math.pi * size) + jnp.log1p(rest)


@functools.cache
def _debye(terms: int) -> tuple[tuple[float, ...], ...]:
    r"""The polynomials $u_k(t) / t^k$ in $t^2$ for $k \ge 1$ (Abramowitz and Stegun 9.3.9).

    $$u_{k + 1}(t) = \tfrac12 t^2 (1 - t^2)\, u_k'(t) + \tfrac18 \int_0^t (1 - 5 s^2)\, u_k(s)\, ds$$
    """
    found, last = [], {0: Fraction(1)}  # coefficients by their powers of t
    for k in range(1, terms + 1):
        following: dict[int, Fraction] = {}
        for power, value in last.items():
            parts = {
                power + 1: value * power / 2 + value / (8 * (power + 1)),
                power + 3: -value * power / 2 - value * 5 / (8 * (power + 3)),
            }
            for at, part in parts.items():
                following[at] = following.get(at, Fraction(0)) + part
        last = following
        found.append(tuple(float(last[power]) for power in range(k, 3 * k + 1, 2)))
    return tuple(found)
