"""Work in processes of its own, whose memory can be told: `python -m benchmarks.scale.child WHAT '{"n": 3}'`."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

#: Seconds between two looks at the memory of a process and of those that it started.
LOOK = 0.5


def run(what: str, environment: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """What the function `what` of `module:function` returns, in a process of its own, with its memory over time.

    Args:
        what: where the function is.
        environment: variables that the process gets besides ours.
        arguments: those of the function, in plain JSON values.

    Returns:
        Its value, and `peak_bytes` of the process; `memory`, a list of `[seconds, bytes]` of all processes of it.
    """
    command = [sys.executable, "-m", "benchmarks.scale.child", what, json.dumps(arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {}))
    memory: list[tuple[float, int]] = []
    ended = threading.Event()

    def look() -> None:
        begin = time.perf_counter()
        while not ended.wait(LOOK):
            memory.append((round(time.perf_counter() - begin, 2), resident(process.pid)))

    watcher = threading.Thread(target=look)
    watcher.start()
    said, _ = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{what} of {arguments} failed")
    return json.loads(said.splitlines()[-1]) | {"memory": memory}


def resident(pid: int) -> int:
    """Bytes of memory that a process and all that it started have for themselves; shared pages are shared out."""
    total = 0
    for one in _family(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def peak() -> int:
    """The most bytes of memory that this process had at a time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    module, name = sys.argv[1].split(":")
    value = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    print(json.dumps(value | {"peak_bytes": peak()}))
