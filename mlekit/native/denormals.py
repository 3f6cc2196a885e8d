"""Numbers below the smallest normal one count as zero, as they do in XLA's programs on a CPU."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator

from llvmlite import ir

from .loops import INT32, slot

#: Of the control register of SSE and AVX: such arguments are zeros, and such results become zeros.
FLUSH = 0x8040


@contextlib.contextmanager
def flushed(builder: ir.IRBuilder) -> Iterator[None]:
    """Code that is written here computes so, and leaves the machine as it was."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        yield
        return
    before, inside = slot(builder, INT32), slot(builder, INT32)
    store, load = (_control(builder.module, name) for name in ("stmxcsr", "ldmxcsr"))
    builder.call(store, [before])
    builder.store(builder.or_(builder.load(before, typ=INT32), ir.Constant(INT32, FLUSH)), inside)
    builder.call(load, [inside])
    yield
    builder.call(load, [before])


def _control(module: ir.Module, name: str) -> ir.Function:
    full = f"llvm.x86.sse.{name}"
    found = module.globals.get(full)
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType()])
    return found if found is not None else ir.Function(module, kind, full)
