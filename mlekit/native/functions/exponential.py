r"""The exponential function and its kin.

$e^x = 2^n e^r$ with $n$ the whole number nearest to $x / \log 2$, and a polynomial in $|r| \le \log(2) / 2$.
"""

from __future__ import annotations

import math

from llvmlite import ir

from ..lanes import Lanes
from .pairs import LOG_2, Pair, exact_product, ordered_sum, pair_constant, split
from .polynomials import Table, polynomial

#: (e^r - 1 - r) / r²
SECOND_ORDER: Table = (
    (
        0.5000000000000013,
        0.166666666666667,
        0.041666666666513134,
        0.008333333333306958,
        0.0013888888947674418,
        0.00019841269917981468,
        2.480148920773375e-05,
        2.755721573695704e-06,
        2.7631558964040616e-07,
        2.5118045167821792e-08,
    ),
    (0.500000009725615, 0.16666517753218665, 0.041666199914523534, 0.008369019729971219, 0.001395085433351864),
)
#: Of float64 or not and a width, the form of the instruction that scales by powers of two
SCALING = {
    (True, 2): "pd.128",
    (True, 4): "pd.256",
    (True, 8): "pd.512",
    (False, 4): "ps.128",
    (False, 8): "ps.256",
    (False, 16): "ps.512",
}


def exp(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$e^x$; below 1.1 units in the last place, in float32 too, with subnormal results rounded once."""
    power, r = reduced(lanes, x)
    return scaled(lanes, lanes.add(expm1_near(lanes, (r, None)), lanes.constant(1)), power)


def exp2(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$2^x$, exact for whole numbers."""
    beyond = 1100 if lanes.double else 200
    x = lanes.at_least(lanes.at_most(x, lanes.constant(beyond)), lanes.constant(-beyond))
    whole, power = nearest(lanes, x)
    left = lanes.sub(x, whole)
    high, low = pair_constant(lanes, LOG_2)
    r, rest = exact_product(lanes, left, high)
    near = expm1_near(lanes, (r, lanes.fma(left, low, rest)))
    return scaled(lanes, lanes.add(near, lanes.constant(1)), power)


def expm1(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$e^x - 1$, relatively accurate around 0."""
    # Half of the value first: 2^n would overflow where the value does not.
    x = lanes.at_least(lanes.at_most(x, lanes.constant(largest(lanes))), lanes.constant(-50))
    power, r, rest = reduced_pair(lanes, x)
    near = expm1_near(lanes, (r, rest))
    half = power_of_two(lanes, lanes.sub(power, lanes.whole(1)))
    scaled_up = lanes.fma(near, half, lanes.sub(half, lanes.constant(0.5)))
    is_near = lanes.compare("==", power, lanes.whole(0))  # the smallest numbers have no halves
    return lanes.copysign(lanes.select(is_near, near, lanes.add(scaled_up, scaled_up)), x)


def exp_of_pair(lanes: Lanes, x: Pair) -> ir.Value:
    """The exponential function of a number and a much smaller rest."""
    power, r, rest = reduced_pair(lanes, clamped(lanes, x[0]))
    # The rest may be hundreds of units of the last place of `r`.
    near = expm1_near(lanes, ordered_sum(lanes, r, lanes.add(rest, x[1])))
    return scaled(lanes, lanes.add(near, lanes.constant(1)), power)


def reduced(lanes: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    r"""The whole number `n`, as an integer, and `r`, of $e^x = 2^n e^r$."""
    high, low = split(lanes, LOG_2)
    x = clamped(lanes, x)
    whole, power = nearest(lanes, lanes.mul(x, lanes.constant(1 / math.log(2))))
    # The first difference is exact: fused, and of numbers that are close.
    left = lanes.fma(whole, lanes.constant(-high), x)
    return power, lanes.fma(whole, lanes.constant(-low), left)


def reduced_pair(lanes: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    r"""The same with what the rounding of `r` leaves, of a number within the range of the function."""
    high, low = split(lanes, LOG_2)
    whole, power = nearest(lanes, lanes.mul(x, lanes.constant(1 / math.log(2))))
    left = lanes.fma(whole, lanes.constant(-high), x)
    r = lanes.fma(whole, lanes.constant(-low), left)
    return power, r, lanes.fma(whole, lanes.constant(-low), lanes.sub(left, r))


def expm1_near(lanes: Lanes, r: tuple[ir.Value, ir.Value | None]) -> ir.Value:
    """$e^r - 1$ for |r| ≤ log(2) / 2, given with a rest or none."""
    value, rest = r
    square = lanes.mul(value, value)
    series = polynomial(lanes, value, SECOND_ORDER)
    if rest is None:
        return lanes.fma(square, series, value)
    return lanes.add(value, lanes.fma(square, series, rest))


def expm1_near_pair(lanes: Lanes, r: Pair) -> Pair:
    """The same with what its rounding leaves."""
    square = lanes.mul(r[0], r[0])
    return ordered_sum(lanes, r[0], lanes.fma(square, polynomial(lanes, r[0], SECOND_ORDER), r[1]))


def nearest(lanes: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The whole number nearest to one of moderate size: as a real number, and as an integer."""
    # In a sum so large, the last bits of its representation count ones.
    anchor = lanes.constant(1.5 * 2.0 ** (52 if lanes.double else 23))
    shifted = lanes.add(x, anchor)
    return lanes.sub(shifted, anchor), lanes.sub(lanes.to_bits(shifted), lanes.to_bits(anchor))


def scaled(lanes: Lanes, x: ir.Value, power: ir.Value) -> ir.Value:
    """`x` times two to a power, in two factors, for one could overflow; with one rounding for `x` around 1."""
    if lanes.avx512 and (form := SCALING.get((lanes.double, lanes.width))):
        return _scaled_at_once(lanes, x, power, form)
    bias = 1023 if lanes.double else 127
    both = lanes.add(power, lanes.whole(2 * bias))
    first = lanes.shift_right(both, 1)
    factors = [
        lanes.from_bits(lanes.shift_left(each, mantissa(lanes))) for each in (first, lanes.sub(both, first))
    ]
    return lanes.mul(lanes.mul(x, factors[0]), factors[1])


def _scaled_at_once(lanes: Lanes, x: ir.Value, power: ir.Value, form: str) -> ir.Value:
    """The same by one instruction of AVX-512, which rounds once too."""
    module, kept = lanes.builder.module, ir.IntType(max(8, lanes.width))
    arguments = [x, lanes.to_real(power), lanes.constant(0), ir.Constant(kept, -1)]
    if form.endswith("512"):
        arguments.append(ir.Constant(ir.IntType(32), 4))  # as the processor rounds at the moment
    name = f"llvm.x86.avx512.mask.scalef.{form}"
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(lanes.real, [each.type for each in arguments]), name)
    return lanes.builder.call(function, arguments)


def power_of_two(lanes: Lanes, power: ir.Value) -> ir.Value:
    """Two to a power that is a normal number."""
    biased = lanes.add(power, lanes.whole(1023 if lanes.double else 127))
    return lanes.from_bits(lanes.shift_left(biased, mantissa(lanes)))


def clamped(lanes: Lanes, x: ir.Value) -> ir.Value:
    """`x`, but no further than where its exponential is infinite or zero."""
    smallest = -746.0 if lanes.double else -104.5
    return lanes.at_least(lanes.at_most(x, lanes.constant(largest(lanes))), lanes.constant(smallest))


def largest(lanes: Lanes) -> float:
    """A number whose exponential is infinite, and that of its half by far not."""
    return 709.9 if lanes.double else 88.8


def mantissa(lanes: Lanes) -> int:
    """The number of bits after the point."""
    return 52 if lanes.double else 23
