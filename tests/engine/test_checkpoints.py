"""Checkpoints: a fit that was stopped goes on bit for bit; a file that is no checkpoint of it is refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlekit as mle
from mlekit.data.row_source import ArrayRowSource
from mlekit.engine import checkpoint
from tests.helpers.marks import mostly_slow
from tests.helpers.processes import environment

RNG = np.random.default_rng(0)
ROWS = {"x": RNG.normal(size=2_000), "y": RNG.standard_cauchy(2_000)}
START = {"a": 3.0, "b": -3.0, "s": 9.0}
RULES = {"s": mle.positive}
FILE = checkpoint.NAME


def density(p: Any, obs: Any) -> Any:
    return -jnp.log(p["s"]) - jnp.log1p(((obs["y"] - p["a"] - p["b"] * obs["x"]) / p["s"]) ** 2)


def fit(where: Any, data: Any = ROWS, model: Any = density, **options: Any) -> mle.Fit:
    return mle.fit(model, START, data, constraints=RULES, checkpoint=where, **options)


def same(a: mle.Fit, b: mle.Fit) -> bool:
    """Bit for bit, in all that was found."""
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a._solution, b._solution))


SOLVERS = {
    "Newton": mle.Newton(),
    "LBFGS": mle.LBFGS(),
    "BFGS": mle.BFGS(),
    "Scoring": mle.Scoring(),
    "adam": optax.adam(0.05),
    "mini-batches": mle.Optax(optax.adam(0.05), batch_size=50, steps=160, key=jax.random.key(0)),
}


@contextlib.contextmanager
def stopped_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process is interrupted once its checkpoint has been written so many times."""
    write, left = checkpoint._write, [writes]

    def and_stop(*args: Any) -> None:
        write(*args)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", and_stop)
        with pytest.raises(KeyboardInterrupt):
            yield


CASES = [(name, on_disk) for name in SOLVERS for on_disk in (False, True)]


@pytest.mark.parametrize(("name", "on_disk"), mostly_slow(CASES, ("mini-batches", False)), ids=str)
def test_a_fit_that_is_stopped_goes_on(
    name: str, on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = mle.open_table(ROWS, block_rows=70) if on_disk else ROWS
    whole = fit(tmp_path / "whole", data, solver=SOLVERS[name], history=True)
    for writes in (1, 1, 2):
        with stopped_after(writes, monkeypatch):
            fit(tmp_path / "stopped", data, solver=SOLVERS[name], history=True)
    ended = fit(tmp_path / "stopped", data, solver=SOLVERS[name], history=True)
    assert same(ended, whole)
    assert same(fit(None, data, solver=SOLVERS[name]), whole)
    assert whole.history is not None
    assert ended.history is not None
    np.testing.assert_array_equal(ended.history.vector, whole.history.vector)

    def never(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(checkpoint, "_write", never)  # what has ended has nothing left to do
    assert same(fit(tmp_path / "stopped", data, solver=SOLVERS[name]), whole)


def test_more_steps_go_on_where_fewer_ended(tmp_path: Path) -> None:
    few = fit(tmp_path, solver=mle.LBFGS(), max_steps=3)
    assert few.status == mle.Status.max_steps
    assert same(fit(tmp_path, solver=mle.LBFGS()), fit(None, solver=mle.LBFGS(), backend="xla"))


def test_how_often_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, count = checkpoint._write, [0]

    def counted(*args: Any) -> None:
        count[0] += 1
        write(*args)

    monkeypatch.setattr(checkpoint, "_write", counted)
    every = fit(tmp_path / "1")
    assert count[0] == every.steps
    seldom = fit(mle.Checkpoint(tmp_path / "4", every=4))
    assert count[0] == every.steps + -(-int(every.steps) // 4)
    assert same(every, seldom)


KILLED = """
import os, sys, time
import jax
jax.config.update("jax_enable_x64", True)
import mlekit as mle
import mlekit.engine.checkpoint as checkpoint
from tests.engine.test_checkpoints import START, RULES, density, ROWS

write = checkpoint._write
def slowly(*args):
    write(*args)
    print("saved", flush=True)
    time.sleep(float(sys.argv[2]))
checkpoint._write = slowly
fit = mle.fit(density, START, mle.open_table(ROWS, block_rows=300), constraints=RULES, checkpoint=sys.argv[1],
              solver=mle.BFGS())
print([x.hex() for x in map(float, fit._solution.estimates)])
"""


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_goes_on(kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)

    def run(pause: float) -> subprocess.Popen[str]:
        program = [sys.executable, "-c", KILLED, str(tmp_path / "state"), str(pause)]
        return subprocess.Popen(program, env=environment(tmp_path / "programs"), stdout=subprocess.PIPE, text=True)

    for _ in range(kills):
        process = run(0.1)
        assert process.stdout is not None
        for _ in range(int(rng.integers(1, 4))):
            assert process.stdout.readline() == "saved\n"
        time.sleep(float(rng.uniform(0, 0.1)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    said, _ = run(0.0).communicate(timeout=120)
    write = checkpoint._write
    writes: list[None] = []
    monkeypatch.setattr(checkpoint, "_write", lambda *args: writes.append(write(*args)))
    wanted = fit(tmp_path / "whole", mle.open_table(ROWS, block_rows=300), solver=mle.BFGS())
    found = [float.fromhex(x) for x in json.loads(said.splitlines()[-1].replace("'", '"'))]
    # Tests compile in another way than programs do; the digits that both ways share are the same.
    np.testing.assert_allclose(found, wanted._solution.estimates, rtol=1e-13)
    assert 1 <= said.count("saved") < len(writes)


def test_other_fits_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, solver=mle.LBFGS())
    other_rows = {"x": ROWS["x"], "y": ROWS["y"] + 1}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"data": other_rows}, "another fit, whose data is"),
        ({"solver": mle.BFGS()}, "another fit, whose solver is LBFGS; here it is BFGS"),
        ({"model": lambda p, obs: 2 * density(p, obs)}, "another fit, whose model is"),
        ({"history": True}, "was written without it"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, **{"solver": mle.LBFGS()} | options)
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"whose (data|precision) is|is damaged"):
        fit(tmp_path, solver=mle.LBFGS())


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/this-must-not-be-made",)


def rewritten(content: bytes, change: Callable[[dict[str, Any]], Any], **members: bytes) -> bytes:
    """The file with another header, and with other arrays."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            was = old.read(name)
            now = json.dumps(change(json.loads(was))).encode() if name == "header.json" else was
            new.writestr(name, members.get(Path(name).stem, now))
    return target.getvalue()


def pickled_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)
    return file.getvalue()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content.replace(b"NUMPY", b"NUMPX", 1),
    "pickle": lambda content: pickle.dumps(Evil()),
    "pickled array": lambda content: rewritten(content, lambda header: header, **{"0": pickled_array()}),
    "fewer": lambda content: rewritten(content, lambda header: header | {"arrays": [[], []]}),
    "more": lambda content: rewritten(content, lambda header: header | {"arrays": [header["arrays"][0] * 2, []]}),
    "odd": lambda content: rewritten(content, lambda header: [1, 2]),
    "no job": lambda content: rewritten(content, lambda header: {**header, "job": None}),
    "no number": lambda content: rewritten(content, lambda header: header | {"format": float("nan")}),
    "another digest": lambda content: rewritten(content, lambda header: header | {"sha256": "0"}),
    "later": lambda content: rewritten(content, lambda header: header | {"format": 99}),
    "text": lambda content: b'{"format": 1, "job": {}, "arrays": [[], []], "sha256": "0"}\n',
    "later text": lambda content: b'{"format": 2, "job": {}, "arrays": [[], []]}\n',
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_no_checkpoint_is_refused(kind: str, tmp_path: Path) -> None:
    fit(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    with pytest.raises(
        ValueError, match="written by a later version" if kind == "later" else "is damaged, remove it"
    ):
        fit(tmp_path)
    assert not Path("/tmp/this-must-not-be-made").exists()
    path.unlink()
    assert fit(tmp_path).converged


def as_format_1(content: bytes) -> bytes:
    """A checkpoint as the first versions wrote it: a line of JSON, then the arrays one after another."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(archive.read("header.json"))
        number = sum(name.startswith("arrays/") for name in archive.namelist())
        arrays = [np.load(io.BytesIO(archive.read(f"arrays/{i}.npy"))) for i in range(number)]
    shapes, file = iter(arrays), io.BytesIO()
    kinds = [[[[list(next(shapes).shape), k["dtype"]] for k in one] for one in part] for part in header["arrays"]]
    for array in arrays:
        np.save(file, array)
    sha256 = hashlib.sha256(file.getvalue()).hexdigest()
    first = {"format": 1, "job": header["job"], "arrays": kinds, "sha256": sha256}
    return json.dumps(first).encode() + b"\n" + file.getvalue()


def test_a_checkpoint_of_the_first_format_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stopped_after(3, monkeypatch):
        fit(tmp_path, solver=mle.LBFGS(), history=True)
    path = tmp_path / FILE
    path.write_bytes(as_format_1(path.read_bytes()))
    ended, whole = fit(tmp_path, solver=mle.LBFGS(), history=True), fit(None, solver=mle.LBFGS(), history=True)
    assert same(ended, whole)
    assert ended.history is not None
    assert whole.history is not None
    np.testing.assert_array_equal(ended.history.vector, whole.history.vector)
    assert zipfile.is_zipfile(path), "it is written in today's format"


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """The version of 22 November 2026 wrote the file, and was stopped after its first steps."""
    (tmp_path / FILE).write_bytes((Path(__file__).parent / "format_1.checkpoint").read_bytes())
    ended, whole = fit(tmp_path), fit(None)
    assert ended.converged
    assert ended.steps == whole.steps
    np.testing.assert_allclose(ended._solution.estimates, whole._solution.estimates, rtol=1e-13)
    assert zipfile.is_zipfile(tmp_path / FILE), "it is written in today's format"


@pytest.mark.parametrize("own", [True, False], ids=["a model of mlekit", "a function of the user"])
def test_a_checkpoint_of_the_first_format_knows_our_models_otherwise(own: bool, tmp_path: Path) -> None:
    """Their digest was of source text that has changed since; data, parameters and likelihood tell them, too."""
    rows = {"y": np.abs(ROWS["x"]) + 0.1}
    mine = lambda p, o: -o["y"] / p["m"] - jnp.log(p["m"])  # noqa: E731
    model = mle.regression(lambda p, o: p["m"], mle.families.exponential) if own else mine
    written = mle.fit(model, {"m": 1.0}, rows, constraints=mle.positive, checkpoint=tmp_path)
    path = tmp_path / FILE
    line, _, arrays = as_format_1(path.read_bytes()).partition(b"\n")
    header = json.loads(line)
    header["job"]["model"] = "of other text"
    path.write_bytes(json.dumps(header).encode() + b"\n" + arrays)
    refused = pytest.raises(ValueError, match="another fit, whose model is another one")
    with contextlib.nullcontext() if own else refused:
        assert same(mle.fit(model, {"m": 1.0}, rows, constraints=mle.positive, checkpoint=tmp_path), written)


def test_where_it_cannot_be_saved(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="checkpoint: cannot use"):
        fit(tmp_path / "file")
    with pytest.raises(ValueError, match="every"):
        mle.Checkpoint(tmp_path, every=0)
    with pytest.raises(TypeError, match="checkpoint must be a directory"):
        fit(3)
    with pytest.raises(ValueError, match="checkpoint is for a single start"):
        fit(tmp_path, starts=3, key=jax.random.key(0))
    with pytest.raises(ValueError, match="does not run under jit"):
        jax.jit(lambda x: fit(tmp_path, {"x": x, "y": x}).params)(ROWS["x"])


def test_fits_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    """From a start of zeros another covariate, penalty, constraint or solver shows nothing at all."""
    rows = {"x": ROWS["x"], "z": ROWS["y"]}

    def line(name: str) -> Any:
        return lambda slope, obs, penalty: -((obs["x"] - slope * obs[name]) ** 2) - penalty * slope**2

    known: dict[str, Any] = {"log_density": line("x"), "init": 0.0, "data": rows, "args": 1.0}
    mle.fit(**known, checkpoint=tmp_path)
    for change, what in [
        ({"log_density": line("z")}, "model"),
        ({"args": 2.0}, "model"),
        ({"constraints": mle.interval(-1.0, 1.0)}, "model"),
        ({"solver": mle.Newton(radius=2.0)}, "model"),
        ({"tolerance": 1e-3}, "tolerance"),
        ({"weights": np.arange(2_000.0)}, "data"),
    ]:
        with pytest.raises(ValueError, match=f"another fit, whose {what} is"):
            mle.fit(**known | change, checkpoint=tmp_path)
    assert mle.fit(**known, checkpoint=tmp_path).converged


def test_what_could_not_be_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = mle.open_table(ROWS, block_rows=300)
    wanted = fit(tmp_path / "whole", table, solver=mle.BFGS())
    batches, left = ArrayRowSource.batches, [3]

    def broken(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("the disk is gone")
        return batches(*args, **options)

    monkeypatch.setattr(ArrayRowSource, "batches", broken)
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be read: the disk is gone"):
            fit(tmp_path / "state", table, solver=mle.BFGS())
    monkeypatch.setattr(ArrayRowSource, "batches", batches)
    assert same(fit(tmp_path / "state", table, solver=mle.BFGS()), wanted)


def test_two_fits_at_once_are_refused(tmp_path: Path) -> None:
    with (
        checkpoint.checkpointing(tmp_path, {}, lambda: None),
        pytest.raises(ValueError, match="another fit is using"),
        checkpoint.checkpointing(tmp_path, {}, lambda: None),
    ):
        pass
    assert fit(tmp_path).converged
