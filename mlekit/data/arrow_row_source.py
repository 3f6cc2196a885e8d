"""Rows of a pyarrow dataset: Parquet files, by row groups, or whatever else Arrow reads."""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..core import devices
from .columns import NotNumericError, as_numbers, chosen_names
from .row_source import BATCH, AbstractRowSource, _digest, _stamp, explain_errors


class ArrowRowSource(AbstractRowSource):
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
        with explain_errors(name):
            fragments = list(dataset.get_fragments())
            parquet = bool(fragments) and all(isinstance(one, pads.ParquetFileFragment) for one in fragments)
            pieces = [_ParquetFile(one) for one in fragments] if parquet else [_Fragment(one) for one in fragments]
        self.n_rows = sum(piece.n_rows for piece in pieces)
        if not self.n_rows:
            raise ValueError(f"{name} has no rows")
        self._pieces: list[Any] = [piece for piece in pieces if piece.n_rows]
        self._ends = list(itertools.accumulate(piece.n_rows for piece in self._pieces))
        self.row = {}
        for column in self.columns:
            try:
                empty = as_numbers(column, pa.chunked_array([], schema.field(column).type))
            except NotNumericError as error:
                raise NotNumericError(f"{name}: {error}", column, error.kind) from None
            gaps = any(piece.has_nulls(column) for piece in self._pieces)
            kind = np.dtype(float) if gaps and empty.dtype.kind in "biu" else empty.dtype
            self.row[column] = jax.ShapeDtypeStruct(empty.shape[1:], kind)

    @functools.cached_property
    def fingerprint(self) -> str:
        """As `AbstractRowSource.fingerprint`."""
        return _digest([str(self._dataset.schema), *self.columns, *(piece.fingerprint for piece in self._pieces)])

    def batches(self, first: int, only: str | None = None, rows: int = BATCH) -> Iterator[tuple[int, PyTree]]:
        """As `AbstractRowSource.batches`."""
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


class _ParquetFile:
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
        self.fingerprint = f"{self._stamp} {self._metadata.num_row_groups} {self._groups} {self.n_rows}"

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
    def fingerprint(self) -> str:
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
