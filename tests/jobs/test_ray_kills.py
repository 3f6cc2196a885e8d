"""The Ray engine goes on, whatever dies on the way."""

import os
import signal
import subprocess
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlekit.jobs.output_directory import LOCK, MANIFEST
from tests.jobs.ray_runs import MODEL, assert_same, command, fit, ray_starts, rows_of, wanted

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)


def descendants(title: str) -> list[int]:
    """Process numbers of this test's own Ray whose titles begin so."""
    titles, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                titles[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended since
                continue

    def ours(number: int) -> bool:
        return number == os.getpid() or (number in parents and ours(parents[number]))

    return [number for number in parents if titles[number].startswith(title) and ours(number)]


def many(sets: int = 3000) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({"group": rng.permutation(np.repeat(np.arange(sets), 3)), "y": rng.normal(size=3 * sets)})


def kill(name: str, killed: list[int], n: int, ended: threading.Event) -> None:
    """Kill a process of that name whenever some more parts are there, until so many have died."""
    rng = np.random.default_rng(3)
    at = 3
    while len(killed) < n and not ended.wait(0.005):
        there = descendants(name)
        if there and len(list(Path("ray").glob("*.parquet"))) >= at:
            victim = there[rng.integers(len(there))]
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
            at += 15
            ended.wait(1)


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False], ids=["together", "in any order"])
def test_killed_workers(place, cluster, together):
    table = many().sort_by("group") if together else many()
    pq.write_table(table, "table.parquet")
    killed: list[int] = []
    ended = threading.Event()
    killer = threading.Thread(target=kill, args=("ray::MapWorker", killed, 4, ended))
    killer.start()
    try:
        said = fit("table.parquet", ["group"], "ray", part_sets="30")
    finally:
        ended.set()
        killer.join()
    assert len(killed) == 4
    assert any(line.startswith("3,000 fits in ") for line in said.splitlines())
    assert "3,000 converged" in said
    assert_same(rows_of("ray"), wanted(table))


@pytest.mark.slow
def test_killed_tasks(place, cluster, monkeypatch):
    """Those that read and sort, before any worker is there."""
    monkeypatch.setattr("mlekit.jobs.ray_runner.ROWS_AT_ONCE", 20_000)
    pq.write_table(many(300_000), "table.parquet", row_group_size=20_000)
    killed: list[int] = []
    ended = threading.Event()

    def kill_any() -> None:
        while len(killed) < 3 and not ended.wait(0.002):
            tasks = [number for name in ("MapBatches", "map", "reduce") for number in descendants(f"ray::{name}")]
            for victim in tasks[:1]:
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
                ended.wait(0.3)

    killer = threading.Thread(target=kill_any)
    killer.start()
    try:
        fit("table.parquet", ["group"], "ray", part_sets="30000")
    finally:
        ended.set()
        killer.join()
    assert len(killed) == 3
    assert_same(rows_of("ray"), wanted(many(300_000)))


@pytest.mark.slow
def test_a_model_that_kills_its_process(place, cluster):
    """It ends, and says why."""
    pq.write_table(many(20), "table.parquet")
    Path("model.py").write_text(
        MODEL.replace("    return", "    import os\n    os.kill(os.getpid(), 9)\n    return")
    )
    said = fit("table.parquet", ["group"], "ray", part_sets="30", error=True)
    assert "5 workers died of part 0" in said


def count() -> int:
    """Parts that are there."""
    return len(list(Path("ray").glob("*.parquet")))


@pytest.mark.slow
def test_a_machine_that_dies(place):
    """A cluster that was there before, of two machines, one of which goes for ever with all that ran on it."""
    from ray.cluster_utils import Cluster

    pq.write_table(many(4000), "table.parquet")
    with ray_starts():
        machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        lost = machines.add_node(num_cpus=1)
    try:
        words, environment = command("--address", machines.address, "--part-sets", "10")
        with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as run:
            while run.poll() is None and count() < 20:
                time.sleep(0.005)
            machines.remove_node(lost, allow_graceful=False)
            assert count() < 400
            said, _ = run.communicate(timeout=300)
    finally:
        machines.shutdown()
    assert run.returncode == 0
    assert "4,000 converged" in said
    assert_same(rows_of("ray"), wanted(many(4000)))


@pytest.mark.slow
def test_killed_at_several_moments(place):
    """The process that the user started, and with it the Ray that it started."""
    pq.write_table(many(4000), "table.parquet")
    words, environment = command("--part-sets", "20")
    rng = np.random.default_rng(5)
    for parts, seconds in zip(rng.permutation([0, 0, 1, 1, 9, 20, 20, 30]), rng.uniform(0, 1, 8)):
        with open("log", "w") as log, subprocess.Popen(words, env=environment, stdout=log, stderr=log) as run:
            before = count()
            while run.poll() is None and count() < before + parts:
                time.sleep(0.005)
            time.sleep(seconds * (0.1 if parts else 10))
            assert run.poll() is None, Path("log").read_text()
            run.kill()
        assert count() < 200
    result = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert_same(rows_of("ray"), wanted(many(4000)))
    assert sorted(os.listdir("ray")) == sorted([LOCK, MANIFEST, *(f"part-{i:05d}.parquet" for i in range(200))])
