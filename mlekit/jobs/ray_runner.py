"""The Ray runner: Ray Data hands the parts to workers on many machines, which fit and write them.

Where the rows of every group lie together, a worker reads the rows of its parts by itself. Elsewhere tasks read
the table and add a column with the number of each row's part, and a sort by it brings the rows of a part
together. Ray's sort consists of tasks alone, which it repeats where they are lost. No worker starts before it has
ended: on a machine with few processors workers and tasks would wait for each other.

A part that is fitted twice, because its worker died, is the same part written again.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import logging
import os
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import ray.exceptions

from ..core import devices
from ..core.checks import first_line
from ..data.groups import group_by
from .job import Job, Outcome, RunnerError, part_bar
from .output_directory import Output, Part, claimed
from .partition import ROWS_AT_ONCE, Partition, key_codes, partition_rows

if TYPE_CHECKING:
    import pyarrow


PART = "__part__"  #: the column with the number of a row's part
#: Tasks of a worker: many, so that all workers end at about the same time; fewer than parts, for each costs time.
TASKS = 32
KEPT = 2  #: reads of row groups that a worker keeps, for the next part often begins in the same ones
#: Times that a part is begun, at most: Ray replaces a worker whenever it dies, and a model may kill them all.
ATTEMPTS = 5


def run(job: Job, address: str | None, workers: int | None, progress: bool) -> Outcome:
    """Fit the parts that the directory lacks.

    Args:
        job: the job.
        address: of the cluster; a local one is started unless it is given or there is one.
        workers: number of workers; one for each GPU, or else each CPU, unless given.
        progress: true to show a bar.

    Returns:
        The outcome, when every part is there.

    Raises:
        ValueError: a table that cannot be read, a directory that cannot be used or holds another job; and as
            `mle.fit_batch`.
        TypeError: as `mle.fit_batch`.
        RunnerError: workers died again and again, or rows of the table were not fitted.
    """
    source = job.source
    if source.is_csv:
        raise ValueError(f"table: {source.shown} is a .csv file, and the ray engine wants .parquet")
    group_by(source.read(job.needed, 0, 1), job.by, job.columns)  # says early what is wrong with the columns
    partition = partition_rows(source, job.by, job.part_sets)
    together = partition.first is not None
    described = {"engine": "ray", "groups": partition.groups, "parts by": "place" if together else "key"}
    with claimed(job.out, {**job.manifest, **described}) as output:
        parts, damaged = output.survey(partition.n_parts)
        statuses = sum((part.statuses for part in parts.values()), collections.Counter[str]())
        rows, found = sum(part.rows for part in parts.values()), statuses.total()
        begin = time.perf_counter()
        if rows < source.n_rows:
            missing = np.setdiff1d(np.arange(partition.n_parts), list(parts))
            with _cluster(address, workers), part_bar(max(partition.groups - found, 0), progress) as show:
                for done in _fit_parts(job, output, partition, missing, workers):
                    rows += done.rows
                    statuses += done.statuses
                    show(done.statuses)
        if rows != source.n_rows:
            raise RunnerError(f"{source.n_rows - rows:,} of {source.n_rows:,} rows were not fitted")
    seconds = time.perf_counter() - begin
    return Outcome(statuses.total() - found, found, seconds, statuses, tuple(damaged))


def _fit_parts(
    job: Job, output: Output, partition: Partition, missing: np.ndarray, workers: int | None
) -> Iterator[Part]:
    """Fit the missing parts and write them; yields the totals of each."""
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    size = workers or gpus or int(there["CPU"])
    try:
        if partition.first is None:
            parts = _shuffle_by_part(job, partition.n_parts, missing)
        else:
            blocks = min(len(missing), size * TASKS)
            parts = ray.data.from_items([{PART: int(number)} for number in missing], override_num_blocks=blocks)
        written = parts.map_batches(
            Worker,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(size, parts.num_blocks())),
            fn_constructor_args=(ray.cloudpickle.dumps((job, output, partition.first)), job.x64),
            num_cpus=None if gpus else 1,
            num_gpus=1 if gpus else None,
        )
        seen: set[int] = set()
        for row in written.iter_rows():
            said = json.loads(row["said"])
            if "frames" in said:
                raise _unpack_error(**said)
            if said["part"] in seen:
                raise RunnerError(f"part {said['part']} came in several pieces, of which the last is there alone")
            seen.add(said["part"])
            yield Part(said["rows"], collections.Counter(said["statuses"]))
    except ray.exceptions.RayError as error:
        raise RunnerError(
            f"the Ray cluster gave up: {first_line(error)} What is finished stays, and the same call goes on."
        ) from error


class Worker:
    """A process that fits and writes one part after another, all with the same compiled programs.

    Args:
        packed: the job, its output and the first row of each part, pickled: arrays must not be made before JAX's
            precision is set.
        x64: true to compute in float64.
    """

    def __init__(self, packed: bytes, x64: bool) -> None:
        os.environ["NPROC"] = "1"  # threads: there are as many workers as processors
        jax.config.update("jax_enable_x64", x64)
        self._job, self._output, self._first = ray.cloudpickle.loads(packed)
        self._row_groups = functools.lru_cache(KEPT)(self._job.source.content.row_groups)

    def __call__(self, block: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Fit the parts that a block names or holds; yields a row of JSON for each, its totals or its error."""
        import pyarrow as pa

        for number, rows in self._parts(block):
            yield pa.table({"said": [json.dumps(self._fit(number, rows))]})

    def _parts(self, block: pyarrow.Table) -> Iterator[tuple[int, Callable[[], pyarrow.Table]]]:
        if not block.num_rows:
            return
        if self._first is not None:
            for number in block[PART].to_pylist():
                here = self._first[number : number + 2].tolist()
                yield number, functools.partial(self._job.source.read, self._job.needed, *here, self._row_groups)
            return
        numbers, first = np.unique(block[PART].to_numpy(), return_index=True)
        for number, begin, end in zip(numbers.tolist(), first, [*first[1:], block.num_rows]):
            yield number, functools.partial(block.slice, begin, end - begin)

    def _fit(self, number: int, rows: Callable[[], pyarrow.Table]) -> dict[str, Any]:
        try:
            if self._output.begin(number) > ATTEMPTS:
                raise RunnerError(f"{ATTEMPTS} workers died of part {number}: of its model, or for want of memory")
            groups = group_by(rows(), self._job.by, self._job.columns)
            part = self._output.write(number, self._job.fit(groups), groups.n_rows)
        except Exception as error:  # not every exception can be pickled; most of JAX's cannot
            return _pack_error(error)
        return {"part": number, "rows": part.rows, "statuses": part.statuses}


#: Errors that the caller's process raises as they are; others are bugs, and become a `RuntimeError`.
KINDS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (ValueError, TypeError, RunnerError)}


def _pack_error(error: Exception) -> dict[str, Any]:
    kind = next((name for name, kind in KINDS.items() if isinstance(error, kind)), None)
    frames = [(f.filename, f.lineno, f.line) for f in traceback.extract_tb(error.__traceback__)]
    text = str(error) if kind else "".join(traceback.format_exception(error))
    return {"like": kind, "kind": type(error).__name__, "text": text, "frames": frames}


def _unpack_error(like: str | None, kind: str, text: str, frames: list[Any]) -> Exception:
    """An exception of a worker as one of this process, with its kind and its frames as attributes."""
    error: Any = KINDS.get(like or "", RuntimeError)(text)
    error.kind = kind
    error.frames = [traceback.FrameSummary(name, number, "", line=line) for name, number, line in frames]
    return error


def _shuffle_by_part(job: Job, n_parts: int, missing: np.ndarray) -> Any:
    """The rows of the missing parts, in blocks that hold whole parts."""
    ranges = [{"begin": begin, "end": end} for begin, end in job.source.ranges(ROWS_AT_ONCE)]
    tagged = ray.data.from_items(ranges, override_num_blocks=len(ranges)).map_batches(
        functools.partial(_tag_with_part, job.source, job.by, job.needed, n_parts, missing),
        batch_size=None,
        batch_format="pyarrow",
    )
    return tagged.sort(PART).materialize()


def _tag_with_part(
    source: Any,
    by: tuple[str, ...],
    needed: tuple[str, ...],
    n_parts: int,
    missing: np.ndarray,
    ranges: pyarrow.Table,
) -> Iterator[pyarrow.Table]:
    """The rows of missing parts, each with the number of its part."""
    import pyarrow as pa

    for row in ranges.to_pylist():
        table = source.read(needed, row["begin"], row["end"])
        parts = (key_codes(table.select(by)) % np.uint64(n_parts)).astype(np.int64)
        yield table.append_column(PART, pa.array(parts)).filter(pa.array(np.isin(parts, missing)))


@contextlib.contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[None]:
    """A connection to a cluster, and Ray Data quiet; a local cluster ends with it."""
    ours = not ray.is_initialized()
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not ours:
        if address is not None:
            raise ValueError("address: this process is connected to a Ray cluster already; leave it out")
    elif address is None:
        cpus = max(devices.cores(), workers or 1)
        with _environment(RAY_USAGE_STATS_ENABLED="0"), warnings.catch_warnings():
            # JAX warns of every fork (https://github.com/jax-ml/jax/pull/20734), and Ray forks only to run other
            # programs at once, which is harmless. Gone once Ray starts them with posix_spawn.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            ray.init("local", num_cpus=cpus, include_dashboard=False, **quiet)
    else:
        try:
            _check_reachable(address)
            ray.init(address, **quiet)
        except OSError as error:
            raise ValueError(
                f"address: no Ray cluster lets this process in at {address}: {first_line(error)} "
                "(A cluster that asks for a token wants RAY_AUTH_MODE=token in the environment.)"
            ) from error
    log, context = logging.getLogger("ray.data"), ray.data.DataContext.get_current()
    wanted = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "shuffle_strategy": ray.data.context.ShuffleStrategy.SORT_SHUFFLE_PULL_BASED,
    }
    before, level = {name: getattr(context, name) for name in wanted}, log.level
    try:
        log.setLevel(logging.ERROR)
        for name, value in wanted.items():
            setattr(context, name, value)
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)
        if ours:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """An `OSError` where nobody answers; Ray itself takes ten minutes to find out."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), timeout=10).close()


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables that are set for a while, unless they are set already."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
