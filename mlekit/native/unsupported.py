"""What the native compiler cannot compile."""

from __future__ import annotations

import os
from typing import Any

#: Folders whose files are nobody's own code.
LIBRARIES = (os.sep + "site-packages" + os.sep, os.sep + "mlekit" + os.sep)


class Unsupported(Exception):
    """Something that the native compiler cannot compile; XLA can.

    Args:
        what: the name of the primitive, or what is missing.
        where: the file and line that asked for it, if known.
    """

    def __init__(self, what: str, where: str = "") -> None:
        self.what, self.where = what, where
        super().__init__(f"{what} ({where})" if where else what)


def place_of(equation: Any) -> str:
    """The file and line of the user's code that an equation of a jaxpr comes from; "" if unknown."""
    traceback = getattr(equation.source_info, "traceback", None)
    frames = [] if traceback is None else traceback.frames
    for frame in frames:
        if not any(folder in frame.file_name for folder in LIBRARIES):
            return f"{frame.file_name}:{frame.line_num}"
    return ""
