"""Rows that need not fit into memory, from which any range can be read."""

from __future__ import annotations

import abc
import functools
import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..core.dtypes import computed_dtype

BATCH = 1 << 16  #: rows of a batch, unless given


class AbstractRowSource(abc.ABC):
    """Rows that may be read from anywhere on, by several readers at a time.

    Args:
        name: the name in messages.
        n_rows: number of rows.
        row: shape and dtype of every array of one row.
    """

    name: str
    n_rows: int
    row: PyTree[jax.ShapeDtypeStruct]

    @functools.cached_property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A digest of where the rows come from, which changes when the files change."""

    @abc.abstractmethod
    def batches(self, first: int, only: str | None = None, rows: int = BATCH) -> Iterator[tuple[int, PyTree]]:
        """The rows from number `first` on in batches: the number of rows of each, and its arrays.

        Args:
            first: number of the first row.
            only: name of the one column to read, in a dict; all arrays if `None`.
            rows: rows of a batch at most.
        """

    def column(self, name: str, first: int, last: int) -> Iterator[np.ndarray]:
        """One column of the rows from `first` to `last`, in batches."""
        for count, batch in self.batches(first, name):
            yield batch[name][: last - first]
            first += count
            if first >= last:
                return


class ArrayRowSource(AbstractRowSource):
    """Arrays with a leading axis of rows, most of all those that NumPy maps from files.

    Args:
        arrays: PyTree of arrays.
        name: the name in messages.
    """

    def __init__(self, arrays: PyTree, name: str) -> None:
        self.arrays, self.name = arrays, name
        self.n_rows = jax.tree.leaves(arrays)[0].shape[0]
        self.row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), arrays)

    @functools.cached_property
    def fingerprint(self) -> str:
        """As `AbstractRowSource.fingerprint`: of whole memory maps the files, of other arrays every number."""
        parts = []
        for leaf in jax.tree.leaves(self.arrays):
            text = f"{leaf.dtype} {leaf.shape}"
            if _is_file(leaf):
                parts.append(f"{text} {leaf.offset} {file_stamp(leaf.filename)}")
            else:
                numbers = np.ascontiguousarray(leaf).view(np.uint8)
                parts.append(f"{text} {hashlib.sha256(numbers.data).hexdigest()}")
        return digest_lines(parts)

    def batches(self, first: int, only: str | None = None, rows: int = BATCH) -> Iterator[tuple[int, PyTree]]:
        """As `AbstractRowSource.batches`."""
        arrays = self.arrays if only is None else {only: self.arrays[only]}
        while first < self.n_rows:
            count = min(rows, self.n_rows - first)
            yield count, jax.tree.map(lambda leaf: _cut(leaf, first, count), arrays)  # noqa: B023
            first += count


def _is_file(leaf: Any) -> bool:
    """True if an array is a whole memory map, row after row, so that its file says what is in it."""
    mapped = isinstance(leaf, np.memmap) and isinstance(leaf.base, mmap.mmap) and leaf.mode != "c"
    return bool(mapped and leaf.flags.c_contiguous and leaf.filename)


def _cut(leaf: Any, first: int, count: int) -> np.ndarray:
    """Rows of an array. Those of a whole memory map are read: pages that are mapped would count as memory."""
    if _is_file(leaf):
        size = int(np.prod(leaf.shape[1:]))
        at = leaf.offset + first * size * leaf.dtype.itemsize
        read = np.fromfile(leaf.filename, leaf.dtype, count * size, offset=at)
        if read.size < count * size:
            raise ValueError(f"{leaf.filename} is shorter than it was when it was opened")
        return read.reshape(count, *leaf.shape[1:])
    return np.asarray(leaf[first : first + count])


def canonical(row: PyTree) -> PyTree:
    """The shapes of these arrays, and the dtypes that JAX computes them in."""

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(computed_dtype(leaf.dtype)))

    return jax.tree.map(one, row)


def file_stamp(path: Any) -> str:
    """Name, size and time of modification of a file; nothing of one that is not there."""
    if path is None or not os.path.exists(path):
        return ""
    found = os.stat(path)
    return f"{Path(path).name} {found.st_size} {found.st_mtime_ns}"


def digest_lines(lines: Sequence[str]) -> str:
    """One digest of several texts."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
