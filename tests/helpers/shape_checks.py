"""Checks of shapes and dtypes at run time: beartype looks at those annotations that speak of arrays."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import beartype


def checked(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` with its arrays checked; what else it is given it checks itself, with messages for users."""
    try:
        hints = typing.get_type_hints(fn, include_extras=True)
    except (NameError, TypeError):  # names that are only known where a function was defined
        hints = {}
    fn.__annotations__ = {name: hint for name, hint in hints.items() if speaks_of_arrays(hint)}
    return beartype(fn)


def speaks_of_arrays(hint: Any) -> bool:
    """True if a shape or a dtype is part of an annotation."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(speaks_of_arrays, typing.get_args(hint)))
