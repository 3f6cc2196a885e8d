"""The graph of a computation: typed scalar nodes, each made once, and the rules by which they are made.

What is equal is one node, and what is known is a constant. Only exact rules are applied, for every value,
infinities and NaN included: the graph computes what the jaxpr says. (Where a sum with zero is left out, the sign
of a zero may differ, as in XLA.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .nodes import FLOATS, INTEGERS, Bits, Node, Region

COMMUTATIVE = {"add", "mul", "max", "min", "and", "or", "xor", "eq", "ne"}
COMPARISONS = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
COMPARISONS |= {"eq": np.equal, "ne": np.not_equal}


class Graph:
    """Makes nodes, and knows them all."""

    def __init__(self) -> None:
        self._nodes: dict[Any, Node] = {}
        self._numbers = itertools.count()
        self.regions: dict[int, Region] = {}
        #: Whether known zeros are those of directions that nothing moves along.
        self.zeros_vanish = False

    def __len__(self) -> int:
        return len(self._nodes)

    # What is given.

    def input(self, name: Any, type: str, depends: int = 0, inside: frozenset[int] = frozenset()) -> Node:
        """A number that is given when the graph is run."""
        return self.node("input", (), name, type, depends, inside)

    def constant(self, value: Any, type: str) -> Node:
        """A number that is known."""
        if self.zeros_vanish and type in FLOATS and value == 0:
            return self.no_change(type)
        with np.errstate(all="ignore"):
            number = np.dtype("int64" if type == "index" else type).type(value)
        return self.node("constant", (), (Bits(number), False), type)

    def no_change(self, type: str) -> Node:
        """The zero of a direction that nothing moves along: what is multiplied by it stays zero.

        Forward mode knows such zeros before any number; an ordinary zero times infinity is NaN.
        """
        return self.node("constant", (), (Bits(np.dtype(type).type(0)), True), type)

    # What is computed.

    def node(
        self,
        op: str,
        args: Sequence[Node] = (),
        attribute: Any = None,
        type: Any = None,
        depends: int = 0,
        inside: frozenset[int] = frozenset(),
    ) -> Node:
        """The node, new unless there is an equal one; no rule is applied."""
        args = tuple(args)
        type = args[0].type if type is None else type
        key = (op, tuple(a.number for a in args), attribute, type)
        found = self._nodes.get(key)
        if found is None:
            for a in args:
                depends |= a.depends
                if a.inside:
                    inside = inside | a.inside
            found = self._nodes[key] = Node(op, args, attribute, type, next(self._numbers), depends, inside)
        return found

    def region_node(self, op: str, args: Sequence[Node], region: Region, type: Any, attribute: Any = None) -> Node:
        """A loop as a node; `new_variables` made the variables of its region."""
        (number,) = region.variables[0].attribute[1:2]
        depends, inside = 0, frozenset[int]()
        for inner in region.inner:
            depends |= inner.depends
            inside |= inner.inside
        node = self.node(op, args, (number, attribute), type, depends, inside - {number})
        node.inside -= {number}
        self.regions[number] = region
        return node

    def new_variables(self, types: Sequence[Any], depends: int = 0) -> list[Node]:
        """The variables of a region that is about to be made."""
        number = next(self._numbers)
        inside = frozenset([number])
        return [self.input(("variable", number, i), type, depends, inside) for i, type in enumerate(types)]

    # Rules.

    def neg(self, a: Node) -> Node:
        """`-a`."""
        if a.is_constant:
            return a if a.is_no_change else self._fold(np.negative, a.type, a)
        return a.args[0] if a.op == "neg" else self.node("neg", (a,))

    def add(self, a: Node, b: Node) -> Node:
        """`a + b`."""
        if a.type == "bool":
            return self.logic("or", a, b)
        if a.is_constant and b.is_constant and not (a.is_no_change or b.is_no_change):
            return self._fold(np.add, a.type, a, b)
        for zero, other in ((a, b), (b, a)):
            if zero.is_constant and zero.value == 0:
                return other
        if b.op == "neg":
            return self.sub(a, b.args[0])
        if a.op == "neg":
            return self.sub(b, a.args[0])
        return self._commutative("add", a, b)

    def sub(self, a: Node, b: Node) -> Node:
        """`a - b`."""
        if b.is_constant and b.value == 0:
            return a
        if a.is_no_change:
            return self.neg(b)
        if a.is_constant and b.is_constant:
            return self._fold(np.subtract, a.type, a, b)
        return self.add(a, b.args[0]) if b.op == "neg" else self.node("sub", (a, b))

    def mul(self, a: Node, b: Node) -> Node:
        """`a * b`; zero times a number that may be infinite or NaN is left as it is."""
        if a.type == "bool":
            return self.logic("and", a, b)
        if a.is_no_change or b.is_no_change:
            return a if a.is_no_change else b
        if a.is_constant and b.is_constant:
            return self._fold(np.multiply, a.type, a, b)
        if b.is_constant:
            a, b = b, a
        if a.is_constant:
            if a.value == 1:
                return b
            if a.value == 0 and not a.is_float:
                return a
            if a.is_float and a.value == -1:
                return self.neg(b)
        if a.op == "neg" and b.op == "neg":
            return self.mul(a.args[0], b.args[0])
        if a.is_float:
            for x, y in ((a, b), (b, a)):
                if x.op == "neg":
                    return self.neg(self.mul(x.args[0], y))
        return self._commutative("mul", a, b)

    def div(self, a: Node, b: Node) -> Node:
        """`a / b`; of integers rounded towards zero."""
        if a.is_no_change:
            return a
        if b.is_constant and b.value == 1:
            return a
        if not a.is_float:
            return self.node("div", (a, b))
        if a.is_constant and b.is_constant:
            return self._fold(np.divide, a.type, a, b)
        if b.is_constant and _is_power_of_two(b.value):
            return self.mul(self.constant(1 / b.value, b.type), a)
        for x, y in ((a, b), (b, a)):
            if x.op == "neg" and not y.is_constant:
                return self.neg(self.div(*(n.args[0] if n is x else n for n in (a, b))))
        return self.node("div", (a, b))

    def extreme(self, op: str, a: Node, b: Node) -> Node:
        """`max` or `min`; NaN if either is."""
        if a is b:
            return a
        if a.type == "bool":
            return self.logic("or" if op == "max" else "and", a, b)
        if a.is_constant and b.is_constant:
            return self._fold(np.maximum if op == "max" else np.minimum, a.type, a, b)
        return self._commutative(op, a, b)

    def compare(self, op: str, a: Node, b: Node) -> Node:
        """A comparison; of booleans `eq` and `ne` alone."""
        if a.is_constant and b.is_constant:
            return self._fold(COMPARISONS[op], "bool", a, b)
        if a.type == "bool":
            if op not in ("eq", "ne"):
                return self.compare(op, self.convert(a, "int32"), self.convert(b, "int32"))
            differ = self.logic("xor", a, b)
            return differ if op == "ne" else self.logic("not", differ)
        if a is b and not a.is_float:
            return self.constant(op in ("le", "ge", "eq"), "bool")
        if op in ("gt", "ge"):  # one form of each
            a, b, op = b, a, {"gt": "lt", "ge": "le"}[op]
        elif op in COMMUTATIVE and a.number > b.number:
            a, b = b, a
        return self.node(op, (a, b), None, "bool")

    def logic(self, op: str, *args: Node) -> Node:
        """`and`, `or`, `xor` and `not`, of booleans and bit by bit of integers."""
        if op == "not":
            (a,) = args
            if a.is_constant:
                return self._fold(np.invert, a.type, a)
            return a.args[0] if a.op == "not" else self.node("not", (a,))
        a, b = args
        if a.is_constant and b.is_constant:
            return self._fold(
                {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[op], a.type, a, b
            )
        if a.type == "bool":
            for known, other in ((a, b), (b, a)):
                if known.is_constant:
                    if op == "xor":
                        return self.logic("not", other) if known.value else other
                    return other if known.value == (op == "and") else known
        if a is b:
            return self.constant(0, a.type) if op == "xor" else a
        return self._commutative(op, a, b)

    def select(self, condition: Node, yes: Node, no: Node) -> Node:
        """`yes` where the condition holds, `no` elsewhere."""
        if condition.is_constant:
            return yes if condition.value else no
        if yes is no:
            return yes
        if yes.is_no_change or no.is_no_change:  # as numbers they are zeros
            yes, no = (self.constant(0, n.type) if n.is_no_change else n for n in (yes, no))
            if yes is no:
                return yes
        if condition.op == "not":
            return self.select(condition.args[0], no, yes)
        if yes.type == "bool":
            if yes.is_constant:
                return (
                    self.logic("or", condition, no)
                    if yes.value
                    else self.logic("and", self.logic("not", condition), no)
                )
            if no.is_constant:
                return (
                    self.logic("or", self.logic("not", condition), yes)
                    if no.value
                    else self.logic("and", condition, yes)
                )
        return self.node("select", (condition, yes, no), None, yes.type)

    def convert(self, a: Node, type: str) -> Node:
        """`a` as a number of another type; floats become integers as in XLA: cut off, NaN zero, ends kept."""
        if a.type == type:
            return a
        if a.is_constant and not (a.is_float and type in INTEGERS):
            if a.is_no_change and type in FLOATS:
                return self.no_change(type)
            return self.constant(a.value, type)
        if type == "bool":
            return self.compare("ne", a, self.constant(0, a.type))
        if a.type == "bool":
            return self.select(a, self.constant(1, type), self.constant(0, type))
        return self.node("convert", (a,), None, type)

    def integer_power(self, a: Node, exponent: int) -> Node:
        """`a**exponent`, by squaring as XLA does it."""
        if exponent == 0:
            return self.constant(1, a.type)
        if exponent < 0:
            return self.div(self.constant(1, a.type), self.integer_power(a, -exponent))
        result: Node | None = None
        while exponent:
            if exponent & 1:
                result = a if result is None else self.mul(result, a)
            exponent >>= 1
            a = self.mul(a, a) if exponent else a
        assert result is not None
        return result

    def function(self, op: str, *args: Node) -> Node:
        """A function of floats that has no rules, such as `exp`."""
        if op == "abs" and args[0].op in ("abs", "neg"):
            return self.function("abs", args[0].args[0])
        if args[0].is_constant and op in _EXACT:
            return self._fold(_EXACT[op], args[0].type, *args)
        if args[0].is_constant and op in _KNOWN and np.isfinite(args[0].value):
            return self.constant(_KNOWN[op](float(args[0].value)), args[0].type)
        return self.node(op, args)

    # Walks.

    def children(self, node: Node) -> Iterator[Node]:
        """The nodes that a node needs, those within its loop included."""
        yield from node.args
        if node.op in ("table", "fold", "while"):
            yield from self.regions[node.attribute[0]].inner

    def reach(self, roots: Iterable[Node]) -> list[Node]:
        """All nodes that the roots need, in order."""
        seen: dict[int, Node] = {}
        todo = list(roots)
        while todo:
            node = todo.pop()
            if node.number not in seen:
                seen[node.number] = node
                todo.extend(self.children(node))
        return [seen[number] for number in sorted(seen)]

    def _commutative(self, op: str, a: Node, b: Node) -> Node:
        if a.number > b.number:
            a, b = b, a
        if b.is_constant:
            a, b = b, a
        return self.node(op, (a, b))

    def _fold(self, fn: Any, type: str, *args: Node) -> Node:
        with np.errstate(all="ignore"):
            return self.constant(fn(*(a.value for a in args)), type)


#: Functions that NumPy and any machine compute exactly alike.
_EXACT = {"abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "sign": np.sign}
#: Functions of any number, correctly rounded as a rule, of which a known value is known.
_KNOWN = {"cos": math.cos, "sin": math.sin, "tanh": math.tanh, "atan": math.atan}


def _is_power_of_two(value: Any) -> bool:
    if not np.isfinite(value) or value == 0:
        return False
    return (
        abs(float(np.frexp(value)[0])) == 0.5 and np.isfinite(1 / value) and abs(1 / value) >= np.finfo(value).tiny
    )
