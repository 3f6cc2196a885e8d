"""The devices of this machine, which take chunks of work in parallel; and the sizes that suit them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .trees import holds_keys

AXIS = "chunks"
ALIGNMENT = 64  #: bytes


def mesh() -> Mesh | None:
    """All local devices in a row; `None` if there is one, or if a default device was chosen."""
    devices = jax.local_devices()
    if len(devices) == 1 or jax.config.jax_default_device is not None:  # type: ignore[attr-defined]
        return None
    return Mesh(np.array(devices), (AXIS,))


def cores() -> int:
    """Processor cores that this process may use: `NPROC` says it where it is set, to XLA's pool of threads too."""
    if os.environ.get("NPROC", "").isdecimal():
        return max(1, int(os.environ["NPROC"]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class DeviceProfile:
    """Sizes of work that suit the devices of a backend.

    Args:
        on_host: true if the device is the host's own processor: it computes in the host's memory and on its cores,
            with the threads of one pool.
        tile_rows: rows that all lanes of a batch evaluate at once.
        max_lanes: lanes of a batch at most.
        block_rows: rows of a block of a large data set at most.
        block_numbers: numbers of such a block at most: its data, and as many tangents as there are parameters.
        block_bytes: bytes of a block of a table on disk.
        rounds: rounds of chunks that are under way at a time.
        workers: chunks that are computed at a time.
        decoding_threads: true if several threads may decode a file while the device computes.
    """

    on_host: bool
    tile_rows: int
    max_lanes: int
    block_rows: int
    block_numbers: int
    block_bytes: int
    rounds: int
    workers: int
    decoding_threads: bool


CORE_NUMBERS = 1 << 18  #: numbers that fit into the cache of a core


def profile() -> DeviceProfile:
    """The profile of the default backend."""
    return _profile(jax.default_backend(), cores())


@functools.cache
def _profile(backend: str, n_cores: int) -> DeviceProfile:
    if backend == "cpu":  # tiles and blocks fit into the cache of a core, and a chunk keeps one core busy
        return DeviceProfile(
            on_host=True,
            tile_rows=1 << 13,
            max_lanes=256,
            block_rows=1 << 12,
            block_numbers=CORE_NUMBERS,
            block_bytes=1 << 25,
            rounds=n_cores,
            workers=n_cores,
            decoding_threads=n_cores > 2,
        )
    # It takes many rows to keep the device busy, and blocks take what memory can spare. Chunks are computed one
    # after another; the next one waits on the device.
    return DeviceProfile(
        on_host=False,
        tile_rows=1 << 20,
        max_lanes=1 << 15,
        block_rows=1 << 26,
        block_numbers=1 << 26,
        block_bytes=1 << 27,
        rounds=2,
        workers=1,
        decoding_threads=True,
    )


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An empty array that a CPU device takes as it is, without another copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(dtype).reshape(shape)


def placed(leaf: Any) -> jax.Array:
    """An array on the default device: a copy of its own, which does not change when the original does."""
    if not (isinstance(leaf, np.ndarray) and profile().on_host):
        return jnp.asarray(leaf)
    own = aligned(leaf.shape, leaf.dtype)
    own[...] = leaf
    return jax.device_put(own)


def rounds(mesh: Mesh | None) -> int:
    """Rounds of chunks that are under way at a time, each with one chunk for every device."""
    return 2 if mesh is not None else profile().rounds


def workers(mesh: Mesh | None) -> int:
    """Chunks that are computed at a time."""
    return mesh.size if mesh is not None else profile().workers


def groups(chunks: Iterable[tuple[np.ndarray, Any]], mesh: Mesh | None) -> Iterator[list[tuple[np.ndarray, Any]]]:
    """The chunks, one for each device at a time; the last group is filled up with empty ones."""
    chunks, size = iter(chunks), mesh.size if mesh else 1
    while group := list(itertools.islice(chunks, size)):
        empty = (group[0][0][:0], group[0][1].emptied())
        yield group + [empty] * (size - len(group))


def stack_on_devices(trees: list[PyTree], mesh: Mesh | None) -> PyTree:
    """One tree for all devices: with a leading axis that is split over them, if there are several.

    The arrays may be taken as they are: nobody else must change them.
    """
    if mesh is None:
        return jax.device_put(trees[0])
    place = NamedSharding(mesh, PartitionSpec(AXIS))
    stack = lambda *leaves: (jnp.stack if holds_keys(leaves[0]) else np.stack)(leaves)  # noqa: E731
    return jax.tree.map(lambda *leaves: jax.device_put(stack(*leaves), place), *trees)


def unstack(tree: PyTree, mesh: Mesh | None) -> list[PyTree]:
    """The trees that `stack_on_devices` was given, on the host."""
    tree = jax.tree.map(np.asarray, tree)
    if mesh is None:
        return [tree]
    return [jax.tree.map(lambda leaf: leaf[d], tree) for d in range(mesh.size)]  # noqa: B023


def shard_mapped(fn: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """`fn` on every device's own part of its arguments."""
    if mesh is None:
        return fn

    def shard(*args: Any) -> Any:
        out = fn(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], out)

    split = PartitionSpec(AXIS)
    return jax.shard_map(shard, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
