r"""Sums over rows in a normal form: what is the same for all rows stands in front of them.

$$\sum_i p(\theta)\, m(x_i, \theta) = p(\theta) \sum_i m(x_i, \theta)$$

Products of sums are never multiplied out, for their terms may cancel. A sum becomes several sums only where no row
is looked at any more once the data are known, or in a matrix of second order, which has to point the way.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from .graph import Graph
from .nodes import DATA, PARAMETERS, Node

#: Powers of nodes that depend on rows, by their numbers, in order.
Monomial: TypeAlias = tuple[tuple[int, int], ...]
#: What stands in front, and the monomial behind it.
Term: TypeAlias = tuple[Node, Monomial]

#: A sum of more terms is left as it is.
MOST_TERMS = 12


@dataclasses.dataclass
class RowSums:
    """Sums over rows, and what is made of them.

    Args:
        outputs: the sums that were asked for, computed from parameters and from the nodes below.
        cores: what is summed in every evaluation.
        core_sums: the nodes that stand for these sums.
        data: what is summed once for each data set.
        data_sums: the nodes that stand for these sums.
        columns: what of the data alone the cores need.
        outer: what of the parameters alone the cores need.
    """

    outputs: list[Node]
    cores: list[Node]
    core_sums: list[Node]
    data: list[Node]
    data_sums: list[Node]
    columns: list[Node]
    outer: list[Node]


def row_sums(graph: Graph, rows: Sequence[Node], n_obs: Node, is_matrix: Sequence[bool]) -> RowSums:
    """The normal form of sums over rows.

    Args:
        graph: the graph.
        rows: what is to be summed.
        n_obs: the number of rows, or the sum of their weights.
        is_matrix: for each sum, whether it is an entry of a matrix of second order.
    """
    forms = Forms(graph)
    whole = [forms.of(row) for row in rows]
    if all(forms.is_free(terms) for terms in whole):
        chosen = whole
    else:
        together = [[forms.lump(row)] for row in rows]
        apart = [a if matrix else b for a, b, matrix in zip(whole, together, is_matrix)]
        chosen = min((together, apart), key=forms.cost)
    sums = forms.sums(chosen)
    outputs = []
    for terms in chosen:
        out: Node | None = None
        for front, monomial in terms:
            total = sums[monomial] if monomial else n_obs
            part = graph.mul(front, total)
            out = part if out is None else graph.add(out, part)
        outputs.append(graph.constant(0, rows[0].type) if out is None else out)
    every = [n for n in graph.reach(outputs) if n.op == "row_sum"]
    core_sums = [n for n in every if n.args[0].depends & PARAMETERS]
    data_sums = [n for n in every if not n.args[0].depends & PARAMETERS]
    cores = [n.args[0] for n in core_sums]
    columns, outer = frontier(graph, cores)
    return RowSums(outputs, cores, core_sums, [n.args[0] for n in data_sums], data_sums, columns, outer)


def frontier(graph: Graph, cores: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """What of the data alone, and what of the parameters alone, is needed to compute nodes of both."""
    columns: dict[int, Node] = {}
    outer: dict[int, Node] = {}
    seen: set[int] = set()
    todo = list(cores)
    while todo:
        node = todo.pop()
        if node.number in seen:
            continue
        seen.add(node.number)
        if node.inside or isinstance(node.type, tuple) or node.type == "index" or node.op == "while":
            todo.extend(graph.children(node))
        elif node.depends == DATA:
            columns[node.number] = node
        elif not node.depends & DATA:
            if not node.is_constant:
                outer[node.number] = node
        else:
            todo.extend(graph.children(node))
    return [columns[i] for i in sorted(columns)], [outer[i] for i in sorted(outer)]


class Forms:
    """Sums of products: makes them of nodes, and nodes of them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[int, list[Term]] = {}
        self._atoms: dict[int, Node] = {}

    def of(self, node: Node) -> list[Term]:
        """The terms of a node."""
        stack = [node]
        while stack:
            top = stack[-1]
            missing = [a for a in self._parts(top) if a.number not in self._known]
            if missing:
                stack.extend(missing)
            else:
                stack.pop()
                if top.number not in self._known:
                    self._known[top.number] = self._of(top)
        return self._known[node.number]

    def lump(self, node: Node) -> Term:
        """The node as one term."""
        terms = self.of(node)
        return terms[0] if len(terms) == 1 else (self._one(node), self._atom(node))

    def is_free(self, terms: Sequence[Term]) -> bool:
        """True if no row has to be looked at again once the data are known."""
        return all(self._depends(monomial) != PARAMETERS | DATA for _, monomial in terms)

    def cost(self, forms: Sequence[Sequence[Term]]) -> int:
        """Operations in every row, and sums."""
        monomials = {monomial for terms in forms for _, monomial in terms if monomial}
        atoms = {number for monomial in monomials for number, _ in monomial}
        below = [n for n in self.graph.reach(self._atoms[a] for a in atoms) if n.depends == PARAMETERS | DATA]
        return len(below) + 2 * len(monomials)

    def sums(self, forms: Sequence[Sequence[Term]]) -> dict[Monomial, Node]:
        """A node for the sum of each monomial; the products that come most often are made first."""
        graph = self.graph
        monomials = sorted({monomial for terms in forms for _, monomial in terms if monomial})
        factors = {monomial: self._factors(monomial) for monomial in monomials}
        made = {node.number: node for some in factors.values() for node in some}
        left = {monomial: Counter(node.number for node in some) for monomial, some in factors.items()}
        users: dict[tuple[int, int], set[Monomial]] = {}

        queue: list[tuple[int, int, tuple[int, int]]] = []  # of pairs, those with most users first; some outdated

        def put(pair: tuple[int, int]) -> None:
            a, b = (made[number] for number in pair)
            heapq.heappush(queue, (-len(users[pair]), abs(a.depends - b.depends), pair))

        for monomial in monomials:
            for pair in _pairs(left[monomial]):
                users.setdefault(pair, set()).add(monomial)
        for pair in users:
            put(pair)
        while queue:
            count, _, pair = heapq.heappop(queue)
            if count != -len(users[pair]):
                continue
            a, b = pair
            product = graph.node("mul", (made[a], made[b]))  # as it stands: no rule puts it in another order
            made[product.number] = product
            changed = {pair}
            for monomial in sorted(users[pair]):
                bag = left[monomial]
                before = set(_pairs(bag))
                while bag[a] > 1 if a == b else bag[a] and bag[b]:
                    bag.subtract((a, b))
                    bag[product.number] += 1
                bag += Counter()  # those that are used up go
                left[monomial] = bag
                after = set(_pairs(bag))
                for old in before - after:
                    users[old].discard(monomial)
                for new in after - before:
                    users.setdefault(new, set()).add(monomial)
                changed |= before ^ after
            for other in changed:
                if users[other]:
                    put(other)
        return {monomial: self._sum(made[next(iter(left[monomial]))]) for monomial in monomials}

    def _sum(self, core: Node) -> Node:
        node = self.graph.node("row_sum", (core,))
        node.depends = core.depends & PARAMETERS  # of a row no longer
        return node

    def _parts(self, node: Node) -> tuple[Node, ...]:
        if not node.depends & DATA or not node.is_float:
            return ()
        return node.args if node.op in ("add", "sub", "mul", "div", "neg") else ()

    def _of(self, node: Node) -> list[Term]:
        graph = self.graph
        if not node.depends & DATA:
            return [(node, ())]
        parts = [self._known[a.number] for a in self._parts(node)]
        if node.op == "neg" and parts:
            return [(graph.neg(p), m) for p, m in parts[0]]
        if node.op == "mul" and parts:
            for a, b in (parts, reversed(parts)):
                if len(a) == 1 and not a[0][1]:  # the same for all rows
                    return [(graph.mul(a[0][0], p), m) for p, m in b]
            (p, m), (q, n) = (self._single(a, terms) for a, terms in zip(node.args, parts))
            return [(graph.mul(p, q), _times(m, n))]
        if node.op == "div" and parts:
            if len(parts[1]) == 1 and not parts[1][0][1]:
                return [(graph.div(p, parts[1][0][0]), m) for p, m in parts[0]]
            (p, m), (q, n) = (self._single(a, terms) for a, terms in zip(node.args, parts))
            return [(graph.div(p, q), _times(m, self._inverse(n)))]
        if node.op in ("add", "sub") and parts:
            minus = node.op == "sub"
            terms = _gather(graph, [*parts[0], *((graph.neg(p) if minus else p, m) for p, m in parts[1])])
            if terms and len(terms) <= MOST_TERMS:
                return self._shared_front(terms)
        return [(self._one(node), self._atom(node))]

    def _shared_front(self, terms: list[Term]) -> list[Term]:
        """Terms with the same number in front become one."""
        fronts = {_size(p).number for p, _ in terms}
        if len(terms) == 1 or len(fronts) > 1 or not all(m for _, m in terms):
            return terms
        graph, front = self.graph, _size(terms[0][0])
        inner: Node | None = None
        for p, m in terms:
            product = self._product(m)
            if inner is None:
                inner = product if p is front else graph.neg(product)
            else:
                inner = graph.add(inner, product) if p is front else graph.sub(inner, product)
        assert inner is not None
        return [(front, self._atom(inner))]

    def _single(self, node: Node, terms: list[Term]) -> Term:
        return terms[0] if len(terms) == 1 else (self._one(node), self._atom(node))

    def _atom(self, node: Node) -> Monomial:
        self._atoms[node.number] = node
        return ((node.number, 1),)

    def _one(self, node: Node) -> Node:
        return self.graph.constant(1, node.type)

    def _inverse(self, monomial: Monomial) -> Monomial:
        """One over it: of atoms of their own, for zero times its inverse is not one."""
        out = []
        for number, power in monomial:
            ((inverse, _),) = self._atom(self.graph.node("reciprocal", (self._atoms[number],)))
            out.append((inverse, power))
        return tuple(sorted(out))

    def _depends(self, monomial: Monomial) -> int:
        out = 0
        for number, _ in monomial:
            out |= self._atoms[number].depends
        return out

    def _factors(self, monomial: Monomial) -> list[Node]:
        return [self._atoms[number] for number, power in monomial for _ in range(power)]

    def _product(self, monomial: Monomial) -> Node:
        first, *rest = sorted(self._factors(monomial), key=lambda n: (n.depends, n.number))
        for factor in rest:
            first = self.graph.mul(first, factor)
        return first


def _pairs(bag: Counter[int]) -> list[tuple[int, int]]:
    """The pairs of factors in a product, each once."""
    numbers = sorted(bag)
    same = [(a, a) for a in numbers if bag[a] > 1]
    return same + [(a, b) for i, a in enumerate(numbers) for b in numbers[i + 1 :]]


def _times(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for number, power in b:
        powers[number] = powers.get(number, 0) + power
    return tuple(sorted(powers.items()))


def _gather(graph: Graph, terms: list[Term]) -> list[Term]:
    found: dict[Monomial, Node] = {}
    for front, monomial in terms:
        found[monomial] = graph.add(found[monomial], front) if monomial in found else front
    return [(front, monomial) for monomial, front in found.items()]


def _size(front: Node) -> Node:
    return front.args[0] if front.op == "neg" else front
