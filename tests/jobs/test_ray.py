"""The Ray engine: the same fits as the local one, whatever order the rows come in."""

import json
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlekit as mle
from mlekit.jobs.output_directory import LOCK, MANIFEST
from tests.jobs.ray_runs import MODEL, assert_same, fit, rows_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import ray
    import ray.data


@pytest.fixture
def table(place) -> str:
    pq.write_table(pa.table({"group": [0, 0, 1], "y": [1.0, 2.0, 3.0], "t": ["a", "b", "c"]}), "table.parquet")
    return "table.parquet"


def test_errors_before_ray_is_asked(table):
    assert not ray.is_initialized()
    Path("model.py").write_text(MODEL.replace('"y"', '"t"', 1))
    assert "columns of MODEL.py: 't' holds string, want numbers" in fit(table, ["group"], "ray", error=True)
    Path("table.csv").write_text("group,y\n1,2.0\n")
    Path("model.py").write_text(MODEL)
    said = fit("table.csv", ["group"], "ray", error=True)
    assert said == "Error: TABLE: table.csv is a .csv file, and the ray engine wants .parquet"
    assert not Path("ray").exists()


def test_ray_is_not_installed(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "mlekit.jobs.ray_runner", raising=False)
    monkeypatch.delattr("mlekit.jobs.ray_runner", raising=False)
    said = fit(table, ["group"], "ray", error=True)
    assert said == "Error: --engine: ray is not installed: pip install 'mlekit[ray]'"


def test_an_address_when_connected(table, cluster):
    with pytest.raises(ValueError, match="address: this process is connected to a Ray cluster already"):
        mle.fit_table(print, {}, table, "group", "out", columns="y", engine="ray", address="auto", progress=False)


def test_an_error_of_a_worker_is_shown_as_one_of_here(table, cluster):
    Path("model.py").write_text(MODEL.replace("    return", '    assert obs["y"] > 0\n    return'))
    said, alone = (fit(table, ["group"], engine, error=True).splitlines()[-1] for engine in ("ray", "local"))
    assert said.startswith("Error: log_density decides in Python, as `if` does, by a number that JAX traces")
    assert said.endswith("(model.py:6)")
    assert alone == said


def awkward() -> pa.Table:
    """Several keys with nulls, NaN and -0; and sets of several sizes."""
    rng = np.random.default_rng(1)
    a = pa.array(["x", "y", None, ""]).take(rng.integers(0, 4, 300))
    b = pa.array([0.0, -0.0, float("nan"), None, 1.5, -2.0]).take(rng.integers(0, 6, 300))
    return pa.table({"a": a, "b": b, "y": rng.normal(size=300).round(6)})


def write_files(table: pa.Table, folder: str) -> None:
    """In three files, of which one knows its text as a dictionary; groups straddle files and row groups."""
    Path(folder).mkdir()
    for i, (begin, end) in enumerate([(0, 101), (101, 170), (170, table.num_rows)]):
        piece = table.slice(begin, end - begin)
        if i == 1:
            piece = piece.set_column(0, "a", piece["a"].dictionary_encode())
        pq.write_table(piece, f"{folder}/{i}.parquet", row_group_size=30)


def test_rows_in_any_order(place, cluster):
    write_files(awkward(), "table")
    by = ("a", "b")
    assert "16 converged" in fit("table", by, "local", part_sets="100")
    said = fit("table", by, "ray")
    assert "16 converged" in said
    assert json.loads(Path("ray", MANIFEST).read_text())["parts by"] == "key"
    assert_same(rows_of("ray", by), rows_of("local", by))
    assert fit("table", by, "ray").startswith("nothing left to do, all 16 fits were there already")

    # One part is lost: only its rows are sorted and fitted.
    lost = min(Path("ray").glob("*.parquet"))
    n_lost, whole = pq.read_metadata(lost).num_rows, rows_of("ray", by)
    lost.write_bytes(lost.read_bytes()[:-9])
    said = fit("table", by, "ray")
    assert said.startswith(f"{n_lost} fits in ")
    assert f"  1 part file was damaged and is fitted again: {lost.name}" in said.splitlines()
    assert_same(rows_of("ray", by), whole)


@pytest.mark.slow
def test_rows_of_groups_together(place, cluster):
    table = awkward().append_column("group", pa.array(np.repeat(np.arange(30)[::-1], 10)))
    write_files(table, "table")
    fit("table", ["group"], "local")
    fit("table", ["group"], "ray")
    assert json.loads(Path("ray", MANIFEST).read_text())["parts by"] == "place"
    assert sorted(os.listdir("ray")) == [LOCK, MANIFEST, *(f"part-0000{i}.parquet" for i in range(8))]
    assert_same(rows_of("ray"), rows_of("local"))
    assert 'engine was "ray" and is "local"' in fit("table", ["group"], "local", out="ray", error=True)


@pytest.mark.slow
def test_from_python_in_float32(place, cluster):
    pq.write_table(pa.table({"group": np.repeat(np.arange(6), 5), "y": np.arange(30.0)}), "table.parquet")
    shift = 1.0

    def log_density(params, obs):
        return -0.5 * (obs["y"] - params["mean"] - shift) ** 2

    import jax

    with jax.enable_x64(False):
        outcome = mle.fit_table(
            log_density, {"mean": 0.0}, "table.parquet", "group", "out", engine="ray", workers=1, progress=False
        )
    assert (outcome.fitted, outcome.found, dict(outcome.statuses)) == (6, 0, {"converged": 6})
    found = rows_of("out")
    assert found["mean"].type == pa.float32()
    np.testing.assert_allclose(found["mean"], np.arange(30.0).reshape(6, 5).mean(1) - 1)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "[::1]:9", "nobody.invalid:6379"])
def test_an_address_where_nobody_is(address, table, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    options = {"columns": "y", "engine": "ray", "address": address, "progress": False}
    with pytest.raises(
        ValueError, match=f"address: no Ray cluster lets this process in at {re.escape(address)}: "
    ):
        mle.fit_table(lambda mean, obs: -((mean - obs["y"]) ** 2), 0.0, table, "group", "out", **options)
