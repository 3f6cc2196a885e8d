"""Inverse trigonometric functions."""

from __future__ import annotations

import math

from llvmlite import ir

from ..lanes import Lanes
from .pairs import HALF_PI, PI, pair_constant, split
from .polynomials import Table, polynomial

#: (asin x - x) / x³ for |x| ≤ 1/2, in x²
ARCSINE: Table = (
    (
        0.16666666666666763,
        0.07499999999970275,
        0.04464285717510853,
        0.03038194268417709,
        0.0223722156452819,
        0.017351600349735465,
        0.013980958483793037,
        0.011397799391895062,
        0.01078640210709191,
        0.0036835078091608364,
        0.021762393924196436,
        -0.021075761501990385,
        0.0326759496757398,
    ),
    (0.16666753874716708, 0.07495243916711204, 0.0454768490881498, 0.024148755534682802, 0.042216696844779696),
)
#: (atan t - t) / t³ for |t| ≤ tan(π/8), in t²
ARCTANGENT: Table = (
    (
        -0.333333333333332,
        0.19999999999953902,
        -0.1428571428022954,
        0.11111110785147948,
        -0.0909089780685091,
        0.07692061092065769,
        -0.06663113995974275,
        0.05847961160750186,
        -0.05039625072837067,
        0.03807259723777925,
        -0.017915886365270386,
    ),
    (-0.33333315471842423, 0.1999848730233943, -0.14243805498395143, 0.10595660603195063, -0.060825402198492445),
)


def asin(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\arcsin x$: NaN beyond one. From 1/2 on by $\pi / 2 - 2 \arcsin\sqrt{(1 - x) / 2}$."""
    is_near, value, rest = _arcsine(lanes, x)
    high, low = pair_constant(lanes, HALF_PI)
    twice, twice_rest = lanes.add(value, value), lanes.add(rest, rest)
    far = lanes.sub(high, lanes.sub(lanes.add(twice, twice_rest), low))
    near = lanes.add(value, rest)
    return lanes.copysign(lanes.select(is_near, near, far), x)


def acos(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\arccos x$: NaN beyond one."""
    is_near, value, rest = _arcsine(lanes, x)
    high, low = pair_constant(lanes, HALF_PI)
    twice = lanes.add(lanes.add(value, value), lanes.add(rest, rest))
    whole, whole_rest = pair_constant(lanes, PI)
    negative = lanes.compare("<", x, lanes.constant(0))
    opposite = lanes.sub(whole, lanes.sub(twice, whole_rest))
    far = lanes.select(negative, opposite, twice)
    near = lanes.copysign(lanes.add(value, rest), x)
    return lanes.select(is_near, lanes.sub(high, lanes.sub(near, low)), far)


def _arcsine(lanes: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Whether |x| is below 1/2, and the arc of it, or else of the root above, as a number and its rest."""
    size, half = lanes.abs(x), lanes.constant(0.5)
    is_near = lanes.compare("<", size, half)
    square = lanes.select(is_near, lanes.mul(size, size), lanes.mul(lanes.sub(lanes.constant(1), size), half))
    root = lanes.sqrt(square)
    # What the root's rounding leaves, over twice the root: of the larger roots, for which it counts.
    lost = lanes.mul(lanes.fma(lanes.neg(root), root, square), lanes.constant(1.1))
    start, lost = lanes.select(is_near, size, root), lanes.select(is_near, lanes.constant(0), lost)
    return is_near, start, lanes.fma(lanes.mul(start, square), polynomial(lanes, square, ARCSINE), lost)


def atan(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\arctan x$."""
    return lanes.call("atan", _atan, x)


def _atan(lanes: Lanes, x: ir.Value) -> ir.Value:
    return lanes.copysign(_angle(lanes, lanes.abs(x), lanes.constant(1), None), x)


def atan2(lanes: Lanes, y: ir.Value, x: ir.Value) -> ir.Value:
    r"""The angle of the point $(x, y)$, with the special cases of C99."""
    return lanes.call("atan2", _atan2, y, x)


def _atan2(lanes: Lanes, y: ir.Value, x: ir.Value) -> ir.Value:
    height, width, one = lanes.abs(y), lanes.abs(x), lanes.constant(1)
    infinite = lanes.constant(math.inf)
    both = lanes.both(lanes.compare("==", height, infinite), lanes.compare("==", width, infinite))
    height, width = (lanes.select(both, one, each) for each in (height, width))
    # Where their sum would overflow
    large = lanes.compare(">", lanes.add(height, width), lanes.constant(2.0 ** (1000 if lanes.double else 120)))
    height, width = (
        lanes.select(large, lanes.mul(each, lanes.constant(2.0**-20)), each) for each in (height, width)
    )
    none = lanes.both(
        lanes.compare("==", height, lanes.constant(0)), lanes.compare("==", width, lanes.constant(0))
    )
    width = lanes.select(none, one, width)
    negative = lanes.compare("<", lanes.to_bits(x), lanes.whole(0))
    return lanes.copysign(_angle(lanes, height, width, negative), y)


def _angle(lanes: Lanes, height: ir.Value, width: ir.Value, negative: ir.Value | None) -> ir.Value:
    r"""The angle of a point above the axis, to the left of the other where the mask holds.

    A quarter or an eighth of a turn is taken off first, so that a tangent of at most $\tan(\pi / 8)$ is left.
    """
    zero = lanes.constant(0)
    steep = lanes.compare(">", height, width)
    small, large = lanes.select(steep, width, height), lanes.select(steep, height, width)
    between = lanes.compare(">", small, lanes.mul(large, lanes.constant(math.tan(math.pi / 8))))
    above = lanes.select(between, lanes.sub(small, large), small)
    below = lanes.select(between, lanes.add(small, large), large)
    t = lanes.div(above, below)
    square = lanes.mul(t, t)
    # From an eighth of a turn, up or down; then from the vertical axis, or from the left end of the other.
    eighths: ir.Value = lanes.select(between, lanes.constant(1), zero)
    eighths = lanes.select(steep, lanes.sub(lanes.constant(2), eighths), eighths)
    downwards = steep
    if negative is not None:
        eighths = lanes.select(negative, lanes.sub(lanes.constant(4), eighths), eighths)
        downwards = lanes.differ(downwards, negative)
    t = lanes.select(downwards, lanes.neg(t), t)
    curve = lanes.mul(lanes.mul(t, square), polynomial(lanes, square, ARCTANGENT))
    high, low = (each / 4 for each in split(lanes, PI))
    start = lanes.mul(eighths, lanes.constant(high))
    rest = lanes.fma(eighths, lanes.constant(low), lanes.fma(eighths, lanes.constant(high), lanes.neg(start)))
    return lanes.add(start, lanes.add(t, lanes.add(rest, curve)))
