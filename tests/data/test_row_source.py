"""Rows of files: one reader of Parquet serves tables that are streamed and tables of jobs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from mlekit.data.columns import NotNumericError
from mlekit.data.file_errors import FileError, explain_errors
from mlekit.data.parquet_files import ParquetFiles, open_parquet_files
from mlekit.data.row_source import AbstractRowSource
from mlekit.data.table import open_row_source

N = 50
ROWS = pa.table({"x": np.arange(N), "y": np.arange(N) / 4, "name": [f"n{i % 3}" for i in range(N)]})


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three files: row groups of 7, no rows, and other types and columns in another order."""
    found = [tmp_path / f"{name}.parquet" for name in "abc"]
    pq.write_table(ROWS.slice(0, 20), found[0], row_group_size=7)
    pq.write_table(ROWS.slice(20, 0), found[1])
    other = ROWS.slice(20).select(["name", "x", "y"])
    other = other.set_column(0, "name", other["name"].dictionary_encode())
    other = other.set_column(1, "x", other["x"].cast(pa.int16())).append_column("more", other["y"])
    pq.write_table(other, found[2], row_group_size=11)
    return found


def streamed(files: ParquetFiles, first: int, rows: int, names: tuple[str, ...] = ("x", "name")) -> pa.Table:
    schema = pa.schema([files.schema.field(name) for name in names])
    return pa.Table.from_batches(files.batches(names, first, rows), schema)


def test_pages_and_row_groups_give_the_same_rows(paths: list[Path]) -> None:
    files = pickle.loads(pickle.dumps(open_parquet_files(paths)))
    assert (files.n_rows, files.starts) == (N, (0, 7, 14, 20, 31, 42, 50))
    assert files.schema.names == ["x", "y", "name"]  # what all files have
    whole = ROWS.select(["x", "name"])
    for first in (0, 6, 7, 19, 20, 30, 31, 49):
        for rows in (1, 8, 100):
            assert streamed(files, first, rows).combine_chunks().equals(whole.slice(first).combine_chunks())
        for end in (first, first + 1, N):
            found = files.read(["x", "name"], first, end)
            assert found.combine_chunks().equals(whole.slice(first, end - first).combine_chunks())
    assert list(files.batches(["x"], N, 10)) == []


def test_row_groups_may_be_remembered(paths: list[Path]) -> None:
    files, asked = open_parquet_files(paths), []

    def noted(first: int, after: int, names: tuple[str, ...]) -> pa.Table:
        asked.append((first, after))
        return files.row_groups(first, after, names)

    assert files.read(["x"], 8, 21, noted)["x"].to_pylist() == list(range(8, 21))
    assert asked == [(1, 4)]


def test_columns_of_the_first_file_are_cast_or_null(paths: list[Path]) -> None:
    """A dataset has the columns of its first file; jobs have those that all files share."""
    source = open_row_source([paths[2], paths[0]], ["more", "x"])
    rows = [batch for _, batch in source.batches(25)]
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in rows]), [*range(45, 50), *range(20)])
    more = np.concatenate([batch["more"] for batch in rows])
    np.testing.assert_array_equal(np.isnan(more), [False] * 5 + [True] * 20)


def test_some_row_groups_of_a_file(paths: list[Path]) -> None:
    fragment = next(pads.dataset(paths[0]).get_fragments()).subset(row_group_ids=[0, 2])
    dataset = pads.FileSystemDataset([fragment], ROWS.schema, pads.ParquetFileFormat(), fragment.filesystem)
    source = open_row_source(dataset, "x")
    assert np.concatenate([batch["x"] for _, batch in source.batches(0)]).tolist() == [*range(7), *range(14, 20)]


def test_text_in_a_dictionary_is_no_number(paths: list[Path]) -> None:
    with pytest.raises(NotNumericError, match=r"c\.parquet: columns: 'name' holds string, want numbers"):
        open_row_source(paths[2], None)


def test_columns_that_do_not_agree(paths: list[Path]) -> None:
    pq.write_table(pa.table({"x": ["text"]}), paths[1])
    with pytest.raises(ValueError, match=r"the columns of .*b\.parquet are not those of .*a\.parquet: "):
        open_parquet_files(paths)


def test_pages_that_are_damaged_are_not_passed_on(paths: list[Path]) -> None:
    path = paths[0]
    pq.write_table(
        ROWS, path, row_group_size=10, write_page_checksum=True, compression="none", use_dictionary=False
    )
    files = open_parquet_files([path])
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(2).column(0)
    content[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
    assert files.read(["x"], 0, 20).num_rows == 20
    with pytest.raises(FileError, match=r"a\.parquet cannot be read: .*") as info:
        files.read(["x"], 20, 21)
    assert info.value.name == str(path)
    with pytest.raises(FileError, match=r"a\.parquet has changed since it was opened"):
        next(files.batches(["x"], 0, 10))


def test_errors_name_the_first_file_that_is_to_blame() -> None:
    with (
        pytest.raises(FileError, match=r"^inner cannot be read: why$"),
        explain_errors("outer"),
        explain_errors("inner"),
    ):
        raise OSError("why\nand more")
    with pytest.raises(KeyboardInterrupt), explain_errors("outer"):
        raise KeyboardInterrupt


def test_a_column_ends_where_it_is_asked_to(paths: list[Path]) -> None:
    sources: list[AbstractRowSource] = [
        open_row_source(paths[0], ["x", "y"]),
        open_row_source({"x": np.arange(20)}, None),
        open_row_source(pads.dataset(ROWS.slice(0, 20).select(["x"])), None),
    ]
    for source in sources:
        for first, last in ((0, 20), (5, 6), (13, 20)):
            found: Any = np.concatenate(list(source.column("x", first, last)))
            assert found.tolist() == list(range(first, last))
