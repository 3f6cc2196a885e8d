"""Parquet files whose rows follow one another as one table, read page by page or by row groups.

pyarrow is imported where it is used, so that `import mlekit` does not pay for it.
"""

from __future__ import annotations

import abc
import bisect
import contextlib
import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import devices
from ..core.checks import first_line
from .file_errors import explain_errors

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.dataset
    import pyarrow.parquet

    #: Reads columns of the row groups from one number up to another.
    RowGroupReader = Callable[[int, int, tuple[str, ...]], pyarrow.Table]


@dataclasses.dataclass(frozen=True, eq=False)
class ParquetFile:
    """One Parquet file, or some of its row groups; `open_parquet_file` makes it.

    It may be sent to other processes that see the same file.

    Args:
        path: where it lies in its file system.
        filesystem: the file system, one of pyarrow's.
        schema: names and types of the stored columns.
        row_groups: numbers of the row groups that are read.
        sizes: rows of each of these.
        n_row_groups: number of all row groups that the file has.
        constants: columns that have one value in all rows, which the names of directories give.
        nullable: columns that hold nulls, as far as the file says; of those alone that were asked about.
        stamp: name, size and time of modification when it was opened.
    """

    path: str
    filesystem: Any
    schema: pyarrow.Schema
    row_groups: tuple[int, ...]
    sizes: tuple[int, ...]
    n_row_groups: int
    constants: Mapping[str, Any]
    nullable: frozenset[str]
    stamp: str

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(self.sizes)

    @property
    def fingerprint(self) -> str:
        """Name, size, time of modification and row groups."""
        return f"{self.stamp} {self.n_row_groups} {list(self.row_groups)} {self.n_rows}"

    def batches(
        self, names: Sequence[str], schema: pyarrow.Schema, row_groups: list[int], rows: int
    ) -> Iterator[pyarrow.RecordBatch]:
        """The rows of row groups page by page, for a row group may be larger than memory.

        Args:
            names: columns to read.
            schema: names and types of the columns of all files.
            row_groups: numbers of the row groups.
            rows: rows of a batch at most.

        Raises:
            FileError: it cannot be read, or has changed since it was opened.
        """
        with explain_errors(self.path):
            if _stamp(self.filesystem, self.path) != self.stamp:
                raise ValueError(f"{self.path} has changed since it was opened")
            with self._open(pre_buffer=False, buffer_size=1 << 20) as file:
                threads = devices.profile().decoding_threads
                options = {"row_groups": row_groups, "columns": self._stored(names), "use_threads": threads}
                for batch in file.iter_batches(rows, **options):
                    yield self._conform(batch, names, schema)

    def read(self, names: Sequence[str], schema: pyarrow.Schema, row_groups: list[int]) -> pyarrow.Table:
        """Whole row groups at once. The arguments are those of `batches`.

        Times of modification are not compared: on another machine they may be others.
        """
        with explain_errors(self.path), self._open() as file:
            return self._conform(file.read_row_groups(row_groups, columns=self._stored(names)), names, schema)

    @contextlib.contextmanager
    def _open(self, **options: Any) -> Iterator[pyarrow.parquet.ParquetFile]:
        import pyarrow.parquet as pq

        with (
            self.filesystem.open_input_file(self.path) as source,
            pq.ParquetFile(source, page_checksum_verification=True, **options) as file,
        ):
            yield file

    def _stored(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self.schema.names]

    def _conform(self, found: Any, names: Sequence[str], schema: pyarrow.Schema) -> Any:
        """Columns in the types of `schema`; constants, or nulls, where a column is not stored."""
        import pyarrow as pa

        fields = [schema.field(name) for name in names]
        columns = [
            _cast(found.column(field.name), field.type)
            if field.name in self.schema.names
            else pa.repeat(pa.scalar(self.constants.get(field.name), field.type), found.num_rows)
            for field in fields
        ]
        return type(found).from_arrays(columns, schema=pa.schema([(field.name, field.type) for field in fields]))


def open_parquet_file(fragment: pyarrow.dataset.ParquetFileFragment, asked: Iterable[str] = ()) -> ParquetFile:
    """A file as its footer describes it.

    Args:
        fragment: the file, as a fragment of a dataset.
        asked: columns to be looked up for nulls.
    """
    import pyarrow.dataset as pads

    groups = fragment.row_groups
    constants = pads.get_partition_keys(fragment.partition_expression)
    numbers = tuple(group.id for group in groups)
    return ParquetFile(
        path=fragment.path,
        filesystem=fragment.filesystem,
        schema=fragment.physical_schema,
        row_groups=numbers,
        sizes=tuple(group.num_rows for group in groups),
        n_row_groups=fragment.metadata.num_row_groups,
        constants=constants,
        nullable=frozenset(
            name for name in asked if name not in constants and _has_nulls(fragment, name, numbers)
        ),
        stamp=_stamp(fragment.filesystem, fragment.path),
    )


class AbstractRowGroups(abc.ABC):
    """A table in row groups, each of which is read as a whole.

    Args:
        schema: names and types of the columns.
    """

    schema: pyarrow.Schema

    @property
    @abc.abstractmethod
    def starts(self) -> tuple[int, ...]:
        """First row of each row group, and last the number of rows."""

    @abc.abstractmethod
    def row_groups(self, first: int, after: int, names: tuple[str, ...]) -> pyarrow.Table:
        """Columns of the row groups from number `first` up to number `after`, in memory."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.starts[-1]

    def read(
        self,
        names: Sequence[str],
        begin: int = 0,
        end: int | None = None,
        row_groups: RowGroupReader | None = None,
    ) -> pyarrow.Table:
        """Columns of the rows from `begin` to `end`, in memory.

        Args:
            names: columns to read.
            begin: number of the first row.
            end: number of the row after the last one; all if `None`.
            row_groups: the method of this name, or a function that remembers its last values.

        Raises:
            FileError: a file that cannot be read.
        """
        end = self.n_rows if end is None else end
        first = bisect.bisect_right(self.starts, begin) - 1
        after = max(bisect.bisect_left(self.starts, end), first)
        table = (row_groups or self.row_groups)(first, after, tuple(names))
        return table.slice(begin - self.starts[first], end - begin)

    def ranges(self, most: int) -> Iterator[tuple[int, int]]:
        """All rows in turn, `(begin, end)`: row groups together while they have `most` rows or fewer."""
        begin = 0
        for here, following in itertools.pairwise(self.starts):
            if begin < here and following - begin > most:
                yield begin, here
                begin = here
        if begin < self.n_rows:
            yield begin, self.n_rows


@dataclasses.dataclass(frozen=True, eq=False)
class ParquetFiles(AbstractRowGroups):
    """Parquet files whose rows follow one another, as one table. It may be sent to other processes.

    Args:
        files: the files, each with rows.
        schema: names and types of the columns, none of them a dictionary; files may store other types.
    """

    files: tuple[ParquetFile, ...]
    schema: pyarrow.Schema

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """As `AbstractRowGroups.starts`, over all files."""
        return (0, *itertools.accumulate(size for file in self.files for size in file.sizes))

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprint of each file."""
        return [file.fingerprint for file in self.files]

    def has_nulls(self, name: str) -> bool:
        """True if a file says that a column holds nulls, which must have been asked for when it was opened."""
        return any(name in file.nullable for file in self.files)

    def batches(self, names: Sequence[str], first: int, rows: int) -> Iterator[pyarrow.RecordBatch]:
        """The rows from number `first` on, page by page.

        Args:
            names: columns to read.
            first: number of the first row.
            rows: rows of a batch at most.

        Raises:
            FileError: a file that cannot be read, or that has changed since it was opened.
        """
        begin = bisect.bisect_right(self.starts, first) - 1
        skip = first - self.starts[begin]
        for file, groups in self._by_file(begin, None):
            for batch in file.batches(names, self.schema, groups, rows):
                if skip < batch.num_rows:
                    yield batch.slice(skip)
                skip = max(0, skip - batch.num_rows)

    def row_groups(self, first: int, after: int, names: tuple[str, ...]) -> pyarrow.Table:
        """As `AbstractRowGroups.row_groups`; each file is opened once."""
        import pyarrow as pa

        empty = pa.schema([(name, self.schema.field(name).type) for name in names]).empty_table()
        found = [file.read(names, self.schema, groups) for file, groups in self._by_file(first, after)]
        return pa.concat_tables([empty, *found])

    @functools.cached_property
    def _places(self) -> list[tuple[int, int]]:
        """The number of its file, and its own number in there, of each row group."""
        return [(i, group) for i, file in enumerate(self.files) for group in file.row_groups]

    def _by_file(self, first: int, after: int | None) -> Iterator[tuple[ParquetFile, list[int]]]:
        for i, places in itertools.groupby(self._places[first:after], key=operator.itemgetter(0)):
            yield self.files[i], [group for _, group in places]


def open_parquet_files(paths: Sequence[Path]) -> ParquetFiles:
    """Files as one table, with the columns that all of them have, in types that each can be cast to without loss.

    Raises:
        FileError: a file that cannot be read.
        ValueError: files that have a column of the same name and of kinds that differ.
    """
    import pyarrow as pa
    import pyarrow.dataset as pads
    from pyarrow import fs

    schema, files, local = None, [], fs.LocalFileSystem()
    for path in paths:
        with explain_errors(str(path)):
            file = open_parquet_file(pads.ParquetFileFormat().make_fragment(str(path.resolve()), local))
            own = without_dictionaries(file.schema)
        try:
            schema = own if schema is None else _common(schema, own)
        except (pa.ArrowException, ValueError) as error:
            raise ValueError(f"the columns of {path} are not those of {paths[0]}: {first_line(error)}") from None
        files.append(file)
    return ParquetFiles(tuple(file for file in files if file.n_rows), schema)


def without_dictionaries(schema: pyarrow.Schema) -> pyarrow.Schema:
    """The types of the values where there are dictionaries, which may differ from file to file."""
    import pyarrow as pa

    kinds = (field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema)
    return pa.schema(list(zip(schema.names, kinds)))


def _common(schema: pyarrow.Schema, own: pyarrow.Schema) -> pyarrow.Schema:
    """The types that the columns of both can be cast to without loss; what only one of them has is left out."""
    import pyarrow as pa

    shared = [name for name in schema.names if name in own.names]
    chosen = [pa.schema([one.field(name) for name in shared]) for one in (schema, own)]
    return pa.unify_schemas(chosen, promote_options="permissive")


def _cast(column: Any, kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column if column.type == kind else column.cast(kind)


def _stamp(filesystem: Any, path: str) -> str:
    info = filesystem.get_file_info(path)
    return f"{Path(path).name} {info.size} {info.mtime_ns}"


def _has_nulls(fragment: Any, name: str, row_groups: Sequence[int]) -> bool:
    """True if a column is not stored, or if the statistics of a row group count nulls in it."""
    if name not in fragment.physical_schema.names:
        return True
    metadata = fragment.metadata
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    inside = [i for i, path in enumerate(paths) if path.startswith(f"{name}.")]
    own = [paths.index(name)] if name in paths else inside
    for group in row_groups:
        for i in own:
            known = metadata.row_group(group).column(i).statistics
            if known is not None and known.has_null_count and known.null_count:
                return True
    return False
