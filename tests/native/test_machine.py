"""Object code on disk, threads, interruption and forks."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from llvmlite import ir

from mlekit.native import machine, object_cache
from mlekit.native.threads import StopFlag, share_out
from tests.native.elementwise_kernel import compiled


def module(value: int) -> ir.Module:
    out = ir.Module("constant")
    function = ir.Function(out, ir.FunctionType(ir.IntType(64), []), "number")
    ir.IRBuilder(function.append_basic_block()).ret(ir.Constant(ir.IntType(64), value))
    return out


def run(code: bytes) -> int:
    return int(machine.Code(code).function("number", [], ctypes.c_int64)())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv(object_cache.VARIABLE, str(path))
    monkeypatch.setattr(object_cache, "_memory", {})
    return path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_cache, "_memory", {})


def test_code_is_kept_for_its_owner_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(machine.compile_module(module(3))) == 3
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    forget(monkeypatch)
    monkeypatch.setattr(machine, "_compile", lambda *_: pytest.fail("compiled again"))
    assert run(machine.compile_module(module(3))) == 3


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 5000])
def test_a_damaged_file_is_made_anew(damage: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.compile_module(module(4))
    (file,) = folder.iterdir()
    file.write_bytes(damage)
    forget(monkeypatch)
    assert run(machine.compile_module(module(4))) == 4
    forget(monkeypatch)
    monkeypatch.setattr(machine, "_compile", lambda *_: pytest.fail("compiled again"))
    assert run(machine.compile_module(module(4))) == 4


def test_what_others_may_write_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.compile_module(module(5))
    (file,) = folder.iterdir()
    compile_anew = machine._compile
    for path, mode in ((file, 0o666), (folder, 0o777)):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        forget(monkeypatch)
        calls: list[int] = []

        def counted(text: str, level: int) -> bytes:
            calls.append(1)  # noqa: B023
            return compile_anew(text, level)

        monkeypatch.setattr(machine, "_compile", counted)
        machine.compile_module(module(5))
        assert calls == [1]
        if path.exists():
            path.chmod(before)


def test_nothing_is_kept_if_so_asked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(object_cache.VARIABLE, "")
    assert run(machine.compile_module(module(6))) == 6
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_keeps_nobody_from_compiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(object_cache.VARIABLE, str(tmp_path / "file"))
    forget(monkeypatch)
    assert run(machine.compile_module(module(7))) == 7


def test_work_is_shared_out_once_each() -> None:
    done: list[tuple[int, int]] = []
    share_out(103, 10, 3, lambda thread, begin, end: done.append((begin, end)), StopFlag())
    assert sorted(done) == [(i, min(i + 10, 103)) for i in range(0, 103, 10)]


def test_what_a_thread_raises_is_raised() -> None:
    def work(thread: int, begin: int, end: int) -> None:
        raise ValueError("in a thread")

    with pytest.raises(ValueError, match="in a thread"):
        share_out(10, 1, 2, work, StopFlag())


def test_an_interruption_stops_all_threads() -> None:
    stop, main = StopFlag(), threading.main_thread().ident
    assert main is not None

    def work(thread: int, begin: int, end: int) -> None:
        for _ in range(3000):
            if stop.is_set:
                return
            time.sleep(0.01)

    def interrupt() -> None:
        time.sleep(0.2)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(KeyboardInterrupt))

    threading.Thread(target=interrupt).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        share_out(4, 1, 2, work, stop)
    assert time.monotonic() - begun < 10
    assert stop.is_set


def _square(x: Any) -> Any:
    return x * x


def _in_a_fork(kernel: Any, queue: Any) -> None:
    share_out(2, 1, 2, lambda thread, begin, end: queue.put(float(kernel(np.full(4, 3.0))[0][0])), StopFlag())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_kernels_run_in_a_process_that_was_forked() -> None:
    kernel = compiled(_square, jax.ShapeDtypeStruct((), np.float64))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_in_a_fork, args=(kernel, queue))
    process.start()
    assert [queue.get(timeout=60) for _ in range(2)] == [9.0, 9.0]
    process.join()


@pytest.mark.skipif("avx512f" not in machine.host().features, reason="the machine has no wider vectors")
def test_a_machine_with_shorter_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [f for f in machine.host().features.split(",") if "avx512" not in f and "avx10" not in f]
    shorter = machine.Machine("x86-64-v3", ",".join([*kept, "-avx512f"]), 32, True)
    for module in ("mlekit.native.machine", "tests.native.elementwise_kernel"):
        monkeypatch.setattr(f"{module}.host", lambda: shorter)
    kernel = compiled(lambda x: jnp.exp(x) * jnp.log1p(x), jax.ShapeDtypeStruct((), np.float64))
    x = np.linspace(0, 3, 11)
    np.testing.assert_allclose(kernel(x)[0], np.exp(x) * np.log1p(x), rtol=1e-14)
    assert kernel.width == 4
