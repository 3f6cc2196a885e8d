"""Native kernels on a CPU: compiled from the jaxprs of the log-density and of the solver's step."""

from __future__ import annotations

from typing import Any, ClassVar

from ..core import devices
from ..core.runtime_errors import Raised
from .backend import AbstractBackend, Finish
from .problem import Problem
from .solution import Solution

#: Why it refuses what is traced.
UNDER_A_TRACE = "backend='native' runs outside of jit and vmap; leave it out there"


class NativeBackend(AbstractBackend):
    """Machine code by LLVM; what it cannot run it refuses, with the reason."""

    name: ClassVar[str] = "native"

    def supports(self, problem: Problem) -> bool:
        """True if it was asked for."""
        return problem.backend == self.name and bool(problem.parameters.n_free)

    def solve_chunks(
        self, problem: Problem, n_lanes: int, warm_up: bool, finish: Finish, lost: Raised
    ) -> Solution:
        """As `AbstractBackend.solve_chunks`.

        Raises:
            ValueError: it cannot run this problem.
        """
        from . import native_search  # LLVM takes a while to import

        with native_search.refusals():
            return native_search.solve_chunks(problem, n_lanes, warm_up, finish, devices.cores())


def last_state_natively(problem: Problem, warm_up: bool) -> Any:
    """`search.last_state` of one data set in memory.

    Raises:
        ValueError: native kernels cannot run this problem.
    """
    from . import native_search, native_single

    with native_search.refusals():
        return native_single.native_last_state(problem, warm_up, devices.cores())
