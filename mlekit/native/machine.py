"""The machine that code is compiled for, and the compiler: from LLVM's instructions to functions in memory."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from . import object_cache

#: LLVM is asked one thing at a time.
_LOCK = threading.RLock()


def _renew_lock() -> None:
    """A process that was forked must not wait for a thread that it does not have."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What code may use.

    Args:
        cpu: the CPU's name in LLVM.
        features: its features, as LLVM writes them.
        vector_bytes: size of a vector.
        fused: whether it multiplies and adds at once.
    """

    cpu: str
    features: str
    vector_bytes: int
    fused: bool

    def width(self, dtype: Any) -> int:
        """Numbers of this type in a vector."""
        return max(1, self.vector_bytes // np.dtype(dtype).itemsize)

    @property
    def words(self) -> str:
        """For a person: the CPU and its vectors."""
        return f"llvmlite {llvmlite.__version__} for {self.cpu}, vectors of {8 * self.vector_bytes} bits"

    @property
    def key(self) -> str:
        """What compiled code depends on beside its source."""
        return f"{llvmlite.__version__} {llvm.llvm_version_info} {self.cpu} {self.features}"


@functools.cache
def host() -> Machine:
    """This machine."""
    with _LOCK:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        text = features.flatten()
        name = llvm.get_host_cpu_name()
    if features.get("avx512f") and features.get("avx512dq") and features.get("avx512vl"):
        return Machine(name, text + ",-prefer-256-bit", 64, True)
    if features.get("avx2") and features.get("fma"):
        return Machine(name, text, 32, True)
    arm = "arm" in llvm.get_default_triple() or "aarch64" in llvm.get_default_triple()
    # Two vectors of NEON or SSE at a time keep its units busy.
    return Machine(name, text, 32, arm)


class Code:
    """Compiled functions in memory.

    Args:
        object_code: the object file.
    """

    def __init__(self, object_code: bytes) -> None:
        with _LOCK:
            machine = _target_machine()
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(object_code))
            self._engine.finalize_object()

    def function(self, name: str, arguments: Iterable[Any], result: Any = None) -> Callable[..., Any]:
        """A function, which releases the interpreter's lock while it runs."""
        with _LOCK:
            address = self._engine.get_function_address(name)
        if not address:
            raise ValueError(f"no function {name!r} in the object code")
        found = ctypes.CFUNCTYPE(result, *arguments)(address)
        found.code = self  # type: ignore[attr-defined]  # it must live as long as the function does
        return found

    def address(self, name: str) -> int:
        """The address of a function."""
        with _LOCK:
            return int(self._engine.get_function_address(name))


def compile_module(module: ir.Module, level: int = 2) -> bytes:
    """Object code of a module for this machine: from the cache, if it was compiled before."""
    text = str(module)
    key = hashlib.sha256(f"{host().key} {level}\n{text}".encode()).hexdigest()
    return object_cache.remembered(key, lambda: _compile(text, level))


def compile_unkept(module: ir.Module, level: int = 2) -> bytes:
    """Object code of a module that holds addresses of this process."""
    return _compile(str(module), level)


def load(key: str, build: Callable[[], ir.Module], level: int = 2) -> Code:
    """The code of a module known by its key: built and compiled only if it never was before."""
    full = hashlib.sha256(f"{host().key} {level}\n{key}".encode()).hexdigest()
    return Code(object_cache.remembered(full, lambda: _compile(str(build()), level)))


def _target_machine(level: int = 2) -> Any:
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=host().cpu, features=host().features, opt=level, jit=True)


def _compile(text: str, level: int) -> bytes:
    with _LOCK:
        module = llvm.parse_assembly(text)
        machine = _target_machine(level)
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=level))
        # The graph has left nothing to be found by LLVM's passes, which would take longer than all the rest; but
        # what a loop carries lies on the stack until this one puts it into registers.
        manager = llvm.create_new_module_pass_manager()
        manager.add_sroa_pass()
        manager.run(module, builder)
        return bytes(machine.emit_object(module))
