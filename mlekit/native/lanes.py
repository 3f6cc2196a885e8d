"""The operations on vectors of numbers that native code is written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from .loops import BOOLEAN, INT32, INT64


class Lanes:
    """Vectors of `width` numbers of one precision, in the function that a builder writes.

    Each operation acts on every lane alone and rounds as IEEE 754 says; none is contracted, reordered or left out.
    So a lane's result depends on that lane's bits alone. Constants are vectors too, and so is everything else but
    the truth of a whole vector (`any`, `all`), which a branch can test.

    Args:
        builder: where instructions go.
        width: the number of lanes, from 1.
        dtype: float64 or float32.
        avx512: whether the machine has AVX-512 (its F and VL): some instructions are spared, no result changes.
    """

    def __init__(self, builder: ir.IRBuilder, width: int, dtype: Any, avx512: bool = False) -> None:
        self.builder = builder
        self.width = width
        self.avx512 = avx512
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.dtype(np.float64), np.dtype(np.float32)):
            raise TypeError(f"lanes hold float64 or float32, got {self.dtype}")
        self.double = self.dtype == np.float64
        self.real = ir.VectorType(ir.DoubleType() if self.double else ir.FloatType(), width)
        self.integer = ir.VectorType(INT64 if self.double else INT32, width)  #: as many bits as a real number
        self.mask = ir.VectorType(BOOLEAN, width)

    # Constants

    def constant(self, value: float) -> ir.Constant:
        """A real number in every lane, rounded to the precision."""
        number = float(self.dtype.type(value))
        return ir.Constant(self.real, [number] * self.width)

    def whole(self, value: int, type: ir.VectorType | None = None) -> ir.Constant:
        """A whole number in every lane, of the type `integer` unless told another."""
        return ir.Constant(self.integer if type is None else type, [value] * self.width)

    def truth(self, value: bool) -> ir.Constant:
        """A truth value in every lane."""
        return ir.Constant(self.mask, [int(value)] * self.width)

    def broadcast(self, scalar: ir.Value) -> ir.Value:
        """A scalar of any type in every lane."""
        nothing = ir.Constant(ir.VectorType(scalar.type, self.width), ir.Undefined)
        first = self.builder.insert_element(nothing, scalar, ir.Constant(INT32, 0))
        return self.shuffle(first, [0] * self.width)

    # Arithmetic of real numbers

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """`a + b`, of whole numbers too, which wrap around."""
        return self.builder.fadd(a, b) if is_real(a) else self.builder.add(a, b)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """`a - b`, of whole numbers too, which wrap around."""
        return self.builder.fsub(a, b) if is_real(a) else self.builder.sub(a, b)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """`a * b`, of whole numbers too, which wrap around."""
        return self.builder.fmul(a, b) if is_real(a) else self.builder.mul(a, b)

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """`a / b`, correctly rounded."""
        return self.builder.fdiv(a, b)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """`a * b + c`, rounded once."""
        return self.intrinsic("fma", a, b, c)

    def neg(self, a: ir.Value) -> ir.Value:
        """`-a`: of a real number the sign bit alone changes."""
        return self.builder.fneg(a) if is_real(a) else self.builder.neg(a)

    def abs(self, a: ir.Value) -> ir.Value:
        """The size of a real number."""
        return self.intrinsic("fabs", a)

    def min(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The smaller one, NaN if either is, -0 below 0; of whole numbers, the smaller one with their signs."""
        return self.intrinsic("minimum" if is_real(a) else "smin", a, b)

    def max(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger one, NaN if either is, -0 below 0; of whole numbers, the larger one with their signs."""
        return self.intrinsic("maximum" if is_real(a) else "smax", a, b)

    def at_most(self, a: ir.Value, bound: ir.Value) -> ir.Value:
        """`a`, or the bound where `a` is above it; NaN stays. One instruction where `min` takes several."""
        return self.builder.select(self.builder.fcmp_ordered("<", bound, a), bound, a)

    def at_least(self, a: ir.Value, bound: ir.Value) -> ir.Value:
        """`a`, or the bound where `a` is below it; NaN stays. One instruction where `max` takes several."""
        return self.builder.select(self.builder.fcmp_ordered(">", bound, a), bound, a)

    def sqrt(self, a: ir.Value) -> ir.Value:
        """The square root, correctly rounded."""
        return self.intrinsic("sqrt", a)

    def round(self, a: ir.Value) -> ir.Value:
        """The nearest whole number, halves to the even one."""
        return self.intrinsic("roundeven", a)

    def floor(self, a: ir.Value) -> ir.Value:
        """The whole number at or below."""
        return self.intrinsic("floor", a)

    def ceil(self, a: ir.Value) -> ir.Value:
        """The whole number at or above."""
        return self.intrinsic("ceil", a)

    def trunc(self, a: ir.Value) -> ir.Value:
        """The whole number next towards zero."""
        return self.intrinsic("trunc", a)

    def copysign(self, size: ir.Value, sign: ir.Value) -> ir.Value:
        """A number of the size of the first and the sign of the second."""
        return self.intrinsic("copysign", size, sign)

    def rem(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """What `a` leaves over a whole multiple of `b`, with the sign of `a`; exact, but a call of libm a lane."""
        return self.builder.frem(a, b)

    # Comparisons and choices

    def compare(self, operator: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """The mask of `a operator b`, as Python writes it; with NaN only `!=` holds, whole numbers have signs."""
        if not is_real(a):
            return self.builder.icmp_signed(operator, a, b)
        ordered = self.builder.fcmp_unordered if operator == "!=" else self.builder.fcmp_ordered
        return ordered(operator, a, b)

    def is_nan(self, a: ir.Value) -> ir.Value:
        """The mask of lanes that hold no number."""
        return self.builder.fcmp_unordered("uno", a, a)

    def is_finite(self, a: ir.Value) -> ir.Value:
        """The mask of lanes that are neither infinite nor NaN."""
        return self.compare("<", self.abs(a), self.constant(np.inf))

    def select(self, mask: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """`a` where the mask holds, else `b`."""
        return self.builder.select(mask, a, b)

    def both(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Masks or bits that are in both."""
        return self.builder.and_(a, b)

    def either(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Masks or bits that are in at least one."""
        return self.builder.or_(a, b)

    def differ(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Masks or bits that are in one but not in the other."""
        return self.builder.xor(a, b)

    def invert(self, a: ir.Value) -> ir.Value:
        """A mask's or a whole number's bits, all turned."""
        return self.builder.not_(a)

    # Bits and whole numbers

    def to_bits(self, a: ir.Value) -> ir.Value:
        """The bits of a real number, as a whole one."""
        return self.builder.bitcast(a, self.integer)

    def from_bits(self, a: ir.Value) -> ir.Value:
        """The real number that has these bits."""
        return self.builder.bitcast(a, self.real)

    def shift_left(self, a: ir.Value, places: int | ir.Value) -> ir.Value:
        """Bits moved up."""
        return self.builder.shl(a, self._places(a, places))

    def shift_right(self, a: ir.Value, places: int | ir.Value, signed: bool = False) -> ir.Value:
        """Bits moved down, filled with zeros or with the sign."""
        shift = self.builder.ashr if signed else self.builder.lshr
        return shift(a, self._places(a, places))

    def to_integer(self, a: ir.Value, type: ir.VectorType | None = None) -> ir.Value:
        """The whole number next towards zero; beyond the type's range the nearest in it, 0 for NaN, as on XLA."""
        return self.intrinsic("fptosi.sat", a, result=self.integer if type is None else type)

    def to_real(self, a: ir.Value) -> ir.Value:
        """A whole number with a sign, or a mask as 0 and 1, as a real number."""
        is_mask = a.type.element.width == 1
        return (self.builder.uitofp if is_mask else self.builder.sitofp)(a, self.real)

    # Whole vectors

    def any(self, mask: ir.Value) -> ir.Value:
        """Whether a mask holds in one lane at least: a scalar."""
        bits = ir.IntType(self.width)
        return self.builder.icmp_unsigned("!=", self.builder.bitcast(mask, bits), ir.Constant(bits, 0))

    def all(self, mask: ir.Value) -> ir.Value:
        """Whether a mask holds in every lane: a scalar."""
        bits = ir.IntType(self.width)
        return self.builder.icmp_unsigned("==", self.builder.bitcast(mask, bits), ir.Constant(bits, -1))

    def lane(self, a: ir.Value, index: int) -> ir.Value:
        """One lane's scalar."""
        return self.builder.extract_element(a, ir.Constant(INT32, index))

    def with_lane(self, a: ir.Value, index: int, scalar: ir.Value) -> ir.Value:
        """The vector with another scalar in one lane."""
        return self.builder.insert_element(a, scalar, ir.Constant(INT32, index))

    def shuffle(self, a: ir.Value, order: list[int]) -> ir.Value:
        """The lanes named, in that order."""
        nothing = ir.Constant(a.type, ir.Undefined)
        return self.builder.shuffle_vector(a, nothing, ir.Constant(ir.VectorType(INT32, len(order)), order))

    def sum(self, a: ir.Value) -> ir.Value:
        """The sum of all lanes, a scalar: the upper half is added to the lower one until one lane is left."""
        count = self.width
        while count > 1 and count % 2 == 0:
            count //= 2
            a = self.add(self.shuffle(a, [*range(count)]), self.shuffle(a, [*range(count, 2 * count)]))
        total = self.lane(a, 0)
        for index in range(1, count):
            total = self.add(total, self.lane(a, index))
        return total

    # Precisions

    def doubled(self) -> Lanes:
        """As many lanes of float64, in the same place."""
        return Lanes(self.builder, self.width, np.float64, self.avx512)

    def widen(self, a: ir.Value) -> ir.Value:
        """A real vector in float64."""
        return a if self.double else self.builder.fpext(a, self.doubled().real)

    def narrow(self, a: ir.Value) -> ir.Value:
        """A vector of float64 in this precision."""
        return a if self.double else self.builder.fptrunc(a, self.real)

    # Control

    def intrinsic(self, name: str, *arguments: ir.Value, result: ir.Type | None = None) -> ir.Value:
        """A call of LLVM's intrinsic of that name, which acts on lanes; its result is like the first argument."""
        type = arguments[0].type if result is None else result
        kinds = [type] if result is None else [type, arguments[0].type]
        full = ".".join(["llvm", name, *map(_suffix, kinds)])
        module = self.builder.module
        function = module.globals.get(full)
        if function is None:
            function = ir.Function(module, ir.FunctionType(type, [each.type for each in arguments]), full)
        return self.builder.call(function, arguments)

    def branch(
        self, condition: ir.Value, then: Callable[[], ir.Value], otherwise: Callable[[], ir.Value]
    ) -> ir.Value:
        """One of two values, by a scalar; the other one is not computed. Goes on in another block."""
        builder = self.builder
        first, second, after = (builder.append_basic_block(name) for name in ("then", "otherwise", "after"))
        builder.cbranch(condition, first, second)
        found = []
        for block, value in ((first, then), (second, otherwise)):
            builder.position_at_end(block)
            found.append((value(), builder.block))
            builder.branch(after)
        builder.position_at_end(after)
        joined = builder.phi(found[0][0].type)
        for value, block in found:
            joined.add_incoming(value, block)
        return joined

    def call(self, name: str, body: Callable[..., ir.Value], *arguments: ir.Value) -> ir.Value:
        """A call of a function of vectors that is written once a module.

        Args:
            name: what is computed; the precision and the width become part of the function's name.
            body: writes the value, a real vector: given lanes in the new function, and its arguments.
            arguments: as many vectors as `body` takes after the lanes.

        Returns:
            The value. Nothing branches at the place of the call.
        """
        module = self.builder.module
        full = f"mlekit.{name}.{_suffix(self.real)}"
        function = module.globals.get(full)
        if function is None:
            types = [each.type for each in arguments]
            function = ir.Function(module, ir.FunctionType(self.real, types), full)
            function.linkage = "internal"
            for attribute in ("noinline", "nounwind"):
                function.attributes.add(attribute)
            builder = ir.IRBuilder(function.append_basic_block())
            builder.ret(body(Lanes(builder, self.width, self.dtype, self.avx512), *function.args))
        return self.builder.call(function, arguments)

    def _places(self, a: ir.Value, places: int | ir.Value) -> ir.Value:
        return self.whole(places, a.type) if isinstance(places, int) else places


def is_real(a: ir.Value) -> bool:
    """Whether a value is of real numbers, rather than whole ones or masks."""
    kind = a.type.element if isinstance(a.type, ir.VectorType) else a.type
    return not isinstance(kind, ir.IntType)


def _suffix(type: ir.Type) -> str:
    """The part of an intrinsic's name that tells a type, such as `v8f64`."""
    kind = type.element
    name = (
        f"i{kind.width}" if isinstance(kind, ir.IntType) else "f64" if isinstance(kind, ir.DoubleType) else "f32"
    )
    return f"v{type.count}{name}"
