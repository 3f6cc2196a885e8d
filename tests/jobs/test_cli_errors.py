"""One clear message for everything that is wrong on the command line."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlekit.jobs import job as jobs
from mlekit.jobs.output_directory import MANIFEST
from tests.jobs.command import MODEL, done, error_of, fit, make_table


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
            "log_density decides in Python, as `if` does, by a number that JAX traces",
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
