"""Rows of a pyarrow dataset: Parquet files, or whatever else Arrow reads."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .columns import NotNumericError, as_numbers, chosen_names
from .file_errors import explain_errors
from .parquet_files import ParquetFiles, open_parquet_file, without_dictionaries
from .row_source import BATCH, AbstractRowSource, digest_lines, file_stamp


class ArrowRowSource(AbstractRowSource):
    """Columns of a pyarrow dataset: Parquet files, or whatever else Arrow reads.

    Args:
        dataset: the dataset.
        columns: names of columns; all if `None`.
        name: the name in messages.

    Raises:
        ValueError: unknown columns, columns that hold no numbers, no rows, or a file that cannot be read.
    """

    def __init__(self, dataset: Any, columns: str | Sequence[str] | None, name: str) -> None:
        import pyarrow as pa
        import pyarrow.dataset as pads

        self.name, self._schema = name, dataset.schema
        chosen = self._schema.names if columns is None else chosen_names(columns, self._schema.names, "columns")
        self.columns = tuple(chosen)
        schema = without_dictionaries(self._schema)
        with explain_errors(name):
            fragments = list(dataset.get_fragments())
            if fragments and all(isinstance(one, pads.ParquetFileFragment) for one in fragments):
                files = (open_parquet_file(one, self.columns) for one in fragments)
                self._files: Any = ParquetFiles(tuple(file for file in files if file.n_rows), schema)
            else:
                self._files = _OtherFiles(fragments, self._schema)
        self.n_rows = self._files.n_rows
        if not self.n_rows:
            raise ValueError(f"{name} has no rows")
        self.row = {}
        for column in self.columns:
            try:
                empty = as_numbers(column, pa.chunked_array([], schema.field(column).type))
            except NotNumericError as error:
                raise NotNumericError(f"{name}: {error}", column, error.kind) from None
            gaps = self._files.has_nulls(column)
            dtype = np.dtype(float) if gaps and empty.dtype.kind in "biu" else empty.dtype
            self.row[column] = jax.ShapeDtypeStruct(empty.shape[1:], dtype)

    @functools.cached_property
    def fingerprint(self) -> str:
        """As `AbstractRowSource.fingerprint`."""
        return digest_lines([str(self._schema), *self.columns, *self._files.fingerprints])

    def batches(self, first: int, only: str | None = None, rows: int = BATCH) -> Iterator[tuple[int, PyTree]]:
        """As `AbstractRowSource.batches`."""
        columns = list(self.columns) if only is None else [only]
        for batch in self._files.batches(columns, first, rows):
            yield batch.num_rows, {column: self._numbers(column, batch.column(column)) for column in columns}

    def _numbers(self, column: str, values: Any) -> np.ndarray:
        found, dtype = as_numbers(column, values), self.row[column].dtype
        if found.dtype != dtype:
            if dtype.kind != "f":
                raise ValueError(
                    f"{self.name}: {column!r} holds nulls where its file says of none; write it as floats"
                )
            found = found.astype(dtype)
        return found


class _OtherFiles:
    """Fragments of a dataset that are not Parquet: each is read from its beginning only.

    Args:
        fragments: the fragments.
        schema: names and types of the columns.
    """

    def __init__(self, fragments: Sequence[Any], schema: Any) -> None:
        self._schema, self._fragments = schema, []
        self._sizes = []
        for fragment in fragments:
            if size := fragment.count_rows():
                self._fragments.append(fragment)
                self._sizes.append(size)
        self.n_rows = sum(self._sizes)

    @property
    def fingerprints(self) -> list[str]:
        """Of each fragment its file, or what is in memory."""
        return [_fingerprint(fragment, size) for fragment, size in zip(self._fragments, self._sizes)]

    def has_nulls(self, name: str) -> bool:
        """False: nothing is known of the values before they are read."""
        return False

    def batches(self, names: list[str], first: int, rows: int) -> Iterator[Any]:
        """The rows from number `first` on; the arguments are those of `ParquetFiles.batches`."""
        ahead = {"batch_readahead": 1, "fragment_readahead": 1}
        for fragment, size in zip(self._fragments, self._sizes):
            if first >= size:
                first -= size
                continue
            for batch in fragment.to_batches(schema=self._schema, columns=names, batch_size=rows, **ahead):
                if first < batch.num_rows:
                    yield batch.slice(first)
                first = max(0, first - batch.num_rows)


def _fingerprint(fragment: Any, size: int) -> str:
    path = getattr(fragment, "path", None)
    if path is not None and os.path.exists(path):
        return f"{file_stamp(path)} {size}"
    content = hashlib.sha256()
    for batch in fragment.to_batches():
        content.update(batch.serialize())
    return content.hexdigest()
