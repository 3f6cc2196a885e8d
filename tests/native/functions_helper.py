"""Functions of vectors as functions of arrays, and how far they are from digits of longer arithmetic."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

import llvmlite.binding as llvm
import mpmath
import numpy as np
from llvmlite import ir

from mlekit.native.lanes import Lanes

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

DTYPES = (np.float64, np.float32)


class Native:
    """An emitter compiled as a function of arrays."""

    def __init__(
        self, emit: Callable[..., ir.Value], arguments: int, dtype: Any, width: int = 8, avx512: bool = False
    ) -> None:
        self.dtype, self.width = np.dtype(dtype), width
        module = llvm.parse_assembly(str(_loop(emit, arguments, dtype, width, avx512)))
        module.verify()
        features = llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(llvm.get_host_cpu_name(), features, 2, jit=True)
        passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
        passes.getModulePassManager().run(module, passes)
        self.engine = llvm.create_mcjit_compiler(module, machine)
        self.engine.finalize_object()
        address = self.engine.get_function_address("over")
        self.function = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * (arguments + 1))(address)

    def __call__(self, *arrays: Any) -> np.ndarray:
        inputs = [np.asarray(each, self.dtype).ravel() for each in np.broadcast_arrays(*arrays)]
        size = inputs[0].size
        short = -size % self.width
        inputs = [np.concatenate([each, np.ones(short, self.dtype)]) for each in inputs]
        out = np.empty(size + short, self.dtype)
        self.function(out.size, *[each.ctypes.data for each in (*inputs, out)])
        return out[:size]


def _loop(emit: Callable[..., ir.Value], arguments: int, dtype: Any, width: int, avx512: bool) -> ir.Module:
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
    lanes = Lanes(builder, width, dtype, avx512)
    step = lanes.dtype.itemsize
    bytes_on = builder.mul(at, ir.Constant(index, step))
    where = [builder.gep(each, [bytes_on], source_etype=ir.IntType(8)) for each in places]
    values = [builder.load(each, typ=lanes.real, align=step) for each in where[:-1]]
    builder.store(emit(lanes, *values), where[-1], align=step)
    following = builder.add(at, ir.Constant(index, width))
    at.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, size), body, end)
    builder.position_at_end(end)
    builder.ret_void()
    return module


def ulps(found: np.ndarray, exact: Iterable[Any], floor: Iterable[Any]) -> np.ndarray:
    """The errors of values in units in the last place of the exact ones.

    Args:
        found: the values in question; their precision counts.
        exact: numbers of mpmath, None where there is none. What rounds to no finite number must be infinite.
        floor: sizes below which places count no further.
    """
    info = np.finfo(found.dtype)
    digits, least = info.nmant + 1, int(info.minexp) - info.nmant
    beyond = mpmath.mpf(2) ** int(info.maxexp)
    limit = beyond * (1 - mpmath.mpf(2) ** (-digits - 1))
    errors = np.full(found.size, np.inf)
    for i, (value, number, lowest) in enumerate(zip(found.tolist(), exact, floor)):
        if number is None or mpmath.isnan(number):
            errors[i] = 0 if np.isnan(value) else np.inf
        elif abs(number) >= limit and np.isinf(value):
            errors[i] = 0 if (value > 0) == (number > 0) else np.inf
        elif np.isfinite(value) or (np.isinf(value) and abs(number) > beyond / 2):
            value = value if np.isfinite(value) else beyond * np.sign(value)
            size = max(abs(number) if abs(number) < limit else beyond / 2, mpmath.mpf(lowest))
            place = max(int(mpmath.floor(mpmath.log(size, 2))) - digits + 1, least) if size else least
            errors[i] = float(abs(value - number) / mpmath.mpf(2) ** place) if mpmath.isfinite(number) else np.inf
    return errors


def all_exponents(dtype: Any, step: int = 1) -> np.ndarray:
    """Numbers of both signs with every exponent there is, or every so many, and random digits."""
    random = np.random.default_rng(3)
    info, whole = np.finfo(dtype), np.int64 if dtype == np.float64 else np.int32
    exponents = np.unique([0, 1, *range(0, 2 ** int(info.nexp) - 1, step)])
    bits = (exponents << info.nmant) + random.integers(1, 1 << info.nmant, exponents.size)
    size = bits.astype(whole).view(dtype)
    return np.concatenate([size, -size])


def close_to(point: float, dtype: Any, count: int = 40) -> np.ndarray:
    """Numbers next to a point, and at distances down from a tenth of it, on both sides."""
    middle = dtype(point)
    steps = 10.0 ** -np.linspace(1, 15 if dtype == np.float64 else 6.5, count)
    around = (
        np.concatenate([middle - steps, middle + steps])
        if point == 0
        else middle * np.concatenate([1 - steps, 1 + steps])
    )
    return np.concatenate(
        [[np.nextafter(middle, dtype(-np.inf)), middle, np.nextafter(middle, dtype(np.inf))], around]
    ).astype(dtype)
