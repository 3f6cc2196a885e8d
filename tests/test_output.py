"""The output directory: nothing lost, nothing doubled, whatever is done to the process or to the files."""

import collections
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlekit as mle
from mlekit.core.archive import LARGEST_HEADER
from mlekit.core.digest import digest_of
from mlekit.jobs.output_directory import LOCK, MANIFEST, claimed
from mlekit.jobs.table_files import open_table_files

WANTED = "want a directory that is new, empty or of the same job"


def log_density(params, obs):
    return -0.5 * (obs["y"] - params["mean"]) ** 2


INIT = {"mean": 0.0}


def make_table(sets: int = 12) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({"group": np.repeat(np.arange(sets), 3), "y": rng.normal(size=3 * sets)})


@pytest.fixture
def table(tmp_path) -> Path:
    pq.write_table(make_table(), tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def fit(table, out, part_sets=3, **options) -> mle.Outcome:
    return mle.fit_table(log_density, INIT, table, "group", out, part_sets=part_sets, progress=False, **options)


def rows_of(directory: Path) -> pa.Table:
    return pq.read_table(directory).sort_by("group")


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# From Python --------------------------------------------------------------------------------------


def test_fit_table_is_fit_batch(table, out):
    outcome = fit(table, out)
    assert outcome == mle.Outcome(12, 0, outcome.seconds, collections.Counter(converged=12))
    wanted = mle.fit_batch(log_density, INIT, mle.group_by(make_table(), "group")).to_arrow()
    assert rows_of(out).equals(wanted)
    again = fit(table, out)
    assert (again.fitted, again.found, again.statuses) == (0, 12, outcome.statuses)


def test_parts_are_alike(table, out):
    fit(table, out, part_sets=5)
    assert [pq.read_metadata(path).num_rows for path in sorted(out.glob("*.parquet"))] == [4, 4, 4]


def test_another_model_is_refused(table, out):
    def shifted(by):
        return lambda params, obs: log_density(params, {"y": obs["y"] - by})

    def call(by, init=INIT):
        return mle.fit_table(shifted(by), init, table, "group", out, progress=False)

    assert call(1.0).fitted == 12
    assert call(1.0).found == 12
    for change in ({"by": 2.0}, {"by": 1.0, "init": {"mean": 0.5}}):
        with pytest.raises(ValueError, match="another job: the content of the functions has changed"):
            call(**change)


def test_digests():
    import functools

    import jax
    import optax

    def recursive(n):
        return recursive(n - 1) if n else digest_of

    def same(make):
        return digest_of(make()) == digest_of(make())

    for make in (
        lambda: mle.positive,
        lambda: {"a": mle.interval(0, 1), "b": [mle.Newton(), None]},
        lambda: optax.adam(1e-2),
        lambda: mle.LBFGS(),
        lambda: functools.partial(log_density, {"mean": jnp.ones(2)}),
        lambda: jax.jit(log_density),
        lambda: mle.regression(lambda params, obs: params, mle.families.poisson),
        lambda: recursive,
        lambda: jax.random.key(0),
        lambda: eval("lambda x: x + 1"),
        lambda: INIT.items,
    ):
        assert same(make)
    things = [mle.interval(0, 1), mle.interval(0, 2), mle.Newton(), mle.BFGS(), optax.adam(1e-2), optax.adam(1e-3)]
    things += [eval("lambda x: x + 1"), eval("lambda x: x + 2"), jnp.ones(2), jnp.ones(3), np.ones(2, np.float32)]
    assert len({digest_of(thing) for thing in things}) == len(things)


# Tables -------------------------------------------------------------------------------------------


def test_a_directory_and_a_list_of_files(tmp_path, out):
    whole, folder = make_table(), tmp_path / "table"
    folder.mkdir()
    pq.write_table(whole.slice(0, 10), folder / "a.parquet", row_group_size=4)  # groups straddle row groups
    pq.write_table(whole.slice(10, 0), folder / "b.parquet")
    second = whole.slice(10).set_column(0, "group", whole["group"].slice(10).cast(pa.int32()).dictionary_encode())
    pq.write_table(second.append_column("more", second["y"]), folder / "c.parquet")  # and files
    (folder / "_metadata.parquet").write_text("nobody reads this")
    (folder / "notes.txt").write_text("nor this")
    fit(folder, out)
    assert rows_of(out).equals(mle.fit_batch(log_density, INIT, mle.group_by(whole, "group")).to_arrow())
    listed = [folder / f"{name}.parquet" for name in "abc"]
    assert fit(listed, out).found == 12  # the same table
    pq.write_table(whole.slice(0, 9), folder / "a.parquet", row_group_size=4)
    with pytest.raises(ValueError, match="the content of the table files has changed"):
        fit(folder, out)


def test_rows_are_read_where_they_are(tmp_path):
    pq.write_table(make_table(), tmp_path / "a.parquet", row_group_size=7)
    pq.write_table(make_table(3), tmp_path / "b.parquet", row_group_size=4)
    source = open_table_files(tmp_path)
    whole = source.read(["y"])
    assert source.n_rows == whole.num_rows == 45
    for begin, end in [(0, 45), (0, 1), (6, 8), (7, 14), (35, 37), (44, 45), (3, 3)]:
        assert source.read(["y"], begin, end).equals(whole.slice(begin, end - begin))
    for most in (1, 7, 10, 100):
        ranges = list(source.ranges(most))
        assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
        assert ranges[-1][1] == 45


def test_large_tables_are_told_apart_by_their_footers(table, monkeypatch):
    monkeypatch.setattr("mlekit.jobs.table_files.MOST_DIGESTED", 1)
    before = open_table_files(table).fingerprint()
    assert open_table_files(table).fingerprint() == before
    os.utime(table, ns=(0, 0))
    assert open_table_files(table).fingerprint() != before


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, ValueError, "there is no .parquet file in .*want at least one"),
        ({"a.parquet": b"no parquet"}, ValueError, "a.parquet cannot be read as parquet: "),
        ({"a.parquet": pickle.dumps(print)}, ValueError, "a.parquet cannot be read as parquet: "),
        ({"a.parquet": None, "b.parquet": {"group": ["x"], "y": [1.0]}}, ValueError, "the columns of .*b.parquet"),
        (
            {"a.parquet": None, "b.parquet": {"y": [1.0]}},
            ValueError,
            "by: .* has no column 'group', want one of 'y'",
        ),
    ],
    ids=str,
)
def test_wrong_directories(tmp_path, out, files, error, message):
    folder = tmp_path / "table"
    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            pq.write_table(make_table() if content is None else pa.table(content), folder / name)
    with pytest.raises(error, match=message):
        fit(folder, out)
    assert not out.exists()


def test_wrong_arguments(table, out):
    for options, error, message in (
        ({"engine": "spark"}, ValueError, "engine must be one of local, ray; got 'spark'"),
        ({"address": "auto"}, ValueError, "address: the local engine has none"),
        ({"workers": 2}, ValueError, "workers: the local engine has none"),
        ({"engine": "ray", "workers": 0}, ValueError, "workers must be a positive whole number"),
        ({"part_sets": 2.5}, ValueError, "part_sets must be a positive whole number"),
        ({"columns": "z"}, ValueError, "columns: .* has no column 'z', want one of 'group', 'y'"),
        ({"weights": "w"}, ValueError, "weights: .* has no column 'w'"),
    ):
        with pytest.raises(error, match=message):
            fit(table, out, **options)
    with pytest.raises(TypeError, match="table: got dict, want a path"):
        fit({}, out)
    with pytest.raises(TypeError, match="by: got 3, want a column name or a list of names"):
        mle.fit_table(log_density, INIT, table, 3, out)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"table: .* is one of several files, want these to be .parquet"):
        fit([table, "b.csv"], out)
    assert not out.exists()


# Parts --------------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def a_flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60] ^= 1  # inside a page: the file still opens
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap(path.with_name("sprung"))))


def another_part(path: Path) -> None:
    shutil.copy(path.with_name("part-00000.parquet"), path)


def fewer_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def a_table_of_another_program(path: Path) -> None:
    pq.write_table(pa.table({"group": [1], "status": ["converged"]}), path)


def a_link(path: Path) -> None:
    path.rename(path.with_name(".elsewhere"))
    path.symlink_to(path.with_name(".elsewhere"))


class Trap:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


DAMAGES = [truncated, a_flipped_bit, empty, a_pickle, another_part, fewer_rows, a_table_of_another_program, a_link]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_part_is_fitted_again(table, out, damage):
    fit(table, out)
    whole, elsewhere = rows_of(out), out / ".elsewhere"
    damage(out / "part-00002.parquet")
    before = elsewhere.read_bytes() if elsewhere.exists() else None
    outcome = fit(table, out)
    assert (outcome.fitted, outcome.found, outcome.damaged) == (3, 9, ("part-00002.parquet",))
    assert rows_of(out).equals(whole)
    assert not (out / "part-00002.parquet").is_symlink()
    assert not (out / "sprung").exists()
    if before is not None:
        assert elsewhere.read_bytes() == before
    assert fit(table, out).damaged == ()


def test_a_part_of_nobody_is_refused(table, out):
    fit(table, out)
    shutil.copy(out / "part-00000.parquet", out / "part-00007.parquet")
    with pytest.raises(
        ValueError, match=r"out: .* holds part-00007.parquet, which is no part of this job; move it"
    ):
        fit(table, out)


def test_what_killed_runs_left_is_removed(table, out):
    fit(table, out)
    for name in (".part-00001.parquet.0123.partial", ".part-00001.parquet.begun.partial"):
        (out / name).write_text("half a part")
    fit(table, out)
    assert names_in(out) == [LOCK, MANIFEST, *(f"part-0000{i}.parquet" for i in range(4))]


# Manifests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": true}',
        b'{"format": "1"}',
        b'{"format": 1.0}',
        pickle.dumps(Trap(Path("sprung"))),
        b" " * (LARGEST_HEADER + 1),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_malformed_manifest(table, out, content, monkeypatch):
    monkeypatch.chdir(table.parent)
    fit(table, out)
    (out / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=f"out: .*{MANIFEST} is no manifest of mlekit, {WANTED}"):
        fit(table, out)
    assert (out / MANIFEST).read_bytes() == content
    assert not Path("sprung").exists()


def test_a_manifest_of_another_version(table, out):
    fit(table, out)
    path = out / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(ValueError, match="is of format 2, and this version of mlekit reads formats up to 1"):
        fit(table, out)


def test_a_manifest_leads_nowhere(table, out, tmp_path):
    """Whatever it says is compared, and nothing of it is opened, or shown as it is."""
    fit(table, out)
    path, before = out / MANIFEST, names_in(tmp_path)
    manifest = json.loads(path.read_text())
    for name in manifest:
        if name in ("format", "table"):
            continue
        path.write_text(json.dumps(manifest | {name: "../../\x1b[31m" + "x" * 9999}))
        with pytest.raises(ValueError, match="holds another job") as info:
            fit(table, out)
        assert "\x1b" not in str(info.value)
        assert len(str(info.value)) < 1000
    path.write_text(json.dumps(manifest | {"../x\x1b": {"parts": ["../../etc"]}}))
    with pytest.raises(ValueError, match="holds another job"):
        fit(table, out)
    path.write_text(json.dumps(manifest | {"table": "../elsewhere.parquet"}))  # may have moved
    assert fit(table, out).found == 12
    assert names_in(tmp_path) == before


def test_links_are_not_followed(table, out, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("{}")
    for name in (MANIFEST, "part-00001.parquet", LOCK):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (out / name).symlink_to(precious)
        if name == MANIFEST:  # makes way, as that of a job that never finished a part
            assert fit(table, out).fitted == 12
        else:
            with pytest.raises(ValueError, match=r"no _manifest.json|cannot use"):
                fit(table, out)
        assert precious.read_text() == "{}"
    shutil.rmtree(out)
    fit(table, out)
    (out / MANIFEST).rename(precious)
    (out / MANIFEST).symlink_to(precious)
    with pytest.raises(ValueError, match="is no manifest of mlekit"):
        fit(table, out)


# One run at a time --------------------------------------------------------------------------------


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


# A full disk --------------------------------------------------------------------------------------


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


# A sudden end -------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("kills", [4, pytest.param(24, marks=pytest.mark.slow)])
def test_killed_at_random_moments(kills, tmp_path, monkeypatch):
    """No group lost, none twice, and each as if nothing had happened."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    pq.write_table(make_table(400), "table.parquet")
    rng = np.random.default_rng(7)
    parts = rng.permutation(np.repeat([0, 1, 3, 9], kills // 4))
    seconds = np.where(parts, rng.uniform(0, 0.02, kills), rng.uniform(0, 1, kills)).round(4)
    program = [sys.executable, "-c", KILLER, " ".join(map(str, parts)), " ".join(map(str, seconds))]
    kept = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    kept |= {
        "PYTHONPATH": str(Path(mle.__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
    }
    result = subprocess.run(program, env=kept, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + Path("log").read_text()
    assert result.stdout.splitlines()[-1] == str(kills)
    wanted = mle.fit_batch(log_density, INIT, mle.group_by(make_table(400), "group")).to_arrow()
    assert rows_of(Path("out")).equals(wanted)
    assert len(names_in(Path("out"))) == 202
