"""A table that stays on disk: opened once, read in blocks of rows, the next one while the present is computed."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from . import devices
from .arguments import check_count
from .rows import Rows, canonical, explained, rows_of
from .trees import default_float

#: Bytes of a block, on a CPU and elsewhere.
BLOCK_BYTES, BLOCK_BYTES_WIDE = 1 << 23, 1 << 27
#: A start that is computed from data sees so many rows at most, from so many places.
SAMPLE_ROWS, SAMPLE_PLACES = 1 << 16, 16

_READERS: weakref.WeakValueDictionary[int, Reader] = weakref.WeakValueDictionary()
_HANDLES = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a compiled program must know of blocks of rows: tables with the same layout share one.

    Args:
        row: shapes and dtypes of the arrays of one row, a PyTree's structure and leaves.
        n_rows: rows of the longest table that shares the program.
        n_blocks: how many blocks there are.
        weights: the column of weights; `None` if all rows count once.
        uneven: whether blocks may hold a row less than others.
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


class Table:
    """Rows on disk, as `mle.open_table` opens them; `mle.fit` streams them through memory, pass after pass.

    Args:
        source: where the rows lie.
        block_rows: rows of a block.
        part: first and last row that are its own; all if `None`.
    """

    def __init__(self, source: Rows, block_rows: int, part: tuple[int, int] | None = None) -> None:
        self._source, self.block_rows = source, block_rows
        self._first, self._last = part or (0, source.n_rows)
        self._readers: dict[Any, Reader] = {}
        self._weighed: dict[str, Weighed] = {}

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self._last - self._first

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._source.name

    @property
    def row(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shape and dtype of every array of one row, as a model sees it."""
        return canonical(self._source.row)

    @property
    def identity(self) -> str:
        """A digest of the names, sizes and times of the files, and of what is read of them."""
        return f"{self._source.identity}:{self._first}:{self._last}"

    def part(self, number: int, count: int) -> Table:
        """One of `count` parts of as many rows, each to be read by itself."""
        ends = [self._first + self.n_rows * i // count for i in (number, number + 1)]
        return Table(self._source, self.block_rows, (ends[0], ends[1]))

    def layout(self, weights: str | None, shares: int = 1) -> Layout:
        """The layout of this table, or of its parts if it is shared out."""
        leaves, treedef = jax.tree.flatten(self.row)
        rows = -(-self.n_rows // shares)
        n_blocks = -(-rows // self.block_rows)
        uneven = self.n_rows % (n_blocks * shares) != 0
        return Layout((treedef, tuple(leaves)), rows, n_blocks, weights, uneven)

    def reader(self, layout: Layout) -> Reader:
        """What reads its blocks; it lives as long as the table."""
        if layout not in self._readers:
            weighed = None if layout.weights is None else self.weighed(layout.weights)
            self._readers[layout] = Reader(self._source, self._first, self._last, layout, weighed)
        return self._readers[layout]

    def weighed(self, weights: str) -> Weighed:
        """What a column of weights adds up to: read once.

        Raises:
            ValueError: no such column, one that holds no single numbers, or negative weights.
        """
        if weights not in self._weighed:
            names = list(self.row) if isinstance(self.row, dict) else []
            if weights not in names:
                raise ValueError(
                    f"weights: there is no column {weights!r}; there are {', '.join(names) or 'none'}"
                )
            if self.row[weights].shape:
                raise ValueError(
                    f"weights: column {weights!r} holds {self.row[weights].shape} numbers a row, want one"
                )
            self._weighed[weights] = _weigh(self._source, weights, self._first, self._last)
        return self._weighed[weights]

    def labels(self, columns: Sequence[Any]) -> dict[str, Any]:
        """Those columns that are names, in memory; `None` in place of the others."""
        found: dict[str, Any] = dict.fromkeys(self.row if isinstance(self.row, dict) else ())
        for name in {one for one in columns if isinstance(one, str)} & set(found):
            with explained(self.name):
                parts, at = [], self._first
                for size, batch in self._source.batches(self._first, name):
                    parts.append(batch[name][: self._last - at])
                    at += size
                    if at >= self._last:
                        break
            found[name] = np.concatenate(parts)
        return found

    def sample(self) -> PyTree:
        """Some rows from all over the table, in memory."""
        rows = min(self.n_rows, SAMPLE_ROWS)
        places = min(SAMPLE_PLACES, rows)
        parts = []
        for i in range(places):
            size = rows * (i + 1) // places - rows * i // places
            parts.append(_stretch(self._source, self._first + self.n_rows * i // places, size, self.row))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def check(self) -> None:
        """A `ValueError` if something could not be read."""
        for reader in self._readers.values():
            if reader.trouble is not None:
                trouble, reader.trouble = reader.trouble, None
                raise trouble

    def __repr__(self) -> str:
        row = self._source.row
        shown = f"; columns {', '.join(row)}" if isinstance(row, dict) else ""
        blocks = -(-self.n_rows // self.block_rows)
        return f"Table({self.n_rows:,} rows in {blocks:,} block{'s' * (blocks != 1)}{shown})"


def open_table(source: Any, columns: str | Sequence[str] | None = None, *, block_rows: int | None = None) -> Table:
    r"""Open a table that need not fit into memory, for `mle.fit`.

    Nothing is read yet but what the files say of themselves. A fit reads the rows block by block, once for each
    evaluation of the likelihood, the next block while the present one is computed; what is summed over blocks is
    exact, so the estimates are those of the same rows in memory.

    Args:
        source: a Parquet file; a directory of Parquet files, or a list of files; any `pyarrow.dataset.Dataset`; a
            `.npy` file; or NumPy arrays with a leading axis of rows, such as `np.memmap`, alone or in a PyTree.
        columns: names of the columns that the model reads, and of those of weights; all by default. Integers,
            floating-point numbers and booleans keep their type, nulls become NaN.
        block_rows: rows of a block at most; by default as many as take 8 MiB on a CPU and 128 MiB elsewhere. Three
            or four blocks are in memory at a time.

    Returns:
        A `Table`, to be passed to `mle.fit` as `data`; its `obs` is a dict of columns, or one slice of the PyTree.

    Raises:
        ValueError: no such file, one that is damaged, unknown columns or columns that hold no numbers, no rows.
        TypeError: `source` is none of the above.

    Example:
        >>> import os, tempfile, jax.numpy as jnp, numpy as np, pyarrow as pa, pyarrow.parquet as pq
        >>> import mlekit as mle
        >>> path = os.path.join(tempfile.mkdtemp(), "waits.parquet")
        >>> pq.write_table(pa.table({"wait": np.arange(1.0, 1001.0)}), path)
        >>> table = mle.open_table(path, block_rows=300)
        >>> table
        Table(1,000 rows in 4 blocks; columns wait)
        >>> density = lambda rate, obs: jnp.log(rate) - rate * obs["wait"]
        >>> fit = mle.fit(density, 1.0, table, constraints=mle.positive)
        >>> print(fit.status, 1 / fit.params)
        converged 500.5
    """
    found = rows_of(source, columns)
    if block_rows is None:
        leaves = jax.tree.leaves(canonical(found.row))
        width = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
        block_rows = max(1024, (BLOCK_BYTES if devices.on_cpu() else BLOCK_BYTES_WIDE) // max(1, width))
    check_count(block_rows, "block_rows")
    return Table(found, block_rows)


@dataclasses.dataclass(frozen=True)
class Weighed:
    """What a column of weights adds up to.

    Args:
        n_rows: rows with a positive weight.
        n_obs: the sum.
        anchor: a row with a positive weight, or any if there is none.
    """

    n_rows: int
    n_obs: float
    anchor: PyTree


def _weigh(source: Rows, weights: str, first: int, last: int) -> Weighed:
    count, sums, anchor, at = 0, [], None, first
    with explained(source.name):
        for size, batch in source.batches(first, weights):
            found = batch[weights][: last - at].astype(float)
            if np.any(found < 0):
                raise ValueError(f"weights: column {weights!r} has negative entries")
            counts = np.flatnonzero(found > 0)
            if anchor is None and counts.size:
                anchor = at + int(counts[0])
            count += counts.size
            sums.append(float(found.sum()))
            at += size
            if at >= last:
                break
    row = canonical(source.row)
    return Weighed(count, math.fsum(sums), _stretch(source, first if anchor is None else anchor, 1, row))


def _stretch(source: Rows, first: int, count: int, row: PyTree) -> PyTree:
    """So many rows from number `first` on."""
    with explained(source.name):
        return _Cursor(source, row).read(first, count, count)


def reader(handle: int) -> Reader:
    """The reader with this handle: compiled programs know readers by numbers."""
    return _READERS[handle]


class _Cursor:
    """Reads stretches of rows; one that follows the last is read on, not looked for."""

    def __init__(self, source: Rows, row: PyTree) -> None:
        self._source, self._row = source, row
        self._at, self._rest = -1, 0
        self._batch: Any = None
        self._batches: Any = iter(())

    def read(self, first: int, count: int, size: int) -> PyTree:
        """Rows `first` to `first + count`, then the first of them again until there are `size`."""
        if first != self._at:
            self._batches, self._rest = self._source.batches(first), 0
        self._at = -1  # unless all goes well
        out = jax.tree.map(lambda leaf: np.empty((size, *leaf.shape), leaf.dtype), self._row)
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


def _need_fit(values: np.ndarray, dtype: np.dtype) -> None:
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise ValueError(f"it holds whole numbers beyond {dtype}: call jax.config.update('jax_enable_x64', True)")


class Reader:
    """Reads the blocks of a table, the next one in the background.

    Args:
        source: where the rows lie.
        first: the first of its rows,
        last: and what comes after the last.
        layout: the layout of the blocks.
        weighed: what the weights add up to, if there are any.
    """

    def __init__(self, source: Rows, first: int, last: int, layout: Layout, weighed: Weighed | None) -> None:
        self._source, self._first, self._last = source, first, last
        self._layout, self._weighed = layout, weighed
        treedef, leaves = layout.row
        self._row = jax.tree.unflatten(treedef, leaves)
        self._cursor = _Cursor(source, self._row)
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
        begin, end = (self._first + n * i // layout.n_blocks for i in (b, b + 1))
        with explained(self._source.name):
            data = self._cursor.read(begin, end - begin, layout.size)
        if layout.weights is None:
            return data, np.asarray(end - begin, np.int32) if layout.uneven else None, np.asarray(True)
        weights = data[layout.weights].astype(layout.kind)
        weights[end - begin :] = 0
        assert self._weighed is not None
        missing = ~(weights > 0)
        if missing.any() and not silent:
            anchor = self._weighed.anchor

            def replace(leaf: np.ndarray, one: np.ndarray) -> np.ndarray:
                leaf[missing] = one[0]
                return leaf

            data = jax.tree.map(replace, data, anchor)
        return data, weights, np.asarray(True)
