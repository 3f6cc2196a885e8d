"""What a compiled program raised while it ran, in words: an exception of Python code that it calls back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

#: The types of what a compiled program ends with. JAX says `JaxRuntimeError`, a `RuntimeError`; but a `ValueError`
#: where it was called before and its way back is the short one (seen with 0.10). `raised` tells others apart.
RUNTIME_ERRORS = (RuntimeError, ValueError)

#: What data sets raised, by their numbers.
Raised = dict[int, str]

#: Exceptions that say nothing of a data set: they end the program, as everywhere.
OTHERS = ("KeyboardInterrupt", "SystemExit", "GeneratorExit", "MemoryError")
#: Letters that are shown.
SHOWN = 500
TRACEBACK, EXHAUSTED = "Traceback (most recent call last)", "RESOURCE_EXHAUSTED"
#: Where Equinox's advice to programmers begins, below its message.
RULE = "\n-----"
#: Writes the traceback of every exception; a name that a later JAX does not know changes nothing.
LOGGER = "jax._src.callback"


def raised(error: Exception) -> str:
    """The exception of a callback, such as those by which Equinox, Optimistix and Diffrax raise.

    Args:
        error: what the program ended with.

    Raises:
        Exception: the error itself, where it is another one: memory that ran out, a device that failed, an
            interrupt, whatever is wrong before the program runs.
    """
    text = str(error)
    lines = text.partition(RULE)[0].splitlines()
    indented = [i for i, line in enumerate(lines) if line.startswith("  ")]
    if TRACEBACK not in text or EXHAUSTED in text or not indented:
        raise error
    # The frames of the traceback are indented, and the exception stands below the last of them. A message of
    # several lines may be indented itself.
    frames = [i for i in indented if lines[i].startswith('  File "')]
    below = frames[-1] + 1 if frames else indented[-1] + 1
    while below < len(lines) and lines[below].startswith("    "):
        below += 1
    name, colon, message = " ".join(" ".join(lines[below:]).split()).partition(": ")
    name = name.rpartition(".")[2].lstrip("_")
    if name.rstrip(":") in OTHERS:
        raise error
    said = name + colon + message
    return said if len(said) <= SHOWN else said[:SHOWN].rstrip() + " …"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """JAX writes no traceback of a callback that raises: where what raised once is run again, piece by piece."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger(LOGGER)
    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
