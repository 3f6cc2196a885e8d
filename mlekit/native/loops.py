"""Loops, places on the stack and in memory, for a builder of LLVM's instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

BOOLEAN, INT8, INT32, INT64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
POINTER = ir.PointerType()

#: LLVM's types by NumPy's names; a boolean in memory takes a byte.
SCALARS: dict[str, Any] = {
    "bool": BOOLEAN,
    "index": INT64,
    "float64": ir.DoubleType(),
    "float32": ir.FloatType(),
    **{f"{sign}int{bits}": ir.IntType(bits) for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
SIZES = {"bool": 1, "index": 8} | {
    f"{kind}{bits}": bits // 8
    for kind, widths in (("float", (32, 64)), ("int", (8, 16, 32, 64)), ("uint", (8, 16, 32, 64)))
    for bits in widths
}


def number(value: int) -> ir.Constant:
    """A whole number that counts or is a position."""
    return ir.Constant(INT64, value)


def body_of(function: ir.Function) -> ir.IRBuilder:
    """A builder for the body of a function, behind the block where `slot` makes places on the stack."""
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    builder.branch(function.append_basic_block("start"))
    builder.position_at_end(function.blocks[-1])
    return builder


def counted(
    builder: ir.IRBuilder,
    start: ir.Value,
    stop: ir.Value,
    body: Callable[[ir.Value], None],
    step: int = 1,
    name: str = "loop",
) -> None:
    """`body(i)` for `i` from `start` to below `stop`."""
    before = builder.block
    head, inside, after = (builder.append_basic_block(f"{name}_{part}") for part in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(INT64)
    i.add_incoming(start, before)
    builder.cbranch(builder.icmp_signed("<", i, stop), inside, after)
    builder.position_at_end(inside)
    body(i)
    i.add_incoming(builder.add(i, number(step)), builder.block)
    builder.branch(head)
    builder.position_at_end(after)


def nested(builder: ir.IRBuilder, shape: Sequence[int], body: Callable[[list[ir.Value]], None]) -> None:
    """`body(index)` for all indices of a shape, the last one fastest."""

    def level(index: list[ir.Value]) -> None:
        if len(index) == len(shape):
            body(index)
        else:
            counted(builder, number(0), number(shape[len(index)]), lambda i: level([*index, i]), name="table")

    level([])


def while_true(builder: ir.IRBuilder, condition: Callable[[], ir.Value], body: Callable[[], None]) -> None:
    """`body()` again and again while `condition()` holds."""
    head, inside, after = (builder.append_basic_block(f"while_{part}") for part in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    builder.cbranch(condition(), inside, after)
    builder.position_at_end(inside)
    body()
    builder.branch(head)
    builder.position_at_end(after)


def slot(builder: ir.IRBuilder, type: Any) -> ir.Value:
    """A place on the stack, made where the function begins, so that no loop makes it again."""
    with builder.goto_entry_block():
        place = builder.alloca(type)
    place.type = POINTER
    return place


def at(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value | int, type: Any) -> ir.Value:
    """The place of element `index` of an array of this type."""
    index = number(index) if isinstance(index, int) else index
    return builder.gep(pointer, [index], source_etype=type)


def as_function(builder: ir.IRBuilder, pointer: ir.Value, kind: ir.FunctionType) -> ir.Value:
    """A pointer as one to a function of this type, which llvmlite asks for although LLVM does not."""
    same = at(builder, pointer, 0, INT8)
    same.type = kind.as_pointer()
    return same


def load_at(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value | int, type: Any) -> ir.Value:
    """Element `index` of an array of this type."""
    return builder.load(at(builder, pointer, index, type), typ=type)


def store_at(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, index: ir.Value | int) -> None:
    """Put an element into an array of its type."""
    builder.store(value, at(builder, pointer, index, value.type))
