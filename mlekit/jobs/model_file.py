"""A model file: Python source that defines a log-density, a start and more."""

from __future__ import annotations

import functools
import linecache
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class ModelFile:
    """A model file, to be run in any process: it is code, and reading it runs it.

    The source is compiled here rather than imported: the code that runs is the code that was hashed, never a stale
    cache, and nothing is written beside the user's file. Only the source is sent to other processes.

    Args:
        path: where the file lies; modules beside it can be imported.
        source: its content.
        folder: the absolute path of its directory.
    """

    def __init__(self, path: Path, source: bytes, folder: str) -> None:
        self.path, self.source, self.folder = path, source, folder

    def __reduce__(self) -> Any:
        return ModelFile, (self.path, self.source, self.folder)

    def __call__(self) -> dict[str, Any]:
        """The names that the file defines, and their values.

        Raises:
            ValueError: a syntax error, no `log_density` or `init`, or `columns` that are no names.
        """
        return self._members

    @functools.cached_property
    def _members(self) -> dict[str, Any]:
        try:
            code = compile(self.source, str(self.path), "exec")
        except (SyntaxError, ValueError) as error:
            at = (
                f", line {error.lineno}: {(error.text or '').strip()}\n "
                if isinstance(error, SyntaxError)
                else ":"
            )
            said = error.msg if isinstance(error, SyntaxError) else error
            raise ValueError(f"{self.path}{at} {type(error).__name__}: {said}") from error
        # Tracebacks show the lines that ran, not those of a file of this name that lies elsewhere or has changed.
        lines = self.source.decode(errors="replace").splitlines(keepends=True)
        linecache.cache[str(self.path)] = len(self.source), None, lines, str(self.path)
        module = types.ModuleType("mlekit_model")
        module.__file__ = str(self.path)
        sys.modules[module.__name__] = module  # dataclasses look a class's module up
        if self.folder not in sys.path:
            sys.path.append(self.folder)
        exec(code, module.__dict__)
        members = vars(module)
        for name, wanted in (
            ("log_density", "a function log_density(params, obs) that returns the log-density of one observation"),
            ("init", "the starting params, or a function init(data) that computes them from one group"),
        ):
            if name not in members:
                raise ValueError(f"MODEL.py: {self.path} defines no {name}, want {wanted}")
        columns = members.get("columns")
        if isinstance(columns, str):
            members["columns"] = [columns]
        elif columns is not None and not (
            isinstance(columns, Sequence) and all(isinstance(name, str) for name in columns)
        ):
            raise ValueError(f"MODEL.py: columns is {columns!r}, want a list of column names")
        return members
