"""One kind of error for files that cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..core.checks import first_line
from .columns import NotNumericError


class FileError(ValueError):
    """A file, or a table in several, that cannot be read.

    Args:
        name: its path, or the name of the table in messages.
        reason: why.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be read: {reason}")
        self.name, self.reason = name, reason


@contextlib.contextmanager
def explain_errors(name: str) -> Iterator[None]:
    """Any error of a reader of files as a `FileError`; one that names a file already stays as it is."""
    try:
        yield
    except (FileError, NotNumericError):
        raise
    except Exception as error:  # pyarrow raises a dozen kinds of them
        raise FileError(name, first_line(error)) from error
