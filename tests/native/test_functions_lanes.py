"""Vectors of numbers: each operation acts on every lane alone, at every width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from mlekit.native.functions import FUNCTIONS
from mlekit.native.lanes import INT32, Lanes

from .functions_helper import DTYPES, Native

WIDTHS = (1, 2, 4, 8)
INF, NAN = np.inf, np.nan
#: Of every kind of argument that a function treats apart
VALUES = [0.0, -0.0, 1e-310, 1e-20, 0.3, -0.4, 0.9, 1.0, -1.0, 1.5, 2.0, -2.5, 3.7, 6.6, -7.3, 12.0, 30.0, -50.0]
VALUES += [1e3, -1e5, 1e9, -1e22, 1e300, INF, -INF, NAN]
TWO = ("atan2", "pow", "rem")


def emitter(name: str) -> Callable[..., ir.Value]:
    if name != "polygamma":
        return FUNCTIONS[name]
    return lambda lanes, x: FUNCTIONS[name](lanes, lanes.constant(2), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_neighbours_do_not_matter(name: str, dtype: Any) -> None:
    """A number's value has the same bits alone, among its like and among others, at any width."""
    count = 2 if name in TWO else 1
    with np.errstate(over="ignore", under="ignore"):
        x = np.array(VALUES).astype(dtype)
    arguments = [x, np.roll(x, 7)][:count]
    among_others = Native(emitter(name), count, dtype, 8)
    expected = among_others(*arguments)
    others = [among_others(*(np.repeat(each, 8) for each in arguments))[::8]]
    others += [among_others(*(each[::-1] for each in arguments))[::-1]]
    widths = WIDTHS[:-1] if dtype == np.float64 else WIDTHS[:1]
    others += [Native(emitter(name), count, dtype, width)(*arguments) for width in widths]
    for found in others:
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found)[~np.isnan(found)], np.signbit(expected)[~np.isnan(found)])


@pytest.mark.skipif(not llvm.get_host_cpu_features().get("avx512vl"), reason="needs AVX-512")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "exp2", "sinh", "cosh", "logistic", "erfc", "pow"])
def test_instructions_of_avx512_change_no_bit(name: str, dtype: Any) -> None:
    count = 2 if name in TWO else 1
    x = np.concatenate([VALUES[:-4], np.linspace(-760, 720, 500), np.linspace(-104, 89, 500)]).astype(dtype)
    arguments = [np.abs(x), np.roll(x, 7)] if count == 2 else [x]
    for width in (2, 4, 8, 16):
        expected = Native(emitter(name), count, dtype, width)(*arguments)
        np.testing.assert_array_equal(
            Native(emitter(name), count, dtype, width, avx512=True)(*arguments), expected
        )


OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add": (Lanes.add, np.add),
    "sub": (Lanes.sub, np.subtract),
    "mul": (Lanes.mul, np.multiply),
    "div": (Lanes.div, np.divide),
    "min": (Lanes.min, np.minimum),
    "max": (Lanes.max, np.maximum),
    "copysign": (Lanes.copysign, np.copysign),
    "neg": (lambda lanes, a, b: lanes.neg(a), lambda a, b: -a),
    "abs": (lambda lanes, a, b: lanes.abs(a), lambda a, b: abs(a)),
    "sqrt": (lambda lanes, a, b: lanes.sqrt(a), lambda a, b: np.sqrt(a)),
    "round": (lambda lanes, a, b: lanes.round(a), lambda a, b: np.round(a)),
    "floor": (lambda lanes, a, b: lanes.floor(a), lambda a, b: np.floor(a)),
    "ceil": (lambda lanes, a, b: lanes.ceil(a), lambda a, b: np.ceil(a)),
    "trunc": (lambda lanes, a, b: lanes.trunc(a), lambda a, b: np.trunc(a)),
    "at most": (Lanes.at_most, lambda a, b: np.where(a > b, b, a)),
    "at least": (Lanes.at_least, lambda a, b: np.where(a < b, b, a)),
    "is_nan": (lambda lanes, a, b: lanes.to_real(lanes.is_nan(a)), lambda a, b: np.isnan(a)),
    "is_finite": (lambda lanes, a, b: lanes.to_real(lanes.is_finite(a)), lambda a, b: np.isfinite(a)),
    "bits": (lambda lanes, a, b: lanes.from_bits(lanes.to_bits(a)), lambda a, b: a),
    "select": (
        lambda lanes, a, b: lanes.select(lanes.compare("<=", a, b), a, b),
        lambda a, b: np.where(a <= b, a, b),
    ),
    "precisions": (lambda lanes, a, b: lanes.narrow(lanes.widen(a)), lambda a, b: a),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 3, 8])
def test_operations_are_those_of_numpy(width: int, dtype: Any) -> None:
    some = np.array([0.0, -0.0, 1.0, -1.5, 2.5, 3.5, 1e30, INF, -INF, NAN], dtype)
    a, b = (each.ravel() for each in np.meshgrid(some, some))
    for name, (emit, wanted) in OPERATIONS.items():
        with np.errstate(all="ignore"):
            expected = np.asarray(wanted(a, b), dtype)
        found = Native(emit, 2, dtype, width)(a, b)
        np.testing.assert_array_equal(found, expected, err_msg=name)
        zeros = (found == 0) if name not in ("min", "max") else np.zeros_like(found, bool)
        np.testing.assert_array_equal(np.signbit(found[zeros]), np.signbit(expected[zeros]), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_are_ordered_by_their_signs(dtype: Any) -> None:
    a, b = np.array([0.0, -0.0], dtype), np.array([-0.0, 0.0], dtype)
    assert not np.signbit(Native(Lanes.max, 2, dtype, 2)(a, b)).any()
    assert np.signbit(Native(Lanes.min, 2, dtype, 2)(a, b)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", ["<", "<=", ">", ">=", "==", "!="])
def test_comparisons(operator: str, dtype: Any) -> None:
    a, b = (each.ravel() for each in np.meshgrid(*[np.array([-1.0, 0.0, -0.0, 2.0, NAN], dtype)] * 2))
    names = dict(
        zip(
            ("<", "<=", ">", ">=", "==", "!="),
            ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"),
        )
    )
    wanted = getattr(np, names[operator])(a, b)
    found = Native(lambda lanes, a, b: lanes.to_real(lanes.compare(operator, a, b)), 2, dtype)(a, b)
    np.testing.assert_array_equal(found, wanted)

    def of_integers(lanes: Lanes, a: ir.Value, b: ir.Value) -> ir.Value:
        return lanes.to_real(lanes.compare(operator, lanes.to_integer(a), lanes.to_integer(b)))

    numbers = ~(np.isnan(a) | np.isnan(b))
    np.testing.assert_array_equal(Native(of_integers, 2, dtype)(a, b)[numbers], wanted[numbers])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fused_product_is_rounded_once(dtype: Any) -> None:
    a = dtype(1 + 4 * np.finfo(dtype).eps)
    found = Native(lambda lanes, a, b, c: lanes.fma(a, b, c), 3, dtype)(a, a, -(a * a))
    assert found[0] != 0
    apart = Native(lambda lanes, a, b, c: lanes.add(lanes.mul(a, b), c), 3, dtype)(a, a, -(a * a))
    assert apart[0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers(dtype: Any) -> None:
    x = np.array([1.7, -1.7, 1e30, -1e30, NAN, 0.0], dtype)
    info = np.iinfo(np.int64 if dtype == np.float64 else np.int32)
    wanted = np.array([1, -1, info.max, info.min, 0, 0]).astype(dtype)
    np.testing.assert_array_equal(Native(lambda lanes, x: lanes.to_real(lanes.to_integer(x)), 1, dtype)(x), wanted)
    short = lambda lanes, x: lanes.to_real(lanes.to_integer(x, ir.VectorType(INT32, lanes.width)))  # noqa: E731
    np.testing.assert_array_equal(Native(short, 1, dtype)(x)[:2], [1, -1])

    def shifted(lanes: Lanes, x: ir.Value) -> ir.Value:
        whole = lanes.to_integer(x)
        kept = lanes.either(lanes.shift_left(whole, 2), lanes.both(whole, lanes.whole(1)))
        return lanes.to_real(lanes.differ(lanes.shift_right(kept, 1, signed=True), lanes.shift_right(whole, 8)))

    bits = 64 if dtype == np.float64 else 32
    numbers = [*range(-8, 9)]
    expected = [(((y << 2) | (y & 1)) >> 1) ^ ((y % 2**bits) >> 8) for y in numbers]
    np.testing.assert_array_equal(Native(shifted, 1, dtype)(numbers), np.array(expected, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [*WIDTHS, 3, 6])
def test_whole_vectors(width: int, dtype: Any) -> None:
    """Sums are taken in a fixed order; one lane decides."""
    x = (1 / np.arange(1, 5 * width + 1)).astype(dtype)
    found = Native(lambda lanes, x: lanes.broadcast(lanes.sum(x)), 1, dtype, width)(x)
    rows = x.reshape(5, width)
    while rows.shape[1] % 2 == 0:
        half = rows.shape[1] // 2
        rows = rows[:, :half] + rows[:, half:]
    total = rows[:, 0]
    for column in rows[:, 1:].T:
        total = total + column
    np.testing.assert_array_equal(found, np.repeat(total, width))

    def chosen(lanes: Lanes, x: ir.Value) -> ir.Value:
        small = lanes.compare("<", x, lanes.constant(0.3))
        first = lambda: lanes.constant(1)  # noqa: E731
        return lanes.branch(
            lanes.all(small), first, lambda: lanes.branch(lanes.any(small), lambda: x, lambda: lanes.constant(3))
        )

    small = x.reshape(5, width) < 0.3
    every, some = (function(small, axis=1, keepdims=True) for function in (np.all, np.any))
    wanted = np.where(every, 1, np.where(some, x.reshape(5, width), 3)).ravel()
    np.testing.assert_array_equal(Native(chosen, 1, dtype, width)(x), wanted.astype(dtype))


def test_a_function_is_written_once_a_module() -> None:
    modules = []

    def twice(lanes: Lanes, x: ir.Value) -> ir.Value:
        modules.append(lanes.builder.module)
        return lanes.add(FUNCTIONS["lgamma"](lanes, x), FUNCTIONS["lgamma"](lanes, lanes.add(x, x)))

    Native(twice, 1, np.float64)
    assert [each.name for each in modules[0].functions if each.linkage == "internal"] == ["mlekit.lgamma.v8f64"]


def test_no_function_leaves_its_block() -> None:
    for name in FUNCTIONS:
        module = ir.Module()
        count = 2 if name in TWO else 1
        real = ir.VectorType(ir.DoubleType(), 4)
        function = ir.Function(module, ir.FunctionType(real, [real] * count), "f")
        builder = ir.IRBuilder(function.append_basic_block())
        block = builder.block
        builder.ret(emitter(name)(Lanes(builder, 4, np.float64), *function.args))
        assert builder.block is block
        llvm.parse_assembly(str(module)).verify()


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="float64 or float32, got float16"):
        Lanes(ir.IRBuilder(), 4, np.float16)
