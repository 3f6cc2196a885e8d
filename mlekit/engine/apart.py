"""A chunk of which some data set raises: computed piece by piece, until every data set that raises is alone.

A compiled program ends with an exception that a log-density raises, and takes all other data sets with it. What
raised is then run again in halves, and their halves, by the same program: so nothing is compiled, and the others
are bit for bit what they would be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core.runtime_errors import RUNTIME_ERRORS, Raised, quiet, raised
from ..likelihood.ragged import Chunk


def run_apart(
    run: Callable[[Chunk, PyTree], Any], chunk: Chunk, arrays: PyTree, shapes: PyTree
) -> tuple[Any, Raised]:
    """What `run` gives for a chunk that it cannot run as a whole, and what those data sets raised that fail alone.

    Of these it is NaN, or zero where numbers are whole.

    Args:
        run: `run(chunk, arrays)` for any part of the chunk, on the host: arrays with a leading axis of data sets,
            and numbers that add up.
        chunk: the data sets.
        arrays: arrays with a leading axis of data sets.
        shapes: of what it gives.
    """
    out = jax.tree.map(unknown, shapes)
    places = np.arange(chunk.n_sets)
    lost: Raised = {}

    def compute(members: np.ndarray) -> None:
        index = members[np.minimum(places, len(members) - 1)]
        here = run(chunk.of(index, len(members)), jax.tree.map(lambda leaf: leaf[index], arrays))
        for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(here), strict=True):
            if whole.ndim:
                whole[members] = part[: len(members)]
            else:
                whole += part

    with quiet():
        waiting = np.array_split(np.arange(int(chunk.count)), 2)
        while waiting:
            members = waiting.pop()
            if not len(members):
                continue
            try:
                compute(members)
            except RUNTIME_ERRORS as error:
                said = raised(error)
                if len(members) == 1:
                    lost[int(members[0])] = said
                else:
                    waiting += np.array_split(members, 2)
    return out, lost


def unknown(shape: Any) -> np.ndarray:
    """An array of this shape that says nothing: NaN, or zero where numbers are whole, and where they add up."""
    missing = jnp.nan if shape.shape and jnp.issubdtype(shape.dtype, jnp.inexact) else 0
    return np.full(shape.shape, missing, shape.dtype)
