"""Where rows that do not fit into memory lie, and how a stretch of them is read: tables on disk, memory maps.

pyarrow is imported where it is used, so that `import mlekit` does not pay for it.
"""

from __future__ import annotations

import abc
import contextlib
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

from ..core.checks import first_line
from .columns import NotNumericError

#: Rows that are decoded at a time.
BATCH = 1 << 16


class AbstractRowSource(abc.ABC):
    """Rows that may be read from anywhere on, by several readers at a time.

    Args:
        name: what messages call it.
        n_rows: how many rows there are.
        row: shape and dtype of every array of one row.
    """

    name: str
    n_rows: int
    row: PyTree[jax.ShapeDtypeStruct]

    @functools.cached_property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """What tells it from others, and from itself once its files have changed."""

    @abc.abstractmethod
    def batches(self, first: int, only: str | None = None, rows: int = BATCH) -> Iterator[tuple[int, PyTree]]:
        """The rows from number `first` on, some at a time: how many they are, and their arrays.

        Args:
            first: number of the first row.
            only: the one column that is wanted, in a dict; all arrays if `None`.
            rows: how many at a time, at most.
        """

    def column(self, name: str, first: int, last: int) -> Iterator[np.ndarray]:
        """One column of the rows from `first` to `last`, some at a time."""
        for count, batch in self.batches(first, name):
            yield batch[name][: last - first]
            first += count
            if first >= last:
                return


class ArrayRowSource(AbstractRowSource):
    """Arrays with a leading axis of rows, most of all those that NumPy maps from files.

    Args:
        arrays: PyTree of arrays.
        name: what messages call it.
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
                parts.append(f"{text} {leaf.offset} {_stamp(leaf.filename)}")
            else:
                parts.append(f"{text} {hashlib.sha256(np.ascontiguousarray(leaf).data).hexdigest()}")
        return _digest(parts)

    def batches(self, first: int, only: str | None = None, rows: int = BATCH) -> Iterator[tuple[int, PyTree]]:
        """As `AbstractRowSource.batches`."""
        arrays = self.arrays if only is None else {only: self.arrays[only]}
        while first < self.n_rows:
            count = min(rows, self.n_rows - first)
            yield count, jax.tree.map(lambda leaf: _cut(leaf, first, count), arrays)  # noqa: B023
            first += count


def _is_file(leaf: Any) -> bool:
    """Whether an array is a whole memory map, row after row, whose file says what is in it."""
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


@contextlib.contextmanager
def explain_errors(name: str) -> Iterator[None]:
    """Whatever a reader of files raises inside becomes a `ValueError` that names the file."""
    try:
        yield
    except NotNumericError:
        raise
    except Exception as error:  # pyarrow raises a dozen kinds of them
        raise ValueError(f"{name} cannot be read: {first_line(error)}") from error


def canonical(row: PyTree) -> PyTree:
    """The shapes and dtypes that JAX gives arrays of these."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)), row
    )


def _stamp(path: Any) -> str:
    if path is None or not os.path.exists(path):
        return ""
    found = os.stat(path)
    return f"{Path(path).name} {found.st_size} {found.st_mtime_ns}"


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
