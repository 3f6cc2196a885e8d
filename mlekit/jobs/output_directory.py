"""The output directory of a job: a manifest, a lock, and Parquet parts, each written whole or not at all.

A part is written under a hidden name, flushed to the disk and then renamed, so a run that is killed at any moment
leaves whole parts, and perhaps a hidden file that the next run removes. The metadata of a part hold the digest of
its job, its number and its number of rows; its pages have checksums. The manifest tells the job from others. It is
only compared: no path and no number in it is used. No manifest and no part is read or written through a symbolic
link.

The names of manifest and lock begin with an underscore, because readers of a directory of Parquet files skip such
names.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.archive import ArchiveKind, locked, read_header, usable, write_header
from ..core.atomic_file import atomic_write
from ..core.status import Status

if TYPE_CHECKING:
    import pyarrow


MANIFEST = "_manifest.json"
LOCK = "_lock"
LOCATIONS = ("model", "table")  #: entries of the manifest that may change: a file that moved is the same file
STAMP = b"mlekit"  #: key of our entry in the metadata of a part
WANTED = "want a directory that is new, empty or of the same job"
KIND = ArchiveKind("out", f"is no manifest of mlekit, {WANTED}", format=1)


class DamagedError(Exception):
    """A part whose file is not as it was written."""


@dataclasses.dataclass(frozen=True)
class Part:
    """The totals of a finished part.

    Args:
        rows: number of rows of the table that its groups have.
        statuses: the count of each status.
    """

    rows: int
    statuses: collections.Counter[str]


@dataclasses.dataclass(frozen=True)
class Output:
    """The directory of a job, as `claimed` yields it. It may be sent to other processes.

    Args:
        directory: its absolute path.
        shown: its path as the user gave it, for messages.
        job: digest of the manifest.
    """

    directory: Path
    shown: Path
    job: str

    def path(self, number: int) -> Path:
        """The path of a part."""
        return self.directory / f"part-{number:05d}.parquet"

    def survey(self, n_parts: int) -> tuple[dict[int, Part], list[str]]:
        """The finished parts by their numbers, and the names of the damaged ones.

        Raises:
            ValueError: a Parquet file in the directory is no part of the job.
        """
        parts, damaged = {}, []
        with usable("out", self.shown):
            names = {path.name for path in self.directory.iterdir() if path.suffix == ".parquet"}
            for number in range(n_parts):
                path = self.path(number)
                if path.name in names:
                    names.remove(path.name)
                    try:
                        parts[number] = self._read(number)
                    except DamagedError:
                        damaged.append(path.name)
        if names:
            raise ValueError(f"out: {self.shown} holds {min(names)}, which is no part of this job; move it")
        return parts, damaged

    def begin(self, number: int) -> int:
        """Note that a part is begun; returns how often it was begun since the run began, by all processes."""
        with usable("out", self.shown):
            file = os.open(
                self._begun(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
            )
            try:
                return os.write(file, b".") and os.fstat(file).st_size
            finally:
                os.close(file)

    def write(self, number: int, table: pyarrow.Table, rows: int) -> Part:
        """Write a part; an earlier file makes way.

        Args:
            number: its number.
            table: the fits, one row a group.
            rows: number of rows of the table that its groups have.

        Raises:
            ValueError: the disk is full, or the directory cannot be written to.
        """
        import pyarrow.parquet as pq

        stamp = {"job": self.job, "part": number, "groups": table.num_rows, "rows": rows}
        content = io.BytesIO()
        with usable("out", self.shown):
            stamped = table.replace_schema_metadata({STAMP: json.dumps(stamp)})
            pq.write_table(stamped, content, write_page_checksum=True)
            with atomic_write(self.path(number)) as file:
                file.write(content.getbuffer())
            self._begun(number).unlink(missing_ok=True)
        return Part(rows, collections.Counter(table["status"].to_pylist()))

    def _begun(self, number: int) -> Path:
        return self.directory / f".{self.path(number).name}.begun.partial"

    def _read(self, number: int) -> Part:
        """The totals of a part, after every page of it has been read."""
        import pyarrow.parquet as pq

        try:
            path = self.path(number)
            if not stat.S_ISREG(path.lstat().st_mode):
                raise DamagedError
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                table = file.read()
            stamp = json.loads(table.schema.metadata[STAMP])
            statuses = collections.Counter(table["status"].to_pylist())
            rows = stamp.pop("rows")
            whole = stamp == {"job": self.job, "part": number, "groups": table.num_rows}
            if not (whole and type(rows) is int and statuses.keys() <= set(Status.__members__)):
                raise DamagedError
        except Exception as error:  # the file may come from anywhere
            raise DamagedError from error
        return Part(rows, statuses)


@contextlib.contextmanager
def claimed(directory: Path, manifest: Mapping[str, Any]) -> Iterator[Output]:
    """The directory of one job, made if it is not there, for this process alone.

    Another job that never finished a part has nothing to lose and makes way: most often it is this one, before a
    mistake was mended.

    Args:
        directory: its path.
        manifest: names and values that tell the job from others, in plain JSON values.

    Raises:
        ValueError: it cannot be used, belongs to another job, or another run writes to it.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"out: {directory} is a file, {WANTED}")
    with contextlib.ExitStack() as held:
        with usable("out", directory):
            directory.mkdir(parents=True, exist_ok=True)
            if (others := _others(directory)) and not os.path.lexists(directory / MANIFEST):
                raise ValueError(f"out: {directory} holds {others[0]} but no {MANIFEST}, {WANTED}")
            in_use = f"out: another run is writing to {directory}; wait until it ends, or choose another directory"
            held.enter_context(locked(directory / LOCK, in_use))
            for left in directory.glob(".*.partial"):
                left.unlink()
            whole = {"format": KIND.format, **manifest}
            if _others(directory):  # looked for again: another run may have ended meanwhile
                _compare(read_header(directory / MANIFEST, KIND), whole, directory)
            else:
                write_header(directory / MANIFEST, KIND, manifest)
            # Before anything is fitted that could not be written.
            if not os.access(directory, os.W_OK):
                raise ValueError(f"out: no permission to write to {directory}")
        lasting = {name: value for name, value in whole.items() if name not in LOCATIONS}
        yield Output(directory.resolve(), directory, hashlib.sha256(json.dumps(lasting).encode()).hexdigest())


def _others(directory: Path) -> list[str]:
    """Names in a directory other than manifest, lock and hidden files."""
    names = {path.name for path in directory.iterdir()} - {MANIFEST, LOCK}
    return sorted(name for name in names if not name.startswith("."))


def _compare(before: dict[str, Any], now: dict[str, Any], directory: Path) -> None:
    names = [name for name in {**before, **now} if name not in LOCATIONS]
    differing = [name for name in names if before.get(name) != now.get(name)]
    if differing:
        shown = "; ".join(_change(name, before.get(name), now.get(name)) for name in differing)
        raise ValueError(f"out: {directory} holds another job: {shown}; {WANTED}")


def _change(name: str, before: Any, now: Any) -> str:
    if name.endswith("_sha256"):
        return f"the content of the {name.removesuffix('_sha256').replace('_', ' ')} has changed"
    return f"{_brief(name)} was {_brief(json.dumps(before))} and is {_brief(json.dumps(now))}"


def _brief(text: str, most: int = 200) -> str:
    """Text that may come from anywhere, made fit for a message."""
    return re.sub(r"[^\x20-\x7e]", "?", text if len(text) <= most else text[:most] + "...")
