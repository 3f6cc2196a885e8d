"""Chunks of a batch scheduled over cores and devices."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core import devices
from ..core.compilation import THOROUGH_ROWS, Compiled
from ..core.trees import is_array, on_host
from ..likelihood.ragged import Chunk, RaggedBatch


@dataclasses.dataclass
class Account:
    """The work of lanes: rows that all of them ran over, those of waiting lanes and of padding included."""

    rows: int = 0

    def add(self, blocks: Any, rows: int) -> None:
        """Add blocks of so many rows."""
        self.rows += int(blocks) * rows


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
) -> Any:
    """`finish(fn(chunk, arrays, mesh, *shared), n)` of one chunk after the other, in the order of the data sets.

    As many chunks are under way as there is room for: the next ones are gathered and sent while these compute.
    Each runs in a thread of its own, as a CPU works off what one thread asks for one after the other.

    Args:
        fn: a function of a chunk, of the arrays of its data sets and of what all share.
        batch: the data sets.
        n_free: number of free parameters.
        n_lanes: data sets that are computed side by side.
        arrays: arrays with a leading axis of data sets.
        shared: the further arguments of `fn`.
        finish: takes what a chunk gave and how many data sets it holds, and drops the rest.
    """
    arrays = jax.tree.map(on_host, arrays)
    # Other threads don't know what precision was chosen for this one: they get no numbers to convert.
    shared = jax.tree.map(lambda leaf: jnp.asarray(leaf) if is_array(leaf) else leaf, shared)
    mesh = devices.mesh()
    thorough = int(batch.row_counts.sum()) * batch.repeats >= THOROUGH_ROWS
    numbers: list[np.ndarray] = []
    parts: list[Any] = []
    under_way: collections.deque[tuple[list[np.ndarray], Future[list[PyTree]]]] = collections.deque()

    def work(program: Callable[..., Any], chunk: Chunk, arrays: PyTree) -> list[PyTree]:
        return devices.unstack(program(chunk, arrays, mesh, *shared), mesh)

    def collect() -> None:
        chosen, out = under_way.popleft()
        numbers.extend(chosen)
        parts.extend(finish(one, len(mine)) for mine, one in zip(chosen, out.result()))

    with ThreadPoolExecutor(devices.rounds(mesh)) as pool:
        for chunks in devices.groups(batch.chunks(n_free, n_lanes), mesh):
            own = [_of_sets(arrays, chosen, chunk.n_sets) for chosen, chunk in chunks]
            sent = (
                devices.stack_on_devices([chunk for _, chunk in chunks], mesh),
                devices.stack_on_devices(own, mesh),
            )
            program = fn.lower_and_compile(*sent, mesh, *shared, thorough=thorough)
            under_way.append(([chosen for chosen, _ in chunks], pool.submit(work, program, *sent)))
            if program.alone or len(under_way) > devices.rounds(mesh):
                collect()
        while under_way:
            collect()
    back = np.argsort(np.concatenate(numbers), kind="stable")
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)[back]), *parts)


def _of_sets(arrays: PyTree, chosen: np.ndarray, n_sets: int) -> PyTree:
    """The arrays of the chosen sets, and as many of some set as it takes to fill a chunk."""
    filled = np.concatenate([chosen, np.full(n_sets - len(chosen), chosen[-1] if len(chosen) else 0)])
    return jax.tree.map(lambda leaf: leaf[filled], arrays)
