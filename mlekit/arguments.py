"""Checks of plain arguments, which several functions share."""

from __future__ import annotations


def known(given: str, names: tuple[str, ...], argument: str = "kind") -> None:
    """A `ValueError` unless an argument is one of the names it may have."""
    if given not in names:
        raise ValueError(f"{argument} must be one of {', '.join(names)}; got {given!r}")


def check_level(level: float) -> None:
    """A `ValueError` unless a confidence level lies between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {level!r}")
