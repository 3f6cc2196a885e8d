r"""Student's t distribution function, its logarithm and its quantile, with derivatives by the degrees of freedom.

With $f$ the density, $q = 1 / \nu$ and $\alpha = \frac\nu2 \log(1 + q x^2)$, the probability beyond $x > 0$ is

$$\log S(x) = \log f(0) - \alpha + \tfrac12 \log(x^{-2} + q) + \log J(x^{-2}), \qquad
    J(a) = \int_0^\infty \frac{e^{-w}\, dw}{\sqrt{1 + a\, (1 - e^{-2 q w}) / q}}$$

which is the incomplete beta integral in $w$, where its variable is $e^{-2 q w} / (1 + q x^2)$. Nothing cancels in
it or in its derivatives, which a fixed rule of quadrature gives to every order: the trapezoidal one in $t$ of
$w = e^{t - e^{-t}}$ (Takahasi and Mori, *Double exponential formulas for numerical integration*, 1974). About
zero, where the derivatives by $\nu$ vanish, the density's Taylor series is integrated instead. All is written in
$q$: the normal distribution is the value at zero and no limit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .base import floats, horner

#: Nodes of the rule for the tail and of Gauss's for a logarithm, and terms about zero: exact to rounding from
#: 0.05 degrees of freedom upwards, second derivatives included.
TAIL_NODES, LOGARITHM_NODES, CENTER_TERMS = 96, 12, 7
#: sinh(v) / v for v up to 1/2, in v².
SINH = tuple(1 / math.factorial(2 * k + 1) for k in range(8))
STEPS = 7  #: of Newton's method; the sixth is exact to rounding but for the fewest degrees of freedom
LOG_ROOT_TAU = 0.5 * math.log(2 * math.pi)


def student_t_cdf(x: ArrayLike, df: ArrayLike) -> Float[Array, "..."]:
    r"""The distribution function of Student's t.

    $$F(x) = \int_{-\infty}^x \frac{\Gamma(\frac{\nu+1}{2})}{\Gamma(\frac\nu2)\sqrt{\pi\nu}}
        \left(1 + \frac{t^2}{\nu}\right)^{-\frac{\nu+1}{2}} dt$$

    by quadrature of an integral in which nothing cancels. It has derivatives by both arguments, to every order.
    Beside digits from longer arithmetic, for $\nu$ from 0.05 to 1e10 and down to the smallest numbers, values
    err by 1e-13 of themselves in float64 and by 1e-5 in float32, first derivatives by 1e-12 and 3e-4, second ones
    by 5e-12 and 1e-3; from 1 degree of freedom on all by 5e-13 and 3e-5.

    Args:
        x: any shape.
        df: the degrees of freedom $\nu$, positive, whole or not; broadcast against `x`. At infinity the normal.

    Returns:
        The broadcast shape, in the common floating dtype.

    Example:
        >>> import jax, mlekit as mle
        >>> print(f"{mle.special.student_t_cdf(-2.0, 5.0):.6f}")
        0.050970
        >>> print(f"{jax.grad(mle.special.student_t_cdf, 1)(-2.0, 5.0):.6f}")  # by the degrees of freedom
        -0.005697
    """
    return _cdf(*_arguments(x, df))


def student_t_log_cdf(x: ArrayLike, df: ArrayLike) -> Float[Array, "..."]:
    r"""The logarithm of `student_t_cdf`, which goes on where the function itself is too small.

    $$\log F(x) = \log \int_{-\infty}^x f(t)\, dt$$

    by the same integral; the logarithm of the upper tail is that at `-x`. However far out, in float64 values err
    by 2e-15 of themselves and derivatives as those of `student_t_cdf`; in float32 values err by 1e-6.

    Args:
        x: any shape.
        df: the degrees of freedom, positive; broadcast against `x`. At infinity `log_ndtr`.

    Returns:
        The broadcast shape, in the common floating dtype.

    Example:
        >>> import jax, mlekit as mle
        >>> print(f"{mle.special.student_t_log_cdf(-1e30, 3.0):.2f}")
        -207.13
        >>> print(f"{jax.grad(mle.special.student_t_log_cdf, 1)(-1e30, 3.0):.2f}")
        -68.17
    """
    return _log_cdf(*_arguments(x, df))


def student_t_quantile(p: ArrayLike, df: ArrayLike) -> Float[Array, "..."]:
    r"""The inverse of `student_t_cdf`: the value below which Student's t lies with a given probability.

    by Newton's method for the logarithm of the tail in $\frac\nu2 \log(1 + x^2 / \nu)$, of which it is a convex
    and nearly a straight function: a few steps suffice from the centre to the farthest tail. Derivatives are those
    of the implicit function, by both arguments and to every order.

    Args:
        p: from 0 to 1, any shape. Digits of an upper tail are those of `1 - p`: by symmetry
            `-student_t_quantile(tail, df)` has them all.
        df: the degrees of freedom, positive; broadcast against `p`.

    Returns:
        The broadcast shape, in the common floating dtype; NaN outside 0 to 1.

    Example:
        >>> import jax, mlekit as mle
        >>> print(f"{mle.special.student_t_quantile(0.975, 10.0):.6f}")
        2.228139
        >>> print(f"{jax.grad(mle.special.student_t_quantile, 1)(0.975, 10.0):.6f}")
        -0.030202
    """
    return _quantile(*_arguments(p, df))


def _arguments(x: ArrayLike, df: ArrayLike) -> tuple[Array, Array]:
    x, df = floats(x, df)
    if x.ndim and df.ndim:  # a number alone is cheaper left as it is
        x, df = jnp.broadcast_arrays(x, df)
    return x, jnp.where(df > 0, df, jnp.nan)


@jax.jit
def _cdf(x: Array, df: Array) -> Array:
    near, center, log_tail = _parts(x, 1 / df)
    tail = jnp.exp(log_tail)
    return jnp.where(near, 0.5 + center, jnp.where(x < 0, tail, 1 - tail))


@jax.jit
def _log_cdf(x: Array, df: Array) -> Array:
    near, center, log_tail = _parts(x, 1 / df)
    tail = jnp.exp(log_tail)
    # JAX's log1p errs by 3e-14 between -0.42 and -0.3.
    small = ~near & (tail < 0.25)
    above = jnp.where(
        small, jnp.log1p(-jnp.where(small, tail, 0)), jnp.log(jnp.where(near, 0.5 + center, 1 - tail))
    )
    return jnp.where((x < 0) & ~near, log_tail, above)


@jax.jit
def _quantile(p: Array, df: Array) -> Array:
    lower = p < 0.5
    size = _tail_point(jnp.where(lower, p, 1 - p), 1 / df)
    return jnp.where(lower, -size, size)


def _parts(x: Array, q: Array) -> tuple[Array, Array, Array]:
    """Whether `x` is near zero, then the probability from zero to `x`; otherwise the logarithm of that beyond."""
    size = jnp.abs(x)
    near, end = size < _edge(q), size == jnp.inf
    log_tail = _log_tail(0, jnp.where(near | end, 1, size), q)
    return near, _center(jnp.where(near, x, 0), q), jnp.where(end, -jnp.inf, log_tail)


def _edge(q: Array) -> Array:
    """Where the tail begins; nearer to zero its derivatives by `q` are small differences."""
    return 0.1 * jax.lax.rsqrt(1 + q)


def _center(x: Array, q: Array) -> Array:
    """The probability between 0 and `x`, which is not beyond the edge: Taylor's series of the density."""
    square, total = x * x, jnp.full_like(x, 1 / (2 * CENTER_TERMS + 1))
    for k in range(CENTER_TERMS, 0, -1):
        total = 1 / (2 * k - 1) - (1 + (2 * k - 1) * q) * square / (2 * k) * total
    return jnp.exp(_log_constant(q)) * x * total


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _log_tail(n: int, x: Array, q: Array) -> Array:
    """The derivative of order `n`, by `q`, of the logarithm of the probability beyond `x`, which is positive."""
    inverse = 1 / x
    return _derivative(n, lambda q: _log_tail_at(_half_deviance(0, x, q), inverse * inverse, q), q)


@_log_tail.defjvp
def _log_tail_jvp(n: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, q = primals
    by_x = _derivative(n, lambda q: _hazard(x, q), q)
    return _log_tail(n, x, q), _log_tail(n + 1, x, q) * tangents[1] - by_x * tangents[0]


def _hazard(x: Array, q: Array) -> Array:
    """The density over the probability beyond `x`."""
    inverse = 1 / x
    a = inverse * inverse
    return inverse / ((a + q) * _tail_integral(0, 0, a, q))


def _log_density(x: Array, q: Array) -> Array:
    return _log_constant(q) - (1 + q) * _half_deviance(0, x, q)


def _log_tail_at(alpha: Array, a: Array, q: Array) -> Array:
    return _log_constant(q) - alpha + 0.5 * jnp.log(a + q) + jnp.log(_tail_integral(0, 0, a, q))


def _log_constant(q: Array) -> Array:
    r"""The logarithm of the density at zero.

    $$\log \frac{\Gamma(z + \frac12)}{\Gamma(z) \sqrt z}
        = -\frac12 \int_0^\infty \tanh(\tfrac t4)\, e^{-z t}\, \frac{dt}t$$

    by the nodes of the tail, at $z = \nu / 2 + 1$, and from there down by the recurrence.
    """
    before = q / (1 + q)
    return 0.5 * jnp.log1p(-before * before) + _constant(0, q / (1 + 2 * q)) - LOG_ROOT_TAU


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _half_deviance(n: int, x: Array, q: Array) -> Array:
    r"""The derivative of order `n`, by $q$, of $\alpha = \log(1 + q x^2) / 2q$.

    $$\frac{(-1)^n n!}{2} x^{2n+2} \int_0^1 \frac{t^n\, dt}{(1 + q x^2 t)^{n+1}}
        = \frac{(-1)^n n!}{2 q^{n+1}} \Big(-\log(1 - \rho) - \sum_{j \le n} \frac{\rho^j}{j}\Big), \quad
        \rho = \frac{q x^2}{1 + q x^2}$$
    """
    far = x * jnp.sqrt(q) > 1
    small, large, nu = jnp.where(far, 0, x), jnp.where(far, x, 1), 1 / jnp.where(far, q, 1)
    square, inverse = small * small, 1 / large
    y, ratio = q * square, nu * inverse * inverse
    near = _quadrature(_gauss(LOGARITHM_NODES), lambda t: t**n / (1 + y * t) ** (n + 1), y.dtype)
    whole = 2 * jnp.log(large) - jnp.log(nu) + jnp.log1p(ratio)
    beyond = whole - sum((1 / (1 + ratio)) ** j / j for j in range(1, n + 1))
    value = jnp.where(far, nu ** (n + 1) * beyond, square ** (n + 1) * near)
    return 0.5 * (-1) ** n * math.factorial(n) * value


@_half_deviance.defjvp
def _half_deviance_jvp(n: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, q = primals
    far = x * jnp.sqrt(q) > 1
    small, inverse = jnp.where(far, 0, x), 1 / jnp.where(far, x, 1)
    share = jnp.where(far, 1 / (inverse * inverse + q), small * small / (1 + q * small * small))
    by_x = jnp.where(far, inverse, small) * jnp.where(far, share, 1 / (1 + q * small * small)) * share**n
    by_x *= (-1) ** n * math.factorial(n)
    return _half_deviance(n, x, q), by_x * tangents[0] + _half_deviance(n + 1, x, q) * tangents[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@functools.partial(jax.jit, static_argnums=(0, 1))
def _tail_integral(m: int, n: int, a: Array, q: Array) -> Array:
    """The derivative of J of order `m` by `a` and `n` by `q`."""
    factor = math.prod(-(k + 0.5) for k in range(m))

    def integrand(w: Array, q: Array) -> Array:
        part = 2 * w * _decay(2 * w * q)
        root = jax.lax.rsqrt(1 + a * part)
        return factor * root * (part * root * root) ** m

    return _quadrature(
        _exponential(TAIL_NODES), lambda w: _derivative(n, functools.partial(integrand, w), q), a.dtype
    )


@_tail_integral.defjvp
def _tail_integral_jvp(
    m: int, n: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    change = _tail_integral(m + 1, n, *primals) * tangents[0] + _tail_integral(m, n + 1, *primals) * tangents[1]
    return _tail_integral(m, n, *primals), change


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _constant(n: int, q: Array) -> Array:
    """The derivative of order `n`, by `q`, of the integral in `_log_constant`."""

    def integrand(w: Array) -> Array:
        return _derivative(n, lambda q: -0.5 * jnp.tanh(0.5 * w * q) / w, q)

    return _quadrature(_exponential(TAIL_NODES), integrand, q.dtype)


@_constant.defjvp
def _constant_jvp(n: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _constant(n, *primals), _constant(n + 1, *primals) * tangents[0]


def _decay(v: Array) -> Array:
    """(1 - exp(-v)) / v, for v from 0."""
    half = jnp.exp(-0.5 * v)
    small = v < 1
    u, large = 0.5 * jnp.where(small, v, 0), jnp.where(small, 1, v)
    return jnp.where(small, half * horner(SINH, u * u), (1 - half * half) / large)


def _derivative(n: int, fn: Callable[[Array], Array], at: Array) -> Array:
    """The derivative of order `n`, taken forward: reverse mode would keep what it computes at every node."""
    for _ in range(n):
        fn = functools.partial(_slope, fn)
    return fn(at)


def _slope(fn: Callable[[Array], Array], at: Array) -> Array:
    slope: Array = jax.jvp(fn, (at,), (jnp.ones_like(at),))[1]
    return slope


def _quadrature(rule: tuple[np.ndarray, np.ndarray], integrand: Callable[[Array], Array], dtype: Any) -> Array:
    """The sum of an integrand at points, by their weights."""
    points, weights = (jnp.asarray(part, dtype) for part in rule)
    return jnp.sum(jax.vmap(lambda point, weight: weight * integrand(point))(points, weights), axis=0)


@functools.cache
def _exponential(count: int) -> tuple[np.ndarray, np.ndarray]:
    """For integrals with the weight exp(-w) from 0 on: the trapezoidal rule in t of w = exp(t - exp(-t))."""
    t = np.linspace(-3.7, 3.7, count)
    w = np.exp(t - np.exp(-t))
    weights = w * (1 + np.exp(-t)) * np.exp(-w)
    return w, weights / weights.sum()


@functools.cache
def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's rule from 0 to 1."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, weights / 2


@jax.custom_jvp
@jax.jit
def _tail_point(p: Array, q: Array) -> Array:
    """The positive number beyond which lies a probability of at most 1/2."""
    p, q = jnp.broadcast_arrays(p, q)
    edge = _edge(q)
    near = 0.5 - p < _center(edge, q)
    rest, log_p = jnp.where(near, 0.5 - p, 0), jnp.log(jnp.where(near, 0.25, p))

    def step(_: Any, at: tuple[Array, Array]) -> tuple[Array, Array]:
        x, alpha = at
        x += (rest - _center(x, q)) * jnp.exp(-_log_density(x, q))
        excess = _log_tail_at(alpha, *_inverse_square(alpha, q)) - log_p
        return x, alpha + excess * _tail_integral(0, 0, *_inverse_square(alpha, q))

    x, alpha = jax.lax.fori_loop(0, STEPS, step, (jnp.zeros_like(p), _half_deviance(0, edge, q)))
    far = jnp.exp(alpha * q) * jnp.sqrt(2 * alpha * _decay(2 * alpha * q))
    value = jnp.where(near, x, jnp.where(p == 0, jnp.inf, far))
    return jnp.where(p >= 0, value, jnp.nan)


def _inverse_square(alpha: Array, q: Array) -> tuple[Array, Array]:
    """The inverse square of the number whose half deviance is `alpha`."""
    v = 2 * alpha * q
    return jnp.exp(-v) / (2 * alpha * _decay(v)), q


@_tail_point.defjvp
def _tail_point_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    p, q = primals
    x = _tail_point(p, q)
    near = x < _edge(q)
    small, large = jnp.where(near, x, 0), jnp.where(near | (x == jnp.inf), 1, x)
    # By way of logarithms in the tail, where the square of a density may be zero to the computer.
    by_q = jnp.where(x == jnp.inf, 0, _log_tail(1, large, q)) * tangents[1]
    far = (by_q - tangents[0] / jnp.where(near, 1, p)) / _hazard(large, q)
    change = _slope(lambda q: _center(small, q), q) * tangents[1] + tangents[0]
    return x, jnp.where(near, -change * jnp.exp(-_log_density(small, q)), far)
