r"""The error function and its complement.

Near 0, $\operatorname{erf} x$ is a polynomial. Elsewhere

$$\operatorname{erfc} x = \frac{e^{-x^2} q(t)}{1 + 2x}, \qquad t = \frac{x - c}{x + c}$$

with a polynomial that serves all of them, as in M. M. Shepherd and J. G. Laframboise, Chebyshev approximation of
(1 + 2x) exp(x²) erfc(x) in 0 ≤ x < ∞, Math. Comp. 36 (1981). The exponential's argument is squared without error.
"""

from __future__ import annotations

from llvmlite import ir

from ..lanes import Lanes
from .exponential import exp, expm1_near_pair, reduced_pair, scaled
from .pairs import Pair, exact_product, exact_sum, ordered_sum, pair_constant
from .polynomials import Table, polynomial

#: erf(x) / x - 1 for |x| ≤ 1, in x²
NEAR: Table = (
    (
        0.12837916709551256,
        -0.3761263890318352,
        0.11283791670944184,
        -0.026866170643111354,
        0.005223977606118055,
        -0.0008548325929306461,
        0.00012055293576841258,
        -1.4924712302693159e-05,
        1.6447131592597908e-06,
        -1.6206313987907267e-07,
        1.371098162488651e-08,
        -7.7794712022683e-10,
    ),
    (
        0.12837916572453023,
        -0.37612625819384965,
        0.11283585120546942,
        -0.02685381129685295,
        0.005188327121841467,
        -0.000801019296385274,
        7.853870895875158e-05,
    ),
)
#: (1 + 2x) exp(x²) erfc(x) in t, for x from 0.469 on, until it underflows: at t = 0, and the rest over t
SCALED_AT_CENTRE = ("1.2423492448711543796543933769791", "1.2648381828594194")
SCALED: Table = (
    (
        -0.14000918013761943,
        -0.010555596332218354,
        0.09751909515325925,
        -0.11508959816018781,
        0.08798315382483905,
        -0.04882332582799889,
        0.01909933094293365,
        -0.004215019906728622,
        -0.0003022678834955958,
        0.000564384411801817,
        -0.00012151237920645854,
        -4.278221464247884e-05,
        2.426075437199551e-05,
        2.328288613632266e-06,
        -3.8139295340498147e-06,
        -4.423626826304963e-08,
        5.994687104224822e-07,
        -7.911752414016655e-09,
        -9.245209148711386e-08,
        5.614749270891729e-10,
        1.020198745911448e-08,
    ),
    (
        -0.12235677276528827,
        -0.09902434582917476,
        0.15763035185218047,
        -0.10297100374214596,
        0.03275493628515022,
        0.0009600568062042445,
        -0.004346107727363821,
        0.00040904297470723856,
        0.0005313278547980182,
    ),
)
CENTRE = (3.5, 2.5)  #: c
HALF = 0.47  #: where the complement is less than the error function


def erf(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\frac{2}{\sqrt\pi} \int_0^x e^{-u^2} du$."""
    return lanes.call("erf", _erf, x)


def erfc(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$1 - \operatorname{erf} x$."""
    return lanes.call("erfc", _erfc, x)


def _erf(lanes: Lanes, x: ir.Value) -> ir.Value:
    size, one = lanes.abs(x), lanes.constant(1)
    near = lanes.compare("<", size, one)
    value = erf_near(lanes, x)

    def either() -> ir.Value:
        # From 6 on, the complement is nothing.
        far = lanes.copysign(lanes.sub(one, erfc_rough(lanes, lanes.at_most(size, lanes.constant(6.5)))), x)
        return lanes.select(near, value, far)

    return lanes.branch(lanes.all(near), lambda: value, either)


def _erfc(lanes: Lanes, x: ir.Value) -> ir.Value:
    size = lanes.abs(x)
    near = lanes.sub(lanes.constant(1), erf_near(lanes, x))
    far = erfc_far(lanes, size)
    far = lanes.select(lanes.compare("<", x, lanes.constant(0)), lanes.sub(lanes.constant(2), far), far)
    return lanes.select(lanes.compare("<", size, lanes.constant(HALF)), near, far)


def erf_near(lanes: Lanes, x: ir.Value) -> ir.Value:
    """The error function for |x| ≤ 1."""
    return lanes.fma(polynomial(lanes, lanes.mul(x, x), NEAR), x, x)


def erfc_rough(lanes: Lanes, x: ir.Value) -> ir.Value:
    """The complement from `HALF` on, of which the last digits do not count."""
    below, sum_of_both, inverse = _denominators(lanes, x)
    t = lanes.mul(lanes.mul(lanes.sub(x, _centre(lanes)), below), inverse)
    first, _ = _at_centre(lanes)
    q = lanes.fma(t, polynomial(lanes, t, SCALED), first)
    return lanes.mul(lanes.mul(q, lanes.mul(inverse, sum_of_both)), exp(lanes, lanes.neg(lanes.mul(x, x))))


def erfc_far(lanes: Lanes, x: ir.Value) -> ir.Value:
    """The complement from `HALF` on; NaN stays."""
    x = lanes.at_most(x, lanes.constant(27.4 if lanes.double else 10.4))  # all is zero there
    below, sum_of_both, inverse = _denominators(lanes, x)
    _, below_rest = exact_sum(lanes, lanes.constant(1), lanes.add(x, x))
    t = lanes.mul(lanes.mul(lanes.sub(x, _centre(lanes)), below), inverse)
    first, first_rest = _at_centre(lanes)
    q, q_rest = ordered_sum(lanes, first, lanes.mul(t, polynomial(lanes, t, SCALED)))
    inverse = lanes.mul(inverse, sum_of_both)
    ratio = lanes.mul(q, inverse)
    wrong = lanes.fma(lanes.neg(ratio), below_rest, lanes.fma(lanes.neg(ratio), below, q))
    wrong = lanes.add(wrong, lanes.add(q_rest, first_rest))
    ratio, ratio_rest = ordered_sum(lanes, ratio, lanes.mul(wrong, inverse))
    square, square_rest = exact_product(lanes, x, x)
    power, r, rest = reduced_pair(lanes, lanes.neg(square))
    near, near_rest = expm1_near_pair(lanes, ordered_sum(lanes, r, lanes.sub(rest, square_rest)))
    small = lanes.fma(ratio, near, lanes.fma(ratio, near_rest, ratio_rest))
    return scaled(lanes, lanes.add(ratio, small), power)


def _denominators(lanes: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """$1 + 2x$, $x + c$, and one over both, by one division."""
    below, sum_of_both = lanes.add(lanes.constant(1), lanes.add(x, x)), lanes.add(x, _centre(lanes))
    return below, sum_of_both, lanes.div(lanes.constant(1), lanes.mul(below, sum_of_both))


def _centre(lanes: Lanes) -> ir.Value:
    return lanes.constant(CENTRE[0 if lanes.double else 1])


def _at_centre(lanes: Lanes) -> Pair:
    return pair_constant(lanes, SCALED_AT_CENTRE[0 if lanes.double else 1])
