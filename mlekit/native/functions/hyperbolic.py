"""Hyperbolic functions and the logistic one."""

from __future__ import annotations

from llvmlite import ir

from ..lanes import Lanes
from .exponential import clamped, expm1_near, expm1_near_pair, largest, power_of_two, reduced_pair, scaled
from .polynomials import Table, polynomial

#: (sinh x - x) / x³ for |x| ≤ 1, in x²
SINH: Table = (
    (
        0.16666666666666669,
        0.008333333333333139,
        0.00019841269841437657,
        2.7557319155345205e-06,
        2.5052123397121687e-08,
        1.6057240459906973e-10,
        7.759308432056837e-13,
    ),
    (0.16666718221486046, 0.008330212090706644, 0.00020377356865706661),
)


def tanh(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\tanh x = e / (e + 2)$ with $e = e^{2x} - 1$."""
    one, two = lanes.constant(1), lanes.constant(2)
    size = lanes.at_most(lanes.abs(x), lanes.constant(22.0 if lanes.double else 10.0))
    power, r, rest = reduced_pair(lanes, lanes.add(size, size))
    near, near_rest = expm1_near_pair(lanes, (r, rest))
    scale = power_of_two(lanes, power)
    grown, grown_rest = lanes.fma(near, scale, lanes.sub(scale, one)), lanes.mul(near_rest, scale)
    below, below_rest = lanes.add(grown, two), lanes.sub(grown, lanes.sub(lanes.add(grown, two), two))
    value = lanes.div(grown, below)
    # What three roundings lost, over the denominator, which is 2 / (1 - value)
    left = lanes.sub(one, value)
    wrong = lanes.fma(lanes.neg(value), below, grown)
    wrong = lanes.add(wrong, lanes.fma(lanes.neg(value), below_rest, lanes.mul(left, grown_rest)))
    corrected = lanes.fma(lanes.mul(wrong, left), lanes.constant(0.5), value)
    is_near = lanes.compare("<", size, one)  # beyond, little is lost, and `left` loses its digits
    return lanes.copysign(lanes.select(is_near, corrected, value), x)


def logistic(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$1 / (1 + e^{-x})$, with its whole range below, where it is nearly $e^x$."""
    one = lanes.constant(1)
    power, r, rest = reduced_pair(lanes, clamped(lanes, lanes.neg(lanes.abs(x))))
    small = scaled(lanes, lanes.add(one, expm1_near(lanes, (r, rest))), power)
    total = lanes.add(one, small)
    lost = lanes.sub(small, lanes.sub(total, one))
    share = lanes.div(one, total)
    # What the sum and the quotient lost to rounding
    wrong = lanes.fma(lanes.neg(lost), share, lanes.fma(lanes.neg(total), share, one))
    share = lanes.fma(share, wrong, share)
    return lanes.select(lanes.compare("<", x, lanes.constant(0)), lanes.mul(small, share), share)


def cosh(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\cosh x = e^x / 2 + 1 / (2 e^x)$."""
    half = half_exp(lanes, lanes.abs(x))
    return lanes.add(half, lanes.div(lanes.constant(0.25), half))


def sinh(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\sinh x = e^x / 2 - 1 / (2 e^x)$, below 1 by a polynomial."""
    size = lanes.abs(x)
    half = half_exp(lanes, size)
    large = lanes.copysign(lanes.sub(half, lanes.div(lanes.constant(0.25), half)), x)
    square = lanes.mul(x, x)
    near = lanes.fma(lanes.mul(square, polynomial(lanes, square, SINH)), x, x)
    return lanes.select(lanes.compare("<", size, lanes.constant(1)), near, large)


def half_exp(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$e^x / 2$, which is finite where $e^x$ is just not."""
    x = lanes.at_most(x, lanes.constant(largest(lanes) + 1))
    power, r, rest = reduced_pair(lanes, x)
    near = lanes.add(expm1_near(lanes, (r, rest)), lanes.constant(1))
    return scaled(lanes, near, lanes.sub(power, lanes.whole(1)))
