"""Checks of plain arguments, which several functions share."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import equinox
import numpy as np

#: The folders of this package and of equinox: frames in them are not the user's.
INSIDE = (str(Path(__file__).parents[1]), str(Path(equinox.__file__).parent))


def check_choice(given: str, names: tuple[str, ...], argument: str = "kind") -> None:
    """A `ValueError` unless an argument is one of the names it may have."""
    if given not in names:
        raise ValueError(f"{argument} must be one of {', '.join(names)}; got {given!r}")


def check_count(count: Any, argument: str, least: int = 1) -> None:
    """A `ValueError` unless an argument is a whole number, and not below the least that makes sense."""
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < least:
        wanted = "positive whole number" if least == 1 else f"whole number of at least {least}"
        raise ValueError(f"{argument} must be a {wanted}, got {count!r}")


def check_level(level: float) -> None:
    """A `ValueError` unless a confidence level lies between 0 and 1, a `TypeError` for what is no number."""
    if level is None or isinstance(level, str):
        raise TypeError(f"level must be a number between 0 and 1, such as 0.95; got {level!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {level!r}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or what kind it is; JAX's go on for paragraphs."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def warn(message: str) -> None:
    """A warning that points at the user's own line, however deep it was found."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
