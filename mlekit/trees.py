"""PyTrees: which leaves are arrays, and what JAX shall not see."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, of JAX or of NumPy."""
    return isinstance(leaf, jax.Array | np.ndarray)


@jax.tree_util.register_static
class Held:
    """Something kept out of JAX's sight: a PyTree without leaves, equal to one that holds the same."""

    def __init__(self, it: Any) -> None:
        self.it = it
        leaves, treedef = jax.tree.flatten(it)
        self._key = (treedef, tuple(leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def repeat(leaf: Any, n_sets: int) -> Any:
    """One for each data set; arrays that are known take no further memory."""
    if isinstance(leaf, jax.core.Tracer):
        return jnp.broadcast_to(leaf, (n_sets, *leaf.shape))
    return np.broadcast_to(np.asarray(leaf), (n_sets, *np.shape(leaf)))
