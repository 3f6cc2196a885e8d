"""Several processes that fit one data set: started here, by Slurm, or by whatever else starts processes.

A program says `mlekit.distributed.initialize()` before anything else of JAX, opens its data, and passes them
through `mle.shard`. It is the same for one process and for a thousand:

    python program.py                                        one process
    python -m mlekit.distributed --processes 4 program.py    four on this machine
    srun python program.py                                   as many as Slurm starts, on any number of machines

What speaks between the processes is JAX's own distributed runtime. All of them must do the same: a fit, and
whatever passes over the data afterwards, such as sandwich standard errors, is to be asked for by every process.
What was computed may then be printed or saved by one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import click

#: How a process is told who it is: an address with a port, how many there are, and its number.
COORDINATOR, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
#: Variables that say that someone else started the processes, and that JAX knows how to ask.
STARTED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES")
#: Seconds that processes get to end by themselves; those that wait for one that has died do not.
GRACE = 2.0


def initialize() -> int:
    """Join the other processes, if there are any; to be called before anything else of JAX.

    Who they are comes from the environment variables `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`, which `python -m mlekit.distributed` sets, or from what `jax.distributed.initialize` finds
    out by itself: Slurm, Open MPI, or the pod of a TPU. Where none of them started this process, it stays alone.
    A process takes all GPUs that Slurm's `--gpus-per-task` gives it; otherwise JAX has each task of a machine take
    the GPU of its number.

    Returns:
        The number of this process, 0 for the first or only one.

    Raises:
        RuntimeError: JAX was used before, or the other processes cannot be reached.

    Example:
        >>> import mlekit.distributed
        >>> mlekit.distributed.initialize()
        0
    """
    import jax

    if all(name in os.environ for name in (COORDINATOR, COUNT, NUMBER)):
        jax.distributed.initialize(os.environ[COORDINATOR], int(os.environ[COUNT]), int(os.environ[NUMBER]))
    elif any(os.environ.get(name) not in (None, "", "1") for name in STARTED):
        jax.distributed.initialize(local_device_ids=_own_gpus())
    else:
        return 0
    return jax.process_index()


def _own_gpus() -> list[int] | None:
    """The GPUs of a task that sees no others, where JAX would look for the one with the task's number."""
    # To be deleted once JAX asks Slurm itself: https://github.com/jax-ml/jax/issues/16788
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(range(len(seen.split(",")))) if seen and "SLURM_GPUS_PER_TASK" in os.environ else None


def launch(program: Sequence[str], processes: int, threads: int | None = None) -> int:
    """Start so many processes of one Python program on this machine, and wait for them.

    When one fails, the others are stopped: they would wait for it for ever.

    Args:
        program: a Python file and its arguments.
        processes: how many.
        threads: cores for each; by default an equal share.

    Returns:
        The exit status: zero if all ended well, otherwise that of the first that did not.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = threads or max(1, len(cores) // processes)
    running = []
    for number in range(processes):
        known = {COORDINATOR: coordinator, COUNT: str(processes), NUMBER: str(number)}
        begin = number * share % max(1, len(cores))
        mine = (cores + cores)[begin : begin + share]
        running.append(subprocess.Popen([sys.executable, *program], env=os.environ | known))
        if mine:
            with contextlib.suppress(OSError):  # a machine may not allow it
                os.sched_setaffinity(running[-1].pid, mine)
    failed = 0
    # A signal that ends this process ends those that it started, too.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while None in (states := [process.poll() for process in running]):
            if failed := next(filter(None, states), 0):
                break
            time.sleep(0.05)
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return failed or next((process.returncode for process in running if process.returncode), 0)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-n", "--processes", type=click.IntRange(min=1), required=True, help="How many to start.")
@click.option("--threads", type=click.IntRange(min=1), help="Cores for each.  [default: an equal share]")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, metavar="PROGRAM.py [ARGUMENTS]...")
def main(processes: int, threads: int | None, program: tuple[str, ...]) -> None:
    """Start several processes of a Python program that fit one data set together."""
    status = launch(program, processes, threads)
    sys.exit(128 - status if status < 0 else status)


if __name__ == "__main__":
    main(prog_name="python -m mlekit.distributed")
