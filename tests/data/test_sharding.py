"""One likelihood on many devices and in many processes: the numbers are those of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlekit.distributed
from tests.helpers.processes import environment

from . import sharded_program
from .sharded_program import DERIVATIVES, FITS, GOES_ON

RNG = np.random.default_rng(0)
N = 1_000
ROWS = {"x": RNG.normal(size=N), "w": RNG.integers(0, 3, N).astype(float)}
ROWS["y"] = RNG.poisson(np.exp(0.3 + 0.5 * ROWS["x"])).astype(float)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("rows")
    for name, column in ROWS.items():
        np.save(path / f"{name}.npy", column)
    pq.write_table(pa.table(ROWS), path / "rows.parquet", row_group_size=90)
    return path


@pytest.fixture(scope="module")
def wanted() -> dict[str, Any]:
    """Of rows that weights leave out, if there are any: so one program is enough."""
    row = np.arange(N)
    return {
        "": sharded_program.numbers(ROWS),
        ", weighted": sharded_program.numbers(ROWS, ROWS["w"]),
        ", partly silent": sharded_program.numbers(ROWS, ((row >= 45) & (row < 90)).astype(float)),
        "as it lies": sharded_program.numbers(ROWS, np.where(row < 999, ROWS["w"], 0.0)),
    }


def run(command: list[str], directory: Path, asked: list[str], devices: int | None = None) -> dict[str, Any]:
    program = [sys.executable, *command, "-m", "tests.data.sharded_program", str(directory), json.dumps(asked)]
    there = environment(devices=devices)
    said = subprocess.run(program, env=there, capture_output=True, text=True, timeout=300, check=False)
    assert said.returncode == 0, said.stderr[-3000:]
    (line,) = [line for line in said.stdout.splitlines() if line.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT"))


def check(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["status"] == wanted["status"] == "converged"
    for name in found:
        if name != "status":
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-8, atol=1e-13, err_msg=name)
    np.testing.assert_allclose(found["vector"], wanted["vector"], rtol=1e-10)


SOME = pytest.param(
    ["arrays, weighted", "table", "table, partly silent", "jacfwd of arrays", "grad of table"], id="some"
)
OTHERS = pytest.param(["table, weighted", "arrays, partly silent", GOES_ON], id="others")
ALL = pytest.param([*FITS, *DERIVATIVES, GOES_ON], marks=pytest.mark.slow, id="all")


def check_all(found: dict[str, Any], asked: list[str], wanted: dict[str, Any]) -> None:
    for name in set(FITS).intersection(asked):
        check(found[name], wanted[name.removeprefix("arrays").removeprefix("table")])
    if GOES_ON in asked:
        assert found[GOES_ON]


@pytest.mark.parametrize("asked", [SOME, ALL])
def test_three_devices_of_one_process(asked: list[str], directory: Path, wanted: dict[str, Any]) -> None:
    found = run([], directory, asked, devices=3)
    assert (found["devices"], found["processes"]) == (3, 1)
    assert found["arrays is"] == "ArrayShards(1,000 rows on 3 devices)"
    check_all(found, asked, wanted)
    for name in set(DERIVATIVES).intersection(asked):
        np.testing.assert_allclose(found[name], ROWS["x"].mean(), rtol=1e-10)
    check(found["as it lies"], wanted["as it lies"])
    np.testing.assert_allclose(found["loaded"], wanted[""]["vector"], rtol=1e-10)
    assert "must all be split along their first axis" in found["everywhere"]
    assert found["contributions"].startswith("ValueError: this needs all rows in one place")
    assert found["joint"].startswith("ValueError: data are shared out among devices, and a joint model")
    assert found["weights"].startswith("TypeError: weights of shards are the name of a column")
    assert found["negative"] == "ValueError: weights: column 'x' has negative entries"
    assert "want one row for each at least" in found["few"]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("asked", [OTHERS, ALL])
def test_processes(processes: int, asked: list[str], directory: Path, wanted: dict[str, Any]) -> None:
    """Each with rows of its own, or with a part of the files; through the launcher."""
    found = run(["-m", "mlekit.distributed", "-n", str(processes)], directory, asked)
    assert (found["devices"], found["processes"]) == (processes, processes)
    assert found["table is"] == f"TableShards(1,000 rows on {processes} devices, {processes} processes)"
    check_all(found, asked, wanted)
    assert found["differ"] == f"data: the arrays and their dtypes are not the same in all {processes} processes"
    assert found["empty"].startswith("data is empty")


FAILS = """
import sys, time
import mlekit.distributed
number = mlekit.distributed.initialize()
if number == 1:
    import os
    os._exit(3)
time.sleep(60)
"""


def test_one_process_that_fails_ends_all(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    assert mlekit.distributed.launch([str(tmp_path / "fails.py")], 2) == 3


def test_a_process_alone() -> None:
    assert mlekit.distributed.initialize() == 0


TOGETHER = """
import jax, numpy as np
import mlekit as mle, mlekit.distributed
number = mlekit.distributed.initialize()
data = mle.shard({"x": np.arange(2.0) + 2 * number})
fit = mle.fit(lambda mean, obs: -((mean - obs["x"]) ** 2), 0.0, data)
print("RESULT", number, jax.process_count(), float(fit.params))
"""


@pytest.mark.slow
def test_tasks_of_slurm(tmp_path: Path) -> None:
    """Two processes that know no more than what `srun` tells its tasks."""
    (tmp_path / "together.py").write_text(TOGETHER)
    step = {"JOB_ID": str(os.getpid()), "STEP_NODELIST": "localhost", "NTASKS": "2", "STEP_NUM_TASKS": "2"}
    tasks = []
    for number in "01":
        told = {f"SLURM_{name}": value for name, value in (step | {"PROCID": number, "LOCALID": number}).items()}
        tasks.append(
            subprocess.Popen(
                [sys.executable, str(tmp_path / "together.py")],
                env=environment() | told,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    said = [task.communicate(timeout=120)[0].splitlines()[-1] for task in tasks]
    assert said == ["RESULT 0 2 1.5", "RESULT 1 2 1.5"]


@pytest.mark.parametrize(
    ("seen", "per_task", "taken"), [("0,1", "2", [0, 1]), ("3", "1", [0]), ("0,1", None, None), (None, "1", None)]
)
def test_gpus_of_a_task(
    seen: str | None, per_task: str | None, taken: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that Slurm gives to this task alone; JAX numbers them from zero."""
    told = {"SLURM_STEP_NUM_TASKS": "2", "CUDA_VISIBLE_DEVICES": seen, "SLURM_GPUS_PER_TASK": per_task}
    for name, value in told.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: asked.update(options))
    mlekit.distributed.initialize()
    assert asked == {"local_device_ids": taken}
