"""Functions of vectors as functions of arrays, and how far they are from digits of longer arithmetic."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from mlekit.native.lanes import Lanes

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


class Native:
    """An emitter compiled as a function of arrays, whose length is a multiple of the width."""

    def __init__(self, emit: Callable[..., ir.Value], arguments: int, dtype: Any, width: int = 8) -> None:
        self.arguments, self.dtype, self.width = arguments, np.dtype(dtype), width
        self.text = str(_loop(emit, arguments, dtype, width))
        features = llvm.get_host_cpu_features().flatten() + ",-prefer-256-bit"
        target = llvm.Target.from_default_triple()
        self.machine = target.create_target_machine(llvm.get_host_cpu_name(), features, 3, jit=True)
        self.module = llvm.parse_assembly(self.text)
        self.module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
        passes = llvm.create_pass_builder(self.machine, options)
        passes.getModulePassManager().run(self.module, passes)
        self.engine = llvm.create_mcjit_compiler(self.module, self.machine)
        self.engine.finalize_object()
        address = self.engine.get_function_address("over")
        self.function = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * (arguments + 1))(address)

    def __call__(self, *arrays: Any) -> np.ndarray:
        inputs = [np.ascontiguousarray(each, self.dtype) for each in np.broadcast_arrays(*arrays)]
        size = inputs[0].size
        short = -size % self.width
        inputs = [np.concatenate([each.ravel(), np.ones(short, self.dtype)]) for each in inputs]
        out = np.empty(size + short, self.dtype)
        self.function(out.size, *[each.ctypes.data for each in (*inputs, out)])
        return out[:size]


def _loop(emit: Callable[..., ir.Value], arguments: int, dtype: Any, width: int) -> ir.Module:
    """A module whose function `over` applies an emitter to arrays, vector after vector."""
    module = ir.Module()
    module.triple = llvm.get_default_triple()
    pointer, index = ir.PointerType(), ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [index, *[pointer] * (arguments + 1)]), "over")
    size, *places = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    entry, body, end = builder.block, builder.append_basic_block("body"), builder.append_basic_block("end")
    builder.branch(body)
    builder.position_at_end(body)
    at = builder.phi(index)
    at.add_incoming(ir.Constant(index, 0), entry)
    lanes = Lanes(builder, width, dtype)
    step = lanes.dtype.itemsize
    where = [
        builder.gep(each, [builder.mul(at, ir.Constant(index, step))], source_etype=ir.IntType(8))
        for each in places
    ]
    values = [builder.load(each, typ=lanes.real, align=step) for each in where[:-1]]
    builder.store(emit(lanes, *values), where[-1], align=step)
    following = builder.add(at, ir.Constant(index, width))
    at.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, size), body, end)
    builder.position_at_end(end)
    builder.ret_void()
    return module


def ulps(found: np.ndarray, exact: Sequence[Any], dtype: Any, floor: float = 0.0) -> np.ndarray:
    """The errors of finite values in units of the exact values' last places, or of `floor`'s where that is larger.

    Args:
        found: the values in question.
        exact: numbers of mpmath, or long doubles, that round to the true values.
        dtype: the precision whose places count.
        floor: the size below which places count no further.
    """
    kind = np.dtype(dtype)
    near = np.array([float(each) for each in exact])
    with np.errstate(over="ignore", under="ignore"):
        unit = np.spacing(np.maximum(np.abs(near), floor).astype(kind)).astype(float)
    largest = float(np.finfo(kind).max)
    limit = largest + float(np.spacing(kind.type(largest)))
    errors = np.empty(len(near))
    for i, (value, digits) in enumerate(zip(found.tolist(), exact)):
        if np.isnan(near[i]) or np.isnan(value):
            errors[i] = 0.0 if np.isnan(near[i]) and np.isnan(value) else np.inf
        elif abs(near[i]) > largest or np.isinf(unit[i]):  # infinity stands for the number after the last
            value = np.copysign(limit, value) if np.isinf(value) else value
            digits = np.copysign(limit, near[i]) if abs(near[i]) >= limit else digits
            errors[i] = abs(float(value - digits)) / float(np.spacing(kind.type(largest)))
        else:
            errors[i] = abs(float(value - digits)) / unit[i] if np.isfinite(value) else np.inf
    return errors
