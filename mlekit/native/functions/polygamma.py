r"""Higher derivatives of the gamma function's logarithm.

$$\psi^{(n)}(x) = (-1)^{n+1} n! \sum_{k \ge 0} (x + k)^{-n-1}$$

by the first terms and the asymptotic series of the others (Abramowitz and Stegun 6.4.10, 6.4.11), which take
turns as in `mlekit.special`; nothing cancels.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

from llvmlite import ir

from ..lanes import Lanes
from ..unsupported import Unsupported
from .digamma import of_half_turns
from .pairs import Pair, exact_product, exact_sum
from .polynomials import horner
from .power import integer_pow

MOST = 8  #: the highest order whose series is exact


def polygamma(lanes: Lanes, order: ir.Value, x: ir.Value) -> ir.Value:
    r"""$\psi^{(n)}(x)$ for an order from 1 to `MOST`, the same constant in every lane.

    For positive numbers, the error of order 1 is below two units in the last place, that of orders 2 and 3 below
    five. Below zero, those of orders 1 and 2 are below six and ten units of the larger one of 1 and the value, and
    higher orders are NaN. Infinite at 0, where XLA gives NaN for even orders.
    """
    n = known_order(order)
    return lanes.call(f"polygamma{n}", functools.partial(_polygamma, n=n), x)


def known_order(order: ir.Value) -> int:
    """The order that a constant holds; `Unsupported` if it holds none."""
    values = {each.constant if isinstance(each, ir.Constant) else each for each in getattr(order, "constant", [])}
    if len(values) != 1 or (value := values.pop()) not in range(1, MOST + 1):
        raise Unsupported(f"polygamma of an order that is not one constant from 1 to {MOST}")
    return int(value)


def _polygamma(lanes: Lanes, x: ir.Value, n: int) -> ir.Value:
    reflected = lanes.compare("<", x, lanes.constant(0))
    size = lanes.select(reflected, lanes.sub(lanes.constant(1), x), x)
    shift = 6 + n
    lift = lanes.compare("<", size, lanes.constant(shift))
    far = _asymptotic(lanes, lanes.select(lift, lanes.add(size, lanes.constant(shift)), size), n)

    def lifted() -> ir.Value:
        total, rest = _first_terms(lanes, size, n, shift)
        return lanes.select(lift, lanes.add(total, lanes.add(far, rest)), far)

    def reflect() -> ir.Value:
        below = _mirrored(lanes, x, n, value)
        return lanes.select(reflected, below, value)

    value = lanes.branch(lanes.any(lift), lifted, lambda: far)
    value = value if n % 2 else lanes.neg(value)
    return lanes.branch(lanes.any(reflected), reflect, lambda: value)


def _first_terms(lanes: Lanes, x: ir.Value, n: int, shift: int) -> Pair:
    """The sum of `n! / (x + k)^(n + 1)` for `k` below the shift, the largest last, two others in one fraction."""
    factorial = lanes.constant(math.factorial(n))
    total: ir.Value = lanes.constant(0)
    for k in reversed(range(1, shift, 2)):
        last = k + 1 == shift
        total = lanes.add(total, _one_term(lanes, x, n, k) if last else _two_terms(lanes, x, n, k))
    first = lanes.div(factorial, integer_pow(lanes, x, n + 1))
    if n == 1:  # the square's rounding counts, where its rest has not underflowed
        square, rest = exact_product(lanes, x, x)
        corrected = lanes.sub(first, lanes.mul(lanes.mul(first, first), rest))
        first = lanes.select(lanes.compare(">", square, lanes.constant(1e-6)), corrected, first)
    total, rest = exact_sum(lanes, first, total)
    return total, lanes.select(lanes.is_finite(total), rest, lanes.constant(0))


def _one_term(lanes: Lanes, x: ir.Value, n: int, k: int) -> ir.Value:
    power = integer_pow(lanes, lanes.add(x, lanes.constant(k)), n + 1)
    return lanes.div(lanes.constant(math.factorial(n)), power)


def _two_terms(lanes: Lanes, x: ir.Value, n: int, k: int) -> ir.Value:
    """The terms of `k` and `k + 1`."""
    if n == 1:
        # With the product p of both numbers, (2p + 1) / p²: fewer roundings.
        product = lanes.fma(x, lanes.add(x, lanes.constant(2 * k + 1)), lanes.constant(k * (k + 1)))
        above = lanes.fma(lanes.constant(2), product, lanes.constant(1))
        return lanes.div(above, lanes.mul(product, product))
    a, b = (integer_pow(lanes, lanes.add(x, lanes.constant(each)), n + 1) for each in (k, k + 1))
    return lanes.div(lanes.mul(lanes.constant(math.factorial(n)), lanes.add(a, b)), lanes.mul(a, b))


def _asymptotic(lanes: Lanes, z: ir.Value, n: int) -> ir.Value:
    inverse = lanes.div(lanes.constant(1), z)
    series = horner(lanes, lanes.mul(inverse, inverse), bernoulli_terms(n)[: 12 if lanes.double else 6])
    factorial = math.factorial(n)
    value = lanes.fma(inverse, series, lanes.constant(factorial / 2))
    value = lanes.fma(inverse, value, lanes.constant(factorial // n))
    for _ in range(n):  # a power would overflow before its inverse is nothing
        value = lanes.div(value, z)
    return value


@functools.cache
def bernoulli_terms(n: int) -> tuple[float, ...]:
    """The coefficients $B_{2k} (2k + n - 1)! / (2k)!$ from k = 1 on."""
    numbers = [Fraction(1)]
    for m in range(1, 25):
        numbers.append(-sum((math.comb(m + 1, k) * numbers[k] for k in range(m)), Fraction(0)) / (m + 1))
    return tuple(
        float(numbers[2 * k] * math.factorial(2 * k + n - 1) / math.factorial(2 * k)) for k in range(1, 13)
    )


def _mirrored(lanes: Lanes, x: ir.Value, n: int, value: ir.Value) -> ir.Value:
    r"""The value below 0 from that at $1 - x$, by derivatives of $\pi \cot(\pi x)$ (6.4.7)."""
    if n > 2:
        return lanes.constant(math.nan)
    sine, cosine = of_half_turns(lanes, x)
    ratio = lanes.div(lanes.constant(math.pi), sine)
    square = lanes.mul(ratio, ratio)
    if n == 1:
        return lanes.sub(square, value)
    slope = lanes.mul(lanes.mul(lanes.constant(2), square), lanes.mul(ratio, cosine))
    pole = lanes.compare("==", sine, lanes.constant(0))
    return lanes.select(pole, lanes.constant(math.nan), lanes.sub(value, slope))
