"""The output directory of a run: a manifest, a lock, and Parquet parts that are there as a whole or not at all.

A part is written under a hidden name, brought to the disk and then renamed, so a run that is killed at any moment
leaves whole parts, and perhaps a hidden file that the next run removes. Every part says which job it belongs to,
which part it is and from how many rows it was made; its pages carry checksums. The manifest says which job the
directory belongs to. It is compared and never obeyed: no path and no number in it is used. Neither it nor a part
is ever read or written through a symbolic link.

The names of manifest and lock begin with an underscore, because readers of a directory of Parquet files pass over
such names.
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
STAMP = b"mlekit"  #: where the metadata of a part say what it is
WANTED = "want a directory that is new, empty or of the same job"
KIND = ArchiveKind("out", f"is no manifest of mlekit, {WANTED}", format=1)


class DamagedError(Exception):
    """A part that is there, and is not what was written."""


@dataclasses.dataclass(frozen=True)
class Part:
    """What a part that is there says of itself.

    Args:
        rows: rows of the table that its groups have.
        statuses: how often each status occurs.
    """

    rows: int
    statuses: collections.Counter[str]


@dataclasses.dataclass(frozen=True)
class Output:
    """A directory that belongs to a job; `claimed` gives one. It may be sent to other processes.

    Args:
        directory: where it is, for every process.
        shown: what messages call it.
        job: digest of the manifest.
    """

    directory: Path
    shown: Path
    job: str

    def path(self, number: int) -> Path:
        """Where a part is, or will be."""
        return self.directory / f"part-{number:05d}.parquet"

    def survey(self, n_parts: int) -> tuple[dict[int, Part], list[str]]:
        """The parts that are there, by their numbers, and the names of those that are damaged.

        Raises:
            ValueError: there is a Parquet file that is no part of the job.
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
        """Count how often a part was begun since the run began, in whichever process."""
        with usable("out", self.shown):
            file = os.open(
                self._begun(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
            )
            try:
                return os.write(file, b".") and os.fstat(file).st_size
            finally:
                os.close(file)

    def write(self, number: int, table: pyarrow.Table, rows: int) -> Part:
        """Write a part; one that is there makes way.

        Args:
            number: which part it is.
            table: the fits, one row a group.
            rows: rows of the source that its groups have.

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
        """What a part says of itself, when every page of it has been read."""
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
        except Exception as error:  # whatever a file that was not written here may lead to
            raise DamagedError from error
        return Part(rows, statuses)


@contextlib.contextmanager
def claimed(directory: Path, manifest: Mapping[str, Any]) -> Iterator[Output]:
    """The directory, made if it is not there, as that of one job and of this process alone.

    Another job that never finished a part has nothing to lose and makes way: most often it is this one, before a
    mistake was mended.

    Args:
        directory: where it is.
        manifest: what makes the job the job, in plain JSON values.

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
            # Said before anything is fitted in vain.
            if not os.access(directory, os.W_OK):
                raise ValueError(f"out: no permission to write to {directory}")
        lasting = {name: value for name, value in whole.items() if name not in LOCATIONS}
        yield Output(directory.resolve(), directory, hashlib.sha256(json.dumps(lasting).encode()).hexdigest())


def _others(directory: Path) -> list[str]:
    """What there is beside manifest, lock and hidden files."""
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
    """Text of a file that anybody may have written, as it may stand in a message."""
    return re.sub(r"[^\x20-\x7e]", "?", text if len(text) <= most else text[:most] + "...")
