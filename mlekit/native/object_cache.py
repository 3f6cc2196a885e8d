"""Object code kept on disk, in the user's own cache directory, and loaded from nowhere else."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

#: The environment variable that names another directory; if it is set and empty, nothing is kept.
VARIABLE = "MLEKIT_NATIVE_CACHE"
#: A file begins with a digest of the rest, so that a damaged one is found.
DIGEST = 32
#: Files at most; the oldest go.
MOST_FILES = 2000

_memory: dict[str, bytes] = {}


def directory() -> Path | None:
    """Where object code is kept; None if nowhere."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mlekit" / "native"


def remembered(key: str, make: Callable[[], bytes]) -> bytes:
    """The object code of this key: from memory, from disk, or made now and kept in both."""
    if key not in _memory:
        code = _read(key)
        if code is None:
            code = make()
            _write(key, code)
        _memory[key] = code
    return _memory[key]


def _read(key: str) -> bytes | None:
    folder = directory()
    if folder is None:
        return None
    try:
        descriptor = os.open(folder / key, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not (_is_private(os.fstat(file.fileno())) and _is_private(os.stat(folder))):
                return None
            content = file.read()
    except OSError:
        return None
    digest, code = content[:DIGEST], content[DIGEST:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def _write(key: str, code: bytes) -> None:
    folder = directory()
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(os.stat(folder)):
            return
        descriptor, name = tempfile.mkstemp(dir=folder)  # readable by its owner alone
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(name, folder / key)
        except BaseException:
            os.unlink(name)
            raise
        _tidy(folder)
    except OSError:  # a disk that is full or read-only keeps nobody from fitting
        return


def _tidy(folder: Path) -> None:
    files = list(folder.iterdir())
    if len(files) > MOST_FILES:
        for path in sorted(files, key=lambda path: path.stat().st_mtime)[: MOST_FILES // 4]:
            path.unlink(missing_ok=True)


def _is_private(found: os.stat_result) -> bool:
    """True if nobody but its owner, who is this user, may write it or, being a file, read it."""
    if os.name == "nt":
        return True
    others = stat.S_IRWXG | stat.S_IRWXO if stat.S_ISREG(found.st_mode) else stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid == os.getuid() and not found.st_mode & others
