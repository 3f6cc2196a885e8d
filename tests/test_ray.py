"""The Ray engine: the same fits as the local one, whatever order the rows come in and whatever dies on the way."""

import contextlib
import decimal
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import mlekit as mle
from mlekit.cli import main
from mlekit.jobs import partition
from mlekit.jobs.output_directory import LOCK, MANIFEST
from mlekit.jobs.partition import key_codes, partition_rows
from mlekit.jobs.table_files import open_table_files

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import ray
    import ray.data

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


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One local Ray for all tests of this file that want one."""
    with ray_starts():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        ray.data.DataContext.get_current()
    yield
    ray.shutdown()


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder, entered, with a model."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    return tmp_path


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


# Which rows make which part -----------------------------------------------------------------------

KEYS = [
    pa.array([1.5, None, float("nan"), 0.0, -0.0, 1.5]),
    pa.array([1.5, 2, None], pa.float32()),
    pa.array([1.5, 2, None], pa.float16()),
    pa.array(["a", None, "", "abc", "a", "aé"]),
    pa.array(["a", "b", "a"], pa.large_string()),
    pa.array(["a", "b", "a"], pa.string_view()),
    pa.array(["z", "a", None, "a"]).slice(1),
    pa.array([None, None], pa.string()),
    pa.array([None, None]),
    pa.array([True, None, False, True]),
    pa.array([0, -1, None, 0], pa.int8()),
    pa.array([2**64 - 1, 0, None], pa.uint64()),
    pa.array([0, 86400, None, 0], pa.timestamp("s", "UTC")),
    pa.array([0, 1, None, 1], pa.date32()),
    pa.array([0, 1, None, 1], pa.time32("s")),
    pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("1.50")]),
]


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: str(keys.type))
def test_codes_are_equal_where_keys_are(keys):
    codes = key_codes(pa.table({"key": keys}))
    groups = mle.group_by(pa.table({"key": keys, "row": np.arange(len(keys))}), "key")
    of_groups = [set(codes[group["row"]]) for group in groups]
    assert [len(one) for one in of_groups] == [1] * len(groups)
    assert len(set.union(*of_groups)) == len(groups)


def test_codes_are_the_same_everywhere():
    """Or else a run on another machine would make other parts."""
    keys = pa.table({"a": ["x", None, "yz"], "b": [1, 2, -3]})
    codes = [
        "0x3f3e21e22981117",
        "0x5aca47579f80fd5f",
        "0xea35dc371aa4f55f",
    ]
    assert [hex(code) for code in key_codes(keys)] == codes
    assert np.array_equal(key_codes(keys.slice(1)), key_codes(keys)[1:])
    twin = pa.table({"a": keys["a"].cast(pa.large_string()), "b": keys["b"].cast(pa.int8())})
    assert np.array_equal(key_codes(twin), key_codes(keys))


def test_binary_and_nested_keys():
    codes = key_codes(pa.table({"key": pa.array([b"a", None, b"a"])}))
    assert (codes[0] == codes[2]) & (codes[0] != codes[1])
    with pytest.raises(ValueError, match=r"by: 'key' holds list<.*want a key that can be sorted"):
        key_codes(pa.table({"key": [[1]]}))


def arranged(tmp_path, groups, part_sets=4, row_group_size=5):
    pq.write_table(pa.table({"group": groups}), tmp_path / "t.parquet", row_group_size=row_group_size)
    return partition_rows(open_table_files(tmp_path / "t.parquet"), ("group",), part_sets)


def test_rows_that_lie_together(tmp_path):
    order = np.random.default_rng(0).permutation(10)
    found = arranged(tmp_path, np.repeat(order, 3))
    assert (found.groups, found.n_parts) == (10, 3)
    assert found.first.tolist() == [0, 9, 18, 30]
    found = arranged(tmp_path, np.repeat(np.arange(1000), 2), part_sets=300, row_group_size=64)
    assert (found.groups, found.n_parts) == (1000, 4)
    assert all(first % 2 == 0 for first in found.first)
    assert max(np.diff(found.first)) <= 600


def test_rows_that_do_not(tmp_path):
    for groups in ([1, 1, 2, 2, 1], np.tile(np.arange(7), 3)):
        found = arranged(tmp_path, groups)
        assert (found.groups, found.first) == (len(set(groups)), None)


def test_very_many_groups_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(partition, "MOST_GROUPS", 1000)
    monkeypatch.setattr(partition, "SAMPLE", 500)
    assert arranged(tmp_path, np.arange(1000), 100, 300).first is not None
    for groups in (np.arange(20_000), np.tile(np.arange(20_000), 2)):
        found = arranged(tmp_path, groups, 100, 3000)
        assert found.first is None
        assert abs(found.groups / 20_000 - 1) < 0.2


# Errors -------------------------------------------------------------------------------------------


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
    said = fit(table, ["group"], "ray", error=True)
    assert said.startswith('Error: model.py, line 6: assert obs["y"] > 0\n  TracerBoolConversionError: ')
    assert fit(table, ["group"], "local", error=True) == said


# The same as the local engine ---------------------------------------------------------------------


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


# A sudden end -------------------------------------------------------------------------------------


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


def wanted(table: pa.Table) -> pa.Table:
    groups = mle.group_by(table, "group")
    return mle.fit_batch(
        lambda params, obs: -0.5 * (obs["y"] - params["mean"]) ** 2, {"mean": 0.0}, groups
    ).to_arrow()


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


def command(*options: str) -> tuple[list[str], dict[str, str]]:
    """What a user types, and the environment to start it in."""
    words = shlex.split("-m mlekit.cli fit model.py table.parquet --by group --out ray --engine ray --workers 2")
    kept = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    kept["PYTHONPATH"] = str(Path(mle.__file__).parents[1])
    return [sys.executable, *words, *options], kept


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


@pytest.mark.parametrize("address", ["127.0.0.1:9", "[::1]:9", "nobody.invalid:6379"])
def test_an_address_where_nobody_is(address, table, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    options = {"columns": "y", "engine": "ray", "address": address, "progress": False}
    with pytest.raises(
        ValueError, match=f"address: no Ray cluster lets this process in at {re.escape(address)}: "
    ):
        mle.fit_table(lambda mean, obs: -((mean - obs["y"]) ** 2), 0.0, table, "group", "out", **options)


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
