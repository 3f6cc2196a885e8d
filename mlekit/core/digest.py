"""Digests of models that are the same in every process: of their source text and of the values in them."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from .trees import holds_keys, is_array

#: Attributes made of hashes, which differ from process to process.
HASHED = ("_hash", "_key")
OWN = __name__.partition(".")[0]  #: the name of this package
#: Attributes of our classes that had another name when the first checkpoints were written, whose digests are kept.
FORMER = {("Leaf", "frozen"): "held"}
#: Attributes that came later and say nothing of a model.
LATER = {("Parameters", "active")}


def digest_of(*things: Any) -> str:
    """A digest that is the same in every process where the same functions and values are given.

    Of a function it sees the source text, or the compiled code where there is no text, what it closes over and its
    default arguments; of an array every number. What a function looks up in its module it does not see, and a
    function of mlekit is known by its name, which lasts from version to version.

    Args:
        things: functions, PyTrees of arrays and numbers, constraints, solvers.

    Example:
        >>> shift = lambda by: lambda x: x + by
        >>> digest_of(shift(1)) == digest_of(shift(1)), digest_of(shift(1)) == digest_of(shift(2))
        (True, False)
    """
    digest = hashlib.sha256()
    for _, text, n_parts in _walk(things, set()):
        digest.update(f"{text} {n_parts};".encode())
    return digest.hexdigest()


def _walk(thing: Any, above: set[int]) -> Iterator[tuple[Any, str, int]]:
    """A thing and all its parts, each with its text and the number of its own parts.

    Functions may close over themselves: `above` holds the ids of the wholes of a thing.
    """
    if id(thing) not in above:
        text, parts = _text_and_parts(thing)
        yield thing, text, len(parts)
        for part in parts:
            yield from _walk(part, above | {id(thing)})


def _text_and_parts(thing: Any) -> tuple[str, list[Any]]:
    """The text of a thing itself, and its parts."""
    kind = type(thing).__qualname__
    if hasattr(thing, "__wrapped__"):  # by jax.jit, among others
        return kind, [thing.__wrapped__]
    if isinstance(thing, functools.partial):
        return kind, [thing.func, thing.args, thing.keywords]
    if isinstance(thing, types.MethodType):
        return kind, [thing.__func__, thing.__self__]
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        text = thing.__qualname__ if is_own(thing) else _source(thing)
        return text, [*cells, thing.__defaults__, thing.__kwdefaults__]
    if isinstance(thing, dict):
        return kind, [part for pair in thing.items() for part in pair]
    if isinstance(thing, list | tuple):
        return kind, list(thing)
    if is_array(thing):
        array = np.asarray(jax.random.key_data(thing) if holds_keys(thing) else thing)
        return f"{array.dtype} {array.shape} {array.tobytes().hex()}", []
    if isinstance(thing, type | types.ModuleType):
        return thing.__name__, []
    if getattr(thing, "__dict__", None):
        kept = {
            name: part for name, part in vars(thing).items() if name not in HASHED and (kind, name) not in LATER
        }
        return kind, [{FORMER.get((kind, name), name): part for name, part in kept.items()}]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing)), []


def is_own(function: types.FunctionType) -> bool:
    """True of a function of this package."""
    return (function.__module__ or "").partition(".")[0] == OWN


def holds_own(thing: Any) -> bool:
    """True if a function of this package is among the parts of a thing."""
    return any(isinstance(part, types.FunctionType) and is_own(part) for part, _, _ in _walk(thing, set()))


def _source(function: types.FunctionType) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = function.__code__
        return f"{code.co_code.hex()} {code.co_names} {[c for c in code.co_consts if not inspect.iscode(c)]}"
