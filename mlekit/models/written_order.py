"""The order in which a user wrote the keys of `init`: JAX sorts those of dicts."""

from __future__ import annotations

from typing import Any

import jax
import jax.tree_util as jtu
from jaxtyping import PyTree

from ..core.trees import leaf_name
from .parameters import Leaf


class WrittenOrder:
    """The names of the leaves of `init` as they were written, for tables.

    All orders are equal: fits that differ in nothing else are of the same structure to JAX, and compile nothing.

    Args:
        init: the start, or a function that computes it, whose order is not known.

    Example:
        >>> WrittenOrder({"slope": 0.0, "level": {"b": 1.0, "a": 2.0}}).names
        ('slope', 'level.b', 'level.a')
    """

    def __init__(self, init: PyTree = None) -> None:
        self.names = tuple(leaf_name(path) for path in _leaves(init, ()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WrittenOrder)

    def __hash__(self) -> int:
        return hash(WrittenOrder)

    def __repr__(self) -> str:
        return f"WrittenOrder({', '.join(self.names)})"

    def entries(self, leaves: tuple[Leaf, ...]) -> list[int]:
        """The places of all scalar parameters in their flat order, in the order that was written."""
        rank = {name: i for i, name in enumerate(self.names)}
        starts, total = [], 0
        for leaf in leaves:
            starts.append(total)
            total += leaf.size
        order = sorted(range(len(leaves)), key=lambda i: rank.get(leaves[i].name, len(rank)))
        return [starts[i] + j for i in order for j in range(leaves[i].size)]


def _leaves(node: PyTree, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    if type(node) is dict:
        return [found for key, child in node.items() for found in _leaves(child, (*path, jtu.DictKey(key)))]
    children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)[0]
    if len(children) == 1 and not children[0][0]:
        return [path]
    return [found for tail, child in children for found in _leaves(child, (*path, *tail))]
