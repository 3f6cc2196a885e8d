"""The graph of what is computed in every row: products and quotients in the order that costs least.

What depends on the row and on parameters alike is computed again and again. So in a product what depends on one
of them alone is multiplied first, and a number that is divided by several times is inverted once. Results may
differ from those of the jaxpr by rounding, and where a product of factors overflows that is no end result.
"""

from __future__ import annotations

from collections import Counter

from .graph import Graph
from .nodes import DATA, PARAMETERS, Node

BOTH = DATA | PARAMETERS
#: A product of more factors is one of those of later products.
MOST_FACTORS = 2


class RowGraph(Graph):
    """A graph whose products are ordered, where they depend on rows and parameters alike."""

    def __init__(self) -> None:
        super().__init__()
        self._products: dict[int, tuple[Node, ...]] = {}

    def mul(self, a: Node, b: Node) -> Node:
        """`a * b`."""
        if not (a.is_float and (a.depends | b.depends) == BOTH) or a.is_no_change or b.is_no_change:
            return super().mul(a, b)
        (p, d, m), (q, e, n) = self.parts(a), self.parts(b)
        return self._joined(self._product(p, q), self._product(d, e), self._product(m, n))

    def div(self, a: Node, b: Node) -> Node:
        """`a / b`, as a product with one over `b`."""
        if not (a.is_float and (a.depends | b.depends) == BOTH) or a.is_no_change:
            return super().div(a, b)
        p, d, m = self.parts(b)
        inverse: list[Node | None] = [None, None, None]
        one = self.constant(1, a.type)
        for i, (part, depends) in enumerate(((p, PARAMETERS), (d, DATA), (m, BOTH))):
            if part is not None:
                inverse[i] = self._inverse(part) if depends == BOTH else super().div(one, part)
        return self.mul(a, self._joined(*inverse))

    def neg(self, a: Node) -> Node:
        """`-a`, the sign with what depends on parameters alone."""
        if a.is_float and a.depends == BOTH:
            p, d, m = self.parts(a)
            if p is not None:
                return self._joined(super().neg(p), d, m)
        return super().neg(a)

    def parts(self, node: Node) -> tuple[Node | None, Node | None, Node | None]:
        """The factors of a product that depend on parameters alone, on the row alone, and on both."""
        if node.depends != BOTH:
            return (None, node, None) if node.depends == DATA else (node, None, None)
        if node.op == "neg":
            p, d, m = self.parts(node.args[0])
            minus = self.constant(-1, node.type) if p is None else super().neg(p)
            return minus, d, m
        if node.op != "mul" or node.type not in ("float32", "float64"):
            return None, None, node
        out: list[Node | None] = [None, None, None]
        for a in node.args:
            if a.depends == DATA:
                out[1] = a
            elif a.depends != BOTH:
                out[0] = a
        rest = [a for a in node.args if a.depends == BOTH]
        if len(rest) == 2:  # both depend on both
            return None, None, node
        if rest:
            p, d, m = self.parts(rest[0])
            out = [self._product(out[0], p), self._product(out[1], d), m]
        return out[0], out[1], out[2]

    def _product(self, a: Node | None, b: Node | None) -> Node | None:
        if a is None or b is None:
            return b if a is None else a
        if (a.depends | b.depends) != BOTH:
            return Graph.mul(self, a, b)
        for unit, other in ((a, b), (b, a)):
            if unit.is_constant and unit.value == 1:
                return other
        if a.depends != BOTH or b.depends != BOTH:
            return self._commutative("mul", a, b)
        return self._chain([*self._factors(a), *self._factors(b)])

    def _factors(self, node: Node) -> tuple[Node, ...]:
        return self._products.get(node.number, (node,))

    def _chain(self, factors: list[Node]) -> Node:
        """The product of these: squares first, then what was made last, so that many products begin alike."""
        known = tuple(sorted(factors, key=lambda n: -n.number))
        counts = Counter(known)
        while repeated := [node for node, count in counts.items() if count > 1]:
            for node in repeated:
                pairs, counts[node] = divmod(counts[node], 2)
                counts[self._product_of(node, node, (node, node))] += pairs
        first, *rest = sorted((node for node, count in counts.items() if count), key=lambda n: -n.number)
        for i, factor in enumerate(rest):
            whole = (*self._factors(first), *self._factors(factor)) if i + 1 < len(rest) else known
            first = self._product_of(first, factor, tuple(sorted(whole, key=lambda n: -n.number)))
        return first

    def _product_of(self, a: Node, b: Node, factors: tuple[Node, ...]) -> Node:
        """A node of a product, whose factors are remembered unless they are many."""
        product = self._commutative("mul", a, b)
        if len(factors) <= MOST_FACTORS:
            self._products.setdefault(product.number, factors)
        return product

    def _inverse(self, node: Node) -> Node:
        """One over it, as the product of one over each factor."""
        return self._chain([self.node("reciprocal", (factor,)) for factor in self._factors(node)])

    def _joined(self, p: Node | None, d: Node | None, m: Node | None) -> Node:
        """The product of three factors, the one of the parameters outermost."""
        inner = self._product(d, m)
        if p is not None and p.is_constant and p.value == -1 and inner is not None:
            return Graph.neg(self, inner)
        out = self._product(p, inner)
        assert out is not None
        return out
