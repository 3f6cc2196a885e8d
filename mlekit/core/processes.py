"""Several processes that compute together: the same inputs, and errors that reach all of them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils


def gather_bytes(digest: bytes) -> np.ndarray:
    """The bytes of every process, one row each."""
    return np.asarray(multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))).reshape(-1, len(digest))


def check_same_in_all(text: str, what: str) -> None:
    """A `ValueError` where a text is not the same in all processes."""
    digests = gather_bytes(hashlib.sha256(text.encode()).digest())
    if np.any(digests != digests[0]):
        raise ValueError(f"{what} not the same in all {jax.process_count()} processes")


@contextlib.contextmanager
def raise_in_all() -> Iterator[None]:
    """Makes an error in one process an error in all, so that none waits for another for ever."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    if jax.process_count() > 1:
        flags = multihost_utils.process_allgather(np.array(failed is not None))
        if failed is None and np.any(flags):
            raise ValueError(f"process {int(np.argmax(flags))} failed, and says why")
    if failed is not None:
        raise failed
