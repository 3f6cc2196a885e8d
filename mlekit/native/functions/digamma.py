r"""The derivative of the gamma function's logarithm.

From 5 on the asymptotic series (Abramowitz and Stegun 6.3.18), below a polynomial between 2 and 3 and at most two
steps of the recurrence (6.3.5), below zero reflection (6.3.7). The error is below two units in the last place of
the larger one of 1 and the value, for the zero at 1.46 has no digits of its own. Below zero, where there are
others, it is below six of the largest one of 1, the value and log |x|.
"""

from __future__ import annotations

import math

from llvmlite import ir

from ..lanes import Lanes
from .gamma import SINE
from .logarithm import log
from .polynomials import Table, horner, polynomial

#: ψ(5/2 + t) for |t| ≤ 1/2
BETWEEN: Table = (
    (
        0.7031566406452432,
        0.4903577561002345,
        -0.11810202582086257,
        0.03731764146960457,
        -0.013073166646223279,
        0.004821409817902012,
        -0.00183056403416538,
        0.0007073882525478455,
        -0.00027643933166217365,
        0.00010882468492408318,
        -4.305186363270654e-05,
        1.7097832400080456e-05,
        -6.804106530669128e-06,
        2.6725657760448004e-06,
        -1.061919319176486e-06,
        5.126561269293121e-07,
        -2.0902699074075188e-07,
    ),
    (
        0.703156640460093,
        0.49035773963234547,
        -0.11810199559668609,
        0.03731851465745726,
        -0.01307398639494982,
        0.004808960041061751,
        -0.0018226020383431086,
        0.0007724698688718358,
        -0.0003082638926423877,
    ),
)
#: x² (log x - 1 / (2x) - ψ(x)) in 1/x² for x ≥ 5
ASYMPTOTIC: Table = (
    (
        0.08333333333332875,
        -0.008333333329514926,
        0.003968252875610044,
        -0.0041665143371246716,
        0.007563849495257042,
        -0.02053639374584896,
        0.06743555271735949,
        -0.1652714051216541,
    ),
    (0.08333329111829926, -0.008326801806125987, 0.003676926864380806),
)
LARGE = 5.0  #: from here on the asymptotic series


def digamma(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\psi(x)$: infinite at 0 (where XLA gives NaN), NaN at negative whole numbers."""
    return lanes.call("digamma", _digamma, x)


def _digamma(lanes: Lanes, x: ir.Value) -> ir.Value:
    reflected = lanes.compare("<", x, lanes.constant(0))
    size = lanes.select(reflected, lanes.sub(lanes.constant(1), x), x)
    large = lanes.compare(">=", size, lanes.constant(LARGE))

    def above() -> ir.Value:
        return _asymptotic(lanes, size)

    def near() -> ir.Value:
        return _near(lanes, size)

    def both() -> ir.Value:
        return lanes.select(large, above(), near())

    def reflect() -> ir.Value:
        return lanes.select(reflected, lanes.sub(value, cotangent(lanes, x)), value)

    value = lanes.branch(lanes.all(large), above, lambda: lanes.branch(lanes.any(large), both, near))
    return lanes.branch(lanes.any(reflected), reflect, lambda: value)


def _asymptotic(lanes: Lanes, x: ir.Value) -> ir.Value:
    inverse = lanes.div(lanes.constant(1), x)
    square = lanes.mul(inverse, inverse)
    small = lanes.fma(square, polynomial(lanes, square, ASYMPTOTIC), lanes.mul(lanes.constant(0.5), inverse))
    return lanes.sub(log(lanes, x), small)


def _near(lanes: Lanes, x: ir.Value) -> ir.Value:
    one, two, none = lanes.constant(1), lanes.constant(2), lanes.constant(math.inf)
    steps = lanes.sub(lanes.floor(x), two)
    t = lanes.sub(x, lanes.add(steps, lanes.constant(2.5)))
    # One over each of these is to be added.
    up = lanes.select(lanes.compare(">", steps, one), lanes.sub(x, two), none)
    down = lanes.select(lanes.compare("<", steps, lanes.constant(-1)), lanes.neg(lanes.add(x, one)), up)
    first = lanes.select(lanes.compare(">", steps, lanes.constant(0)), lanes.sub(x, one), none)
    first = lanes.select(lanes.compare("<", steps, lanes.constant(0)), lanes.neg(x), first)
    value = lanes.add(polynomial(lanes, t, BETWEEN), lanes.div(one, down))
    # The larger fraction's rounding may be one of a larger number than the value.
    share = lanes.div(one, first)
    rest = lanes.mul(lanes.fma(lanes.neg(share), first, one), share)
    value = lanes.add(value, lanes.select(lanes.is_finite(rest), rest, lanes.constant(0)))
    return lanes.add(value, share)


def cotangent(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\pi \cot(\pi x)$, NaN at whole numbers."""
    sine, cosine = of_half_turns(lanes, x)
    value = lanes.div(lanes.mul(lanes.constant(math.pi), cosine), sine)
    pole = lanes.compare("==", sine, lanes.constant(0))
    return lanes.select(pole, lanes.constant(math.nan), value)


def of_half_turns(lanes: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    r"""$\sin(\pi x)$ and $\cos(\pi x)$, both but for the sign of $(-1)^k$ with $k$ the nearest whole number."""
    left = lanes.sub(x, lanes.round(x))
    rest = lanes.sub(lanes.constant(0.5), lanes.abs(left))
    sine, cosine = (lanes.mul(each, horner(lanes, lanes.mul(each, each), SINE)) for each in (left, rest))
    return sine, cosine
