r"""The inverse of the error function.

With $w = -\log(1 - x^2)$ it is $x\,P(w)$ near 0 and $\sqrt w\,(1 + q(\sqrt w))$ farther out, with polynomials
for parts of the range, as in M. Giles, Approximating the erfinv function, GPU Computing Gems (2012).
"""

from __future__ import annotations

import math

from llvmlite import ir

from ..lanes import Lanes
from .logarithm import log
from .pairs import exact_sum, pair_constant
from .polynomials import Table, polynomial

#: P in w for w ≤ 5: at 0, where it is √π / 2, and the rest over w
AT_ZERO = ("0.88622692545275801364908374167057259", "0.8862269274602022")
CENTRAL: Table = (
    (
        0.23201366653465436,
        0.01154934203827462,
        -0.0023351016416544084,
        -0.00012804329400072976,
        4.6611439538603144e-05,
        2.019990457043519e-06,
        -1.01255548972277e-06,
        -3.7297657524070125e-08,
        2.2802274614976452e-08,
        7.398489582575293e-10,
        -5.079789029998243e-10,
        -2.963396556325725e-11,
        2.066756510964903e-11,
        -3.70947206204388e-12,
        1.2420536885178204e-12,
        -4.55151020106348e-13,
        1.0619663798451954e-13,
        -1.5927549840748614e-14,
        1.5794803332188778e-15,
        -1.016668188644553e-16,
        3.889180648797603e-18,
        -6.763589691333245e-20,
    ),
    (
        0.23201355595290699,
        0.011550335796447025,
        -0.0023385416163035667,
        -0.00012200079294633038,
        4.0485083070020205e-05,
        5.836530813931358e-06,
        -2.4981641586182894e-06,
        3.098488949420721e-07,
        -1.7166501580146703e-08,
        3.357539123740433e-10,
    ),
)
#: q in √w - 3, for float64 up to √w = 3.75; and beyond in √w - 4.875
MIDDLE: Table = (
    (
        -0.055732671740397026,
        0.019465018104104666,
        -0.0042071098141136295,
        0.0002540265911898806,
        0.0002961365597490292,
        -0.0001724511668045215,
        4.529264070672913e-05,
        3.5215306936338995e-06,
        -9.20320338718927e-06,
        3.918115104402071e-06,
        -2.565375370045807e-07,
        -5.850672743005457e-07,
        3.212604639226155e-07,
        -4.3954085281368485e-08,
        -3.7868161010190455e-08,
        2.5732015589896965e-08,
        -4.309559973475918e-09,
        -2.9610108949174853e-09,
        1.433668774375411e-09,
    ),
    (
        -0.05573266864949675,
        0.01946500243356681,
        -0.0042072760908170494,
        0.00025433451656928897,
        0.00029750598647920664,
        -0.0001742746396143078,
        4.1708193998560524e-05,
        7.882436730431596e-06,
        -6.322293946538828e-06,
    ),
)
FAR = (
    -0.03105289951772584,
    0.008487660954858983,
    -0.0017514303146477681,
    0.00030669882468727425,
    -4.457501805471822e-05,
    4.349423305848813e-06,
    2.2111776202381115e-07,
    -2.8648667851425365e-07,
    1.083098179440358e-07,
    -3.1832911457399465e-08,
    8.205702696542076e-09,
    -1.883110546102447e-09,
    3.5929399245103836e-10,
    -3.974108303164346e-11,
    -9.48711958779908e-12,
    9.742149476343942e-12,
    -4.5931754944805225e-12,
    1.169861508933934e-12,
    -1.0432108581827232e-13,
)
NEAR, FARTHER = 5.0, 3.75  #: where the parts meet: w and its root


def erf_inv(lanes: Lanes, x: ir.Value) -> ir.Value:
    r"""$\operatorname{erf}^{-1} x$: infinite at ±1, NaN beyond."""
    return lanes.call("erf_inv", _erf_inv, x)


def _erf_inv(lanes: Lanes, x: ir.Value) -> ir.Value:
    one = lanes.constant(1)
    w = lanes.neg(log(lanes, lanes.mul(lanes.sub(one, x), lanes.add(one, x))))
    is_near = lanes.compare("<", w, lanes.constant(NEAR))
    first, first_rest = pair_constant(lanes, AT_ZERO[0 if lanes.double else 1])
    value, rest = exact_sum(lanes, first, lanes.mul(w, polynomial(lanes, w, CENTRAL)))
    near = lanes.fma(x, value, lanes.mul(x, lanes.add(rest, first_rest)))

    def either() -> ir.Value:
        return lanes.select(is_near, near, _outer(lanes, w))

    return lanes.copysign(lanes.branch(lanes.all(is_near), lambda: near, either), x)


def _outer(lanes: Lanes, w: ir.Value) -> ir.Value:
    root = lanes.sqrt(w)
    if lanes.double:
        is_far = lanes.compare(">", root, lanes.constant(FARTHER))
        t = lanes.sub(root, lanes.select(is_far, lanes.constant(4.875), lanes.constant(3)))
        pairs = [lanes.select(is_far, lanes.constant(b), lanes.constant(a)) for a, b in zip(MIDDLE[0], FAR)]
        q = pairs.pop()
        while pairs:
            q = lanes.fma(q, t, pairs.pop())
    else:
        q = polynomial(lanes, lanes.sub(root, lanes.constant(3)), MIDDLE)
    infinite = lanes.compare("==", w, lanes.constant(math.inf))
    return lanes.select(infinite, w, lanes.fma(root, q, root))
