r"""Angles less the nearest multiple of $\pi / 2$.

Moderate ones by W. J. Cody and W. Waite (Software Manual for the Elementary Functions, 1980), with three parts of
$\pi / 2$ and fused products; others, lane by lane, by M. Payne and R. Hanek (Radian reduction for trigonometric
functions, SIGNUM 18, 1983): of the product with $2 / \pi$ only the bits that matter are computed.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

from llvmlite import ir

from ..lanes import Lanes
from ..loops import INT64
from .exponential import nearest
from .pairs import HALF_PI, exact_product, exact_sum, ordered_sum, split

#: 2 / π in binary, after 64 zeros and the point, 1216 places: by integer division of mpmath's digits
WORDS = (
    "0000000000000000a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921c"
    "fe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f"
    "6d367ecf27cb09b74f463f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6bab"
)
SCALAR, WIDE = ir.DoubleType(), ir.IntType(192)


def moderate(lanes: Lanes, x: ir.Value) -> ir.Value:
    """The mask of angles that Cody and Waite's way serves."""
    return lanes.compare("<", lanes.abs(x), lanes.constant(2.0 ** (27 if lanes.double else 13)))


def reduced(lanes: Lanes, x: ir.Value, any_size: bool) -> tuple[ir.Value, ir.Value, ir.Value]:
    r"""The multiple of $\pi / 2$ that is taken off, as an integer of which two bits hold; what is left; its rest.

    Args:
        lanes: where to write.
        x: angles; of infinite ones nothing useful comes.
        any_size: whether some may not be moderate.
    """
    first, second, third = split(lanes, HALF_PI, 3)
    whole, count = nearest(lanes, lanes.mul(x, lanes.constant(2 / math.pi)))
    # The first difference is exact, and so is the second one with what its product and its sum leave.
    left = lanes.fma(whole, lanes.constant(-first), x)
    part, part_rest = exact_product(lanes, whole, lanes.constant(-second))
    left, rest = exact_sum(lanes, left, part)
    rest = lanes.fma(whole, lanes.constant(-third), lanes.add(rest, part_rest))
    left, rest = ordered_sum(lanes, left, rest)
    if not any_size:
        return count, left, rest
    is_moderate = moderate(lanes, x)
    safe = lanes.select(is_moderate, lanes.constant(2.0**27), x)
    others = _huge(lanes, safe)
    count, left, rest = (lanes.select(is_moderate, a, b) for a, b in zip((count, left, rest), others))
    return count, left, rest


def _huge(lanes: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The same of large angles, lane by lane."""
    builder, wide = lanes.builder, lanes.doubled()
    function = _scalar(builder.module)
    values: list[ir.Value] = [ir.Constant(each, ir.Undefined) for each in (lanes.integer, wide.real, wide.real)]
    x = lanes.widen(x)
    for index in range(lanes.width):
        found = builder.call(function, [lanes.lane(x, index)])
        parts = [builder.extract_value(found, k) for k in range(3)]
        if not lanes.double:
            parts[0] = builder.trunc(parts[0], lanes.integer.element)
        values = [lanes.with_lane(each, index, part) for each, part in zip(values, parts)]
    count, left, rest = values
    short = lanes.narrow(left)
    if not lanes.double:
        rest = lanes.narrow(wide.sub(left, lanes.widen(short)))
    return count, short, rest


def _scalar(module: ir.Module) -> ir.Function:
    """The reduction of one large number of float64, written once a module."""
    name = "mlekit.reduce_angle"
    if name in module.globals:
        return module.globals[name]
    table_type = ir.ArrayType(INT64, len(WORDS) // 16)
    table = ir.GlobalVariable(module, table_type, "mlekit.two_over_pi")
    table.linkage, table.global_constant = "internal", True
    table.initializer = ir.Constant(table_type, [int(WORDS[at : at + 16], 16) for at in range(0, len(WORDS), 16)])
    result = ir.LiteralStructType([INT64, SCALAR, SCALAR])
    function = ir.Function(module, ir.FunctionType(result, [SCALAR]), name)
    function.linkage = "internal"
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block())
    values = _payne_hanek(builder, table, function.args[0])
    found: ir.Value = ir.Constant(result, ir.Undefined)
    for index, value in enumerate(values):
        found = builder.insert_value(found, value, index)
    builder.ret(found)
    return function


def _payne_hanek(builder: ir.IRBuilder, table: ir.Value, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    def whole(value: int, type: ir.IntType = INT64) -> ir.Constant:
        return ir.Constant(type, value)

    bits = builder.bitcast(x, INT64)
    exponent = builder.and_(builder.lshr(bits, whole(52)), whole(0x7FF))
    mantissa = builder.or_(builder.and_(bits, whole((1 << 52) - 1)), whole(1 << 52))
    # x is the mantissa times 2^(exponent - 1075). Bits of 2/π that make multiples of four are left out: the window
    # of 192 bits begins where the product's bits are worth two.
    offset = builder.sub(exponent, whole(1075 - 62))
    word, shift = builder.lshr(offset, whole(6)), builder.and_(offset, whole(63))
    words = []
    for k in range(4):
        place = builder.gep(table, [whole(0), builder.add(word, whole(k))], source_etype=table.value_type)
        words.append(builder.load(place, typ=INT64))
    window: ir.Value = whole(0, WIDE)
    for high, low in itertools.pairwise(words):
        part = _funnel(builder, high, low, shift)
        window = builder.or_(builder.shl(window, whole(64, WIDE)), builder.zext(part, WIDE))
    product = builder.mul(window, builder.zext(mantissa, WIDE))
    count = builder.trunc(builder.lshr(builder.add(product, whole(1 << 189, WIDE)), whole(190, WIDE)), INT64)
    fraction = builder.shl(product, whole(2, WIDE))
    below = builder.icmp_signed("<", fraction, whole(0, WIDE))
    size = builder.select(below, builder.neg(fraction), fraction)
    zeros = builder.ctlz(size, ir.Constant(ir.IntType(1), 0))
    size = builder.shl(size, zeros)
    tops = [
        builder.trunc(builder.lshr(builder.shl(size, whole(by, WIDE)), whole(139, WIDE)), INT64) for by in (0, 53)
    ]
    scale = builder.shl(builder.sub(whole(1023), builder.trunc(zeros, INT64)), whole(52))
    negative = builder.icmp_signed("<", bits, whole(0))
    sign = builder.select(builder.xor(below, negative), ir.Constant(SCALAR, -1.0), ir.Constant(SCALAR, 1.0))
    unit = builder.fmul(builder.bitcast(scale, SCALAR), sign)
    numbers = [builder.uitofp(top, SCALAR) for top in tops]
    high, low = (
        builder.fmul(builder.fmul(v, ir.Constant(SCALAR, 2.0**-by)), unit) for v, by in zip(numbers, (53, 106))
    )
    first, second = _two_parts()
    left = builder.fmul(high, ir.Constant(SCALAR, first))
    rest = builder.fma(high, ir.Constant(SCALAR, first), builder.fneg(left))
    rest = builder.fma(high, ir.Constant(SCALAR, second), rest)
    rest = builder.fma(low, ir.Constant(SCALAR, first), rest)
    return builder.select(negative, builder.neg(count), count), left, rest


def _two_parts() -> tuple[float, float]:
    first = float(Fraction(HALF_PI))
    return first, float(Fraction(HALF_PI) - Fraction(first))


def _funnel(builder: ir.IRBuilder, high: ir.Value, low: ir.Value, shift: ir.Value) -> ir.Value:
    """Two words moved up together, the upper one of the result."""
    back = builder.lshr(builder.lshr(low, ir.Constant(INT64, 1)), builder.sub(ir.Constant(INT64, 63), shift))
    return builder.or_(builder.shl(high, shift), back)
