r"""The logarithm, of one and a number, and to nearly twice the precision.

$\log(2^k (1 + f)) = k \log 2 + \log(1 + f)$ with $1 + f$ between $\sqrt{1/2}$ and $\sqrt 2$, where

$$\log(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + R(s^2))), \qquad s = f / (2 + f)$$

as in K. C. Ng's `log` of fdlibm (Sun, 1993), whose error analysis holds: less than one unit in the last place.
"""

from __future__ import annotations

import math
from fractions import Fraction

from llvmlite import ir

from ..lanes import Lanes
from .exponential import mantissa
from .pairs import LOG_2, Pair, exact_product, exact_sum, ordered_sum, pair_constant, product, quotient
from .polynomials import Table, horner, polynomial

#: (log(1 + f) - 2s) / s³, in s²
ODD: Table = (
    (
        0.6666666666666735,
        0.39999999999411245,
        0.28571428743225225,
        0.22222198480238337,
        0.18183569499544183,
        0.15313909815607235,
        0.14797438455781436,
    ),
    (0.6666666564161668, 0.4000033613773857, 0.2853724330787223, 0.23583477980011772),
)
#: (log(1 + f) - 2s - 2/3 s³) / s⁵, in s², to 2^-72 of the logarithm
FIFTH_ORDER = (
    0.3999999999999998,
    0.2857142857144521,
    0.22222222217511195,
    0.1818181887343302,
    0.15384556657321027,
    0.13336325668684035,
    0.11674650551511918,
    0.11990415525760974,
)
#: 1 / m for m between √½ and √2 to 6 %: for what is itself a rounding error
INVERSE = (1.996536793938487, -0.9411764705882353)


def log(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\log x$: minus infinity at both zeros, NaN below."""
    exponent, fraction, _ = decomposed(lanes, x)
    return with_edges(lanes, x, near_logarithm(lanes, exponent, fraction, None), 0)


def log1p(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\log(1 + x)$, relatively accurate around 0."""
    total, lost = exact_sum(lanes, lanes.constant(1), x)
    exponent, fraction, biased = decomposed(lanes, total, subnormal=False)
    # What rounding took from the sum counts, on the scale of the fraction. Near 0 the sum isn't needed; where it
    # is large, nothing is missed.
    near = lanes.compare("==", exponent, lanes.constant(0))
    without = lanes.either(near, lanes.compare(">", x, lanes.constant(2.0**60)))
    inverse = horner(lanes, lanes.add(fraction, lanes.constant(1)), INVERSE)
    rest = lanes.mul(lanes.mul(lost, inverse_power(lanes, biased)), inverse)
    rest = lanes.select(without, lanes.constant(0), rest)
    value = near_logarithm(lanes, exponent, lanes.select(near, x, fraction), rest)
    return lanes.copysign(with_edges(lanes, x, value, -1), x)


def log_pair(lanes: Lanes, x: ir.Value, rest: ir.Value | None = None) -> Pair:
    """The logarithm as a pair, to 2^-65 of its value in float64.

    Args:
        lanes: of float64.
        x: positive and finite.
        rest: of `x`, which is then of moderate size.
    """
    exponent, fraction, biased = decomposed(lanes, x)
    s = quotient(lanes, (fraction, lanes.constant(0)), ordered_sum(lanes, lanes.constant(2), fraction))
    square = product(lanes, s, s)
    two_thirds, two_thirds_rest = pair_constant(lanes, "2/3")
    tail = lanes.mul(square[0], horner(lanes, square[0], FIFTH_ORDER))
    factor, factor_rest = ordered_sum(lanes, two_thirds, tail)
    cubic = product(lanes, s, product(lanes, square, (factor, lanes.add(factor_rest, two_thirds_rest))))
    # The first part of log 2 has so few bits that its product with an exponent is exact.
    short = math.floor(math.ldexp(math.log(2), 42)) / 2.0**42
    second, third = pair_constant(lanes, str(Fraction(LOG_2) - Fraction(short)))
    total, first_rest = exact_sum(lanes, lanes.mul(exponent, lanes.constant(short)), lanes.add(s[0], s[0]))
    total, second_rest = exact_sum(lanes, total, cubic[0])
    part, part_rest = exact_product(lanes, exponent, second)
    total, third_rest = exact_sum(lanes, total, part)
    small = lanes.add(lanes.add(s[1], s[1]), lanes.add(cubic[1], lanes.fma(exponent, third, part_rest)))
    if rest is not None:
        scaled = lanes.mul(rest, inverse_power(lanes, biased))
        small = lanes.fma(scaled, horner(lanes, lanes.add(fraction, lanes.constant(1)), INVERSE), small)
    small = lanes.add(lanes.add(first_rest, second_rest), lanes.add(third_rest, small))
    return ordered_sum(lanes, total, small)


def near_logarithm(lanes: Lanes, exponent: ir.Value, fraction: ir.Value, rest: ir.Value | None) -> ir.Value:
    """The logarithm of $2^k (1 + f)$, and a rest to be added."""
    high, low = pair_constant(lanes, LOG_2)
    s = lanes.div(fraction, lanes.add(lanes.constant(2), fraction))
    z = lanes.mul(s, s)
    half_square = lanes.mul(lanes.mul(lanes.constant(0.5), fraction), fraction)
    series = lanes.fma(z, polynomial(lanes, z, ODD), half_square)
    small = lanes.mul(exponent, low) if rest is None else lanes.fma(exponent, low, rest)
    inner = lanes.fma(s, series, small)
    return lanes.fma(exponent, high, lanes.sub(fraction, lanes.sub(half_square, inner)))


def decomposed(lanes: Lanes, x: ir.Value, subnormal: bool = True) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The exponent `k` and the fraction `f` of a positive number $2^k (1 + f)$, and `k` as a biased integer.

    Args:
        lanes: where to write.
        x: the number.
        subnormal: whether it may be one; the biased integer then does not count the lift.
    """
    shift: ir.Value = lanes.constant(0)
    if subnormal:
        is_small = lanes.compare("<", x, lanes.constant(2.0 ** (-1022 if lanes.double else -126)))
        x = lanes.select(is_small, lanes.mul(x, lanes.constant(2.0**64)), x)
        shift = lanes.select(is_small, lanes.constant(64), shift)
    # The bits of 1 and of √½: their difference turns mantissas from the latter on into those of the next exponent.
    one, root = (0x3FF << 52, 0x3FE6A09E667F3BCD) if lanes.double else (0x7F << 23, 0x3F3504F3)
    above = lanes.add(lanes.to_bits(x), lanes.whole(one - root))
    biased = lanes.shift_right(above, mantissa(lanes))
    within = lanes.both(above, lanes.whole((1 << mantissa(lanes)) - 1))
    number = lanes.from_bits(lanes.add(within, lanes.whole(root)))
    # As the last bits of a large number, from which that is subtracted again.
    anchor = 2.0 ** mantissa(lanes)
    counted = lanes.from_bits(lanes.either(biased, lanes.to_bits(lanes.constant(anchor))))
    bias = lanes.add(lanes.constant(anchor + (1023 if lanes.double else 127)), shift)
    return lanes.sub(counted, bias), lanes.sub(number, lanes.constant(1)), biased


def inverse_power(lanes: Lanes, biased: ir.Value) -> ir.Value:
    """One over two to a biased exponent, which is not among the largest."""
    twice = lanes.whole(2 * (1023 if lanes.double else 127))
    return lanes.from_bits(lanes.shift_left(lanes.sub(twice, biased), mantissa(lanes)))


def with_edges(lanes: Lanes, x: ir.Value, value: ir.Value, pole: float) -> ir.Value:
    """A logarithm that is also right at the pole, below it, at infinity and for NaN."""
    value = lanes.select(lanes.compare("==", x, lanes.constant(math.inf)), x, value)
    outside = lanes.builder.fcmp_unordered("<", x, lanes.constant(pole))
    value = lanes.select(outside, lanes.constant(math.nan), value)
    return lanes.select(lanes.compare("==", x, lanes.constant(pole)), lanes.constant(-math.inf), value)
