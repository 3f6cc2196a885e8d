"""The engine of one machine: fits a table's groups part after part, and goes on where it stopped.

A part is written under a hidden name and then renamed, so a file that has a part's name is a whole part. The
manifest beside them says which job they belong to. Its name begins with an underscore, because readers of a
directory of Parquet files pass over such names.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..fit import fit_batch
from ..groups import Groups
from ..report.progress import BatchProgress

if TYPE_CHECKING:
    import pyarrow

MANIFEST = "_manifest.json"
PART_SETS = 4096  #: groups a part; as many as the lanes take onto the device at a time
LOCATIONS = ("model", "table")  #: entries of the manifest that may change: a file that moved is the same file


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be fitted, and how the manifest describes it.

    Args:
        log_density: the model.
        init: starting `params`, or a function of one group's data.
        groups: the data sets.
        options: further arguments of `mle.fit_batch`.
        part_sets: groups a part.
        manifest: what makes this job this job, in plain JSON values.
    """

    log_density: Callable[..., Any]
    init: Any
    groups: Groups
    options: Mapping[str, Any]
    part_sets: int
    manifest: Mapping[str, Any]

    @property
    def parts(self) -> list[slice]:
        """The groups of each part."""
        size, n = self.part_sets, len(self.groups)
        return [slice(i * size, min((i + 1) * size, n)) for i in range(math.ceil(n / size))]

    def fit(self, part: slice) -> pyarrow.Table:
        """The fits of one part, one row a group."""
        groups = self.groups.take(part)
        return fit_batch(self.log_density, self.init, groups, **self.options).to_arrow()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run did.

    Args:
        fitted: groups fitted now.
        found: groups that an earlier run had finished.
        seconds: what fitting and writing took.
        statuses: how often each status occurs, all groups together.
    """

    fitted: int
    found: int
    seconds: float
    statuses: collections.Counter[str]


def run(job: Job, directory: Path) -> Outcome:
    """Fit what the directory lacks.

    Args:
        job: what is to be fitted.
        directory: where the parts are and go; made if it is not there.

    Returns:
        The outcome, when every part is there.

    Raises:
        ValueError: the directory cannot be used or holds another job.
    """
    try:
        _claim(directory, job.manifest)
        statuses: collections.Counter[str] = collections.Counter()
        missing = []
        for number, part in enumerate(job.parts):
            finished = _read(_path(directory, number), part.stop - part.start)
            if finished is None:
                missing.append((number, part))
            else:
                statuses.update(finished)
        found = statuses.total()
        begin = time.perf_counter()
        if missing:
            # Said before anything is fitted in vain.
            if not os.access(directory, os.W_OK):
                raise ValueError(f"--out: no permission to write to {directory}")
            with BatchProgress(len(job.groups) - found) as bar:
                for number, part in missing:
                    table = job.fit(part)
                    _write(table, _path(directory, number))
                    names = table["status"].to_pylist()
                    statuses.update(names)
                    bar.update(_codes(names))
    except OSError as error:
        raise ValueError(f"--out: cannot use {directory}: {error.strerror or error}") from error
    return Outcome(len(job.groups) - found, found, time.perf_counter() - begin, statuses)


def _path(directory: Path, number: int) -> Path:
    return directory / f"part-{number:05d}.parquet"


def _codes(names: list[str]) -> Any:
    import numpy as np

    from ..status import Status

    return np.array([Status[name] for name in names])


def _claim(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Make the directory this job's, unless it is; refuse it if it is another's.

    Another job that never finished a part has nothing to lose and makes way: most often it is this one, before
    a mistake was mended.
    """
    wanted = "want a directory that is new, empty or of the same job"
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"--out: {directory} is a file, {wanted}")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / MANIFEST
    others = sorted(e.name for e in directory.iterdir() if e.name != MANIFEST and not e.name.startswith("."))
    if path.exists() and others:
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise ValueError(f"--out: {path} is no manifest of mlekit, {wanted}") from None
        names = [name for name in {**before, **manifest} if name not in LOCATIONS]
        differing = [name for name in names if before.get(name) != manifest.get(name)]
        if differing:
            shown = "; ".join(_change(name, before.get(name), manifest.get(name)) for name in differing)
            raise ValueError(f"--out: {directory} holds another job: {shown}; {wanted}")
    elif others:
        raise ValueError(f"--out: {directory} holds {others[0]} but no {MANIFEST}, {wanted}")
    else:
        text = json.dumps(manifest, indent=2) + "\n"
        _replace(path, lambda hidden: hidden.write_text(text, encoding="utf-8"))


def _change(name: str, before: Any, now: Any) -> str:
    if name.endswith("_sha256"):
        return f"the content of the {name.removesuffix('_sha256')} file has changed"
    return f"{name} was {json.dumps(before)} and is {json.dumps(now)}"


def _read(path: Path, n_rows: int) -> list[str] | None:
    """The statuses of a finished part; `None` if it is not there, not whole, or of another length."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        return table["status"].to_pylist() if table.num_rows == n_rows else None
    except (FileNotFoundError, pa.ArrowException, KeyError, OSError):
        return None


def _write(table: pyarrow.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    _replace(path, lambda hidden: pq.write_table(table, hidden, write_page_checksum=True))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is there as a whole or not at all."""
    hidden = path.with_name(f".{path.name}.partial")
    try:
        write(hidden)
        os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
