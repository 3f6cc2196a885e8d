"""Arrays of nodes: small ones hold every element, large ones know how an element is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from .graph import Graph
from .nodes import INTEGERS, Node, Region

Index: TypeAlias = tuple[Node, ...]

#: What a reduction begins with.
NEUTRAL: dict[str, Callable[[str], Any]] = {
    "add": lambda type: 0,
    "mul": lambda type: 1,
    "max": lambda type: -math.inf if type.startswith("float") else np.iinfo(type).min,
    "min": lambda type: math.inf if type.startswith("float") else np.iinfo(type).max,
    "and": lambda type: True if type == "bool" else -1,
    "or": lambda type: False if type == "bool" else 0,
    "xor": lambda type: False if type == "bool" else 0,
}


class Lazy:
    """A large array: its elements are computed where they are asked for, or lie in memory.

    Args:
        shape: its shape.
        type: of its elements.
        at: the element at an index.
        cheap: True if an element may be asked for again and again.
    """

    def __init__(self, shape: Sequence[int], type: str, at: Callable[[Index], Node], cheap: bool = False) -> None:
        self.shape, self.type, self.at, self.cheap = tuple(shape), type, at, cheap

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


#: A NumPy array of nodes, or a large array.
Array: TypeAlias = "np.ndarray | Lazy"


def small(shape: Sequence[int], items: Iterable[Node]) -> np.ndarray:
    """A small array of these nodes."""
    flat = list(items)
    out = np.empty(len(flat), object)
    out[:] = flat
    return out.reshape(tuple(shape))


def type_of(array: Array, default: str) -> str:
    """The type of an array's elements; `default` if it has none."""
    if isinstance(array, Lazy):
        return array.type
    return array.reshape(-1)[0].type if array.size else default


class Store:
    """Makes arrays, in a graph: those of more than `limit` elements are large ones."""

    def __init__(self, graph: Graph, limit: int | None = None) -> None:
        self.graph, self.limit = graph, limit

    def is_large(self, shape: Sequence[int]) -> bool:
        """True if an array of this shape is a large one."""
        return self.limit is not None and math.prod(shape) > self.limit

    def constant(self, value: Any) -> Array:
        """An array of known numbers."""
        value = np.asarray(value)
        type = value.dtype.name
        nodes = small(value.shape, (self.graph.constant(v, type) for v in value.reshape(-1)))
        return self.packed(nodes, type) if self.is_large(value.shape) else nodes

    def make(self, shape: Sequence[int], type: str, at: Callable[[Index], Node], cheap: bool = False) -> Array:
        """The array whose element at an index is `at(index)`."""
        if self.is_large(shape):
            return Lazy(shape, type, at, cheap)
        count = lambda i: self.graph.constant(i, "index")  # noqa: E731
        return small(shape, (at(tuple(map(count, index))) for index in np.ndindex(*shape)))

    def element(self, array: Array, index: Index) -> Node:
        """One element; where an array has one element along an axis, that one, whatever the index."""
        if array.ndim == 0:
            return array.item() if isinstance(array, np.ndarray) else array.at(())
        if 1 in array.shape:
            first = self.graph.constant(0, "index")
            index = tuple(first if n == 1 else i for i, n in zip(index, array.shape, strict=True))
        if isinstance(array, Lazy):
            return array.at(index)
        if all(i.is_constant for i in index):
            return array[tuple(int(i.value) for i in index)]
        return self.packed(array, array.reshape(-1)[0].type).at(index)

    def packed(self, array: np.ndarray, type: str) -> Lazy:
        """A small array in memory."""
        flat = array.reshape(-1)
        memory = self.graph.node("pack", tuple(flat), None, (type, len(flat)))
        return self.in_memory(memory, array.shape)

    def in_memory(self, memory: Node, shape: Sequence[int]) -> Lazy:
        """The array whose elements lie in memory, in the order of C."""
        type = memory.type[0]

        def at(index: Index) -> Node:
            position = self.position(index, shape)
            if memory.op == "pack" and position.is_constant:
                return memory.args[int(position.value)]
            return self.graph.node("load", (memory, position), None, type)

        return Lazy(shape, type, at, cheap=True)

    def position(self, index: Index, shape: Sequence[int]) -> Node:
        """The place of an element in memory."""
        graph = self.graph
        place = graph.constant(0, "index")
        for i, n in zip(index, shape):
            place = graph.add(graph.mul(place, graph.constant(n, "index")), i)
        return place

    def settled(self, array: Array) -> Array:
        """The same array, its elements in memory if they are dear."""
        if not isinstance(array, Lazy) or array.cheap:
            return array
        if array.type in INTEGERS:  # those that count need no memory
            index = tuple(self.graph.new_variables(["index"] * array.ndim))
            array.cheap = uniform(self.graph, array.at(index)) is not None
            if array.cheap:
                return array
        return self.in_memory(self.memory(array), array.shape)

    def memory(self, array: Array) -> Node:
        """The array in memory."""
        graph = self.graph
        if isinstance(array, np.ndarray):
            return graph.node("pack", tuple(array.reshape(-1)), None, (array.reshape(-1)[0].type, array.size))
        variables = graph.new_variables(["index"] * array.ndim)
        body = array.at(tuple(variables))
        whole = self.position(tuple(variables), array.shape)
        if body.op == "load" and body.args[1] is whole and body.args[0].type == (array.type, array.size):
            return body.args[0]

        region = Region(variables, [body], array.shape)
        return graph.region_node("table", (), region, (array.type, array.size))

    def fold(self, op: str, shape: Sequence[int], type: str, term: Callable[[Index], Node]) -> Node:
        """The sum, or another reduction, of `term(index)` over all indices of a shape."""
        graph = self.graph
        start = graph.constant(NEUTRAL[op](type), type)
        if not self.is_large(shape):
            total = start
            for index in np.ndindex(*shape):
                here = term(tuple(graph.constant(i, "index") for i in index))
                total = here if total is start else combine(graph, op, total, here)
            return total

        variables = graph.new_variables(["index"] * len(shape))
        region = Region(variables, [term(tuple(variables))], tuple(shape))
        return graph.region_node("fold", (start,), region, type, op)

    def all_elements(self, array: Array) -> list[Node]:
        """The elements one by one, in the order of C."""
        if isinstance(array, np.ndarray):
            return list(array.reshape(-1))
        settled = self.settled(array)
        count = lambda i: self.graph.constant(i, "index")  # noqa: E731
        return [self.element(settled, tuple(map(count, index))) for index in np.ndindex(*array.shape)]


def combine(graph: Graph, op: str, a: Node, b: Node) -> Node:
    """`a` and `b` reduced to one."""
    if op in ("max", "min"):
        return graph.extreme(op, a, b)
    if op in ("and", "or", "xor"):
        return graph.logic(op, a, b)
    return graph.add(a, b) if op == "add" else graph.mul(a, b)


def uniform(graph: Graph, node: Node) -> Node | None:
    """The node as an index, if it is known or computed from the indices of loops alone."""
    if node.is_constant:
        return graph.constant(int(node.value), "index")
    if node.type == "index":
        return node
    if node.op == "convert" and (node.args[0].type == "index" or node.args[0].type in INTEGERS):
        return uniform(graph, node.args[0])
    if node.op in ("add", "sub", "mul", "div", "max", "min") and not node.is_float:
        parts = [uniform(graph, a) for a in node.args]
        if all(p is not None for p in parts):
            return graph.node(node.op, [p for p in parts if p is not None], None, "index")
    if node.op == "select" and not node.is_float and node.args[0].op in ("lt", "le", "eq", "ne"):
        parts = [uniform(graph, a) for a in (*node.args[0].args, *node.args[1:])]
        if all(p is not None for p in parts):
            known = [p for p in parts if p is not None]
            return graph.select(graph.compare(node.args[0].op, *known[:2]), *known[2:])
    return None
