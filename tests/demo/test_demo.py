"""The demonstration runs, and its figure shows what it fitted."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import mlekit as mle
from tests.jobs.command import assert_same, done, fit, run


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    from mlekit.demo.make_flights import PATH

    return pq.read_table(PATH)


@pytest.mark.standard_promotion
def test_demo_on_a_few_aircraft(flights, tmp_path, capsys, monkeypatch):
    from mlekit.demo import run as demo

    planes = flights["tailnum"].unique().to_pylist()
    chosen = [*planes[::80], "N725MQ", "N722MQ"]
    table = flights.filter(pa.compute.is_in(flights["tailnum"], pa.array(chosen)))
    fits = demo.run(table, tmp_path / "demo")
    said = capsys.readouterr().out
    saved = pq.read_table(tmp_path / "demo" / "flights.parquet")
    assert saved.num_rows == len(fits) == len(set(chosen))
    assert (tmp_path / "demo" / "flights.png").read_bytes().startswith(b"\x89PNG")
    assert "N725MQ" in said
    for name, count in fits.status.counts().items():
        assert f"{name} " in said
        assert f" {count:,} " in said
    normal, exact = demo.runaways(fits)
    assert not (normal & exact).any()
    assert normal.sum() + exact.sum() == fits.status.counts()["unbounded"]
    assert f"unbounded, {normal.sum()} of" in said

    # Without matplotlib there is no figure, and that is said.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "mlekit.demo.figure")
    lines = list(demo.save(fits, tmp_path))
    assert lines[1] == "no figure   matplotlib is not installed: pip install 'mlekit[plots]'"
    assert_same(pq.read_table(tmp_path / "flights.parquet"), saved)


@pytest.mark.slow
def test_the_whole_demo(tmp_path):
    said = done(run("demo", "--out", str(tmp_path)))
    assert "4,037 aircraft" in said
    table = pq.read_table(tmp_path / "flights.parquet")
    assert table.num_rows == 4037
    by_command = tmp_path / "by-command"
    folder = Path(mle.__file__).parent / "demo"
    done(
        fit(
            model=str(folder / "model.py"),
            table=str(folder / "flights.parquet"),
            by="tailnum",
            out=str(by_command),
        )
    )
    assert_same(pq.read_table(by_command), table)
