r"""The gamma function's family: its logarithm, the derivatives of that, and differences that do not cancel.

Likelihoods of counts, durations and heavy tails spend most of their time here. There are no branches and no loops:
each function maps over lanes, and is the derivative of another, to any order. Beside digits from longer arithmetic
they err by 2e-15 of the value in float64 and by 1e-6 in float32, `digamma` near its zero by 1e-15 and 5e-7.
Arguments of the gamma function are positive; below zero, all is NaN rather than a plausible lie.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .base import floats, horner

LAST = 6  #: the last whole number around which log Γ comes from its Taylor series; above, Stirling's is exact
UNIT = 8.0  #: products over the recurrence are taken in this unit, which keeps them in range


def gammaln(x: ArrayLike) -> Float[Array, "..."]:
    r"""The logarithm of the gamma function.

    $$\log\Gamma(x) = \log \int_0^\infty t^{x-1} e^{-t}\, dt$$

    by Stirling's series (Abramowitz and Stegun 6.1.41) and, below 6.5, by the Taylor series about 2 (6.1.33) and
    the recurrence, which stay relatively accurate around the zeros 1 and 2.

    Args:
        x: positive, any shape; integers become the default float.

    Returns:
        The shape and the floating dtype of `x`; infinity at 0.

    Example:
        >>> import mlekit as mle
        >>> round(float(mle.special.gammaln(11)), 4)  # log 10!
        15.1044
    """
    return _polygamma(-1, *floats(x))


def digamma(x: ArrayLike) -> Float[Array, "..."]:
    r"""The derivative of `gammaln`, $\psi(x)$: `polygamma` of order 0.

    Args:
        x: positive, any shape; integers become the default float.

    Returns:
        The shape and the floating dtype of `x`; minus infinity at 0.

    Example:
        >>> import mlekit as mle
        >>> round(float(mle.special.digamma(1.0)), 4)  # minus Euler's constant
        -0.5772
    """
    return _polygamma(0, *floats(x))


def trigamma(x: ArrayLike) -> Float[Array, "..."]:
    r"""The second derivative of `gammaln`, $\psi'(x)$: `polygamma` of order 1.

    Args:
        x: positive, any shape; integers become the default float.

    Returns:
        The shape and the floating dtype of `x`; infinity at 0.

    Example:
        >>> import mlekit as mle
        >>> round(float(mle.special.trigamma(1.0)), 4)  # π²/6
        1.6449
    """
    return _polygamma(1, *floats(x))


def polygamma(n: int, x: ArrayLike) -> Float[Array, "..."]:
    r"""The derivative of order `n` of `digamma`.

    $$\psi^{(n)}(x) = (-1)^{n+1}\, n! \sum_{k \ge 0} \frac{1}{(x + k)^{n+1}}, \qquad n \ge 1$$

    by the first terms and the asymptotic series of the others (Abramowitz and Stegun 6.4.10, 6.4.11; 6.3.18).

    Args:
        n: the order, a Python integer; accurate up to 12, in float32 up to 7.
        x: positive, any shape; integers become the default float.

    Returns:
        The shape and the floating dtype of `x`; infinity at 0, with the sign of the limit.

    Raises:
        ValueError: if `n` is negative.

    Example:
        >>> import mlekit as mle
        >>> round(float(mle.special.polygamma(2, 1.0)), 4)  # -2 ζ(3)
        -2.4041
    """
    if operator.index(n) < 0:
        raise ValueError(f"n is the order of a derivative, 0 or more, got {n}")
    return _polygamma(operator.index(n), *floats(x))


def gammaln_difference(x: ArrayLike, step: ArrayLike) -> Float[Array, "..."]:
    r"""The logarithm of a ratio of gamma functions, where subtracting two logarithms would cancel.

    $$\log\Gamma(x + s) - \log\Gamma(x)$$

    For large $x$ the two agree in most digits, and their derivatives in more: in the negative binomial near the
    Poisson ($x = 1/\alpha$, $s = y$), in Student's t near the normal ($x = \nu/2$, $s = 1/2$). Here the value and
    its derivatives, to the third and with respect to both arguments, keep their digits for every $x$: what
    cancels in Stirling's formula is subtracted as one `log1p` and as divided differences of polynomials. (Below
    1e-8 in float32, 1e-80 in float64, second and third derivatives become infinite too early.)

    Args:
        x: positive and finite, any shape.
        step: zero or more (at the least above `-x`) and finite, broadcast against `x`; may be integers.

    Returns:
        The broadcast shape, in the common floating dtype.

    Example:
        >>> import mlekit as mle
        >>> round(float(mle.special.gammaln_difference(1e6, 3)), 3)  # log of 10⁶ (10⁶ + 1) (10⁶ + 2)
        41.447
    """
    x, step = floats(x, step)
    if x.ndim and step.ndim:  # a number alone is cheaper left as it is
        x, step = jnp.broadcast_arrays(x, step)
    return _difference(-1, x, step)


def betaln(a: ArrayLike, b: ArrayLike) -> Float[Array, "..."]:
    r"""The logarithm of the beta function.

    $$\log B(a, b) = \log\Gamma(a) + \log\Gamma(b) - \log\Gamma(a + b)$$

    Args:
        a: positive, any shape.
        b: positive, broadcast against `a`.

    Returns:
        The broadcast shape, in the common floating dtype.

    Example:
        >>> import mlekit as mle
        >>> round(float(mle.special.betaln(2.0, 3.0)), 4)  # -log 12
        -2.4849
    """
    a, b = floats(a, b)
    # Not minimum and maximum: at a tie JAX gives half of the derivative to each argument
    # (https://github.com/jax-ml/jax/issues/37821), which the second derivative does not forgive where a = b.
    small, large = jnp.where(a < b, a, b), jnp.where(a < b, b, a)
    return gammaln(small) - gammaln_difference(large, small)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _polygamma(n: int, x: Array) -> Array:
    """The derivative of order `n + 1` of log Γ."""
    return jnp.where(x < 0, jnp.nan, _gammaln(x) if n < 0 else _lifted_series(n, x))


@_polygamma.defjvp
def _polygamma_jvp(n: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _polygamma(n, *primals), _polygamma(n + 1, *primals) * tangents[0]


def _gammaln(x: Array) -> Array:
    nearest = jnp.minimum(jnp.round(x), LAST)
    offset, large = x - nearest, x > LAST + 0.5
    # Γ(x) is Γ(2 + offset) times these factors, below 1.5 over them: one logarithm serves all cases.
    factors = jnp.where(nearest < 2, x, 1) * jnp.where(nearest < 1, x + 1, 1)
    for k in range(1, LAST - 1):
        factors *= jnp.where(nearest > k + 1, x - k, 1)
    logarithm, inverse = jnp.log(jnp.where(large, x, factors)), 1 / x
    taylor = jnp.where(nearest < 2, -logarithm, logarithm) + offset * horner(_taylor(), offset)
    stirling = (x - 0.5) * (logarithm - 1) + 0.5 * math.log(2 * math.pi / math.e)
    return jnp.where(large, stirling + inverse * horner(_asymptotic(-1), inverse * inverse), taylor)


def _lifted_series(n: int, x: Array) -> Array:
    factorial, shift = float(math.factorial(n)), _shift(n)
    lift = x < shift
    z, safe = jnp.where(lift, x + shift, x), jnp.where(lift, x, 1)
    inverse = 1 / z
    series = inverse * (0.5 * factorial + inverse * horner(_asymptotic(n), inverse * inverse))
    series = (series + factorial / n) * inverse**n if n > 0 else series - jnp.log(z)
    above, below = jnp.zeros_like(x), jnp.ones_like(x)
    for k in range(1, shift):  # one fraction for all terms but the first, which may be huge
        power = ((safe + k) / UNIT) ** (n + 1)
        above, below = above * power + below, below * power
    terms = (1 / x) ** (n + 1) + above / below / UNIT ** (n + 1)
    return (-1) ** (n + 1) * (series + jnp.where(lift, factorial * terms, 0))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _difference(n: int, x: Array, step: Array) -> Array:
    """The derivative of order `n + 1` of log Γ at `x + step`, less that at `x`."""
    shift = _shift(n)
    lift = x < shift
    z, safe = jnp.where(lift, x + shift, x), jnp.where(lift, x, 1)
    near, far = 1 / z, 1 / (z + step)  # far - near = -step * near * far, which does not cancel
    logarithm, both = jnp.log1p(step * near), near + far
    value, slope = _divided_difference(_asymptotic(n), near * near, far * far)
    above, below = jnp.zeros_like(z), jnp.ones_like(z)
    if n < 0:
        # Of each (x + step + k) / (x + k), the part (z + step) / z is in the first logarithm: the rest is
        # bounded. Its product less one is above / below.
        share = jnp.where(lift, step * far, 0)
        for k in range(shift):
            here, more = safe + k, share * (shift - k)
            above, below = above * (here + more) + below * more, below * here
        main = (x - 0.5) * logarithm + step * (jnp.log(z + step) - 1)
        change = main - step * near * far * (value + both * far * slope) - jnp.log1p(above / below)
    else:
        factorial = float(math.factorial(n))
        part = 0.5 * factorial + both * (value + far * far * slope)
        if n > 0:
            whole = factorial / n + far * (0.5 * factorial + far * (value + (far - near) * both * slope))
            part = near**n * part + _quotient(n, near, far) * whole
        for k in range(shift):  # 1 / here less 1 / there, in powers, as one fraction
            here, there = (safe + k) / UNIT, (safe + step + k) * far
            power = (here * there) ** (n + 1)
            above, below = above * power + below * _quotient(n + 1, here * (UNIT * far), there), below * power
        terms = jnp.where(lift, factorial / UNIT ** (n + 1) * far * (above / below), 0)
        change = (-1) ** n * (step * near * far * part + step * terms) + (logarithm if n == 0 else 0)
    change = jnp.where((step == 0) & (x >= 0), 0, change)  # where it was infinity less infinity, too
    return jnp.where((x < 0) | (x + step < 0), jnp.nan, change)


@functools.partial(_difference.defjvp, symbolic_zeros=True)
def _difference_jvp(n: int, primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    (x, step), (x_dot, step_dot) = primals, tangents
    value = _difference(n, x, step)
    change = jnp.zeros_like(value)
    if not isinstance(x_dot, SymbolicZero):
        change += _difference(n + 1, x, step) * x_dot
    if not isinstance(step_dot, SymbolicZero):  # counts and halves do not move, and are spared this
        change += _polygamma(n + 1, x + step) * step_dot
    return value, change


def _quotient(n: int, a: Array, b: Array) -> Array:
    """The divided difference of the power `n`: `(aⁿ - bⁿ) / (a - b)`."""
    return functools.reduce(lambda total, k: total * a + b**k, range(1, n), jnp.ones_like(a))


def _divided_difference(coefficients: tuple[float, ...], w: Any, v: Any) -> tuple[Any, Any]:
    """A polynomial `p(w)`, and `(p(v) - p(w)) / (v - w)`, which is its derivative where `v = w`."""
    *rest, before, last = coefficients
    value, slope = last * w + before, last
    for coefficient in reversed(rest):
        value, slope = value * w + coefficient, slope * v + value
    return value, slope


def _shift(n: int) -> int:
    """The argument from which the asymptotic series is exact; the recurrence lifts smaller ones by as much."""
    return 6 + max(n, 1)


@functools.cache
def _asymptotic(n: int) -> tuple[float, ...]:
    r"""The coefficients of $p$ in the asymptotic series of order `n`, with $v = 1/z$.

    $$(-1)^{n+1} \psi^{(n)}(z) \sim (n-1)!\, v^n + n!\, v^{n+1} / 2 + v^{n+2} p(v^2)$$

    (6.4.11) are $B_{2k} (2k + n - 1)! / (2k)!$, with the Bernoulli numbers from $\zeta(2k)$ (23.2.16).
    """
    return tuple(
        -2 * (-1) ** k * (1 + _zeta_less_one(2 * k)) * math.factorial(2 * k + n - 1) / (2 * math.pi) ** (2 * k)
        for k in range(1, 11 if n < 1 else 13)
    )


@functools.cache
def _taylor() -> tuple[float, ...]:
    """The coefficients of log Γ(2 + t) / t for |t| ≤ 1/2: Taylor's, cut short in Chebyshev polynomials."""
    coefficients = [1 - np.euler_gamma, *((-1) ** n * _zeta_less_one(n) / n for n in range(2, 40))]
    series = np.polynomial.Polynomial(coefficients).convert(domain=[-0.5, 0.5], kind=np.polynomial.Chebyshev)
    return tuple(series.truncate(18).convert(kind=np.polynomial.Polynomial).coef.tolist())


def _zeta_less_one(n: int) -> float:
    """Riemann's zeta function less 1, its terms from 1000 on by the Euler-Maclaurin formula."""
    terms = math.fsum(k**-n for k in range(2, 1000))
    return terms + 1000.0 ** (1 - n) / (n - 1) + 1000.0**-n / 2 + n * 1000.0 ** (-1 - n) / 12
