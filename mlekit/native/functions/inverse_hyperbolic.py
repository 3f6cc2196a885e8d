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
    regular = lanes.add(t, lanes.sqrt(lanes.fma(t, t, lanes.add(t, t))))
    below = lanes.compare("<", x, one)
    return lanes.select(below, lanes.constant(math.nan), _logarithm(lanes, x, regular))


def atanh(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\operatorname{artanh} x = \frac12 \log(1 + 2 |x| / (1 - |x|))$ with the sign of $x$: NaN beyond one."""
    size = lanes.abs(x)
    ratio = lanes.div(lanes.add(size, size), lanes.sub(lanes.constant(1), size))
    return lanes.copysign(lanes.mul(lanes.constant(0.5), log1p(lanes, ratio)), x)


def _logarithm(lanes: Lanes, size: ir.Value, regular: ir.Value) -> ir.Value:
    """The logarithm of one and a number, or of twice a huge one whose square may be infinite."""
    huge = lanes.compare(">", size, lanes.constant(HUGE))
    value = log1p(lanes, lanes.select(huge, size, regular))
    return lanes.select(huge, lanes.add(value, lanes.constant(math.log(2))), value)
