"""Tables on disk: what can be opened, and how its blocks are read."""

from __future__ import annotations

import os
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import mlekit as mle
from mlekit.data.block_reader import N_BUFFERS, BlockReader
from mlekit.data.row_source import ArrayRowSource
from mlekit.data.table import Table, open_row_source
from mlekit.likelihood.streamed import streamed_likelihood
from tests.helpers.tables import ROWS, write_rows


@pytest.fixture(scope="module")
def directory(tmp_path_factory: Any) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"))


# How it is read.
class Watched(ArrayRowSource):
    """Rows that note which of them are read, and by whom."""

    def __init__(self, arrays: Any) -> None:
        super().__init__(arrays, "watched")
        self.read: list[tuple[int, str]] = []

    def batches(self, first: int, only: str | None = None, rows: int = 50) -> Any:
        for count, found in super().batches(first, only, rows):
            self.read.append((first, threading.current_thread().name))
            yield count, found


def test_a_pass_reads_every_block_once_and_ahead() -> None:
    source = Watched({"x": np.arange(400.0)})
    table = Table(source, 50)
    assert float(mle.log_likelihood(lambda p, obs: p * obs["x"], 2.0, table)) == 2 * np.arange(400.0).sum()
    began = [first for first, _ in source.read]
    assert began[:8] == [0] * 8  # one look from the first row on, batch after batch
    assert len(began) in (8, 9)  # and the first block of the next pass, ahead of time
    assert all("mlekit-reader" in name for _, name in source.read)


def test_kinds_of_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "gaps": pa.array([1, None, 3], pa.int32()),
            "flag": pa.array([True, False, True]),
            "pair": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
            "price": pa.array([Decimal("1.50"), Decimal("2"), Decimal("3")]),
            "whole": pa.array([1, 2, 3], pa.int16()),
        }
    )
    pq.write_table(table, tmp_path / "kinds.parquet")
    opened = mle.open_table(tmp_path / "kinds.parquet")
    kinds = {name: (leaf.shape, leaf.dtype.name) for name, leaf in opened.row.items()}
    assert kinds == {
        "gaps": ((), "float64"),
        "flag": ((), "bool"),
        "pair": ((2,), "float32"),
        "price": ((), "float64"),
        "whole": ((), "int16"),
    }
    data = streamed_likelihood(opened, mle.Model(lambda p, obs: p), None, None, 1).aligned()[0]
    np.testing.assert_array_equal(data["gaps"], [1, np.nan, 3])
    np.testing.assert_array_equal(data["pair"], [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(data["flag"], [True, False, True])
    missing = mle.fit(lambda m, obs: -((obs["gaps"] - m) ** 2), 0.0, opened)
    assert missing.status == mle.Status.nonfinite_data


# What goes wrong.
def test_what_cannot_be_opened(directory: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0], "name": ["a"]}), tmp_path / "text.parquet")
    pq.write_table(pa.table({"x": pa.array([], pa.float64())}), tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is none")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    one = directory / "one.parquet"
    for source, options, message in [
        (tmp_path / "nowhere.parquet", {}, "there is no .*nowhere.parquet"),
        (tmp_path / "bad.parquet", {}, "bad.parquet cannot be read"),
        (tmp_path / "empty", {}, "has no rows"),
        (tmp_path / "none.parquet", {}, "has no rows"),
        (tmp_path / "text.parquet", {}, "'name' holds string, want numbers"),
        (tmp_path / "objects.npy", {}, "objects.npy cannot be read"),
        (one, {"columns": ["x", "z"]}, "columns: there is no 'z'"),
        (one, {"block_rows": 0}, "block_rows"),
        (pads.dataset(one).filter(pads.field("x") > 0), {}, "Remove the filtering"),
        ({"x": np.ones(3), "y": np.ones(4)}, {}, "all arrays must share their leading axis"),
        ({"x": np.ones((0, 2))}, {}, "has no rows"),
        (np.ones(3), {"columns": "x"}, "only a table or a dict of arrays has columns"),
    ]:
        with pytest.raises(ValueError, match=message):
            mle.open_table(source, **options)  # type: ignore[arg-type]
    for wrong, message in [(3, "got int, want a Parquet file"), ({"x": np.array(["a"])}, "want numbers")]:
        with pytest.raises(TypeError, match=message):
            mle.open_table(wrong)


def _flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    begin = int(len(content) * place)
    content[begin : begin + 4000] = bytes(4000)
    path.write_bytes(content)


def test_a_file_that_is_damaged_or_changes(tmp_path: Path) -> None:
    """What cannot be read is said, by the fit and by what follows it; a later fit may find it mended."""
    path = tmp_path / "rows.parquet"
    rows = pa.table({"x": np.random.default_rng(0).normal(size=20_000)})
    options: dict[str, Any] = {"row_group_size": 5_000, "write_page_checksum": True}
    density = lambda mean, obs: -0.5 * (obs["x"] - mean) ** 2  # noqa: E731
    pq.write_table(rows, path, **options)
    stat = path.stat()
    table = mle.open_table(path, block_rows=2_000)
    fit = mle.fit(density, 0.0, table)
    _flip(path, 0.6)
    with pytest.raises(ValueError, match=r"rows\.parquet has changed since it was opened"):
        mle.fit(density, 0.0, table)
    with pytest.raises(ValueError, match=r"rows\.parquet has changed since it was opened"):
        fit.covariance("sandwich")
    again = mle.open_table(path, block_rows=2_000)
    with pytest.raises(ValueError, match=r"rows\.parquet cannot be read: .*"):
        mle.fit(density, 0.0, again)
    pq.write_table(rows, path, **options)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    np.testing.assert_array_equal(mle.fit(density, 0.0, table).params, fit.params)
    path.unlink()
    with pytest.raises(ValueError, match=r"rows\.parquet cannot be read"):
        mle.fit(density, 0.0, table)


@pytest.mark.standard_promotion
def test_nulls_that_a_file_does_not_own_up_to(tmp_path: Path) -> None:
    path = tmp_path / "nulls.parquet"
    pq.write_table(pa.table({"x": pa.array([1, None, 3])}), path, write_statistics=False)
    with pytest.raises(ValueError, match="'x' holds nulls where its file says of none"):
        mle.fit(lambda m, obs: -((obs["x"] - m) ** 2), 0.0, mle.open_table(path))


def test_files_of_several_types_share_the_first_ones(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([1.0, 2.0])}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": pa.array([3, 5], pa.int32()), "more": ["a", "b"]}), tmp_path / "b.parquet")
    found = mle.fit(lambda m, obs: -((obs["x"] - m) ** 2), 0.0, mle.open_table(tmp_path))
    np.testing.assert_allclose(found.params, 2.75, rtol=1e-12)


def test_a_block_on_its_way_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where types differ, blocks are made in memory that is used again, once nobody holds it."""
    hand_over = BlockReader.block

    def slowly(*args: Any) -> Any:
        found = hand_over(*args)
        time.sleep(0.003)
        return found

    monkeypatch.setattr(BlockReader, "block", slowly)
    with jax.enable_x64(False):
        for rows in ({"x": np.repeat(np.arange(40.0), 500)}, np.repeat(np.arange(40.0), 500)):
            table = mle.open_table(rows, block_rows=500)
            density = lambda p, obs: p * (obs["x"] if isinstance(obs, dict) else obs)  # noqa: E731
            assert float(mle.log_likelihood(density, 1.0, table)) == 390_000
            (reader,) = table._readers.values()
            assert 1 <= len(reader._cursor._buffers) <= N_BUFFERS


def test_what_tells_rows_from_others(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6.0))
    whole = np.load(tmp_path / "x.npy", mmap_mode="r")
    different = [
        {"x": np.ones(3)}, {"x": np.zeros(3)}, {"x": whole}, {"x": whole[:3]}, {"x": whole[3:]},
        pads.dataset(pa.table({"x": [1.0]})), pads.dataset(pa.table({"x": [2.0]})),
    ]  # fmt: skip
    assert len({mle.open_table(rows).fingerprint for rows in different}) == len(different)
    assert mle.open_table({"x": np.ones(3)}).fingerprint == mle.open_table({"x": np.ones(3)}).fingerprint


def test_memory_maps_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(6))
    mine = np.load(tmp_path / "x.npy", mmap_mode="c")
    mine[:] = 5.0
    assert float(mle.log_likelihood(lambda p, obs: p * obs, 1.0, mle.open_table(mine))) == 30.0
    part = np.load(tmp_path / "x.npy", mmap_mode="r")[2:]
    assert float(mle.log_likelihood(lambda p, obs: p * obs, 1.0, mle.open_table(part))) == 4.0


def test_names_with_dots(tmp_path: Path) -> None:
    pq.write_table(pa.table({"petal.length": [1, None, 3], "petal": [1, 2, 3]}), tmp_path / "iris.parquet")
    row = mle.open_table(tmp_path / "iris.parquet").row
    assert {name: leaf.dtype.name for name, leaf in row.items()} == {"petal.length": "float64", "petal": "int64"}


def test_a_reader_that_goes_anywhere(directory: Path) -> None:
    source = open_row_source(directory / "one.parquet", ["x"])
    for first in (0, 96, 97, 500, 1_002):
        count, rows = next(source.batches(first))
        np.testing.assert_array_equal(rows["x"], ROWS["x"][first : first + count])
