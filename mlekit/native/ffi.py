"""Native fits inside `jax.jit`: a handler for XLA's foreign functions, in LLVM's instructions too.

XLA calls the handler with a frame, whose layout is that of `xla/ffi/api/c_api.h`, which ships with jaxlib. No
Python runs in between, and the bits are those of a direct call.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from llvmlite import ir

from .fit_arguments import Argument
from .fit_kernel import FitKernel
from .loops import INT8, INT32, INT64, POINTER, as_function, at, load_at, number, slot
from .machine import Code, compile_unkept

#: The version of the interface that the handler speaks.
VERSION = (0, 3)
#: Where things lie, in bytes: in the frame, in an extension of it, and in a buffer.
EXTENSION, STAGE, ARGUMENTS, RESULTS = 8, 32, 40 + 32, 80 + 32
EXTENSION_TYPE, METADATA = 8, 24
DATA, DIMENSIONS = 24, 40
METADATA_VERSION = 24  # in the metadata: major and minor version, then traits
EXECUTE = 3  #: the stage at which the handler works; at others there is nothing to do

_names = itertools.count()


class FitCall:
    """A fit kernel that can be called under a trace.

    Args:
        kernel: the kernel.
        n_leaves: arrays of rows.
        longest: rows of the longest data set.
        settings_per_set: whether each data set has settings of its own.
        extra_per_set: whether each data set has further numbers of its own; None if there are none.
    """

    def __init__(
        self,
        kernel: FitKernel,
        n_leaves: int,
        longest: int,
        settings_per_set: bool = False,
        extra_per_set: bool | None = None,
    ) -> None:
        self.kernel = kernel
        self._n_leaves, self._has_extra = n_leaves, extra_per_set is not None
        capacity, scratch = kernel.scratch_size(longest)
        sizes = (kernel.step.layout.size, kernel.step.workspace_size, kernel.workspace_size, scratch)
        names = (Argument.memory, Argument.step_workspace, Argument.workspace, Argument.scratch)
        self._memory, self._room = {}, 64
        for name, size in zip(names, sizes):
            self._memory[name], self._room = self._room, self._room + -(-size // 64) * 64
        real = np.dtype(kernel.program.type).itemsize
        n_extra = sum(place.size for place in kernel.extra_places)
        self._known = {
            Argument.settings_stride: 8 * max(1, len(kernel.program.settings)) if settings_per_set else 0,
            Argument.extra_stride: real * n_extra if extra_per_set else 0,
            Argument.capacity: capacity,
            Argument.begin: 0,
            Argument.step: kernel.step.address,
        }
        #: The arguments of a call behind the arrays of rows, in order.
        self.names = [
            *([Argument.weights] if kernel.weighted else []),
            *(Argument.offsets, Argument.lengths, Argument.order, Argument.n_obs, Argument.settings),
            *(Argument.max_steps, Argument.tolerance, Argument.floats, Argument.integers, Argument.points),
            *([Argument.extra] if self._has_extra else []),
        ]
        self._code = Code(compile_unkept(self._module()))
        self.name = f"mlekit_fit_{next(_names)}"
        self._handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(self._code.address("handler"))
        jax.ffi.register_ffi_target(self.name, jax.ffi.pycapsule(self._handler), platform="cpu", api_version=1)

    def __call__(self, leaves: Sequence[Any], arguments: dict[Argument, Any]) -> tuple[jax.Array, jax.Array]:
        """The last states of all data sets in the order: their floats, and their whole numbers and booleans.

        Args:
            leaves: arrays of rows.
            arguments: arrays for `names`, of the types that `fits.run` gives them; the tolerance in an array of
                one number.
        """
        ordered = [jnp.asarray(arguments[name]) for name in self.names]
        states = [ordered[self.names.index(name)] for name in (Argument.floats, Argument.integers)]
        results = [*(jax.ShapeDtypeStruct(s.shape, s.dtype) for s in states)]
        results.append(jax.ShapeDtypeStruct((self._room,), jnp.uint8))
        first = self._n_leaves
        aliases = {first + self.names.index(Argument.floats): 0, first + self.names.index(Argument.integers): 1}
        call = jax.ffi.ffi_call(self.name, results, input_output_aliases=aliases)
        floats, integers, _ = call(*leaves, *ordered)
        return floats, integers

    def _module(self) -> ir.Module:
        module = ir.Module("ffi")
        function = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), "handler")
        (frame,) = function.args
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        null = ir.Constant(POINTER, None)
        ask, work, test, other = (function.append_basic_block(n) for n in ("ask", "work", "test", "other"))

        def pointer(base: ir.Value, offset: int) -> ir.Value:
            return builder.load(at(builder, base, offset, INT8), typ=POINTER)

        def whole(base: ir.Value, offset: int) -> ir.Value:
            return builder.load(at(builder, base, offset, INT8), typ=INT32)

        extension = pointer(frame, EXTENSION)
        builder.cbranch(builder.icmp_unsigned("==", extension, null), other, test)
        builder.position_at_end(test)
        asked = builder.icmp_signed("==", whole(extension, EXTENSION_TYPE), ir.Constant(INT32, 1))
        builder.cbranch(asked, ask, other)
        builder.position_at_end(ask)
        metadata = pointer(extension, METADATA)
        for i, value in enumerate((*VERSION, 0)):
            builder.store(ir.Constant(INT32, value), at(builder, metadata, METADATA_VERSION + 4 * i, INT8))
        builder.ret(null)
        builder.position_at_end(other)
        runs = builder.icmp_signed("==", whole(frame, STAGE), ir.Constant(INT32, EXECUTE))
        rest = function.append_basic_block("rest")
        builder.cbranch(runs, work, rest)
        builder.position_at_end(rest)
        builder.ret(null)
        builder.position_at_end(work)
        self._run(builder, pointer(frame, ARGUMENTS), pointer(frame, RESULTS))
        builder.ret(null)
        return module

    def _run(self, builder: ir.IRBuilder, arguments: ir.Value, results: ir.Value) -> None:
        """Put the table of arguments together, and fit."""

        def buffer(list: ir.Value, i: int) -> ir.Value:
            return load_at(builder, list, i, POINTER)

        def field(buffer: ir.Value, offset: int) -> ir.Value:
            return builder.load(at(builder, buffer, offset, INT8), typ=POINTER)

        def put(name: Argument, value: ir.Value) -> None:
            builder.store(value, at(builder, table, name, INT64))

        table = slot(builder, ir.ArrayType(INT64, len(Argument)))
        leaves = slot(builder, ir.ArrayType(POINTER, max(1, self._n_leaves)))
        stop, turns = slot(builder, INT32), slot(builder, INT64)
        builder.store(ir.Constant(INT32, 0), stop)
        builder.store(number(0), turns)
        for i in range(self._n_leaves):
            builder.store(field(buffer(arguments, i), DATA), at(builder, leaves, i, POINTER))
        for name in Argument:
            put(name, number(0))
        for name, value in self._known.items():
            put(name, number(value))
        put(Argument.leaves, leaves)
        put(Argument.stop, stop)
        put(Argument.turns, turns)
        for i, name in enumerate(self.names):
            put(name, field(buffer(arguments, self._n_leaves + i), DATA))
        for i, name in enumerate((Argument.floats, Argument.integers)):
            put(name, field(buffer(results, i), DATA))
        order = buffer(arguments, self._n_leaves + self.names.index(Argument.order))
        put(Argument.end, load_at(builder, field(order, DIMENSIONS), 0, INT64))
        room = builder.ptrtoint(field(buffer(results, 2), DATA), INT64)
        room = builder.and_(builder.add(room, number(63)), number(-64))
        for name, offset in self._memory.items():
            put(name, builder.add(room, number(offset - 64)))
        kind = ir.FunctionType(ir.VoidType(), [POINTER])
        fit = as_function(builder, builder.inttoptr(number(self.kernel.address), POINTER), kind)
        builder.call(fit, [table])
