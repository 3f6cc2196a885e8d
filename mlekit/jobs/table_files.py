"""The table of a job, in one file or several: its columns, its rows and its fingerprint."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.file_errors import FileError, explain_errors
from ..data.parquet_files import AbstractRowGroups, open_parquet_files

if TYPE_CHECKING:
    import pyarrow

    from ..data.parquet_files import RowGroupReader


MOST_DIGESTED = 1 << 32  #: bytes; of larger tables only the footers are read for the fingerprint


@dataclasses.dataclass(frozen=True, eq=False)
class CsvFile(AbstractRowGroups):
    """A CSV file, which is one row group.

    Args:
        path: where it lies.
        schema: names and types of the columns.
        size: number of rows.
    """

    path: str
    schema: pyarrow.Schema
    size: int

    @property
    def starts(self) -> tuple[int, ...]:
        """As `AbstractRowGroups.starts`."""
        return 0, self.size

    def row_groups(self, first: int, after: int, names: tuple[str, ...]) -> pyarrow.Table:
        """As `AbstractRowGroups.row_groups`: columns of the whole file."""
        import pyarrow as pa

        with explain_errors(self.path):
            schema = pa.schema([self.schema.field(name) for name in names])
            return _read_csv(self.path).select(names).cast(schema)


@dataclasses.dataclass(frozen=True, eq=False)
class TableFiles:
    """A table in files: one CSV file, or Parquet files whose rows follow one another in the order of their names.

    `open_table_files` makes it. It may be sent to other processes that see the same files.

    Args:
        shown: the name in messages.
        paths: where the files lie.
        content: the reader of the files.
    """

    shown: str
    paths: tuple[Path, ...]
    content: AbstractRowGroups

    @property
    def schema(self) -> pyarrow.Schema:
        """Names and types of the columns, the same for all files."""
        return self.content.schema

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.content.n_rows

    @property
    def is_csv(self) -> bool:
        """True if it is a CSV file."""
        return isinstance(self.content, CsvFile)

    def check(self, argument: str, names: Iterable[str]) -> None:
        """A `ValueError` that begins with the argument, unless there are columns of these names."""
        for name in names:
            if name not in self.schema.names:
                there = ", ".join(map(repr, self.schema.names))
                raise ValueError(f"{argument}: {self.shown} has no column {name!r}, want one of {there}")

    def read(
        self,
        names: Sequence[str],
        begin: int = 0,
        end: int | None = None,
        row_groups: RowGroupReader | None = None,
    ) -> pyarrow.Table:
        """Columns of the rows from `begin` to `end`; the arguments are those of `AbstractRowGroups.read`.

        Raises:
            ValueError: a file that cannot be read.
        """
        with _about_table():
            return self.content.read(names, begin, end, row_groups)

    def ranges(self, most: int) -> Iterator[tuple[int, int]]:
        """As `AbstractRowGroups.ranges`."""
        return self.content.ranges(most)

    def fingerprint(self) -> dict[str, Any]:
        """Entries of a manifest that tell the table from others.

        Up to 4 GiB they are a digest of the content of the files; of larger tables, of the sizes and the times of
        modification of the files and of their footers, which hold place, size and range of every column of every
        row group. Of several files the digest covers the names as well.
        """
        status = [path.stat() for path in self.paths]
        several, size = len(self.paths) > 1, sum(one.st_size for one in status)
        digest = hashlib.sha256()
        for path, one in zip(self.paths, status):
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
        paths = _parquet_paths(path) if path.is_dir() else [path]
    elif isinstance(table, list | tuple) and all(isinstance(path, str | os.PathLike) for path in table):
        paths = [Path(path) for path in table]
        shown = f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else ", ".join(map(str, paths))
    else:
        raise TypeError(
            f"table: got {type(table).__name__}, want a path of a file or a directory, or a list of them"
        )
    if not paths:
        raise ValueError(f"table: there is no .parquet file{f' in {shown}' if shown else ''}, want at least one")
    for path in paths:
        if _kind(path) not in ("parquet", "csv"):
            raise ValueError(f"table: {path} ends with {path.suffix or 'no suffix'!r}, want .parquet or .csv")
        if len(paths) > 1 and _kind(path) == "csv":
            raise ValueError(f"table: {path} is one of several files, want these to be .parquet")
    with _about_table():
        content: AbstractRowGroups = _open_csv(paths[0]) if _kind(paths[0]) == "csv" else open_parquet_files(paths)
    return TableFiles(shown, tuple(path.resolve() for path in paths), content)


def _parquet_paths(directory: Path) -> list[Path]:
    found = (path for path in directory.iterdir() if _kind(path) == "parquet")
    return sorted(path for path in found if not path.name.startswith((".", "_")))


def _kind(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _open_csv(path: Path) -> CsvFile:
    with explain_errors(str(path)):
        table = _read_csv(str(path))
    return CsvFile(str(path.resolve()), table.schema, table.num_rows)


def _read_csv(path: str) -> pyarrow.Table:
    import pyarrow.csv

    return pyarrow.csv.read_csv(path)


@contextlib.contextmanager
def _about_table() -> Iterator[None]:
    """Errors of files as errors of the argument `table`."""
    try:
        yield
    except FileError as error:
        kind = _kind(Path(error.name))
        raise ValueError(f"table: {error.name} cannot be read as {kind}: {error.reason}") from error
    except ValueError as error:
        raise ValueError(f"table: {error}") from error
