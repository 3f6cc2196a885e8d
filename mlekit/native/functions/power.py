"""Powers and roots."""

from __future__ import annotations

import math

from llvmlite import ir

from ..lanes import Lanes
from .exponential import exp, exp_of_pair
from .logarithm import log, log_pair
from .pairs import exact_product, product


def integer_pow(lanes: Lanes, x: ir.Value, exponent: int) -> ir.Value:
    """A power with an exponent known beforehand, by products of squares; one over it if that is negative."""
    value, square, left = None, x, abs(exponent)
    while left:
        if left % 2:
            value = square if value is None else lanes.mul(value, square)
        left //= 2
        square = lanes.mul(square, square) if left else square
    if value is None:
        return lanes.constant(1)
    return lanes.div(lanes.constant(1), value) if exponent < 0 else value


def square(lanes: Lanes, x: ir.Value) -> ir.Value:
    """$x^2$."""
    return lanes.mul(x, x)


def sqrt(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\sqrt x$, correctly rounded."""
    return lanes.sqrt(x)


def rsqrt(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$1 / \sqrt x$; both roundings together stay below 1.5 units in the last place."""
    return lanes.div(lanes.constant(1), lanes.sqrt(x))


def pow(lanes: Lanes, x: ir.Value, y: ir.Value) -> ir.Value:
    """$x^y$, with the special cases of C99."""
    return lanes.call("pow", _pow, x, y)


def _pow(lanes: Lanes, x: ir.Value, y: ir.Value) -> ir.Value:
    size = lanes.abs(x)
    one, zero, infinity = lanes.constant(1), lanes.constant(0), lanes.constant(math.inf)
    value = _double_power(lanes, size, y) if lanes.double else _single_power(lanes, size, y)
    is_whole = lanes.compare("==", lanes.trunc(y), y)
    half = lanes.mul(y, lanes.constant(0.5))
    is_odd = lanes.both(is_whole, lanes.compare("!=", lanes.trunc(half), half))
    negative = lanes.compare("<", lanes.to_bits(x), lanes.whole(0))
    value = lanes.select(lanes.both(negative, is_odd), lanes.neg(value), value)
    below = lanes.both(lanes.compare("<", x, zero), lanes.is_finite(x))
    undefined = lanes.both(below, lanes.both(lanes.invert(is_whole), lanes.is_finite(y)))
    value = lanes.select(undefined, lanes.constant(math.nan), value)
    endless = lanes.both(lanes.compare("==", size, one), lanes.compare("==", lanes.abs(y), infinity))
    always = lanes.either(lanes.compare("==", x, one), lanes.compare("==", y, zero))
    return lanes.select(lanes.either(endless, always), one, value)


def _double_power(lanes: Lanes, size: ir.Value, y: ir.Value) -> ir.Value:
    """The power of a size in float64, through a logarithm of twice the digits."""
    logarithm, rest = log_pair(lanes, size)
    edge = log(lanes, size)
    regular = lanes.is_finite(edge)
    logarithm, rest = (lanes.select(regular, logarithm, edge), lanes.select(regular, rest, lanes.constant(0)))
    exponent, exponent_rest = exact_product(lanes, logarithm, y)
    exponent_rest = lanes.fma(rest, y, exponent_rest)
    within = lanes.compare("<", lanes.abs(exponent), lanes.constant(800))
    return exp_of_pair(lanes, (exponent, lanes.select(within, exponent_rest, lanes.constant(0))))


def _single_power(lanes: Lanes, size: ir.Value, y: ir.Value) -> ir.Value:
    """The same in float32: float64 has the digits."""
    wide = lanes.doubled()
    return lanes.narrow(exp(wide, wide.mul(log(wide, lanes.widen(size)), lanes.widen(y))))


def cbrt(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\sqrt[3]x$ by Newton's step from a power with the exponent 1/3."""
    return lanes.call("cbrt", _cbrt, x)


def _cbrt(lanes: Lanes, x: ir.Value) -> ir.Value:
    wide = lanes.doubled()
    value = wide.abs(lanes.widen(x))
    tiny = wide.compare("<", value, wide.constant(2.0**-600))  # where rests of products underflow
    size = wide.select(tiny, wide.mul(value, wide.constant(2.0**600)), value)
    root = exp(wide, wide.mul(log(wide, size), wide.constant(1 / 3)))
    if lanes.double:  # the logarithm's last digits count up to 200 times
        square, square_rest = exact_product(wide, root, root)
        cube, cube_rest = product(wide, (square, square_rest), (root, wide.constant(0)))
        wrong = wide.sub(wide.sub(size, cube), cube_rest)
        root = wide.sub(root, wide.div(wide.neg(wrong), wide.mul(wide.constant(3), square)))
    regular = wide.both(wide.compare(">", size, wide.constant(0)), wide.is_finite(size))
    root = wide.select(tiny, wide.mul(root, wide.constant(2.0**-200)), root)
    return lanes.copysign(lanes.narrow(wide.select(regular, root, value)), x)
