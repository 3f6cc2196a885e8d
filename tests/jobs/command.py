"""The command line as a function, a model and a table for it."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
from click.testing import CliRunner, Result

from mlekit.cli import main

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


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def fit(*more: str, model="model.py", table="table.parquet", by="plane", out="out") -> Result:
    return run("fit", model, table, "--by", by, "--out", out, *more)


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def assert_same(found: pa.Table, wanted: pa.Table) -> None:
    assert found.column_names == wanted.column_names
    assert found.num_rows == wanted.num_rows
    for name in wanted.column_names:
        if pa.types.is_floating(wanted[name].type):
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-8, err_msg=name)
        else:
            assert found[name].to_pylist() == wanted[name].to_pylist(), name


def error_of(result: Result) -> str:
    """The one message of a user's error."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    said = result.stderr.splitlines()
    start = next(i for i, line in enumerate(said) if line.startswith("Error: "))
    return "\n".join(said[start:]).removeprefix("Error: ")
