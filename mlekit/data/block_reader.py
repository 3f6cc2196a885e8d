"""Reading a table's blocks, the next one while the present is computed."""

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

from ..core.trees import default_float
from .row_source import AbstractRowSource, explain_errors

#: Blocks of memory that a reader uses in turn.
N_BUFFERS = 4

_READERS: weakref.WeakValueDictionary[int, BlockReader] = weakref.WeakValueDictionary()
_HANDLES = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class BlockLayout:
    """What a compiled program must know of blocks of rows: tables with the same layout share one.

    Args:
        row: shapes and dtypes of the arrays of one row, a PyTree's structure and leaves.
        n_rows: rows of the longest table that shares the program.
        n_blocks: how many blocks there are.
        weights: the column of weights; `None` if all rows count once.
        uneven: whether the last block may hold fewer rows than others.
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
    def kind(self) -> Any:
        """The dtype of weights."""
        return default_float(self.block)

    @property
    def result(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of what `Reader.block` returns."""
        extra = None
        if self.weights is not None:
            extra = jax.ShapeDtypeStruct((self.size,), self.kind)
        elif self.uneven:
            extra = jax.ShapeDtypeStruct((), np.dtype(np.int32))
        return self.block, extra, jax.ShapeDtypeStruct((), np.dtype(bool))


@dataclasses.dataclass(frozen=True)
class WeightTotals:
    """What a column of weights adds up to.

    Args:
        n_rows: rows with a positive weight.
        n_obs: the sum.
        anchor: a row with a positive weight, or any if there is none.
    """

    n_rows: int
    n_obs: float
    anchor: PyTree


def read_rows(source: AbstractRowSource, first: int, count: int, row: PyTree) -> PyTree:
    """So many rows from number `first` on."""
    with explain_errors(source.name):
        return RowCursor(source, row).read(first, count, count)


def reader_of(handle: int) -> BlockReader:
    """The reader with this handle: compiled programs know readers by numbers."""
    found = _READERS.get(handle)
    if found is None:
        raise ValueError("a compiled function reads a table that is gone: keep the table as long as the function")
    return found


class RowCursor:
    """Reads stretches of rows; one that follows the last is read on, not looked for."""

    def __init__(self, source: AbstractRowSource, row: PyTree) -> None:
        self._source, self._row = source, row
        self._at, self._rest = -1, 0
        self._rooms: list[tuple[PyTree, list[int]]] = []
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
        out = self._room(size)
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
                    _need_fit(values, to.dtype)
                to[done : done + take] = values

            jax.tree.map(put, out, self._batch)
            self._rest -= take
            done += take
        self._at = first + count
        for leaf in jax.tree.leaves(out):
            leaf[count:] = leaf[:1]
        return out

    def _is_whole(self) -> bool:
        """Whether the batch at hand is a block as it is."""
        pairs = zip(jax.tree.leaves(self._batch), jax.tree.leaves(self._row))
        return all(len(leaf) == self._rest and leaf.dtype == like.dtype for leaf, like in pairs)

    def _room(self, size: int) -> PyTree:
        """Arrays for so many rows: those of before that nobody holds any more, for fresh memory is slow memory."""
        for room, idle in self._rooms:
            if jax.tree.leaves(room)[0].shape[0] == size and _references(room) == idle:
                break
        else:
            room = jax.tree.map(lambda leaf: np.empty((size, *leaf.shape), leaf.dtype), self._row)
            self._rooms = [*self._rooms[1 - N_BUFFERS :], (room, _references(room))]
        # Views: whoever holds one, on whatever way, holds the room.
        return jax.tree.map(lambda leaf: leaf[:], room)


def _references(room: PyTree) -> list[int]:
    """How many references there are to each array."""
    return [sys.getrefcount(leaf) for leaf in jax.tree.leaves(room)]


def _beside(rows: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *(1,) * (leaf.ndim - 1))


def _need_fit(values: np.ndarray, dtype: np.dtype) -> None:
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise ValueError(f"it holds whole numbers beyond {dtype}: call jax.config.update('jax_enable_x64', True)")


class BlockReader:
    """Reads the blocks of a table, the next one in the background.

    Args:
        source: where the rows lie.
        first: the first of its rows,
        last: and what comes after the last.
        layout: the layout of the blocks.
        weighed: what the weights add up to, if there are any.
    """

    def __init__(
        self, source: AbstractRowSource, first: int, last: int, layout: BlockLayout, weighed: WeightTotals | None
    ) -> None:
        self._source, self._first, self._last = source, first, last
        self._layout, self._weighed = layout, weighed
        treedef, leaves = layout.row
        self._row = jax.tree.unflatten(treedef, leaves)
        self._cursor = RowCursor(source, self._row)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[tuple[int, bool], Future[Any]] | None = None
        self.trouble: ValueError | None = None
        self.handle = next(_HANDLES)
        _READERS[self.handle] = self

    def block(self, b: int, following: int, silent: bool) -> Any:
        """Block `b`: its arrays; its weights, how many rows it has, or `None`; and whether all that could be read.

        Args:
            b: which.
            following: which is probably wanted next.
            silent: whether rows of weight zero are wanted as they are; else others stand for them, so that they
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
                # Computations cannot be left half-way, least of all by one of several processes.
                self.trouble, self._ahead = error, None
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
        weights = data[layout.weights].astype(layout.kind)
        weights[count:] = 0
        assert self._weighed is not None
        missing = ~(weights > 0)
        if missing.any() and not silent:
            anchor = self._weighed.anchor
            data = jax.tree.map(lambda leaf, one: np.where(_beside(missing, leaf), one, leaf), data, anchor)
        return data, weights, np.asarray(True)
