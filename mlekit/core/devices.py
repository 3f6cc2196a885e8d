"""The devices of this machine: pieces of work go to all of them, and none speaks to another."""

from __future__ import annotations

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

AXIS = "pieces"
ALIGNMENT = 64  #: bytes


def mesh() -> Mesh | None:
    """All local devices in a row; `None` if there is one, or if a default device was chosen."""
    devices = jax.local_devices()
    if len(devices) == 1 or jax.config.jax_default_device is not None:  # type: ignore[attr-defined]
        return None
    return Mesh(np.array(devices), (AXIS,))


def on_cpu() -> bool:
    """Whether the default device is a CPU."""
    return jax.default_backend() == "cpu"


def cores() -> int:
    """Processor cores that this process may use: `NPROC` says it where it is set, to XLA's pool of threads too."""
    if os.environ.get("NPROC", "").isdecimal():
        return max(1, int(os.environ["NPROC"]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An empty array that a CPU device takes as it is, without another copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT
    return room[begin : begin + size].view(dtype).reshape(shape)


def placed(leaf: Any) -> jax.Array:
    """An array on the default device: a copy of its own, which does not change when the original does."""
    if not (isinstance(leaf, np.ndarray) and on_cpu()):
        return jnp.asarray(leaf)
    own = aligned(leaf.shape, leaf.dtype)
    own[...] = leaf
    return jax.device_put(own)


def at_once(mesh: Mesh | None) -> int:
    """How many rounds of pieces are under way at a time.

    A piece keeps one core of a CPU busy, so there are as many as cores; other devices take one after the other,
    and the second waits there while the first is computed.
    """
    return 2 if mesh is not None or not on_cpu() else cores()


def workers(mesh: Mesh | None) -> int:
    """Pieces that are computed at a time."""
    if mesh is not None:
        return mesh.size
    return at_once(mesh) if on_cpu() else 1


def groups(pieces: Iterable[tuple[np.ndarray, Any]], mesh: Mesh | None) -> Iterator[list[tuple[np.ndarray, Any]]]:
    """The pieces, one for each device at a time; the last group is filled up with empty ones."""
    pieces, size = iter(pieces), mesh.size if mesh else 1
    while group := list(itertools.islice(pieces, size)):
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
    """What `together` made one, on the host and each for itself."""
    tree = jax.tree.map(np.asarray, tree)
    if mesh is None:
        return [tree]
    return [jax.tree.map(lambda leaf: leaf[d], tree) for d in range(mesh.size)]  # noqa: B023


def shard_mapped(fn: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """`fn` on every device's own part of its arguments."""
    if mesh is None:
        return fn

    def local(*args: Any) -> Any:
        out = fn(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], out)

    split = PartitionSpec(AXIS)
    return jax.shard_map(local, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
