"""A table on disk, read in blocks of rows, each while the block before it is computed."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..core import devices
from ..core.checks import check_count
from ..core.dtypes import computed_dtype
from ..core.trees import tracing
from .arrow_row_source import ArrowRowSource
from .block_reader import BlockLayout, BlockReader, WeightTotals, read_rows
from .columns import chosen_names
from .file_errors import explain_errors
from .row_source import AbstractRowSource, ArrayRowSource, canonical


def open_row_source(source: Any, columns: str | Sequence[str] | None, name: str = "source") -> AbstractRowSource:
    """The rows of any source that `mle.open_table` takes.

    Raises:
        ValueError: no such file, one that cannot be read, arrays of different lengths; and as `ArrowRowSource`.
        TypeError: anything else.
    """
    import pyarrow.dataset as pads

    if isinstance(source, pads.Dataset):
        return ArrowRowSource(source, columns, name)
    if isinstance(source, str | os.PathLike) and Path(source).suffix == ".npy":
        with explain_errors(str(source)):
            source = np.load(source, mmap_mode="r")
    paths = [source] if isinstance(source, str | os.PathLike) else source
    if isinstance(paths, list | tuple) and paths and all(isinstance(one, str | os.PathLike) for one in paths):
        for path in paths:
            if not Path(path).exists():
                raise ValueError(f"{name}: there is no {path}")
        name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        found: Any = paths[0] if len(paths) == 1 else [str(path) for path in paths]
        with explain_errors(name):
            dataset = pads.dataset(found, format="parquet", partitioning="hive")
        return ArrowRowSource(dataset, columns, name)
    return _array_source(source, columns, name)


def _array_source(source: Any, columns: str | Sequence[str] | None, name: str) -> ArrayRowSource:
    if columns is not None:
        if not isinstance(source, Mapping):
            raise ValueError(
                f"columns: only a table or a dict of arrays has columns; {name} is {type(source).__name__}"
            )
        source = {column: source[column] for column in chosen_names(columns, source, "columns")}
    leaves = jax.tree.leaves(source)
    for leaf in leaves:
        if not isinstance(leaf, np.ndarray) or not leaf.ndim:
            raise TypeError(
                f"{name}: got {type(leaf).__name__}, want a Parquet file, a directory of such, a pyarrow dataset, "
                "or NumPy arrays with a leading axis of rows, such as np.memmap"
            )
        if computed_dtype(leaf.dtype).kind not in "biuf" or not leaf.dtype.isnative:
            raise TypeError(f"{name}: an array holds {leaf.dtype}, want numbers in the byte order of this machine")
    if not leaves or not leaves[0].shape[0]:
        raise ValueError(f"{name} has no rows")
    if len({leaf.shape[0] for leaf in leaves}) > 1:
        shown = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(f"{name}: all arrays must share their leading axis of rows; they have shapes {shown}")
    return ArrayRowSource(source, name)


#: Rows of a sample at most, and ranges that they come from; a start that is computed from data sees a sample.
SAMPLE_ROWS, SAMPLE_PLACES = 1 << 16, 16
SAMPLE_BYTES = 1 << 25  #: bytes of a sample at most


class Table:
    """Rows on disk, as `mle.open_table` opens them; `mle.fit` streams them through memory, pass after pass.

    Args:
        source: the rows.
        block_rows: rows of a block.
        part: the first row, and the one after the last; all if `None`.

    Example:
        >>> import numpy as np, mlekit as mle
        >>> table = mle.open_table({"x": np.arange(10.0)})
        >>> table.n_rows, table.row["x"].shape
        (10, ())
    """

    def __init__(self, source: AbstractRowSource, block_rows: int, part: tuple[int, int] | None = None) -> None:
        self._source, self.block_rows = source, block_rows
        self._first, self._last = part or (0, source.n_rows)
        self._readers: dict[Any, BlockReader] = {}
        self._totals: dict[str, WeightTotals] = {}
        self._sample: tuple[Any, PyTree] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self._last - self._first

    @property
    def name(self) -> str:
        """The name in messages."""
        return self._source.name

    @property
    def row(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shape and dtype of every array of one row, as a model sees it."""
        return canonical(self._source.row)

    @property
    def fingerprint(self) -> str:
        """A digest of the names, sizes and times of the files, and of the columns and rows that are read."""
        return f"{self._source.fingerprint}:{self._first}:{self._last}"

    def part(self, number: int, count: int) -> Table:
        """One of several parts with the same number of rows, or one less, each read by itself.

        Args:
            number: number of the part, from zero.
            count: number of parts.
        """
        ends = [self._first + self.n_rows * i // count for i in (number, number + 1)]
        return Table(self._source, self.block_rows, (ends[0], ends[1]))

    def layout(self, weights: str | None, shares: int = 1) -> BlockLayout:
        """The layout of this table, or of its parts if it is shared out.

        Args:
            weights: the column of weights, or `None`.
            shares: number of parts.
        """
        leaves, treedef = jax.tree.flatten(self.row)
        rows = -(-self.n_rows // shares)
        size = -(-rows // -(-rows // self.block_rows))  # all about as long
        n_blocks = -(-rows // size)
        uneven = self.n_rows != n_blocks * -(-rows // n_blocks) * shares
        return BlockLayout((treedef, tuple(leaves)), rows, n_blocks, weights, uneven)

    def reader(self, layout: BlockLayout) -> BlockReader:
        """The reader of its blocks, which lives as long as the table.

        Args:
            layout: the layout of the blocks.
        """
        if layout not in self._readers:
            totals = None if layout.weights is None else self.weight_totals(layout.weights)
            self._readers[layout] = BlockReader(self._source, self._first, self._last, layout, totals)
        found = self._readers[layout]
        found.error = None  # left by a fit inside `jit`, which could only return NaN
        return found

    def weight_totals(self, weights: str) -> WeightTotals:
        """The totals of a column of weights, read once.

        Args:
            weights: the column.

        Raises:
            ValueError: no such column, one that holds no single numbers, or negative weights.
        """
        if weights not in self._totals:
            names = list(self.row) if isinstance(self.row, dict) else []
            if weights not in names:
                raise ValueError(
                    f"weights: there is no column {weights!r}; there are {', '.join(names) or 'none'}"
                )
            if self.row[weights].shape:
                raise ValueError(
                    f"weights: column {weights!r} holds {self.row[weights].shape} numbers a row, want one"
                )
            self._totals[weights] = _add_weights(self._source, weights, self._first, self._last)
        return self._totals[weights]

    def labels(self, columns: Sequence[Any]) -> dict[str, Any]:
        """Columns in memory, by their names; `None` in place of those that are not asked for.

        Args:
            columns: labels; those that are names of columns are read.
        """
        found: dict[str, Any] = dict.fromkeys(self.row if isinstance(self.row, dict) else ())
        for name in {one for one in columns if isinstance(one, str)} & set(found):
            with explain_errors(self.name):
                found[name] = np.concatenate(list(self._source.column(name, self._first, self._last)))
        return found

    def is_large(self, layout: BlockLayout) -> bool:
        """True if a sample is much smaller than a part, for all parts of a table or for none.

        Args:
            layout: the layout of the parts.
        """
        return layout.n_rows - 1 >= 3 * self._sample_rows

    def sample(self) -> PyTree:
        """Rows from all over the table, in memory."""
        row = self.row
        if self._sample is None or jax.tree.map(lambda leaf: leaf.dtype, row) != self._sample[0]:
            self._sample = jax.tree.map(lambda leaf: leaf.dtype, row), self._read_sample()
        return self._sample[1]

    @property
    def _sample_rows(self) -> int:
        return min(SAMPLE_ROWS, max(1, SAMPLE_BYTES // _width(self.row)))

    def _read_sample(self) -> PyTree:
        rows = min(self.n_rows, self._sample_rows)
        places = min(SAMPLE_PLACES, rows)
        parts = []
        for i in range(places):
            size = rows * (i + 1) // places - rows * i // places
            parts.append(read_rows(self._source, self._first + self.n_rows * i // places, size, self.row))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def check(self) -> None:
        """A `ValueError` if rows could not be read."""
        for reader in self._readers.values():
            if reader.error is not None:
                error, reader.error = reader.error, None
                raise error

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
        block_rows: rows of a block at most; by default as many as take 32 MiB on a CPU and 128 MiB elsewhere.
            A handful of blocks are in memory at a time.

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
        >>> print(fit.status, f"{1 / fit.params:.4f}")
        converged 500.5000
    """
    if tracing():
        raise ValueError(
            "open_table opens files and does not run under jit; open the table outside, and close over it"
        )
    found = open_row_source(source, columns)
    if block_rows is None:
        block_rows = max(1024, devices.profile().block_bytes // _width(canonical(found.row)))
    check_count(block_rows, "block_rows")
    return Table(found, block_rows)


def _width(row: PyTree) -> int:
    """Bytes of a row."""
    return max(1, sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(row)))


def _add_weights(source: AbstractRowSource, weights: str, first: int, last: int) -> WeightTotals:
    count, least, anchor, at = 0, 0.0, None, first
    sums: list[float] = []
    with explain_errors(source.name):
        for found in source.column(weights, first, last):
            counts = np.flatnonzero(found > 0)
            if anchor is None and counts.size:
                anchor = at + int(counts[0])
            count += counts.size
            sums.append(float(found.sum(dtype=float)))
            least = min(least, float(np.nanmin(found, initial=0.0)))
            at += len(found)
    if least < 0:
        raise ValueError(f"weights: column {weights!r} has negative entries")
    if anchor is None and (first, last) != (0, source.n_rows):  # of a part; the whole may have one
        return dataclasses.replace(
            _add_weights(source, weights, 0, source.n_rows), n_rows=0, n_obs=math.fsum(sums)
        )
    return WeightTotals(count, math.fsum(sums), read_rows(source, anchor or first, 1, canonical(source.row)))
