r"""The logarithm of the gamma function.

From 6.5 on Stirling's series (Abramowitz and Stegun 6.1.41); between -1/2 and there, with $k$ the whole number
nearest to $x$ and $t = x - k$, a polynomial around 2 and the recurrence (6.1.15); below, reflection (6.1.17). What
cancels around the zeros 1 and 2, and in the logarithms, is kept in pairs: above -1/2 the error is below two units
in the last place. Below, where zeros lie everywhere, it is below 3 of the larger one of 1 and the value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir

from ..lanes import Lanes
from .logarithm import log, log_pair
from .pairs import Pair, exact_product, exact_sum, ordered_sum, pair_constant
from .polynomials import Table, horner

#: log Γ(2 + t) / t for |t| ≤ 1/2 in t, less its value 1 - γ at 0 over t; for float32 in float64
AROUND_TWO: Table = (
    (
        0.3224670334241132,
        -0.06735230105319814,
        0.020580808427784925,
        -0.0073855510286683955,
        0.0028905103307136967,
        -0.0011927539119910944,
        0.0005096695256868517,
        -0.00022315475094956204,
        9.945749520222834e-05,
        -4.4926348741409194e-05,
        2.0507408936001722e-05,
        -9.438474756896134e-06,
        4.373503889698282e-06,
        -2.044856674183916e-06,
        9.610522221185271e-07,
        -4.304913103162902e-07,
        1.9667557231287863e-07,
        -1.340077918103683e-07,
        6.915731328661555e-08,
    ),
    (
        0.322467034687328,
        -0.06735228224072165,
        0.02058073444063847,
        -0.007386158729729721,
        0.0028917321489531976,
        -0.0011859589793435264,
        0.0005015193562383819,
        -0.00025361888054543187,
        0.00012235960552244024,
    ),
)
ONE_LESS_GAMMA = "0.422784335098467139393487909917597568957840664060076"
#: What Stirling's series adds, times x, in 1/x² for x ≥ 6.4
STIRLING: Table = (
    (
        0.08333333333333333,
        -0.0027777777777324626,
        0.0007936507633869179,
        -0.0005952304839304473,
        0.0008408312843901969,
        -0.001859409050749216,
        0.004498629243765974,
    ),
    (0.08333333307984826, -0.0027775889250526656, 0.0007727096132130759),
)
LARGE = 6.5  #: from here on Stirling's series
OVERFLOW = 2.5563481638716906e305  #: beyond, the value is not in float64's range
#: sin(πf) / f for |f| ≤ 1/2, in f²
SINE = (
    3.141592653589793,
    -5.167712780049969,
    2.550164039877294,
    -0.5992645293187381,
    0.08214588656989054,
    -0.007370430478749376,
    0.00046629968873115353,
    -2.1903185361363093e-05,
    7.694727129223005e-07,
)


def lgamma(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\log|\Gamma(x)|$: infinite at 0, at negative whole numbers and at both infinities."""
    return lanes.call("lgamma", _lgamma if lanes.double else _single_lgamma, x)


def _single_lgamma(lanes: Lanes, x: ir.Value) -> ir.Value:
    """In float32 by way of float64, which spares the pairs."""
    return lanes.narrow(_lgamma(lanes.doubled(), lanes.widen(x), precise=False))


def _lgamma(lanes: Lanes, x: ir.Value, precise: bool = True) -> ir.Value:
    reflected = lanes.compare("<", x, lanes.constant(-0.5))
    size = lanes.select(reflected, lanes.neg(x), x)
    large = lanes.compare(">=", size, lanes.constant(LARGE))
    nearest = lanes.round(size)
    all_large = lanes.all(large)
    factors = lanes.branch(
        all_large, lambda: size, lambda: lanes.select(large, size, _factors(lanes, size, nearest))
    )
    if precise:
        logarithm = log_pair(lanes, factors, _factors_rest(lanes, size, nearest))
    else:
        logarithm = log(lanes, factors), lanes.constant(0)
    coefficients = 0 if precise else 1

    def above() -> ir.Value:
        return _stirling(lanes, size, logarithm, STIRLING[coefficients])

    def near() -> ir.Value:
        return _around_two(lanes, size, nearest, logarithm, AROUND_TWO[coefficients])

    def both() -> ir.Value:
        return lanes.select(large, above(), near())

    value = lanes.branch(all_large, above, lambda: lanes.branch(lanes.any(large), both, near))
    return lanes.branch(lanes.any(reflected), lambda: _reflect(lanes, x, reflected, value), lambda: value)


def _stirling(lanes: Lanes, x: ir.Value, logarithm: Pair, coefficients: Sequence[float]) -> ir.Value:
    """The value from `LARGE` on."""
    one = lanes.constant(1)
    inverse = lanes.div(one, x)
    series = horner(lanes, lanes.mul(inverse, inverse), coefficients)
    series = lanes.fma(inverse, series, lanes.constant(0.5 * math.log(2 * math.pi) - 0.5))
    high, rest = ordered_sum(lanes, logarithm[0], lanes.neg(one))
    product, low = exact_product(lanes, lanes.sub(x, lanes.constant(0.5)), high)
    low = lanes.add(lanes.fma(x, lanes.add(rest, logarithm[1]), low), series)
    infinite = lanes.compare(">", x, lanes.constant(OVERFLOW))
    return lanes.select(infinite, lanes.constant(math.inf), lanes.add(product, low))


def _around_two(
    lanes: Lanes, x: ir.Value, nearest: ir.Value, logarithm: Pair, coefficients: Sequence[float]
) -> ir.Value:
    """The value between -1/2 and `LARGE`, given the logarithm of what the recurrence multiplies."""
    t = lanes.sub(x, nearest)
    above = lanes.compare(">", nearest, lanes.constant(1))
    high, high_rest = (lanes.select(above, each, lanes.neg(each)) for each in logarithm)
    first, first_rest = pair_constant(lanes, ONE_LESS_GAMMA)
    series, series_rest = ordered_sum(lanes, first, lanes.mul(t, horner(lanes, t, coefficients)))
    product, low = exact_product(lanes, t, series)
    total, rest = exact_sum(lanes, high, product)
    low = lanes.fma(t, lanes.add(series_rest, first_rest), low)
    value = lanes.add(total, lanes.add(rest, lanes.add(high_rest, low)))
    return lanes.select(lanes.compare("==", x, lanes.constant(0)), lanes.constant(math.inf), value)


def _factors(lanes: Lanes, x: ir.Value, nearest: ir.Value) -> ir.Value:
    """The product of what lies between `x` and 2 by the recurrence."""
    one = lanes.constant(1)
    product: ir.Value = one
    for k in range(1, 5):
        beyond = lanes.compare(">", nearest, lanes.constant(k + 1))
        product = lanes.mul(product, lanes.select(beyond, lanes.sub(x, lanes.constant(k)), one))
    product = lanes.select(lanes.compare("==", nearest, one), x, product)
    at_zero = lanes.compare("==", nearest, lanes.constant(0))
    return lanes.select(at_zero, lanes.mul(lanes.abs(x), lanes.add(one, x)), product)


def _factors_rest(lanes: Lanes, x: ir.Value, nearest: ir.Value) -> ir.Value:
    """What rounding takes from that product below 1/2, where it would count."""
    size, one = lanes.abs(x), lanes.constant(1)
    following, following_rest = exact_sum(lanes, one, x)
    _, low = exact_product(lanes, size, following)
    at_zero = lanes.compare("==", nearest, lanes.constant(0))
    return lanes.select(at_zero, lanes.fma(size, following_rest, low), lanes.constant(0))


def _reflect(lanes: Lanes, x: ir.Value, reflected: ir.Value, value: ir.Value) -> ir.Value:
    r"""The value below -1/2, from that at `-x`: $\Gamma(x) \Gamma(-x) = -\pi / (x \sin \pi x)$."""
    left = lanes.sub(x, lanes.round(x))
    sine = lanes.mul(left, horner(lanes, lanes.mul(left, left), SINE))
    other = log(lanes, lanes.div(lanes.constant(math.pi), lanes.abs(lanes.mul(x, sine))))
    pole = lanes.compare("==", left, lanes.constant(0))
    below = lanes.select(pole, lanes.constant(math.inf), lanes.sub(other, value))
    infinite = lanes.compare("==", x, lanes.constant(-math.inf))
    below = lanes.select(infinite, lanes.constant(math.inf), below)
    return lanes.select(reflected, below, value)
