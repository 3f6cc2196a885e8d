"""The engine of many machines: Ray Data hands the parts to workers, and each writes the parts that it has fitted.

Where the rows of every group lie together, a worker reads the rows of its parts by itself. Elsewhere tasks read
the table and say to which part each row belongs, and a sort by that brings the rows of a part together. Ray's sort
consists of tasks alone, which it repeats where they are lost. No worker starts before it has ended: on a machine
with few processors workers and tasks would wait for each other.

A part that is fitted twice, because its worker died, is the same part written again.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
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
from .job import EngineError, Job, Outcome, part_bar
from .output_directory import Output, claimed
from .partition import ROWS_AT_ONCE, Partition, key_codes, partition_rows

if TYPE_CHECKING:
    import pyarrow


PART = "__part__"  #: the column that says to which part a row belongs
#: Tasks that a worker gets: many, so that all end at about the same time, and not one a part, for each costs time.
TASKS = 32
#: Reads that a worker remembers: parts that follow one another lie in the same row groups.
KEPT = 2
#: How often a part is begun. Ray replaces workers that die for ever, and a model may kill them all.
ATTEMPTS = 5


def run(job: Job, address: str | None, workers: int | None, progress: bool) -> Outcome:
    """Fit what the directory lacks.

    Args:
        job: what is to be fitted.
        address: of the cluster; a local one is started unless it is given or there is one.
        workers: how many; as many as there are GPUs or CPUs unless given.
        progress: whether to show a bar.

    Returns:
        The outcome, when every part is there.

    Raises:
        ValueError: a table that cannot be read, a directory that cannot be used or holds another job, or what
            `mle.fit_batch` raises.
        TypeError: what `mle.fit_batch` raises.
        EngineError: workers died again and again, or rows of the table were not fitted.
    """
    source = job.source
    if source.is_csv:
        raise ValueError(f"table: {source.shown} is a .csv file, and the ray engine wants .parquet")
    group_by(source.read(job.needed, 0, 1), job.by, job.columns)  # says early what is wrong with the columns
    arrangement = partition_rows(source, job.by, job.part_sets)
    together = arrangement.first is not None
    described = {"engine": "ray", "groups": arrangement.groups, "parts by": "place" if together else "key"}
    with claimed(job.out, {**job.manifest, **described}) as output:
        parts, damaged = output.survey(arrangement.n_parts)
        statuses = sum((part.statuses for part in parts.values()), collections.Counter[str]())
        rows, found = sum(part.rows for part in parts.values()), statuses.total()
        begin = time.perf_counter()
        if rows < source.n_rows:
            missing = np.setdiff1d(np.arange(arrangement.n_parts), list(parts))
            with _cluster(address, workers), part_bar(max(arrangement.groups - found, 0), progress) as show:
                for done in _fits(job, output, arrangement, missing, workers):
                    rows += done.rows
                    statuses += done.statuses
                    show(done.statuses)
        if rows != source.n_rows:
            raise EngineError(f"{source.n_rows - rows:,} of {source.n_rows:,} rows were not fitted")
    seconds = time.perf_counter() - begin
    return Outcome(statuses.total() - found, found, seconds, statuses, tuple(damaged))


@dataclasses.dataclass(frozen=True)
class Done:
    """What a worker says of a part that it has written."""

    rows: int
    statuses: collections.Counter[str]


def _fits(
    job: Job, output: Output, arrangement: Partition, missing: np.ndarray, workers: int | None
) -> Iterator[Done]:
    """Fit the missing parts and write them; says of each what became of it."""
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    size = workers or gpus or int(there["CPU"])
    try:
        if arrangement.first is None:
            parts = _shuffle_by_part(job, arrangement.n_parts, missing)
        else:
            blocks = min(len(missing), size * TASKS)
            parts = ray.data.from_items([{PART: int(number)} for number in missing], override_num_blocks=blocks)
        written = parts.map_batches(
            Fitter,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(size, parts.num_blocks())),
            fn_constructor_args=(ray.cloudpickle.dumps((job, output, arrangement.first)), job.x64),
            num_cpus=None if gpus else 1,
            num_gpus=1 if gpus else None,
        )
        seen: set[int] = set()
        for row in written.iter_rows():
            said = json.loads(row["said"])
            if "frames" in said:
                raise _unpacked(**said)
            if said["part"] in seen:
                raise EngineError(f"part {said['part']} came in several pieces, of which the last is there alone")
            seen.add(said["part"])
            yield Done(said["rows"], collections.Counter(said["statuses"]))
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"the Ray cluster gave up: {first_line(error)} What is finished stays, and the same call goes on."
        ) from error


class Fitter:
    """A worker: holds the compiled engine, and fits and writes one part after the other.

    Args:
        packed: the job, its output and the first row of each part, to be unpacked when JAX knows its precision.
        x64: whether to compute in float64.
    """

    def __init__(self, packed: bytes, x64: bool) -> None:
        os.environ["NPROC"] = "1"  # threads: there are as many workers as processors
        jax.config.update("jax_enable_x64", x64)
        self._job, self._output, self._first = ray.cloudpickle.loads(packed)
        self._row_groups = functools.lru_cache(KEPT)(self._job.source.content.row_groups)

    def __call__(self, block: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Fit the parts that a block names or holds; says of each what became of it."""
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
                raise EngineError(f"{ATTEMPTS} workers died of part {number}: of its model, or for want of memory")
            groups = group_by(rows(), self._job.by, self._job.columns)
            part = self._output.write(number, self._job.fit(groups), groups.n_rows)
        except Exception as error:  # which itself may be unable to travel, as some of JAX's
            return _packed(error)
        return {"part": number, "rows": part.rows, "statuses": part.statuses}


#: What the caller's mistakes are, and what workers die of.
KINDS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (ValueError, TypeError, EngineError)}


def _packed(error: Exception) -> dict[str, Any]:
    kind = next((name for name, kind in KINDS.items() if isinstance(error, kind)), None)
    frames = [(f.filename, f.lineno, f.line) for f in traceback.extract_tb(error.__traceback__)]
    text = str(error) if kind else "".join(traceback.format_exception(error))
    return {"like": kind, "kind": type(error).__name__, "text": text, "frames": frames}


def _unpacked(like: str | None, kind: str, text: str, frames: list[Any]) -> Exception:
    """An exception of a worker as one of this process, with what it was and where it was raised as attributes."""
    error: Any = KINDS.get(like or "", RuntimeError)(text)
    error.kind = kind
    error.frames = [traceback.FrameSummary(name, number, "", line=line) for name, number, line in frames]
    return error


def _shuffle_by_part(job: Job, n_parts: int, missing: np.ndarray) -> Any:
    """The rows of the missing parts, in blocks that hold whole parts."""
    ranges = [{"begin": begin, "end": end} for begin, end in job.source.ranges(ROWS_AT_ONCE)]
    tagged = ray.data.from_items(ranges, override_num_blocks=len(ranges)).map_batches(
        functools.partial(_tagged, job.source, job.by, job.needed, n_parts, missing),
        batch_size=None,
        batch_format="pyarrow",
    )
    return tagged.sort(PART).materialize()


def _tagged(
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
            # JAX does not know that what Ray forks begins another program at once.
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
    """An `OSError` where nobody answers, which Ray takes ten minutes to find out."""
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
