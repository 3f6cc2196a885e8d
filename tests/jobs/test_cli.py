"""The command line: round trips, and going on after a crash."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import mlekit as mle
from mlekit import api
from mlekit.jobs import job as jobs
from mlekit.jobs.output_directory import LOCK, MANIFEST
from tests.helpers.processes import environment
from tests.jobs.command import MODEL, SETS, assert_same, done, error_of, fit, make_table, run


def parts(out: str = "out") -> list[str]:
    return sorted(path.name for path in Path(out).glob("*.parquet"))


@functools.cache
def expected(by: str | tuple[str, ...], weights: str | None = None) -> pa.Table:
    def log_density(params, obs):
        z = (obs["y"] - params["slope"] * obs["x"]) / params["sigma"]
        return -0.5 * z**2 - jax.numpy.log(params["sigma"])

    groups = mle.group_by(make_table(), by, ["x", "y", *([weights] if weights else [])])
    init = {"slope": 1.0, "sigma": 1.0}
    return mle.fit_batch(
        log_density, init, groups, constraints={"sigma": mle.positive}, weights=weights
    ).to_arrow()


def test_round_trip(job):
    said = done(fit())
    assert parts() == ["part-00000.parquet"]
    found = pq.read_table("out")  # the whole directory, manifest and all
    assert_same(found, expected("plane"))
    assert found["plane"].to_pylist() == sorted(found["plane"].to_pylist())
    assert found["slope"].type == pa.float64()
    assert said.startswith(f"{SETS} fits in ")
    assert said.rstrip().endswith(": 28 converged  ->  out/")


def test_several_keys_weights_and_parts(job):
    done(fit("--by", "plane", "--weights", "w", "--part-sets", "7", by="part"))
    assert parts() == [f"part-0000{i}.parquet" for i in range(4)]
    rows = [pq.read_metadata(f"out/{name}").num_rows for name in parts()]
    assert rows == [7, 7, 7, 7]
    assert_same(pq.read_table("out"), expected(("part", "plane"), "w"))


def test_csv_equals_parquet(job):
    pyarrow.csv.write_csv(make_table(), "table.CSV")
    done(fit(table="table.CSV", out="from-csv"))
    assert_same(pq.read_table("from-csv"), expected("plane"))


def test_all_columns_function_init_solver_and_neighbours(job):
    Path("helper_of_model.py").write_text(
        "def start(data):\n    return {'slope': data['y'].mean(), 'sigma': 1.0}\n"
    )
    text = MODEL.replace('columns = ["x", "y"]\n', "").replace(
        'init = {"slope": 1.0, "sigma": 1.0}', "from helper_of_model import start as init\nsolver = mle.BFGS()"
    )
    Path("model.py").write_text(text)
    pq.write_table(make_table().drop_columns(["note"]), "table.parquet")
    done(fit())
    found, wanted = pq.read_table("out"), expected("plane")
    np.testing.assert_allclose(found["slope"], wanted["slope"], rtol=1e-6)
    assert not Path("__pycache__").exists() or not list(Path("__pycache__").glob("model.*"))


def test_precision(job):
    done(fit("--no-x64"))
    assert pq.read_table("out")["slope"].type == pa.float32()
    assert json.loads(Path("out", MANIFEST).read_text())["precision"] == "float32"
    assert jax.config.read("jax_enable_x64")  # as it was


def test_advice_for_what_did_not_converge(job):
    said = done(fit("--max-steps", "1"))
    assert "max_steps" in said.splitlines()[0]
    assert "  max_steps: the steps ran out before the maximum was proven" in said


def test_only_what_is_missing_is_fitted(job):
    done(fit("--part-sets", "7"))
    whole = pq.read_table("out")
    untouched = Path("out/part-00002.parquet").stat().st_mtime_ns

    said = done(fit("--part-sets", "7"))
    assert said.startswith("nothing left to do, all 28 fits were there already: 28 converged")

    Path("out/part-00001.parquet").unlink()
    broken = Path("out/part-00003.parquet")
    broken.write_bytes(broken.read_bytes()[:-100])
    damaged = Path("out/part-00000.parquet")
    content = bytearray(damaged.read_bytes())
    content[100] ^= 0xFF  # inside a page: the file still opens
    damaged.write_bytes(content)
    Path("out/.part-00001.parquet.partial").write_text("left by a crash")
    said = done(fit("--part-sets", "7"))
    assert said.startswith("21 fits in ")
    assert "7 were there already: 28 converged" in said
    names = "part-00000.parquet, part-00003.parquet"
    assert f"  2 part files were damaged and are fitted again: {names}" in said.splitlines()
    assert pq.read_table("out").equals(whole)
    assert not list(Path("out").glob(".*"))
    assert Path("out/part-00002.parquet").stat().st_mtime_ns == untouched


def test_a_crash_loses_no_finished_part(job, monkeypatch):
    real, calls = api.fit_batch, []

    def crash_at_third(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(jobs, "fit_batch", crash_at_third)
    assert fit("--part-sets", "7").exit_code == 1
    monkeypatch.undo()
    os.chdir(job)
    assert parts() == ["part-00000.parquet", "part-00001.parquet"]
    assert done(fit("--part-sets", "7")).startswith("14 fits in ")
    assert_same(pq.read_table("out"), expected("plane"))


def test_a_part_that_cannot_be_written_leaves_nothing(job, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    assert error_of(fit()) == "--out: cannot use out: No space left on device"
    assert sorted(path.name for path in Path("out").iterdir()) == [LOCK, MANIFEST]


def test_as_a_program(job):
    """In a process of its own: float64 without being asked, a bar on stderr, and an exit code."""
    program = [sys.executable, "-m", "mlekit.cli"]
    command = [*program, "fit", "model.py", "table.parquet", "--by", "plane", "--out", "out"]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "28/28" in result.stderr
    assert_same(pq.read_table("out"), expected("plane"))
    result = subprocess.run([*command, "--part-sets", "3"], env=environment(), capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: --out: out holds another job")


def test_help_needs_no_table_package():
    code = (
        "import sys; import mlekit.cli; "
        "heavy = {'pyarrow', 'pandas', 'matplotlib', 'tqdm', 'ray'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
    assert "mlekit" in done(run("--version"))
    for command in ("fit", "demo", "info"):
        assert command in done(run("--help"))
        assert "--help" in done(run(command, "--help"))


def test_info():
    said = done(run("info"))
    for line in (
        f"mlekit     {mle.__version__}",
        f"jax        {jax.__version__}",
        "devices    cpu:0",
        "native     llvmlite",
    ):
        assert line in said
    assert "float64 unless --no-x64; in Python: float64" in said
