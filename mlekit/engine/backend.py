"""Backends, which find the maxima of many data sets; status and certificate are computed in one way for all."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx

from ..core.runtime_errors import Raised
from .problem import Problem
from .solution import Solution

#: Takes the solution of a chunk and its blocks of rows, how many data sets it holds, and which of them raised.
Finish = Callable[..., Solution]


class AbstractBackend(eqx.Module):
    """Runs the searches of a batch.

    It chooses who evaluates, never what: the last states of the solver become estimates, errors, status and
    certificate by the same XLA program for all backends.
    """

    name: ClassVar[str]  #: what users call it

    @abc.abstractmethod
    def supports(self, problem: Problem) -> bool:
        """True if it is to run the searches of this problem."""

    @abc.abstractmethod
    def solve_chunks(
        self, problem: Problem, n_lanes: int, warm_up: bool, finish: Finish, lost: Raised
    ) -> Solution:
        """The maxima of all data sets, in their order.

        Args:
            problem: of many data sets, none of it traced; its likelihood is a `RaggedBatch`.
            n_lanes: data sets that are searched side by side.
            warm_up: True if Newton's method begins with the expected information.
            finish: is given each chunk.
            lost: gets what data sets raise.
        """
