"""The table that is to be fitted, in one file or many: its columns, its rows, and what tells it from others."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.checks import first_line

if TYPE_CHECKING:
    import pyarrow


#: Bytes; of larger tables not every byte is read to tell whether they have changed.
MOST_DIGESTED = 1 << 32


@dataclasses.dataclass(frozen=True, eq=False)
class TableFiles:
    """A table in files: one CSV file, or Parquet files whose rows follow one another in the order of their names.

    `open_source` makes it. It may be sent to other processes that see the same files.

    Args:
        shown: what messages call it.
        files: where the files are.
        schema: names and types of the columns, the same for all files.
        starts: first row of each row group, and last the number of rows; a CSV file is one row group.
        pieces: of each row group the number of its file, and its own number in there.
    """

    shown: str
    files: tuple[Path, ...]
    schema: pyarrow.Schema
    starts: tuple[int, ...]
    pieces: tuple[tuple[int, int], ...]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.starts[-1]

    @property
    def is_csv(self) -> bool:
        """Whether it is a CSV file."""
        return _kind(self.files[0]) == "csv"

    def check(self, argument: str, names: Iterable[str]) -> None:
        """A `ValueError` that begins with the argument, unless there are columns of these names."""
        for name in names:
            if name not in self.schema.names:
                there = ", ".join(map(repr, self.schema.names))
                raise ValueError(f"{argument}: {self.shown} has no column {name!r}, want one of {there}")

    def row_groups(self, first: int, after: int, names: tuple[str, ...]) -> pyarrow.Table:
        """Some columns of the row groups from `first` on; each file is opened once."""
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet as pq

        schema = pa.schema([self.schema.field(name) for name in names])
        tables = [schema.empty_table()]
        for number, pieces in itertools.groupby(self.pieces[first:after], key=lambda piece: piece[0]):
            path = self.files[number]
            with _readable(path):
                if self.is_csv:
                    table = pyarrow.csv.read_csv(path)
                else:
                    with pq.ParquetFile(path) as file:
                        table = file.read_row_groups([inside for _, inside in pieces], columns=list(names))
                tables.append(_plain(table.select(names)).cast(schema))
        return pa.concat_tables(tables)

    def read(
        self,
        names: Sequence[str],
        begin: int = 0,
        end: int | None = None,
        row_groups: Callable[[int, int, tuple[str, ...]], pyarrow.Table] | None = None,
    ) -> pyarrow.Table:
        """Some columns of the rows from `begin` to `end`.

        Args:
            names: the columns.
            begin: the first row.
            end: the row after the last one.
            row_groups: what reads them, such as one that remembers the last ones.

        Raises:
            ValueError: a file that cannot be read.
        """
        end = self.n_rows if end is None else end
        first = bisect.bisect_right(self.starts, begin) - 1
        after = max(bisect.bisect_left(self.starts, end), first)
        table = (row_groups or self.row_groups)(first, after, tuple(names))
        return table.slice(begin - self.starts[first], end - begin)

    def ranges(self, most: int) -> Iterator[tuple[int, int]]:
        """All rows in turn, `(begin, end)`: row groups together while they have `most` rows or fewer."""
        begin = 0
        for here, following in zip(self.starts, self.starts[1:]):
            if begin < here and following - begin > most:
                yield begin, here
                begin = here
        if begin < self.n_rows:
            yield begin, self.n_rows

    def fingerprint(self) -> dict[str, Any]:
        """What tells it from others, as entries of a manifest.

        Up to 4 GiB that is the content of the files. Of larger tables it is the sizes and the times of
        modification of the files, and their footers, which know place, size and range of every column of every row
        group. Of several files it is their names as well.
        """
        status = [path.stat() for path in self.files]
        several, size = len(self.files) > 1, sum(one.st_size for one in status)
        digest = hashlib.sha256()
        for path, one in zip(self.files, status):
            if several:
                digest.update(f"{path.name} {one.st_size} ".encode())
            with path.open("rb") as file:
                if size > MOST_DIGESTED and not self.is_csv:
                    digest.update(f"{one.st_size} {one.st_mtime_ns} ".encode())
                    file.seek(-8, os.SEEK_END)  # the length of the footer, and four letters
                    file.seek(-8 - int.from_bytes(file.read(4), "little"), os.SEEK_END)
                while block := file.read(1 << 20):
                    digest.update(block)
        entry = "table_files_sha256" if several else "table_file_sha256"
        return {"table": self.shown, "table_bytes": size, entry: digest.hexdigest()}


def open_table_files(table: Any) -> TableFiles:
    """The table in files.

    Args:
        table: a `.parquet` or `.csv` file; a directory, whose `.parquet` files make the table, those with hidden
            names left out; or a list of Parquet files.

    Raises:
        ValueError: no file, another suffix, a file that cannot be read, or files whose columns differ.
        TypeError: `table` is none of the above.
    """
    if isinstance(table, str | os.PathLike):
        path, shown = Path(table), str(table)
        files = _parquet_files(path) if path.is_dir() else [path]
    elif isinstance(table, list | tuple) and all(isinstance(path, str | os.PathLike) for path in table):
        files = [Path(path) for path in table]
        shown = f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else ", ".join(map(str, files))
    else:
        raise TypeError(
            f"table: got {type(table).__name__}, want a path of a file or a directory, or a list of them"
        )
    if not files:
        raise ValueError(f"table: there is no .parquet file{f' in {shown}' if shown else ''}, want at least one")
    for path in files:
        if _kind(path) not in ("parquet", "csv"):
            raise ValueError(f"table: {path} ends with {path.suffix or 'no suffix'!r}, want .parquet or .csv")
        if len(files) > 1 and _kind(path) == "csv":
            raise ValueError(f"table: {path} is one of several files, want these to be .parquet")
    if _kind(files[0]) == "csv":
        return _of_csv(files[0], shown)
    return _of_parquet(files, shown)


def _parquet_files(directory: Path) -> list[Path]:
    found = (path for path in directory.iterdir() if _kind(path) == "parquet")
    return sorted(path for path in found if not path.name.startswith((".", "_")))


def _kind(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _of_csv(path: Path, shown: str) -> TableFiles:
    import pyarrow.csv

    with _readable(path):
        table = pyarrow.csv.read_csv(path)
    return TableFiles(shown, (path.resolve(),), table.schema, (0, table.num_rows), ((0, 0),))


def _of_parquet(files: Sequence[Path], shown: str) -> TableFiles:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = None
    starts, pieces = [0], []
    for number, path in enumerate(files):
        with _readable(path), pq.ParquetFile(path) as file:
            own = _plain(file.schema_arrow.empty_table()).schema
            rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        try:
            schema = own if schema is None else _common(schema, own)
        except (pa.ArrowException, ValueError) as error:
            raise ValueError(
                f"table: the columns of {path} are not those of {files[0]}: {first_line(error)}"
            ) from None
        for i, n_rows in enumerate(rows):
            starts.append(starts[-1] + n_rows)
            pieces.append((number, i))
    return TableFiles(shown, tuple(path.resolve() for path in files), schema, tuple(starts), tuple(pieces))


def _common(schema: pyarrow.Schema, own: pyarrow.Schema) -> pyarrow.Schema:
    """The types that the columns of both can be cast to without loss; what only one of them has is left out."""
    import pyarrow as pa

    shared = [name for name in schema.names if name in own.names]
    chosen = [pa.schema([one.field(name) for name in shared]) for one in (schema, own)]
    return pa.unify_schemas(chosen, promote_options="permissive")


def _plain_schema(schema: pyarrow.Schema) -> pyarrow.Schema:
    """The types of the values where there are dictionaries, which may differ from file to file."""
    import pyarrow as pa

    kinds = (field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema)
    return pa.schema(list(zip(schema.names, kinds)))


def _plain(table: pyarrow.Table) -> pyarrow.Table:
    return table.cast(_plain_schema(table.schema))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever a file that is none of its kind may lead to, as an error of the argument `table`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"table: {path} cannot be read as {_kind(path)}: {first_line(error)}") from error
