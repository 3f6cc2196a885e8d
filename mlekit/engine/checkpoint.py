"""Checkpoints of a long fit: the state of its search in a file of plain arrays, from which it goes on bit for bit.

state.checkpoint    a line of JSON: version, job, shapes, digest; then the arrays, as equinox writes them
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..core.atomic_file import atomic_write
from ..core.checks import check_count
from ..core.processes import check_same_in_all, raise_in_all
from ..core.trees import is_array
from .history import Recorder

#: Of this version every reader knows this and all before.
FORMAT = 1
SAME = 1e-4  #: relative difference of log-likelihoods of the same model at the same point, at most
NAME, LOCK = "state.checkpoint", ".lock"


class Checkpoint:
    """Where a fit saves its state, and how often.

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
    """Keeps what the loops of a search carry; one search may have several loops in a row.

    Args:
        path: the file.
        every: steps between two saves.
        job: what tells this fit from others, in plain JSON values.
        check: raises what went wrong with the data: what was computed of them shall not be kept.
    """

    def __init__(self, path: Path, every: int, job: Mapping[str, Any], check: Callable[[], None]) -> None:
        self._path, self.every, self._job, self._check = path, every, job, check
        self._recorders: list[Recorder] = []
        self._carries: list[PyTree] = []
        self._saved: list[list[Array]] = []
        self._points: list[list[Array]] = []
        self._begun, self._unsaved = -1, 0
        there = path.exists()
        content = path.read_bytes() if there else b""
        if there:
            self._saved, self._points = _parsed(content, path, job)
        self.digest = hashlib.sha256(content).hexdigest()

    def record(self, recorder: Recorder) -> None:
        """Save the points of a recorder, too; one that goes on behind those that were saved."""
        number = len(self._recorders)
        if number < len(self._points):
            recorder.resume(self._points[number])
        elif self._saved and not self._points:
            raise ValueError(f"history: {self._path} was written without it; leave it out, or remove the file")
        self._recorders.append(recorder)

    def begin(self, carry: PyTree) -> PyTree:
        """What the next loop begins with: what it carried when it was saved, if it was."""
        self._begun += 1
        arrays, rest = eqx.partition(carry, is_array)
        if self._begun < len(self._saved):
            leaves, treedef = jax.tree.flatten(arrays)
            saved = self._saved[self._begun]
            if [(a.shape, a.dtype) for a in leaves] != [(a.shape, a.dtype) for a in saved]:
                raise ValueError(
                    f"checkpoint: {self._path} is of another solver or model; remove it to start again"
                )
            arrays = jax.tree.unflatten(treedef, saved)
        self._carries.append(arrays)
        return eqx.combine(arrays, rest)

    def keep(self, carry: PyTree, steps: int, ended: bool) -> None:
        """Save what a loop carries, if it is time.

        Args:
            carry: that.
            steps: how many there were since the last call.
            ended: whether the loop has ended.
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


@contextmanager
def checkpointing(
    checkpoint: Checkpoint | str | os.PathLike[str], job: Mapping[str, Any], check: Callable[[], None]
) -> Iterator[Checkpointer]:
    """The keeper of a fit; while it works, another one on the same directory is refused.

    Raises:
        ValueError: a directory in use, that cannot be used, or that is another fit's.
        TypeError: no directory.
    """
    import filelock

    if isinstance(checkpoint, str | os.PathLike):
        checkpoint = Checkpoint(checkpoint)
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"checkpoint must be a directory or a mle.Checkpoint, got {type(checkpoint).__name__}")
    where = checkpoint.directory
    lock = filelock.FileLock(where / LOCK)
    with raise_in_all():
        try:
            where.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(f"checkpoint: another fit is using {where}") from None
        except OSError as error:
            raise ValueError(f"checkpoint: cannot use {where}: {error.strerror or error}") from error
    try:
        with raise_in_all():
            keeper = Checkpointer(where / NAME, checkpoint.every, job, check)
        check_same_in_all(keeper.digest, f"checkpoint: {where / NAME} is")
        yield keeper
    finally:
        lock.release()


def _write(path: Path, job: Mapping[str, Any], carries: list[PyTree], points: list[list[Array]]) -> None:
    """All or nothing: what was there before is replaced once the new file is whole."""
    arrays = [jax.tree.leaves(carry) for carry in carries], points
    content = io.BytesIO()
    eqx.tree_serialise_leaves(content, arrays)
    header = {
        "format": FORMAT,
        "job": job,
        "arrays": [[[_kind(leaf) for leaf in one] for one in part] for part in arrays],
        "sha256": hashlib.sha256(content.getvalue()).hexdigest(),
    }
    try:
        with atomic_write(path) as file:
            file.write(json.dumps(header).encode() + b"\n" + content.getvalue())
    except OSError as error:
        raise ValueError(f"checkpoint: cannot write to {path}: {error.strerror or error}") from error


def _close(there: Any, here: float) -> bool:
    """Whether two numbers are the same but for the rounding of another machine."""
    if not isinstance(there, float):
        return False
    return math.isclose(there, here, rel_tol=SAME) or (math.isnan(there) and math.isnan(here))


def _kind(leaf: Array) -> list[Any]:
    return [list(leaf.shape), leaf.dtype.name]


def _parsed(content: bytes, path: Path, job: Mapping[str, Any]) -> tuple[list[list[Array]], list[list[Array]]]:
    """The carries and the points of a file."""
    carries: list[list[Array]] = []
    points: list[list[Array]] = []
    header: dict[str, Any] = {}
    try:
        first, _, content = content.partition(b"\n")
        header = json.loads(first)
        written: dict[str, Any] = dict(header["job"])
        if type(header["format"]) is not int:
            raise ValueError("its format is no whole number")
        if header["format"] <= FORMAT:
            if hashlib.sha256(content).hexdigest() != header["sha256"]:
                raise ValueError("its digest is not that of its arrays")
            like = lambda kinds: [jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(name)) for shape, name in kinds]  # noqa: E731
            shapes = [[like(kinds) for kinds in part] for part in header["arrays"]]
            carries, points = eqx.tree_deserialise_leaves(io.BytesIO(content), shapes)
    except Exception as error:  # whatever a file that was not written here may lead to
        raise ValueError(f"checkpoint: {path} is damaged, remove it to start again: {error!r}") from error
    if header["format"] > FORMAT:
        raise ValueError(f"checkpoint: {path} was written by a later version of mlekit")
    for name, here in job.items():
        there = written.get(name)
        alike = _close(there, here) if isinstance(here, float) else there == here
        if not alike:
            raise ValueError(
                f"checkpoint: {path} is of another fit, whose {name} is {there}; here it is {here}: remove it to "
                "start again, or choose another directory"
            )
    return carries, points
