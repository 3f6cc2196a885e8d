"""Native kernels on a CPU: compiled from the jaxprs of the log-density and of the solver's step."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, ClassVar

from ..core import devices
from ..core.runtime_errors import Raised
from ..native.unsupported import Unsupported
from .backend import NATIVE, AbstractBackend, Finish, Refused, asked_for
from .problem import Problem
from .solution import Solution

#: Why it refuses what is traced.
UNDER_A_TRACE = "they run outside of jit and vmap"
#: Why it refuses tables on disk and shards.
ROWS_ELSEWHERE = "they take rows in memory"
#: Why it refuses what shows its steps.
SHOWS_NO_STEPS = "they show no steps, as history, progress and checkpoint need"


class NativeBackend(AbstractBackend):
    """Machine code by LLVM; what it cannot run it refuses, with the reason."""

    name: ClassVar[str] = NATIVE

    def supports(self, problem: Problem) -> bool:
        """True unless another backend was asked for, or there is nothing to search for."""
        return asked_for(problem) in (None, self.name) and bool(problem.parameters.n_free)

    def solve_chunks(
        self, problem: Problem, n_lanes: int, warm_up: bool, finish: Finish, lost: Raised
    ) -> Solution:
        """As `AbstractBackend.solve_chunks`."""
        return _call("native_search", "solve_chunks", problem, n_lanes, warm_up, finish, devices.cores())

    def solve_one(self, problem: Problem, warm_up: bool) -> Solution:
        """As `AbstractBackend.solve_one`."""
        return _call("native_single", "solve_one", problem, warm_up, devices.cores())


def _call(module: str, name: str, *arguments: Any) -> Any:
    """The value of a function of a module that needs LLVM, imported where it is used: that takes a while."""
    if refusal := unavailable():
        raise Refused(refusal)
    function: Callable[..., Any] = getattr(importlib.import_module(f".{module}", __package__), name)
    try:
        return function(*arguments)
    except Unsupported as error:
        raise Refused(f"{error}") from error


def unavailable() -> str:
    """Why nothing at all can run natively here; empty where it can."""
    if not devices.profile().on_host:
        return "they run on a CPU, and JAX uses another device"
    try:
        importlib.import_module("llvmlite.binding")
    except (ImportError, OSError) as error:
        return f"llvmlite cannot be imported: {error}"
    return ""


def described() -> str:
    """What kernels are compiled for on this machine, or why they cannot be."""
    if refusal := unavailable():
        return f"native kernels cannot: {refusal}"
    from ..native.machine import host

    return host().words
