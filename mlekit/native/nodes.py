"""Nodes of the graph of a computation: each says what it depends on, parameters, the data of a row, or both."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

PARAMETERS, DATA = 1, 2  #: what a node may depend on; a mask
FLOATS = ("float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
#: The types of numbers; an `index` counts the turns of loops, the same for all elements of a vector.
TYPES = ("bool", "index", *INTEGERS, *FLOATS)


class Node:
    """A number that is computed, or an array of numbers in memory.

    Args:
        op: what computes it: the name of JAX's primitive where there is one.
        args: the nodes that it is computed from.
        attribute: what else it is made of: the value of a constant, the name of an input.
        type: NumPy's name of its type; `(type, size)` of an array.
        number: its place in the order in which nodes were made; arguments come before.
        depends: mask of `PARAMETERS` and `DATA`.
        inside: the regions, by number, whose variables it depends on.
    """

    __slots__ = ("args", "attribute", "depends", "inside", "number", "op", "type")

    def __init__(
        self,
        op: str,
        args: tuple[Node, ...],
        attribute: Any,
        type: Any,
        number: int,
        depends: int,
        inside: frozenset[int],
    ) -> None:
        self.op, self.args, self.attribute, self.type = op, args, attribute, type
        self.number, self.depends, self.inside = number, depends, inside

    @property
    def is_float(self) -> bool:
        """True if its type is one of floating-point numbers."""
        return self.type in FLOATS

    @property
    def is_constant(self) -> bool:
        """True if its value is known."""
        return self.op == "constant"

    @property
    def value(self) -> Any:
        """The value of a constant, a NumPy scalar; None of any other node."""
        return self.attribute[0].value if self.op == "constant" else None

    @property
    def is_no_change(self) -> bool:
        """True for the zero of a direction that nothing moves along; see `Graph.no_change`."""
        return self.op == "constant" and self.attribute[1]

    def __repr__(self) -> str:
        return f"%{self.number} = {self.op} {[a.number for a in self.args]} {self.attribute or ''} {self.type}"


class Bits:
    """A constant that equals another one of the same bits."""

    __slots__ = ("_key", "value")

    def __init__(self, value: np.generic) -> None:
        self.value, self._key = value, value.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bits) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return repr(self.value)


@dataclasses.dataclass
class Region:
    """A loop: its variables, and the nodes that it computes in each turn.

    Args:
        variables: inputs that stand for the indices, or for what is carried from turn to turn.
        results: what a turn computes: the element of an array, the term of a sum, the next carry.
        shape: of the indices; empty for `while`.
        condition: whether a `while` goes on.
    """

    variables: list[Node]
    results: list[Node]
    shape: tuple[int, ...] = ()
    condition: Node | None = None

    @property
    def inner(self) -> list[Node]:
        """All nodes that a turn needs."""
        return self.results if self.condition is None else [self.condition, *self.results]
