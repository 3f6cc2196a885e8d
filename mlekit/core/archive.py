"""Archives: a header and arrays in one file, and no code; and directories that one process has for itself.

An archive is a zip file of members that are stored as they are:

    header.json         the number of the format, a digest of the other members, and what the writer adds
    arrays/<number>.npy the arrays in NumPy's own format, no objects among them
    <name>              other members, as bytes

A header may also be a JSON file by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .atomic_file import atomic_write
from .checks import first_line

Content = TypeVar("Content")

HEADER, ARRAYS = "header.json", "arrays/"
LARGEST_HEADER = 1 << 24  #: bytes of a header that is a file by itself
LAST_FORMAT = 1 << 16  #: no format has a larger number


@dataclasses.dataclass(frozen=True)
class ArchiveKind:
    """A kind of archives: how messages speak of them, and which formats are read.

    Args:
        argument: the user's argument that says where the file is; messages begin with it.
        damaged: what is said of a file that is none of this kind, after its name.
        format: the format that is written; it and all before are read.
    """

    argument: str
    damaged: str
    format: int


@dataclasses.dataclass(frozen=True)
class Archive:
    """The content of an archive.

    Args:
        header: names and numbers, in plain JSON values.
        arrays: the arrays.
        members: other members, by name.
    """

    header: Mapping[str, Any]
    arrays: Sequence[np.ndarray]
    members: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


class ArchiveError(ValueError):
    """A file that is damaged, of another kind, or of a later format."""


def write_archive(path: Path, kind: ArchiveKind, content: Archive) -> None:
    """Write an archive, whole or not at all.

    Args:
        path: its place; what is there makes way.
        kind: its kind, whose format the header gets.
        content: the content.
    """
    digest = _digest(content.arrays, content.members)
    header = {"format": kind.format, **content.header, "sha256": digest}
    with atomic_write(path) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(HEADER, json.dumps(header, indent=1))
        for i, array in enumerate(content.arrays):
            with archive.open(f"{ARRAYS}{i}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for name, value in content.members.items():
            archive.writestr(name, value)


def read_archive(path: Path, file: IO[bytes], kind: ArchiveKind, parse: Callable[[Archive], Content]) -> Content:
    """The content of an archive, parsed.

    Args:
        path: its place, for messages.
        file: the open file.
        kind: its kind.
        parse: a function of the content; an exception says that the file is damaged.

    Raises:
        ArchiveError: it is damaged, of another kind or of a later format.
    """
    with explain_damage(path, kind), zipfile.ZipFile(file) as archive:
        header = json.loads(archive.read(HEADER))
        _check_format(header, path, kind)
        return parse(_content(archive, header))


def write_header(path: Path, kind: ArchiveKind, header: Mapping[str, Any]) -> None:
    """Write a header as a file by itself, whole or not at all."""
    with atomic_write(path) as file:
        file.write((json.dumps({"format": kind.format, **header}, indent=2) + "\n").encode())


def read_header(path: Path, kind: ArchiveKind) -> dict[str, Any]:
    """A header that is a file by itself; no link is followed.

    Raises:
        ArchiveError: it is damaged, of another kind or of a later format.
        OSError: it cannot be read.
    """
    there = path.lstat()
    small = stat.S_ISREG(there.st_mode) and there.st_size <= LARGEST_HEADER
    content = path.read_bytes() if small else None
    with explain_damage(path, kind):
        if content is None:
            raise ValueError("no regular file, or too large")
        header = json.loads(content)
        _check_format(header, path, kind)
    return header


@contextlib.contextmanager
def explain_damage(path: Path, kind: ArchiveKind) -> Iterator[None]:
    """Any exception of parsing a file as an `ArchiveError`: what a file holds may come from anywhere."""
    try:
        yield
    except ArchiveError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ArchiveError(f"{kind.argument}: {path} {kind.damaged}: {reason}") from error


def _check_format(header: Any, path: Path, kind: ArchiveKind) -> None:
    number = header.get("format") if isinstance(header, dict) else None
    if type(number) is not int or not 0 < number <= LAST_FORMAT:
        raise ValueError("there is no header with the number of a format")
    if number > kind.format:
        raise ArchiveError(
            f"{kind.argument}: {path} is of format {number}, and this version of mlekit reads formats up to "
            f"{kind.format}: it was written by a later version"
        )


def _content(archive: zipfile.ZipFile, header: dict[str, Any]) -> Archive:
    names = archive.namelist()
    arrays = []
    for i in range(sum(name.startswith(ARRAYS) for name in names)):
        with archive.open(f"{ARRAYS}{i}.npy") as member:
            arrays.append(np.lib.format.read_array(member, allow_pickle=False))
    members = {name: archive.read(name) for name in names if name != HEADER and not name.startswith(ARRAYS)}
    # The first fits have no digest, only the checksums of the zip file, which are verified in any case.
    if "sha256" in header and header["sha256"] != _digest(arrays, members):
        raise ValueError("the digest is not that of the members")
    return Archive(header, arrays, members)


def _digest(arrays: Sequence[np.ndarray], members: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    for name in sorted(members):
        digest.update(f"{name} {len(members[name])};".encode() + members[name])
    return digest.hexdigest()


# Arrays of JAX, some of which NumPy's format has no name for.


def encode_array(leaf: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """An array as NumPy writes it; and its dtype, its kind of random keys and its repetitions, for the header."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf)), {"key": str(jax.random.key_impl(leaf))}
    array = np.asarray(leaf)
    kind: dict[str, Any] = {"dtype": array.dtype.name}
    if array.ndim and array.strides[0] == 0 and len(array) > 1:
        kind["repeated"], array = len(array), array[:1]
    if array.dtype.kind == "V":  # bfloat16 and others that are JAX's alone
        array = array.ravel().view(f"u{array.dtype.itemsize}").reshape(array.shape)
    return array, kind


def decode_array(array: np.ndarray, kind: Mapping[str, Any]) -> Any:
    """The array that `encode_array` was given; one that is repeated stays on the host."""
    if "key" in kind:
        return jax.random.wrap_key_data(jnp.asarray(array), impl=kind["key"])
    dtype = jnp.dtype(kind["dtype"])
    array = array.view(dtype) if array.dtype != dtype else array
    if "repeated" in kind:
        return np.broadcast_to(array, (int(kind["repeated"]), *array.shape[1:]))
    return jnp.asarray(array)


# Directories.


@contextlib.contextmanager
def usable(argument: str, place: Path) -> Iterator[None]:
    """Errors of the system as a `ValueError` of the argument that says where to write."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{argument}: cannot use {place}: {error.strerror or error}") from error


@contextlib.contextmanager
def locked(path: Path, in_use: str) -> Iterator[None]:
    """Hold a lock, a file, that one process has at a time; the system releases it when that ends, however it does.

    Args:
        path: the file, made if it is not there.
        in_use: the message where another process holds it.

    Raises:
        ValueError: another process holds it.
        OSError: the file cannot be made, or is a link.
    """
    import filelock

    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(in_use) from None
    try:
        yield
    finally:
        lock.release()
