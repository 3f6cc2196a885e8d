"""Runs with the Ray engine."""

import contextlib
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner

import mlekit as mle
from mlekit.cli import main
from tests.helpers.processes import environment

MODEL = """
import mlekit as mle
init = {"mean": 0.0}
columns = "y"
def log_density(params, obs):
    return -0.5 * (obs["y"] - params["mean"]) ** 2
"""


@contextlib.contextmanager
def ray_starts() -> Iterator[None]:
    """Warnings that Ray's start brings with it are passed over."""
    with warnings.catch_warnings():
        # What it forks begins another program at once, and it sets options that it deprecates.
        warnings.filterwarnings("ignore", r"os\.fork", RuntimeWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def fit(table, by, engine, out=None, part_sets="4", model="model.py", error=False):
    keys = [word for name in by for word in ("--by", name)]
    command = ["fit", model, table, *keys, "--out", out or engine, "--engine", engine, "--part-sets", part_sets]
    command += ["--workers", "1"] if engine == "ray" else []
    result = CliRunner().invoke(main, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == (2 if error else 0), result.output
    return "\n".join(result.stderr.splitlines()[-2:]) if error else result.stdout


def rows_of(directory: str, by=("group",)) -> pa.Table:
    return pq.read_table(directory).sort_by([(name, "ascending") for name in by])


def assert_same(found: pa.Table, wanted: pa.Table) -> None:
    assert found.schema == wanted.schema
    for name in wanted.column_names:
        if name in ("mean", "mean_se", "log_likelihood"):
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12, err_msg=name)
        else:
            assert found[name].equals(wanted[name]) or np.array_equal(found[name], wanted[name], equal_nan=True), (
                name
            )


def wanted(table: pa.Table) -> pa.Table:
    groups = mle.group_by(table, "group")
    return mle.fit_batch(
        lambda params, obs: -0.5 * (obs["y"] - params["mean"]) ** 2, {"mean": 0.0}, groups
    ).to_arrow()


def command(*options: str) -> tuple[list[str], dict[str, str]]:
    """What a user types, and the environment to start it in."""
    words = shlex.split("-m mlekit.cli fit model.py table.parquet --by group --out ray --engine ray --workers 2")
    return [sys.executable, *words, *options], environment(Path("programs").absolute())
