"""Archives: what was written comes back; what is damaged, foreign or later is refused, and no code is run."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlekit.core import archive
from mlekit.core.archive import (
    Archive,
    ArchiveError,
    ArchiveKind,
    decode_array,
    encode_array,
    locked,
    read_archive,
    read_header,
    usable,
    write_archive,
    write_header,
)

KIND = ArchiveKind("path", "is no archive of a test", format=3)
CONTENT = Archive(
    {"name": "a", "numbers": [1, 2.5, None]},
    [np.arange(6.0).reshape(2, 3), np.zeros((0, 2)), np.array(True), np.arange(6, dtype=np.int8).reshape(2, 3).T],
    {"more.bin": b"\x00\x01"},
)


def read(path: Path, kind: ArchiveKind = KIND, parse: Any = lambda content: content) -> Any:
    with path.open("rb") as file:
        return read_archive(path, file, kind, parse)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_archive(tmp_path / "it", KIND, CONTENT)
    return tmp_path / "it"


def test_what_was_written_comes_back(path: Path) -> None:
    found = read(path)
    assert found.header == {"format": 3, **CONTENT.header, "sha256": found.header["sha256"]}
    assert found.members == CONTENT.members
    assert len(found.arrays) == len(CONTENT.arrays)
    for there, here in zip(found.arrays, CONTENT.arrays):
        np.testing.assert_array_equal(there, here)
        assert (there.dtype, there.shape) == (here.dtype, here.shape)
    assert os.listdir(path.parent) == ["it"]


def test_formats(path: Path) -> None:
    assert read(path, ArchiveKind("path", "", format=4)).header["format"] == 3
    with pytest.raises(
        ArchiveError, match=r"^path: .*it is of format 3, and this .* reads formats up to 2: it was"
    ):
        read(path, ArchiveKind("path", "", format=2))


def rewrite(path: Path, change: dict[str, bytes | None]) -> None:
    """Members with other content, or without those that are `None`."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()} | change
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            if content is not None:
                new.writestr(name, content)


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("code in a file was run",)


def test_what_is_damaged_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        header, other = json.loads(file.read("header.json")), file.read("arrays/1.npy")
    np.save(path.with_name("bomb"), np.array([Bomb()], object), allow_pickle=True)
    changes: list[dict[str, bytes | None]] = [
        {"header.json": None},
        {"header.json": b"{"},
        {"header.json": b"[" * 100_000},
        {"header.json": b"\xff\xfe"},
        {"arrays/1.npy": None},
        {"arrays/3.npy": None},
        {"arrays/0.npy": other},
        {"arrays/0.npy": path.with_name("bomb.npy").read_bytes()},
        {"more.bin": b"\x00\x02"},
        {"one more": b""},
    ]
    for number in (0, -1, True, "3", 1 << 99):
        changes.append({"header.json": json.dumps(header | {"format": number}).encode()})
    for change in changes:
        path.write_bytes(whole)
        rewrite(path, change)
        with pytest.raises(ArchiveError, match=r"^path: .*it is no archive of a test: \w+: "):
            read(path)
    for content in (b"", b"PK", whole[:-30], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match="is no archive of a test"):
            read(path)


def test_a_flipped_bit_changes_nothing_or_is_found(path: Path) -> None:
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 200):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found = read(path)
        except ArchiveError:
            continue
        assert found.members == CONTENT.members
        for there, here in zip(found.arrays, CONTENT.arrays, strict=True):
            np.testing.assert_array_equal(there, here)


def test_errors_of_parsing_are_damage(path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no archive of a test: KeyError: 'lacking'"):
        read(path, parse=lambda content: content.header["lacking"])


def test_archives_without_a_digest(path: Path) -> None:
    """The first fits have none."""
    with zipfile.ZipFile(path) as file:
        header = json.loads(file.read("header.json"))
    del header["sha256"]
    rewrite(path, {"header.json": json.dumps(header).encode()})
    assert read(path).members == CONTENT.members


def test_a_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_archive(path, KIND, Archive({"name": object()}, []))
    with pytest.raises(ValueError, match="Object arrays"):
        write_archive(path, KIND, Archive({}, [np.array([Bomb()], object)]))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["it"]


# Headers by themselves.


def test_a_header_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "it.json"
    write_header(path, KIND, {"b": 1, "a": [None]})
    assert list(read_header(path, KIND).items()) == [("format", 3), ("b", 1), ("a", [None])]
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ArchiveError, match="link is no archive of a test: ValueError: no regular file"):
        read_header(tmp_path / "link", KIND)
    monkeypatch.setattr(archive, "LARGEST_HEADER", 3)
    with pytest.raises(ArchiveError, match="too large"):
        read_header(path, KIND)
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "nowhere", KIND)


# Arrays.


@pytest.mark.parametrize(
    "leaf",
    [
        jnp.arange(3.0),
        jnp.asarray([0.5, -2], jnp.bfloat16),
        jnp.asarray(1, jnp.int8),
        np.broadcast_to(np.arange(2.0), (5, 2)),
        jax.random.key(3),
        jax.random.split(jax.random.key(3, impl="rbg"), 4),
    ],
    ids=lambda leaf: str(leaf.dtype),
)
def test_arrays_of_jax(leaf: Any, tmp_path: Path) -> None:
    array, kind = encode_array(leaf)
    assert len(array.ravel()) <= 16, "what is repeated is written once"
    write_archive(tmp_path / "it", KIND, Archive({"kind": kind}, [array]))
    found = read(tmp_path / "it", parse=lambda content: decode_array(content.arrays[0], content.header["kind"]))
    assert (found.dtype, found.shape) == (leaf.dtype, leaf.shape)
    assert bool(jnp.all(found == leaf))


# Directories.


def test_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", "taken"):
        with pytest.raises(ValueError, match=r"^taken$"), locked(tmp_path / "lock", "taken"):
            pass
        with locked(tmp_path / "other", "taken"):
            pass
    with locked(tmp_path / "lock", "taken"):
        pass


def test_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match=r"^out: cannot use .*file: Not a directory$"),
        usable("out", tmp_path / "file"),
    ):
        (tmp_path / "file" / "inside").mkdir()
