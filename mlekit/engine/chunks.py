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
from ..models.model import Model


@dataclasses.dataclass
class Account:
    """What lanes did: rows that all of them ran over, those of waiting lanes and of padding included."""

    rows: int = 0


_ACCOUNT: contextvars.ContextVar[Account | None] = contextvars.ContextVar("account", default=None)


@contextlib.contextmanager
def accounting() -> Iterator[Account]:
    """Counts what the lanes do for the fits that are made inside."""
    account = Account()
    token = _ACCOUNT.set(account)
    try:
        yield account
    finally:
        _ACCOUNT.reset(token)


def run_chunks(
    fn: Compiled,
    collection: RaggedBatch,
    model: Model,
    n_free: int,
    width: int,
    arrays: PyTree,
    rest: tuple[Any, ...],
    finish: Callable[..., Any],
) -> Any:
    """`finish(fn(sets, arrays, mesh, *rest))` of one piece after the other, put together in the order of the sets.

    As many pieces are under way as there is room for: the next ones are gathered and sent while these compute.
    Each runs in a thread of its own, as a CPU works off what one thread asks for one after the other.
    """
    arrays = jax.tree.map(on_host, arrays)
    # Other threads don't know what precision was chosen for this one: they get no numbers to convert.
    rest = jax.tree.map(lambda leaf: jnp.asarray(leaf) if is_array(leaf) else leaf, rest)
    mesh = devices.mesh()
    thorough = int(collection.row_counts.sum()) * collection.repeats >= THOROUGH_ROWS
    numbers: list[np.ndarray] = []
    parts: list[Any] = []
    under_way: collections.deque[tuple[list[np.ndarray], Future[list[PyTree]]]] = collections.deque()

    def work(program: Callable[..., Any], sets: Chunk, arrays: PyTree) -> list[PyTree]:
        return devices.unstack(program(sets, arrays, mesh, *rest), mesh)

    def collect() -> None:
        chosen, out = under_way.popleft()
        numbers.extend(chosen)
        parts.extend(finish(one, len(mine)) for mine, one in zip(chosen, out.result()))

    with ThreadPoolExecutor(devices.at_once(mesh)) as pool:
        for pieces in devices.groups(collection.pieces(model, n_free, width), mesh):
            own = [_of_sets(arrays, chosen, sets.n_sets) for chosen, sets in pieces]
            sent = (
                devices.stack_on_devices([sets for _, sets in pieces], mesh),
                devices.stack_on_devices(own, mesh),
            )
            program = fn.ahead(*sent, mesh, *rest, thorough=thorough)
            under_way.append(([chosen for chosen, _ in pieces], pool.submit(work, program, *sent)))
            if program.alone or len(under_way) > devices.at_once(mesh):
                collect()
        while under_way:
            collect()
    back = np.argsort(np.concatenate(numbers), kind="stable")
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)[back]), *parts)


def _of_sets(arrays: PyTree, chosen: np.ndarray, n_sets: int) -> PyTree:
    """The arrays of the chosen sets, and as many of some set as it takes to fill a piece."""
    filled = np.concatenate([chosen, np.full(n_sets - len(chosen), chosen[-1] if len(chosen) else 0)])
    return jax.tree.map(lambda leaf: leaf[filled], arrays)
