"""Runs that are killed, doubled or out of space lose nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import mlekit as mle
from mlekit.jobs.output_directory import LOCK, MANIFEST, claimed
from tests.helpers.processes import environment
from tests.jobs.outputs import INIT, fit, log_density, make_table, names_in, rows_of


def test_a_second_run_is_refused(table, out):
    with claimed(out, {}), pytest.raises(ValueError, match=f"out: another run is writing to {out}; wait until"):
        fit(table, out)
    assert names_in(out) == [LOCK, MANIFEST]
    assert fit(table, out).fitted == 12


def test_a_killed_run_leaves_no_lock(tmp_path):
    code = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held'); input()"
    command = [sys.executable, "-u", "-c", code, str(tmp_path / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another run is writing"), claimed(tmp_path, {}):
            pass
        holder.kill()
        holder.wait()
    with claimed(tmp_path, {}):
        assert names_in(tmp_path) == [LOCK, MANIFEST]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted: {error}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(table, small_disk):
    out = small_disk / "out"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(40 << 10))
    with pytest.raises(ValueError, match=f"out: cannot use {out}: No space left on device"):
        fit(table, out, part_sets=1)
    finished = sorted(out.glob("*.parquet"))
    assert 0 < len(finished) < 12
    assert not list(out.glob(".*"))
    ballast.unlink()
    outcome = fit(table, out, part_sets=1)
    assert (outcome.found, outcome.fitted, outcome.damaged) == (len(finished), 12 - len(finished), ())
    assert rows_of(out).num_rows == 12


def test_a_disk_that_is_full_from_the_start(table, small_disk):
    out = small_disk / "out"
    (small_disk / "ballast").write_bytes(bytes(64 << 10))
    with pytest.raises(ValueError, match=r"out: cannot use .*: No space left on device"):
        fit(table, out)


MODEL = """
init = {"mean": 0.0}
def log_density(params, obs):
    return -0.5 * (obs["y"] - params["mean"]) ** 2
"""

#: Starts the command again and again and kills it: after so many new parts, and so many seconds after that.
KILLER = """
import os, signal, sys, time
import mlekit.cli, mlekit.jobs.fit_table, pyarrow.parquet, filelock, tqdm.std  # once for all; no thread runs yet

def count():
    return sum(name.startswith("part-") for name in os.listdir("out")) if os.path.isdir("out") else 0

def start():
    child = os.fork()
    if not child:
        os.dup2(os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        mlekit.cli.main(["fit", "model.py", "table.parquet", "--by", "group", "--out", "out", "--part-sets", "2"])
    return child

kills = 0
for parts, seconds in zip(map(int, sys.argv[1].split()), map(float, sys.argv[2].split())):
    child, wanted = start(), count() + parts
    while count() < wanted and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
assert count() < 200, "there was nothing left to be killed"
assert os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1]) == 0
print(kills)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, 24])
def test_killed_at_random_moments(kills, tmp_path, monkeypatch):
    """No group lost, none twice, and each as if nothing had happened."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    pq.write_table(make_table(400), "table.parquet")
    rng = np.random.default_rng(7)
    parts = rng.permutation(np.repeat([0, 1, 3, 9], kills // 4))
    seconds = np.where(parts, rng.uniform(0, 0.02, kills), rng.uniform(0, 1, kills)).round(4)
    program = [sys.executable, "-c", KILLER, " ".join(map(str, parts)), " ".join(map(str, seconds))]
    result = subprocess.run(program, env=environment(tmp_path / "programs"), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + Path("log").read_text()
    assert result.stdout.splitlines()[-1] == str(kills)
    wanted = mle.fit_batch(log_density, INIT, mle.group_by(make_table(400), "group")).to_arrow()
    assert rows_of(Path("out")).equals(wanted)
    assert len(names_in(Path("out"))) == 202
