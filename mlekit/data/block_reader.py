"""Blocks of a table's rows, each read while the one before it is computed."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..core.trees import align_to_rows, default_float
from .file_errors import explain_errors
from .row_source import AbstractRowSource

N_BUFFERS = 4  #: sets of arrays that a cursor keeps for further blocks, at most

_READERS: weakref.WeakValueDictionary[int, BlockReader] = weakref.WeakValueDictionary()
_HANDLES = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class BlockLayout:
    """The static part of reading blocks of rows: tables with the same layout share a compiled program.

    Args:
        row: structure and leaves of a PyTree, the shapes and dtypes of the arrays of one row.
        n_rows: rows of the longest table that shares the program.
        n_blocks: number of blocks.
        weights: the column of weights; `None` if all rows count once.
        uneven: true if the last block may hold fewer rows than others.
    """

    row: tuple[Any, tuple[Any, ...]]
    n_rows: int
    n_blocks: int
    weights: str | None
    uneven: bool

    @property
    def size(self) -> int:
        """Rows of a block."""
        return -(-self.n_rows // self.n_blocks)

    @property
    def block(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the arrays of a block."""
        treedef, leaves = self.row
        return jax.tree.unflatten(
            treedef, [jax.ShapeDtypeStruct((self.size, *leaf.shape), leaf.dtype) for leaf in leaves]
        )

    @property
    def weight_dtype(self) -> Any:
        """The dtype of weights."""
        return default_float(self.block)

    @property
    def result(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the value of `BlockReader.block`."""
        extra = None
        if self.weights is not None:
            extra = jax.ShapeDtypeStruct((self.size,), self.weight_dtype)
        elif self.uneven:
            extra = jax.ShapeDtypeStruct((), np.dtype(np.int32))
        return self.block, extra, jax.ShapeDtypeStruct((), np.dtype(bool))


@dataclasses.dataclass(frozen=True)
class WeightTotals:
    """The totals of a column of weights.

    Args:
        n_rows: number of rows with a positive weight.
        n_obs: the sum of the weights.
        anchor: a row with a positive weight, or any if there is none.
    """

    n_rows: int
    n_obs: float
    anchor: PyTree


def read_rows(source: AbstractRowSource, first: int, count: int, row: PyTree) -> PyTree:
    """The `count` rows from number `first` on."""
    with explain_errors(source.name):
        return RowCursor(source, row).read(first, count, count)


def reader_of(handle: int) -> BlockReader:
    """The reader with this handle: compiled programs know readers by numbers."""
    found = _READERS.get(handle)
    if found is None:
        raise ValueError("a compiled function reads a table that is gone: keep the table as long as the function")
    return found


class RowCursor:
    """Reads ranges of rows; a range that begins where the last one ended is read on, without a new search."""

    def __init__(self, source: AbstractRowSource, row: PyTree) -> None:
        self._source, self._row = source, row
        self._at, self._rest = -1, 0
        self._buffers: list[tuple[PyTree, list[int]]] = []
        self._batch: Any = None
        self._batches: Any = iter(())

    def read(self, first: int, count: int, size: int) -> PyTree:
        """Rows `first` to `first + count`, then the first of them again until there are `size`."""
        if first != self._at:
            self._batches, self._rest = self._source.batches(first, rows=size), 0
        self._at = -1  # unless all goes well
        if not self._rest and count:
            self._rest, self._batch = next(self._batches)
        if self._rest == count == size and self._is_whole():
            self._at, self._rest = first + count, 0
            return self._batch
        out = self._buffer(size)
        done = 0
        while done < count:
            if not self._rest:
                self._rest, self._batch = next(self._batches)
            take = min(self._rest, count - done)
            begin = -self._rest

            def put(
                to: np.ndarray, batch: np.ndarray, begin: int = begin, done: int = done, take: int = take
            ) -> None:
                values = batch[len(batch) + begin : len(batch) + begin + take]
                if to.dtype.kind in "iu" and to.dtype.itemsize < values.dtype.itemsize:
                    _check_fits(values, to.dtype)
                to[done : done + take] = values

            jax.tree.map(put, out, self._batch)
            self._rest -= take
            done += take
        self._at = first + count
        for leaf in jax.tree.leaves(out):
            leaf[count:] = leaf[:1]
        return out

    def _is_whole(self) -> bool:
        """True if the present batch is a block as it is."""
        pairs = zip(jax.tree.leaves(self._batch), jax.tree.leaves(self._row))
        return all(len(leaf) == self._rest and leaf.dtype == like.dtype for leaf, like in pairs)

    def _buffer(self, size: int) -> PyTree:
        """Arrays for `size` rows: earlier ones without live views where there are any; the first use is slow."""
        for buffer, idle in self._buffers:
            if jax.tree.leaves(buffer)[0].shape[0] == size and _references(buffer) == idle:
                break
        else:
            buffer = jax.tree.map(lambda leaf: np.empty((size, *leaf.shape), leaf.dtype), self._row)
            self._buffers = [*self._buffers[1 - N_BUFFERS :], (buffer, _references(buffer))]
        # A live view keeps the buffer from being reused.
        return jax.tree.map(lambda leaf: leaf[:], buffer)


def _references(buffer: PyTree) -> list[int]:
    """The number of references to each array."""
    return [sys.getrefcount(leaf) for leaf in jax.tree.leaves(buffer)]


def _check_fits(values: np.ndarray, dtype: np.dtype) -> None:
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise ValueError(f"it holds whole numbers beyond {dtype}: call jax.config.update('jax_enable_x64', True)")


class BlockReader:
    """Reads the blocks of a table, the next one in the background.

    `error` is the last error: a block that could not be read is all zeros.

    Args:
        source: where the rows lie.
        first: number of the first row.
        last: number of the row after the last one.
        layout: the layout of the blocks.
        totals: the totals of the weights; `None` if there are none.
    """

    def __init__(
        self, source: AbstractRowSource, first: int, last: int, layout: BlockLayout, totals: WeightTotals | None
    ) -> None:
        self._source, self._first, self._last = source, first, last
        self._layout, self._totals = layout, totals
        treedef, leaves = layout.row
        self._row = jax.tree.unflatten(treedef, leaves)
        self._cursor = RowCursor(source, self._row)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[tuple[int, bool], Future[Any]] | None = None
        self.error: ValueError | None = None
        self.handle = next(_HANDLES)
        _READERS[self.handle] = self

    def block(self, b: int, following: int, silent: bool) -> Any:
        """Block `b`: its arrays; its weights, its number of rows, or `None`; and a boolean, true if it was read.

        Args:
            b: number of the block.
            following: number of the block that is probably asked for next; it is read ahead.
            silent: true for rows of weight zero as they are; else the anchor stands in their place, so that they
                cannot bring in a NaN.
        """
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "mlekit-reader")
            if self._ahead is not None and self._ahead[0] == (b, silent):
                under_way = self._ahead[1]
            else:
                under_way = self._pool.submit(self._read, b, silent)
            try:
                found = under_way.result()
            except ValueError as error:
                # A compiled program cannot stop half-way, least of all in one of several processes.
                self.error, self._ahead = error, None
                return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self._layout.result)
            self._ahead = (following, silent), self._pool.submit(self._read, following, silent)
        return found

    def _read(self, b: int, silent: bool) -> Any:
        n, layout = self._last - self._first, self._layout
        count = min(layout.size, n - b * layout.size)
        # One of several parts may be a row shorter than others, and then its last block may be empty.
        begin = self._first + b * layout.size - (count == 0)
        with explain_errors(self._source.name):
            data = self._cursor.read(begin, max(1, count), layout.size)
        if layout.weights is None:
            return data, np.asarray(count, np.int32) if layout.uneven else None, np.asarray(True)
        weights = data[layout.weights].astype(layout.weight_dtype)
        weights[count:] = 0
        assert self._totals is not None
        missing = ~(weights > 0)
        if missing.any() and not silent:
            anchor = self._totals.anchor
            data = jax.tree.map(lambda leaf, one: np.where(align_to_rows(missing, leaf), one, leaf), data, anchor)
        return data, weights, np.asarray(True)
