"""Backends, which find the maxima of many data sets; status and certificate are computed in one way for all."""

from __future__ import annotations

import abc
import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import equinox as eqx

from ..core.runtime_errors import Raised
from .problem import Problem
from .solution import Solution

#: Takes the solution of a chunk and its blocks of rows, how many data sets it holds, and which of them raised.
Finish = Callable[..., Solution]

#: The environment variable that names the backend of all fits that ask for none.
VARIABLE = "MLEKIT_BACKEND"

NATIVE, XLA = "native", "xla"  #: names of backends


class Refused(Exception):
    """A backend cannot run a problem; the message says why."""

    def to_user(self, backend: str) -> ValueError:
        """The error for a user who asked for that backend."""
        return ValueError(f"backend={backend!r} cannot run this fit: {self}; leave it out, and XLA does")


class AbstractBackend(eqx.Module):
    """Runs the searches of a batch, and of a single data set.

    It chooses who evaluates, never what: the last states of the solver become estimates, errors, status and
    certificate by the same XLA program for all backends.
    """

    name: ClassVar[str]  #: what users call it

    @abc.abstractmethod
    def supports(self, problem: Problem) -> bool:
        """True if it is to try the searches of this problem."""

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

        Raises:
            Refused: it cannot run this problem; no chunk was finished.
        """

    def solve_one(self, problem: Problem, warm_up: bool) -> Solution:
        """The maximum of a problem of one data set, none of it traced.

        Raises:
            Refused: it cannot run this problem.
        """
        raise Refused(f"the backend {self.name!r} is for batches")


class SearchedBy:
    """Which backend ran the searches of a fit, and why not the native one.

    All are equal: fits that differ in nothing else are of the same structure to JAX, and compile nothing.

    Args:
        backend: its name; empty where it is not known.
        refusal: why the native backend did not run; empty where it did, or was not asked.
    """

    def __init__(self, backend: str = "", refusal: str = "") -> None:
        self.backend, self.refusal = backend, refusal

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchedBy)

    def __hash__(self) -> int:
        return hash(SearchedBy)

    def __repr__(self) -> str:
        return f"SearchedBy({self.backend!r}, {self.refusal!r})"

    @property
    def words(self) -> str:
        """A sentence; empty where nothing is known."""
        if not self.backend:
            return ""
        if self.backend == NATIVE:
            return "Searched by native kernels."
        by = f"Searched by {'XLA' if self.backend == XLA else self.backend}"
        return f"{by}; native kernels cannot: {self.refusal}." if self.refusal else f"{by}."


#: Nothing is known.
NOT_KNOWN = SearchedBy()

_NOTED: contextvars.ContextVar[SearchedBy | None] = contextvars.ContextVar("searched_by", default=None)


@contextlib.contextmanager
def noting() -> Iterator[SearchedBy]:
    """Note which backend runs the searches that are made inside: the first of them counts."""
    noted = SearchedBy()
    token = _NOTED.set(noted)
    try:
        yield noted
    finally:
        _NOTED.reset(token)


def note(backend: str, refusal: str = "") -> None:
    """Note that this backend runs a search, and why not the native one."""
    noted = _NOTED.get()
    if noted is not None and not noted.backend:
        noted.backend, noted.refusal = backend, refusal


def leave_to_xla(problem: Problem, refusal: str) -> None:
    """Note that XLA runs a search, and why.

    Raises:
        ValueError: the user asked for native kernels.
    """
    if asked_for(problem) == NATIVE:
        raise Refused(refusal).to_user(NATIVE)
    note(XLA, refusal)


def run_by_first(
    backends: Sequence[AbstractBackend], problem: Problem, run: Callable[[AbstractBackend], Solution]
) -> Solution:
    """What the first backend gives that supports a problem and does not refuse it.

    Args:
        backends: in the order in which they are asked; the last one takes everything.
        problem: the problem.
        run: has a backend solve it.

    Raises:
        ValueError: the backend that the user asked for refuses.
    """
    refusal = ""
    *others, last = (backend for backend in backends if backend.supports(problem))
    for backend in others:
        try:
            found = run(backend)
        except Refused as error:
            refusal = refusal or str(error)
        else:
            note(backend.name)
            return found
    try:
        found = run(last)
    except Refused as error:
        raise error.to_user(last.name) from None
    note(last.name, refusal)
    return found


def asked_for(problem: Problem) -> str | None:
    """The name of the backend that the user wants, for this fit or for all; `None` for the fastest that can."""
    return problem.backend or os.environ.get(VARIABLE) or None
