"""Checkpoints of a long fit: the state of its search in an archive, from which it goes on bit for bit.

state.checkpoint    an archive whose header says of which fit it is and of what dtype each array is
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ..core.archive import (
    Archive,
    ArchiveKind,
    decode_array,
    encode_array,
    explain_damage,
    locked,
    read_archive,
    usable,
    write_archive,
)
from ..core.checks import check_count
from ..core.processes import check_same_in_all, raise_in_all
from ..core.trees import is_array
from .history import Recorder

KIND = ArchiveKind("checkpoint", "is damaged, remove it to start again", format=2)
SAME = 1e-4  #: relative difference of log-likelihoods of the same model at the same point, at most
NAME, LOCK = "state.checkpoint", ".lock"


class Checkpoint:
    """A directory where a fit saves its state, and how often.

    A fit that is asked for once more goes on from there and ends with the same numbers, bit for bit, as one that
    was never stopped. The file holds arrays and names, and no code. It stays when the fit has ended, and then the
    same call returns at once.

    Args:
        directory: made if it is not there; of one fit alone. Several processes want one that all of them see.
        every: steps of the solver between two saves; a step is a pass over the data, or a few.

    Raises:
        ValueError: `every` below one.

    Example:
        >>> import os, tempfile, jax.numpy as jnp, mlekit as mle
        >>> density = lambda mean, x: -0.5 * (x - mean) ** 2
        >>> directory = tempfile.mkdtemp()
        >>> data = jnp.array([1.0, 2.0, 6.0])
        >>> fit = mle.fit(density, 0.0, data, checkpoint=mle.Checkpoint(directory, every=5))
        >>> print(fit.params, sorted(os.listdir(directory)))
        3.0 ['.lock', 'state.checkpoint']
    """

    def __init__(self, directory: str | os.PathLike[str], every: int = 1) -> None:
        check_count(every, "every")
        self.directory, self.every = Path(directory), every


class Checkpointer:
    """Saves the carry of each loop of a search; one search may have several loops in a row.

    Args:
        path: the file.
        every: steps between two saves.
        job: names and values that tell this fit from others, in plain JSON values.
        check: raises an error of reading the data, after which no state may be saved.
        renewed: names in `job` whose values were computed in another way when the first format was written.
    """

    def __init__(
        self, path: Path, every: int, job: Mapping[str, Any], check: Callable[[], None], renewed: tuple[str, ...]
    ) -> None:
        self._path, self.every, self._job, self._check = path, every, job, check
        self._recorders: list[Recorder] = []
        self._carries: list[PyTree] = []
        self._saved: list[list[Array]] = []
        self._points: list[list[Array]] = []
        self._begun, self._unsaved = -1, 0
        there = path.exists()
        content = path.read_bytes() if there else b""
        if there:
            _, self._saved, self._points = _read(content, path, job, renewed)
        self.digest = hashlib.sha256(content).hexdigest()

    def record(self, recorder: Recorder) -> None:
        """Save the points of a recorder, too, which goes on after those that were saved."""
        number = len(self._recorders)
        if number < len(self._points):
            recorder.resume(self._points[number])
        elif self._saved and not self._points:
            raise ValueError(f"history: {self._path} was written without it; leave it out, or remove the file")
        self._recorders.append(recorder)

    def begin(self, carry: PyTree) -> PyTree:
        """The carry that the next loop begins with: the saved one, if there is one."""
        self._begun += 1
        arrays, rest = eqx.partition(carry, is_array)
        if self._begun < len(self._saved):
            leaves, treedef = jax.tree.flatten(arrays)
            saved = self._saved[self._begun]
            # A state that an earlier version saved lacks what later ones have added at its end.
            saved = [*saved, *leaves[len(saved) :]]
            if [(a.shape, a.dtype) for a in leaves] != [(a.shape, a.dtype) for a in saved]:
                raise ValueError(
                    f"checkpoint: {self._path} is of another solver or model; remove it to start again"
                )
            arrays = jax.tree.unflatten(treedef, saved)
        self._carries.append(arrays)
        return eqx.combine(arrays, rest)

    def keep(self, carry: PyTree, steps: int, ended: bool) -> None:
        """Save the carry of a loop, if it is time.

        Args:
            carry: the carry.
            steps: number of steps since the last call.
            ended: true if the loop has ended.
        """
        jax.block_until_ready(carry)
        self._check()
        self._carries[-1] = eqx.filter(carry, is_array)
        del self._saved[self._begun + 1 :]  # of loops that followed when this one ended elsewhere
        self._unsaved += steps
        if self._unsaved >= self.every or (ended and self._unsaved):
            self._unsaved = 0
            with raise_in_all():
                if jax.process_index() == 0:
                    _write(self._path, self._job, self._carries, [one.points for one in self._recorders])


@contextlib.contextmanager
def checkpointing(
    checkpoint: Checkpoint | str | os.PathLike[str],
    job: Mapping[str, Any],
    check: Callable[[], None],
    renewed: tuple[str, ...] = (),
) -> Iterator[Checkpointer]:
    """The checkpointer of a fit; while it works, another one in the same directory is refused.

    Args:
        checkpoint: where, and perhaps how often.
        job: as in `Checkpointer`, and so are the others.
        check: likewise.
        renewed: likewise.

    Raises:
        ValueError: a directory in use, that cannot be used, or that is another fit's.
        TypeError: no directory.
    """
    if isinstance(checkpoint, str | os.PathLike):
        checkpoint = Checkpoint(checkpoint)
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"checkpoint must be a directory or a mle.Checkpoint, got {type(checkpoint).__name__}")
    where = checkpoint.directory
    with contextlib.ExitStack() as held:
        with raise_in_all(), usable("checkpoint", where):
            where.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                held.enter_context(locked(where / LOCK, f"checkpoint: another fit is using {where}"))
        with raise_in_all():
            keeper = Checkpointer(where / NAME, checkpoint.every, job, check, renewed)
        check_same_in_all(keeper.digest, f"checkpoint: {where / NAME} is")
        yield keeper


class Saved(NamedTuple):
    """The content of a checkpoint: whose it is, the carry of each loop, and the points of each recorder."""

    job: dict[str, Any]
    carries: list[list[Any]]
    points: list[list[Any]]


def _write(path: Path, job: Mapping[str, Any], carries: list[PyTree], points: list[list[Array]]) -> None:
    """All or nothing: what was there before is replaced once the new file is whole."""
    parts = [jax.tree.leaves(carry) for carry in carries], points
    encoded = [[[encode_array(leaf) for leaf in leaves] for leaves in part] for part in parts]
    header = {"job": job, "arrays": [[[kind for _, kind in leaves] for leaves in part] for part in encoded]}
    arrays = [array for part in encoded for leaves in part for array, _ in leaves]
    with usable("checkpoint", path):
        write_archive(path, KIND, Archive(header, arrays))


def _parse(archive: Archive) -> Saved:
    kinds, arrays = archive.header["arrays"], iter(archive.arrays)
    carries, points = [[[decode_array(next(arrays), kind) for kind in one] for one in part] for part in kinds]
    if list(arrays):
        raise ValueError("there are more arrays than the header says")
    return Saved(dict(archive.header["job"]), carries, points)


def _parse_format_1(content: bytes) -> Saved:
    """Of the first format, before checkpoints were archives: a line of JSON, then the arrays one after another."""
    first, _, rest = content.partition(b"\n")
    header, file = json.loads(first), io.BytesIO(rest)
    if header["format"] != 1 or hashlib.sha256(rest).hexdigest() != header["sha256"]:
        raise ValueError("its format is not the first, or its digest is not that of its arrays")

    def read(shape: list[int], dtype: str) -> Any:
        found = decode_array(np.lib.format.read_array(file, allow_pickle=False), {"dtype": dtype})
        if found.shape != tuple(shape):
            raise ValueError("an array has another shape than the header says")
        return found

    carries, points = [[[read(*kind) for kind in leaves] for leaves in part] for part in header["arrays"]]
    return Saved(dict(header["job"]), carries, points)


def _close(there: Any, here: float) -> bool:
    """True if two numbers are the same but for the rounding of another machine."""
    if not isinstance(there, float):
        return False
    return math.isclose(there, here, rel_tol=SAME) or (math.isnan(there) and math.isnan(here))


def _read(content: bytes, path: Path, job: Mapping[str, Any], renewed: tuple[str, ...]) -> Saved:
    """The content of a file, if it is of the same fit."""
    if content.startswith(b"{"):
        with explain_damage(path, KIND):
            saved = _parse_format_1(content)
        job = {name: here for name, here in job.items() if name not in renewed}
    else:
        saved = read_archive(path, io.BytesIO(content), KIND, _parse)
    for name, here in job.items():
        there = saved.job.get(name)
        alike = _close(there, here) if isinstance(here, float) else there == here
        if not alike:
            # A digest says nothing to people.
            differs = "model is another one" if name == "model" else f"{name} is {there}; here it is {here}"
            raise ValueError(
                f"checkpoint: {path} is of another fit, whose {differs}: remove it to start again, or choose "
                "another directory"
            )
    return saved
