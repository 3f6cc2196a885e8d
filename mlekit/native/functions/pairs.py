"""Numbers as unevaluated sums of two, for the digits that one number can't hold.

A pair is a number and a much smaller rest; the sums and products are Dekker's and Knuth's (T. J. Dekker, A
floating-point technique for extending the available precision, Numer. Math. 18, 1971), with fused products.
"""

from __future__ import annotations

from fractions import Fraction

from llvmlite import ir

from ..lanes import Lanes

Pair = tuple[ir.Value, ir.Value]


def exact_sum(lanes: Lanes, a: ir.Value, b: ir.Value) -> Pair:
    """`a + b` without error, whichever is larger."""
    total = lanes.add(a, b)
    of_b = lanes.sub(total, a)
    return total, lanes.add(lanes.sub(a, lanes.sub(total, of_b)), lanes.sub(b, of_b))


def ordered_sum(lanes: Lanes, large: ir.Value, small: ir.Value) -> Pair:
    """`large + small` without error, where the second is not the larger one."""
    total = lanes.add(large, small)
    return total, lanes.sub(small, lanes.sub(total, large))


def exact_product(lanes: Lanes, a: ir.Value, b: ir.Value) -> Pair:
    """`a * b` without error, unless it underflows."""
    product = lanes.mul(a, b)
    return product, lanes.fma(a, b, lanes.neg(product))


def product(lanes: Lanes, a: Pair, b: Pair) -> Pair:
    """The product of two pairs, but for the product of their rests."""
    high, low = exact_product(lanes, a[0], b[0])
    return high, lanes.fma(a[0], b[1], lanes.fma(a[1], b[0], low))


def quotient(lanes: Lanes, a: Pair, b: Pair) -> Pair:
    """The quotient of two pairs to nearly twice the precision, with one division."""
    inverse = lanes.div(lanes.constant(1), b[0])
    high = lanes.mul(a[0], inverse)
    rest = lanes.fma(lanes.neg(high), b[0], a[0])
    rest = lanes.add(rest, lanes.fma(lanes.neg(high), b[1], a[1]))
    return high, lanes.mul(rest, inverse)


def split(lanes: Lanes, value: str, parts: int = 2) -> list[float]:
    """A number given by its decimal digits as a sum of floats of the lanes' precision, the largest first."""
    rest, found = Fraction(value), []
    for _ in range(parts):
        part = float(lanes.dtype.type(float(rest)))
        found.append(part)
        rest -= Fraction(part)
    return found


def pair_constant(lanes: Lanes, value: str) -> tuple[ir.Constant, ir.Constant]:
    """A number given by its decimal digits, as a pair."""
    high, low = split(lanes, value)
    return lanes.constant(high), lanes.constant(low)


#: As many digits as three doubles hold, and some more.
LOG_2 = "0.693147180559945309417232121458176568075500134360255254120680009493393621969694715605863326996418687"
PI = "3.141592653589793238462643383279502884197169399375105820974944592307816406286208998628034825342117068"
HALF_PI = str(Fraction(PI) / 2)
