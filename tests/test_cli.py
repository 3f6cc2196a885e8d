"""The command line: round trips, going on after a crash, and one clear message for every error."""

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
import pytest
from click.testing import CliRunner, Result

import mlekit as mle
from mlekit import api
from mlekit.cli import main
from mlekit.jobs import job as jobs
from mlekit.jobs.output_directory import LOCK, MANIFEST

MODEL = """
import jax.numpy as jnp
import mlekit as mle
columns = ["x", "y"]
init = {"slope": 1.0, "sigma": 1.0}
constraints = {"sigma": mle.positive}
def log_density(params, obs):
    z = (obs["y"] - params["slope"] * obs["x"]) / params["sigma"]
    return -0.5 * z**2 - jnp.log(params["sigma"])
"""
SETS = 28  # four parts of seven, of one compiled shape


def make_table() -> pa.Table:
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(SETS), rng.integers(5, 9, SETS)))
    x = rng.normal(size=len(group)).round(6)
    columns = {
        "plane": [f"N{i:02d}" for i in group],
        "part": group % 3,
        "x": x,
        "y": (x * (1 + group / 10) + rng.normal(size=len(group))).round(6),
        "w": rng.integers(1, 4, len(group)).astype(float),
        "note": ["text"] * len(group),
    }
    return pa.table(columns)


@pytest.fixture
def job(tmp_path, monkeypatch) -> Path:
    """A folder, entered, with a model and a table."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    pq.write_table(make_table(), "table.parquet")
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def fit(*more: str, model="model.py", table="table.parquet", by="plane", out="out") -> Result:
    return run("fit", model, table, "--by", by, "--out", out, *more)


def environment() -> dict[str, str]:
    """For a process of its own: this mlekit, and JAX without the settings of the tests."""
    kept = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    return kept | {"PYTHONPATH": str(Path(mle.__file__).parents[1])}


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


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


def assert_same(found: pa.Table, wanted: pa.Table) -> None:
    assert found.column_names == wanted.column_names
    assert found.num_rows == wanted.num_rows
    for name in wanted.column_names:
        if pa.types.is_floating(wanted[name].type):
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-8, err_msg=name)
        else:
            assert found[name].to_pylist() == wanted[name].to_pylist(), name


# A table in, a table out --------------------------------------------------------------------------


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


# Going on -----------------------------------------------------------------------------------------


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


def test_another_job_is_refused(job):
    done(fit("--part-sets", "7"))
    kept = "want a directory that is new, empty or of the same job"
    assert error_of(fit("--part-sets", "8")) == f"--out: out holds another job: part_sets was 7 and is 8; {kept}"
    message = error_of(fit("--part-sets", "7", "--no-x64", by="part"))
    assert 'by was ["plane"] and is ["part"]; precision was "float64" and is "float32"; groups was 28' in message
    Path("model.py").write_text(MODEL + "\n")
    assert "the content of the model file has changed" in error_of(fit("--part-sets", "7"))
    Path("model.py").rename("moved.py")
    Path("moved.py").write_text(MODEL)
    assert done(fit("--part-sets", "7", model="moved.py")).startswith("nothing left to do")
    pq.write_table(make_table().slice(1), "table.parquet")
    assert "the content of the table file has changed" in error_of(fit("--part-sets", "7", model="moved.py"))


# Errors -------------------------------------------------------------------------------------------


def error_of(result: Result) -> str:
    """The one message of a user's error."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    said = result.stderr.splitlines()
    start = next(i for i, line in enumerate(said) if line.startswith("Error: "))
    return "\n".join(said[start:]).removeprefix("Error: ")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": "no.py"}, "Invalid value for 'MODEL.py': File 'no.py' does not exist."),
        ({"table": "no.csv"}, "Invalid value for 'TABLE.parquet': Path 'no.csv' does not exist."),
        ({"table": "model.py"}, "TABLE: model.py ends with '.py', want .parquet or .csv"),
        (
            {"by": "plan"},
            "--by: table.parquet has no column 'plan', want one of 'plane', 'part', 'x', 'y', 'w', 'note'",
        ),
        ({"out": "model.py"}, "--out: model.py is a file, want a directory that is new, empty or of the same job"),
        ({"out": "model.py/out"}, "--out: cannot use model.py/out: Not a directory"),
        (
            {"out": "."},
            "--out: . holds model.py but no _manifest.json, "
            "want a directory that is new, empty or of the same job",
        ),
    ],
    ids=str,
)
def test_wrong_arguments(job, more, message):
    assert error_of(fit(**more)) == message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--engine", "rya"], "Invalid value for '--engine': 'rya' is not one of 'local', 'ray'."),
        (["--address", "auto"], "--address: the local engine has none; leave it out, or ask for engine ray"),
        (["--workers", "2"], "--workers: the local engine has none; leave it out, or ask for engine ray"),
        (["--weights", "ww"], "--weights: table.parquet has no column 'ww', want one of 'plane'"),
        (["--weights", "note"], "columns of MODEL.py: 'note' holds string, want numbers"),
        (["--by", "plane"], "--by: 'plane' is named twice, want each column once."),
        (["--part-sets", "0"], "Invalid value for '--part-sets': 0 is not in the range x>=1."),
        (["--max-steps", "0"], "Invalid value for '--max-steps': 0 is not in the range x>=1."),
        (["--tolerance", "-1"], "--tolerance must be"),
        (["--tolerance", "nan"], "--tolerance must be"),
    ],
    ids=str,
)
def test_wrong_options(job, more, message):
    assert error_of(fit(*more)).startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "def log_density",
            "def density",
            "MODEL.py: model.py defines no log_density, want a function log_density(",
        ),
        ("init = ", "start = ", "MODEL.py: model.py defines no init, want the starting params, or a function"),
        ("import jax.numpy as jnp", "import jax.nmpy as jnp", "model.py, line 2: import jax.nmpy as jnp\n"),
        (
            "def log_density(",
            "def log_density((",
            "model.py, line 7: def log_density((params, obs):\n  SyntaxError",
        ),
        ('columns = ["x", "y"]', "columns = 3", "MODEL.py: columns is 3, want a list of column names"),
        (
            '["x", "y"]',
            '["x", "yy"]',
            "columns of MODEL.py: table.parquet has no column 'yy', want one of 'plane'",
        ),
        ('["x", "y"]', '["x", "note"]', "columns of MODEL.py: 'note' holds string, want numbers"),
        ('columns = ["x", "y"]\n', "", "columns of MODEL.py: 'note' holds string, want numbers"),
        ("return -0.5", "return jnp.ones(2) * -0.5", "log_density must return one number"),
        ("return ", "return 1 if True else ", "log_density must return a real floating-point number"),
        ('obs["y"]', 'obs["typo"]', "log_density looks up 'typo' and there is no such name: obs has"),
        (
            "    return",
            "    assert z > 0\n    return",
            "model.py, line 9: assert z > 0\n  TracerBoolConversionError",
        ),
        ('"sigma": 1.0', '"sigma": -1.0', "init: sigma"),
        ('{"sigma": mle.positive}', '{"sgma": mle.positive}', "constraints"),
        ("mle.positive", "mle.interval(2, 1)", "model.py, line 6: "),
        ('init = {"slope": 1.0', 'init = {"slope": "text"', "init"),
    ],
    ids=str,
)
def test_wrong_models(job, old, new, message):
    assert old in MODEL
    Path("model.py").write_text(MODEL.replace(old, new, 1))
    assert error_of(fit()).startswith(message)


def test_wrong_tables(job):
    pq.write_table(make_table().slice(0, 0), "empty.parquet")
    assert error_of(fit(table="empty.parquet")) == "TABLE: got no rows, want at least one."
    Path("empty.csv").write_text("")
    assert error_of(fit(table="empty.csv")).startswith("TABLE: empty.csv cannot be read as csv: Empty CSV file")
    Path("broken.parquet").write_text("no parquet")
    assert error_of(fit(table="broken.parquet")).startswith("TABLE: broken.parquet cannot be read as parquet: ")
    assert not Path("out").exists()


def test_a_manifest_that_is_none(job):
    Path("out").mkdir()
    Path("out", MANIFEST).write_text("{")
    Path("out/part-00000.parquet").write_text("")
    assert error_of(fit()).startswith("--out: out/_manifest.json is no manifest of mlekit, want a directory")


def test_a_mended_mistake_may_use_the_same_directory(job):
    Path("model.py").write_text(MODEL.replace('obs["y"]', 'obs["typo"]'))
    assert error_of(fit()).startswith("log_density looks up 'typo'")
    Path("model.py").write_text(MODEL)
    assert error_of(fit("--tolerance", "nan")).startswith("--tolerance")
    assert done(fit()).startswith("28 fits in ")
    assert json.loads(Path("out", MANIFEST).read_text())["tolerance"] is None


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_directory_that_may_not_be_written(job):
    Path("out").mkdir(mode=0o500)
    assert error_of(fit()) == "--out: cannot use out: Permission denied"


def test_a_directory_that_no_longer_may_be_written(job, monkeypatch):
    done(fit())
    Path("out/part-00000.parquet").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert error_of(fit()) == "--out: no permission to write to out"


def test_a_bug_keeps_its_traceback(job, monkeypatch):
    def bug(*arguments, **options):
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(jobs, "fit_batch", bug)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        fit()


# The rest -----------------------------------------------------------------------------------------


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
    for line in (f"mlekit     {mle.__version__}", f"jax        {jax.__version__}", "devices    cpu:0"):
        assert line in said
    assert "float64 unless --no-x64; in Python: float64" in said


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    from mlekit.demo.make_flights import PATH

    return pq.read_table(PATH)


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
