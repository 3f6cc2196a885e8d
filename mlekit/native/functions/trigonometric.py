r"""Sine, cosine and tangent, of angles of any size.

After the reduction to $|r| \le \pi / 4$, polynomials in $r^2$; the rest of $r$ counts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from llvmlite import ir

from ..lanes import Lanes
from .pairs import Pair, ordered_sum, quotient
from .polynomials import Table, polynomial
from .range_reduction import moderate, reduced

#: (sin r - r) / r³, in r²
SINE: Table = (
    (
        -0.16666666666666632,
        0.008333333333322314,
        -0.00019841269829724357,
        2.7557313661672947e-06,
        -2.5050753199202857e-08,
        1.589650115232701e-10,
    ),
    (-0.16666654880261597, 0.008332173806158453, -0.00019516684166841973),
)
#: (cos r - 1 + r² / 2) / r⁴, in r²
COSINE: Table = (
    (
        0.0416666666666666,
        -0.0013888888888873995,
        2.4801587289397308e-05,
        -2.755731432666331e-07,
        2.087571963978403e-09,
        -1.1359452690923044e-11,
    ),
    (0.0416666467403958, -0.0013887361225693308, 2.443771539537278e-05),
)


def sin(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\sin x$: NaN at infinity."""
    return lanes.call("sin", functools.partial(_at_any_size, _sin), x)


def cos(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\cos x$: NaN at infinity."""
    return lanes.call("cos", functools.partial(_at_any_size, _cos), x)


def tan(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\tan x$: NaN at infinity."""
    return lanes.call("tan", functools.partial(_at_any_size, _tan), x)


def _at_any_size(function: Callable[..., ir.Value], lanes: Lanes, x: ir.Value) -> ir.Value:
    """A function of angles: those that are not moderate are reduced only where there is one."""

    def general() -> ir.Value:
        value = function(lanes, x, True)
        return lanes.select(lanes.is_finite(x), value, lanes.constant(math.nan))

    return lanes.branch(lanes.all(moderate(lanes, x)), lambda: function(lanes, x, False), general)


def _sin(lanes: Lanes, x: ir.Value, any_size: bool) -> ir.Value:
    count, r, rest = reduced(lanes, x, any_size)
    (sine, _), (cosine, _) = _both(lanes, r, rest)
    value = _quarter(lanes, count, sine, cosine)
    tiny = lanes.compare("<", lanes.abs(x), lanes.constant(2.0**-30))
    return lanes.select(tiny, x, value)


def _cos(lanes: Lanes, x: ir.Value, any_size: bool) -> ir.Value:
    count, r, rest = reduced(lanes, x, any_size)
    (sine, _), (cosine, _) = _both(lanes, r, rest)
    return _quarter(lanes, lanes.add(count, lanes.whole(1)), sine, cosine)


def _tan(lanes: Lanes, x: ir.Value, any_size: bool) -> ir.Value:
    count, r, rest = reduced(lanes, x, any_size)
    sine, cosine = _both(lanes, r, rest)
    odd = _has_bit(lanes, count, 1)
    above = tuple(lanes.select(odd, lanes.neg(c), s) for s, c in zip(sine, cosine))
    below = tuple(lanes.select(odd, s, c) for s, c in zip(sine, cosine))
    value = lanes.add(*quotient(lanes, (above[0], above[1]), (below[0], below[1])))
    tiny = lanes.compare("<", lanes.abs(x), lanes.constant(2.0**-30))
    return lanes.select(tiny, x, value)


def _quarter(lanes: Lanes, count: ir.Value, sine: ir.Value, cosine: ir.Value) -> ir.Value:
    """The sine after so many quarters of a turn."""
    value = lanes.select(_has_bit(lanes, count, 1), cosine, sine)
    return lanes.select(_has_bit(lanes, count, 2), lanes.neg(value), value)


def _has_bit(lanes: Lanes, count: ir.Value, bit: int) -> ir.Value:
    return lanes.compare("!=", lanes.both(count, lanes.whole(bit)), lanes.whole(0))


def _both(lanes: Lanes, r: ir.Value, rest: ir.Value) -> tuple[Pair, Pair]:
    """The sine and the cosine of a reduced angle, with what rounding leaves of them."""
    one, square = lanes.constant(1), lanes.mul(r, r)
    half = lanes.mul(lanes.constant(0.5), square)
    small = lanes.fma(lanes.neg(half), rest, rest)
    sine = ordered_sum(lanes, r, lanes.fma(lanes.mul(square, r), polynomial(lanes, square, SINE), small))
    most = lanes.sub(one, half)
    lost = lanes.sub(lanes.sub(one, most), half)
    small = lanes.fma(lanes.neg(r), rest, lost)
    cosine = ordered_sum(
        lanes, most, lanes.fma(lanes.mul(square, square), polynomial(lanes, square, COSINE), small)
    )
    return sine, cosine
