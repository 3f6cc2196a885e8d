"""Chunks of a batch scheduled over cores and devices."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core import devices
from ..core.compilation import THOROUGH_ROWS, Compiled
from ..core.runtime_errors import RUNTIME_ERRORS, Raised, raised
from ..core.trees import is_array, on_host
from ..likelihood.ragged import Chunk, RaggedBatch
from .apart import run_apart


@dataclasses.dataclass
class Account:
    """The work of lanes: rows that all of them ran over, those of waiting lanes and of padding included."""

    rows: int = 0

    def add(self, blocks: Any, rows: int) -> None:
        """Add blocks of so many rows."""
        self.rows += int(blocks) * rows


#: What a chunk gave, and what its data sets raised.
_Out = tuple[PyTree, Raised]

_ACCOUNT: contextvars.ContextVar[Account | None] = contextvars.ContextVar("account", default=None)


@contextlib.contextmanager
def accounting() -> Iterator[Account]:
    """An account of what the lanes do for the fits that are made inside."""
    account = Account()
    token = _ACCOUNT.set(account)
    try:
        yield account
    finally:
        _ACCOUNT.reset(token)


def account() -> Account | None:
    """The account that is being kept, if one is."""
    return _ACCOUNT.get()


def run_chunks(
    fn: Compiled,
    batch: RaggedBatch,
    n_free: int,
    n_lanes: int,
    arrays: PyTree,
    shared: tuple[Any, ...],
    finish: Callable[..., Any],
    lost: Raised | None = None,
) -> Any:
    """`finish(fn(chunk, arrays, mesh, *shared), n, lost)` of one chunk after the other, in the order of the sets.

    As many chunks are under way as there is room for: the next ones are gathered and sent while these compute.
    Each runs in a thread of its own, as a CPU works off what one thread asks for one after the other.

    Args:
        fn: a function of a chunk, of the arrays of its data sets and of what all share.
        batch: the data sets.
        n_free: number of free parameters.
        n_lanes: data sets that are computed side by side.
        arrays: arrays with a leading axis of data sets.
        shared: the further arguments of `fn`.
        finish: takes what a chunk gave, how many data sets it holds, and which of them raise, and drops the rest.
        lost: gets what data sets raise, which have NaN then; without it, an exception of one is an exception.
    """
    arrays = jax.tree.map(on_host, arrays)
    # Other threads don't know what precision was chosen for this one: they get no numbers to convert.
    shared = jax.tree.map(lambda leaf: jnp.asarray(leaf) if is_array(leaf) else leaf, shared)
    mesh = devices.mesh()
    thorough = int(batch.row_counts.sum()) * batch.repeats >= THOROUGH_ROWS
    numbers: list[np.ndarray] = []
    parts: list[Any] = []
    under_way: collections.deque[tuple[list[np.ndarray], Future[list[_Out]]]] = collections.deque()
    ended = threading.Event()

    def run(program: Callable[..., Any], chunks: PyTree) -> list[PyTree]:
        return devices.unstack(program(*chunks, mesh, *shared), mesh)

    def work(program: Callable[..., Any], sent: PyTree, chunks: list[tuple[Chunk, PyTree]]) -> list[_Out]:
        try:
            return [(out, {}) for out in run(program, sent)]
        except RUNTIME_ERRORS as error:
            if lost is None:
                raise
            raised(error)

        def piece(chunk: Chunk, arrays: PyTree) -> PyTree:
            if ended.is_set():
                raise InterruptedError("data sets that raise were looked for, and nobody waits for them any more")
            same = [(chunk, arrays)] * (1 if mesh is None else mesh.size)
            return run(program, _sent(same, mesh))[0]

        def shapes(chunk: Chunk, arrays: PyTree) -> PyTree:
            return jax.eval_shape(lambda arrays: fn(chunk, arrays, None, *shared), arrays)

        return [run_apart(piece, *mine, shapes(*mine)) for mine in chunks]

    def collect() -> None:
        chosen, results = under_way.popleft()
        for mine, (out, here) in zip(chosen, results.result()):
            numbers.append(mine)
            parts.append(finish(out, len(mine), np.array(sorted(here), int)))
            if lost is not None:
                lost.update({int(mine[i]): said for i, said in here.items()})

    with ThreadPoolExecutor(devices.rounds(mesh)) as pool, _set_on_error(ended):
        for chunks in devices.groups(batch.chunks(n_free, n_lanes), mesh):
            both = [(chunk, of_sets(arrays, chosen, chunk.n_sets)) for chosen, chunk in chunks]
            sent = _sent(both, mesh)
            program = fn.lower_and_compile(*sent, mesh, *shared, thorough=thorough)
            under_way.append(([chosen for chosen, _ in chunks], pool.submit(work, program, sent, both)))
            if program.alone or len(under_way) > devices.rounds(mesh):
                collect()
        while under_way:
            collect()
    return in_order(numbers, parts)


def in_order(numbers: list[np.ndarray], parts: list[Any]) -> Any:
    """What chunks gave, put together in the order of the data sets, whose numbers these are chunk by chunk."""
    back = np.argsort(np.concatenate(numbers), kind="stable")
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)[back]), *parts)


def _sent(chunks: list[tuple[Chunk, PyTree]], mesh: Any) -> tuple[PyTree, PyTree]:
    """Chunks and their arrays, on the devices."""
    parts = zip(*chunks)
    return devices.stack_on_devices(list(next(parts)), mesh), devices.stack_on_devices(list(next(parts)), mesh)


@contextlib.contextmanager
def _set_on_error(event: threading.Event) -> Iterator[None]:
    try:
        yield
    except BaseException:
        event.set()
        raise


def of_sets(arrays: PyTree, chosen: np.ndarray, n_sets: int) -> PyTree:
    """The arrays of the chosen sets, and as many of some set as it takes to fill a chunk."""
    filled = np.concatenate([chosen, np.full(n_sets - len(chosen), chosen[-1] if len(chosen) else 0)])
    return jax.tree.map(lambda leaf: leaf[filled], arrays)
