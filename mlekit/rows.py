"""Where rows that do not fit into memory lie, and how a stretch of them is read: tables on disk, memory maps.

pyarrow is imported where it is used, so that `import mlekit` does not pay for it.
"""

from __future__ import annotations

import abc
import bisect
import contextlib
import functools
import hashlib
import itertools
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from . import devices
from .arguments import first_line
from .groups import NoNumbersError, as_numbers, chosen_names

#: Rows that are decoded at a time.
BATCH = 1 << 16


class Rows(abc.ABC):
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
    def identity(self) -> str:
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


class ArrayRows(Rows):
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
    def identity(self) -> str:
        """As `Rows.identity`: of whole memory maps the files, of other arrays every number."""
        parts = []
        for leaf in jax.tree.leaves(self.arrays):
            text = f"{leaf.dtype} {leaf.shape}"
            if _is_file(leaf):
                parts.append(f"{text} {leaf.offset} {_stamp(leaf.filename)}")
            else:
                parts.append(f"{text} {hashlib.sha256(np.ascontiguousarray(leaf).data).hexdigest()}")
        return _digest(parts)

    def batches(self, first: int, only: str | None = None, rows: int = BATCH) -> Iterator[tuple[int, PyTree]]:
        """As `Rows.batches`."""
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


class ColumnRows(Rows):
    """Columns of a pyarrow dataset: Parquet files, by row groups, or whatever else Arrow reads.

    Args:
        dataset: the dataset.
        columns: names of columns; all if `None`.
        name: what messages call it.

    Raises:
        ValueError: unknown columns, columns that hold no numbers, no rows, or a file that cannot be read.
    """

    def __init__(self, dataset: Any, columns: str | Sequence[str] | None, name: str) -> None:
        import pyarrow as pa
        import pyarrow.dataset as pads

        self.name, self._dataset = name, dataset
        schema = dataset.schema
        chosen = schema.names if columns is None else chosen_names(columns, schema.names, "columns")
        self.columns = tuple(chosen)
        with explained(name):
            fragments = list(dataset.get_fragments())
            parquet = bool(fragments) and all(isinstance(one, pads.ParquetFileFragment) for one in fragments)
            pieces = [_Parquet(one) for one in fragments] if parquet else [_Fragment(one) for one in fragments]
        self.n_rows = sum(piece.n_rows for piece in pieces)
        if not self.n_rows:
            raise ValueError(f"{name} has no rows")
        self._pieces: list[Any] = [piece for piece in pieces if piece.n_rows]
        self._ends = list(itertools.accumulate(piece.n_rows for piece in self._pieces))
        self.row = {}
        for column in self.columns:
            try:
                empty = as_numbers(column, pa.chunked_array([], schema.field(column).type))
            except NoNumbersError as error:
                raise NoNumbersError(f"{name}: {error}", column, error.kind) from None
            gaps = any(piece.has_nulls(column) for piece in self._pieces)
            kind = np.dtype(float) if gaps and empty.dtype.kind in "biu" else empty.dtype
            self.row[column] = jax.ShapeDtypeStruct(empty.shape[1:], kind)

    @functools.cached_property
    def identity(self) -> str:
        """As `Rows.identity`."""
        return _digest([str(self._dataset.schema), *self.columns, *(piece.identity for piece in self._pieces)])

    def batches(self, first: int, only: str | None = None, rows: int = BATCH) -> Iterator[tuple[int, PyTree]]:
        """As `Rows.batches`."""
        columns = list(self.columns) if only is None else [only]
        place = bisect.bisect_right(self._ends, first)
        skip = first - (self._ends[place] - self._pieces[place].n_rows)
        for piece in self._pieces[place:]:
            for batch in piece.batches(self._dataset.schema, columns, skip, rows):
                yield batch.num_rows, {column: self._numbers(column, batch.column(column)) for column in columns}
            skip = 0

    def _numbers(self, column: str, values: Any) -> np.ndarray:
        found, kind = as_numbers(column, values), self.row[column].dtype
        if found.dtype != kind:
            if kind.kind != "f":
                raise ValueError(
                    f"{self.name}: {column!r} holds nulls where its file says of none; write it as floats"
                )
            found = found.astype(kind)
        return found


class _Parquet:
    """One Parquet file."""

    def __init__(self, fragment: Any) -> None:
        import pyarrow.dataset as pads

        self._fragment = fragment
        self._metadata = fragment.metadata
        groups = fragment.row_groups
        self._groups, sizes = [group.id for group in groups], [group.num_rows for group in groups]
        self._ends = list(itertools.accumulate(sizes))
        self.n_rows = sum(sizes)
        # What a directory's name says of all rows of its files.
        self._constants = pads.get_partition_keys(fragment.partition_expression)
        self._stamp = self._seen()
        self.identity = f"{self._stamp} {self._metadata.num_row_groups} {self._groups} {self.n_rows}"

    def _seen(self) -> str:
        info = self._fragment.filesystem.get_file_info(self._fragment.path)
        return f"{Path(self._fragment.path).name} {info.size} {info.mtime_ns}"

    def has_nulls(self, column: str) -> bool:
        """Whether the file says that there are any."""
        if column in self._constants or column not in self._fragment.physical_schema.names:
            return column not in self._constants
        paths = [self._metadata.schema.column(i).path for i in range(self._metadata.num_columns)]
        inside = [i for i, path in enumerate(paths) if path.startswith(f"{column}.")]
        own = [paths.index(column)] if column in paths else inside
        for group in self._groups:
            for i in own:
                known = self._metadata.row_group(group).column(i).statistics
                if known is not None and known.has_null_count and known.null_count:
                    return True
        return False

    def batches(self, schema: Any, columns: list[str], skip: int, rows: int) -> Iterator[Any]:
        """The rows after the first `skip`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._seen() != self._stamp:
            raise ValueError(f"{self._fragment.path} has changed since it was opened")
        place = bisect.bisect_right(self._ends, skip)
        skip -= self._ends[place - 1] if place else 0
        stored = [column for column in columns if column in self._fragment.physical_schema.names]
        # Page by page: a group of rows may be larger than memory.
        with pq.ParquetFile(
            self._fragment.open(), pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
        ) as file:
            # One thread reads while another computes; more of them only where they are not in its way.
            threads = devices.cores() > 2 or not devices.on_cpu()
            options = {"row_groups": self._groups[place:], "columns": stored, "use_threads": threads}
            for batch in file.iter_batches(rows, **options):
                if skip >= batch.num_rows:
                    skip -= batch.num_rows
                    continue
                batch, skip = batch.slice(skip), 0
                arrays = []
                for column in columns:
                    kind = schema.field(column).type
                    if column in stored:
                        found = batch.column(column)
                        arrays.append(found if found.type == kind else found.cast(kind))
                    else:
                        arrays.append(pa.repeat(pa.scalar(self._constants.get(column), kind), batch.num_rows))
                yield pa.record_batch(arrays, names=columns)


class _Fragment:
    """A piece of a dataset that is read from its beginning only."""

    def __init__(self, fragment: Any) -> None:
        self._fragment = fragment
        self.n_rows = fragment.count_rows()

    @functools.cached_property
    def identity(self) -> str:
        """The file, or what is in memory."""
        path = getattr(self._fragment, "path", None)
        if path is not None and os.path.exists(path):
            return f"{_stamp(path)} {self.n_rows}"
        content = hashlib.sha256()
        for batch in self._fragment.to_batches():
            content.update(batch.serialize())
        return content.hexdigest()

    def has_nulls(self, column: str) -> bool:
        """Nothing is known of them before they are read."""
        return False

    def batches(self, schema: Any, columns: list[str], skip: int, rows: int) -> Iterator[Any]:
        """The rows after the first `skip`."""
        ahead = {"batch_readahead": 1, "fragment_readahead": 1}
        for batch in self._fragment.to_batches(schema=schema, columns=columns, batch_size=rows, **ahead):
            if skip < batch.num_rows:
                yield batch.slice(skip)
            skip = max(0, skip - batch.num_rows)


def rows_of(source: Any, columns: str | Sequence[str] | None, name: str = "source") -> Rows:
    """The rows of whatever may be opened; `mle.open_table` says what that is.

    Raises:
        ValueError: no such file, one that cannot be read, arrays of different lengths, or as `ColumnRows`.
        TypeError: anything else.
    """
    import pyarrow.dataset as pads

    if isinstance(source, pads.Dataset):
        return ColumnRows(source, columns, name)
    if isinstance(source, str | os.PathLike) and Path(source).suffix == ".npy":
        with explained(str(source)):
            source = np.load(source, mmap_mode="r")
    paths = [source] if isinstance(source, str | os.PathLike) else source
    if isinstance(paths, list | tuple) and paths and all(isinstance(one, str | os.PathLike) for one in paths):
        for path in paths:
            if not Path(path).exists():
                raise ValueError(f"{name}: there is no {path}")
        name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        found: Any = paths[0] if len(paths) == 1 else [str(path) for path in paths]
        with explained(name):
            dataset = pads.dataset(found, format="parquet", partitioning="hive")
        return ColumnRows(dataset, columns, name)
    return _arrays(source, columns, name)


def _arrays(source: Any, columns: str | Sequence[str] | None, name: str) -> ArrayRows:
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
        if leaf.dtype.kind not in "biuf" or not leaf.dtype.isnative:
            raise TypeError(f"{name}: an array holds {leaf.dtype}, want numbers in the byte order of this machine")
    if not leaves or not leaves[0].shape[0]:
        raise ValueError(f"{name} has no rows")
    if len({leaf.shape[0] for leaf in leaves}) > 1:
        shown = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(f"{name}: all arrays must share their leading axis of rows; they have shapes {shown}")
    return ArrayRows(source, name)


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Whatever a reader of files raises inside becomes a `ValueError` that names the file."""
    try:
        yield
    except NoNumbersError:
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
