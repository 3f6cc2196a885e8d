"""Several processes that compute together: the same inputs, and errors that reach all of them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils


def gather_bytes(digest: bytes) -> np.ndarray:
    """What every process says, one row each."""
    return np.asarray(multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))).reshape(-1, len(digest))


def check_same_in_all(text: str, what: str) -> None:
    """A `ValueError` where processes do not have the same."""
    every = gather_bytes(hashlib.sha256(text.encode()).digest())
    if np.any(every != every[0]):
        raise ValueError(f"{what} not the same in all {jax.process_count()} processes")


@contextlib.contextmanager
def raise_in_all() -> Iterator[None]:
    """What goes wrong inside in one process is an error in all, so that none waits for another for ever."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    if jax.process_count() > 1:
        said = multihost_utils.process_allgather(np.array(failed is not None))
        if failed is None and np.any(said):
            raise ValueError(f"process {int(np.argmax(said))} failed, and says why")
    if failed is not None:
        raise failed
