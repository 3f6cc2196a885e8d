r"""The normal distribution function by its logarithm, which goes on where the function itself is too small.

With the inverse Mills ratio $h = \varphi / \Phi$, the derivatives are $(\log\Phi)' = h$ and $h' = -h\,(h + x)$. In
the lower tail $h$ is nearly $-x$: the excess $g = h + x$ is computed by itself, so that nothing cancels.
"""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .base import floats, horner

FAR = 5.0  #: from here down by the continued fraction
TERMS = 26  #: of it, exact to rounding
ROOT_TAU = math.sqrt(2 * math.pi)


def log_ndtr(x: ArrayLike) -> Float[Array, "..."]:
    r"""The logarithm of the standard normal distribution function.

    $$\log\Phi(x) = \log \int_{-\infty}^x \frac{e^{-t^2/2}}{\sqrt{2\pi}}\, dt$$

    by the complementary error function and, from 5 standard deviations down, by Laplace's continued fraction
    (Abramowitz and Stegun 26.2.14). In both tails, however far out, the value and its first derivative err by some
    units in their last digit, and the second by some hundred; in the far tail the third derivative loses as many
    digits as $x^4$ has.

    Args:
        x: any shape; integers become the default float.

    Returns:
        The shape and the floating dtype of `x`.

    Example:
        The tails of probit models and of what is censored:

        >>> import jax, mlekit as mle
        >>> print(f"{mle.special.log_ndtr(0.0):.4f} {mle.special.log_ndtr(-1000.0):.4f}")
        -0.6931 -500007.8267
        >>> print(f"{jax.grad(mle.special.log_ndtr)(-1000.0):.4f}")
        1000.0010
    """
    (x,) = floats(x)
    return _log_ndtr(x)


@jax.custom_jvp
@jax.jit
def _log_ndtr(x: Array) -> Array:
    tail = _tail(x)
    far = x < -FAR
    near = jnp.where(x > 0, jnp.log1p(-tail), jnp.log(jnp.where(far, 1, tail)))
    t = jnp.where(far, -x, FAR)
    return jnp.where(far, -0.5 * t * t - jnp.log(ROOT_TAU * (t + _excess(t))), near)


@_log_ndtr.defjvp
def _log_ndtr_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _log_ndtr(*primals), inverse_mills_ratio(*primals)[0] * tangents[0]


@jax.custom_jvp
@jax.jit
def inverse_mills_ratio(x: Array) -> tuple[Array, Array]:
    """The inverse Mills ratio $h$, the derivative of `log_ndtr`; and $g = h + x$."""
    tail = _tail(x)
    far = x < -FAR
    share = jnp.where(x > 0, 1 - tail, jnp.where(far, 1, tail))
    near = jnp.exp(-0.5 * x * x) / (ROOT_TAU * share)
    excess = _excess(jnp.where(far, -x, FAR))
    return jnp.where(far, excess - x, near), jnp.where(far, excess, near + x)


@inverse_mills_ratio.defjvp
def _inverse_mills_ratio_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    ratio, excess = inverse_mills_ratio(*primals)
    product = ratio * excess
    return (ratio, excess), (-product * tangents[0], (1 - product) * tangents[0])


def _tail(x: Array) -> Array:
    """The probability beyond `x` on its side of zero."""
    return 0.5 * erfc(jnp.abs(x) * math.sqrt(0.5))


def _excess(t: Array) -> Array:
    """The excess of $h$ over $t = -x$, for $t$ from `FAR` on."""
    above, below = (horner(c, 1 / (t * t)) for c in _fraction())
    return above / (below * t)


@functools.cache
def _fraction() -> tuple[list[float], list[float]]:
    r"""Laplace's continued fraction as one fraction, of polynomials in $1 / t^2$.

    $$\frac{1}{t +} \frac{2}{t +} \frac{3}{t +} \cdots$$
    """
    above, below = [1], [1]
    for k in range(TERMS, 1, -1):
        more = [0, *(k * c for c in above)]
        above, below = below, [a + b for a, b in itertools.zip_longest(below, more, fillvalue=0)]
    return [float(c) for c in above], [float(c) for c in below]
