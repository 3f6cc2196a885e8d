"""Inverse hyperbolic functions, by the logarithm of one and a number."""

from __future__ import annotations

import math

from llvmlite import ir

from ..lanes import Lanes
from .logarithm import log1p

HUGE = 2.0**60  #: where one is nothing beside it


def asinh(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\operatorname{arsinh} x = \log(1 + |x| + x^2 / (1 + \sqrt{1 + x^2}))$ with the sign of $x$."""
    size, one = lanes.abs(x), lanes.constant(1)
    square = lanes.mul(size, size)
    root = lanes.sqrt(lanes.add(one, square))
    regular = lanes.add(size, lanes.div(square, lanes.add(one, root)))
    return lanes.copysign(_logarithm(lanes, size, regular), x)


def acosh(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\operatorname{arcosh} x = \log(1 + t + \sqrt{2t + t^2})$ with $t = x - 1$: NaN below 1."""
    one = lanes.constant(1)
    t = lanes.sub(x, one)
    square = lanes.fma(t, t, lanes.add(t, t))
    root = lanes.sqrt(square)
    regular = lanes.add(t, root)
    # What the root and the sum lost; the larger of both comes first.
    root_rest = lanes.div(lanes.fma(lanes.neg(root), root, square), lanes.add(root, root))
    lost = lanes.add(root_rest, lanes.sub(t, lanes.sub(regular, root)))
    value = _corrected(lanes, _logarithm(lanes, x, regular), regular, lost)
    below = lanes.compare("<", x, one)
    return lanes.select(below, lanes.constant(math.nan), value)


def atanh(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\operatorname{artanh} x = \frac12 \log(1 + 2 |x| / (1 - |x|))$ with the sign of $x$: NaN beyond one."""
    size = lanes.abs(x)
    one, twice = lanes.constant(1), lanes.add(size, size)
    below = lanes.sub(one, size)
    below_rest = lanes.sub(lanes.sub(one, below), size)
    ratio = lanes.div(twice, below)
    # What the difference and the quotient lost, over the denominator, which is near 1 where it counts
    lost = lanes.fma(lanes.neg(ratio), below_rest, lanes.fma(lanes.neg(ratio), below, twice))
    lost = lanes.fma(lost, size, lost)
    value = _corrected(lanes, log1p(lanes, ratio), ratio, lost)
    return lanes.copysign(lanes.mul(lanes.constant(0.5), value), x)


def _logarithm(lanes: Lanes, size: ir.Value, regular: ir.Value) -> ir.Value:
    """The logarithm of one and a number, or of twice a huge one whose square may be infinite."""
    huge = lanes.compare(">", size, lanes.constant(HUGE))
    value = log1p(lanes, lanes.select(huge, size, regular))
    return lanes.select(huge, lanes.add(value, lanes.constant(math.log(2))), value)


def _corrected(lanes: Lanes, value: ir.Value, x: ir.Value, lost: ir.Value) -> ir.Value:
    """The logarithm of one and `x`, for `x` between 0 and 1 corrected by what rounding took from `x`."""
    share = lanes.fma(x, lanes.constant(-0.5), lanes.constant(1))  # about 1 / (1 + x)
    inside = lanes.both(lanes.compare(">", x, lanes.constant(0)), lanes.compare("<", x, lanes.constant(1)))
    return lanes.select(inside, lanes.fma(lost, share, value), value)
