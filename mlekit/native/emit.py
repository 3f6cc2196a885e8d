"""From a graph to LLVM's instructions: a node becomes a vector, the same number of many data sets or rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llvmlite import ir

from . import matrix_code
from .graph import Graph
from .lanes import Lanes
from .loops import INT8, SCALARS, SIZES, at, counted, nested, number, slot, while_true
from .nodes import FLOATS, Node, Region
from .unsupported import Unsupported

COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}

#: A function of vectors: given lanes and its arguments.
Emitted = Callable[..., ir.Value]


class Workspace:
    """Memory for the arrays of a function: counts how much it takes."""

    def __init__(self, pointer: ir.Value, used: int = 0) -> None:
        self.pointer, self.size = pointer, used

    def take(self, builder: ir.IRBuilder, size: int) -> ir.Value:
        """Room for so many bytes, aligned to 64; the pointer is made where the function begins."""
        start = self.size
        self.size += -(-size // 64) * 64
        with builder.goto_entry_block():
            return at(builder, self.pointer, start, INT8)


class Emitter:
    """Writes nodes of a graph into a function, each once where it is first needed.

    Numbers that are the same for all lanes, indices above all, stay scalars until a vector is wanted.

    Args:
        graph: the graph.
        builder: where instructions go.
        width: the number of lanes.
        functions: what writes functions of floats, by the name of the primitive.
        inputs: what brings an input, by its name: called where it is first needed.
        uses: how often each node is used; one that is used once may become a part of another.
        workspace: for arrays.
        fused: whether the machine multiplies and adds at once.
    """

    def __init__(
        self,
        graph: Graph,
        builder: ir.IRBuilder,
        width: int,
        functions: Mapping[str, Emitted],
        inputs: dict[Any, Callable[[], ir.Value]],
        uses: Counter[int],
        workspace: Workspace | None = None,
        fused: bool = True,
    ) -> None:
        self.graph, self.builder, self.width, self.functions = graph, builder, width, functions
        self.inputs, self.uses, self.workspace, self.fused = inputs, uses, workspace, fused
        self.lanes = {type: Lanes(builder, width, type) for type in FLOATS}
        self.values: dict[int, Any] = {}

    def vector_type(self, type: str) -> Any:
        """The type of a vector."""
        return ir.VectorType(SCALARS[type], self.width)

    def vectors(self, nodes: Iterable[Node]) -> list[ir.Value]:
        """The nodes as vectors, written here unless they are there already."""
        nodes = list(nodes)
        self.need(nodes)
        return [self.vector(node) for node in nodes]

    def vector(self, node: Node) -> ir.Value:
        """A node that was written, as a vector."""
        value = self.values[node.number]
        if isinstance(value.type, ir.VectorType):
            return value
        if isinstance(value, ir.Constant):
            return ir.Constant(ir.VectorType(value.type, self.width), [value.constant] * self.width)
        return self.lanes["float64"].broadcast(value)

    def need(self, nodes: Iterable[Node]) -> None:
        """Write the nodes, arguments first."""
        stack = [(node, False) for node in reversed(list(nodes))]
        while stack:
            node, ready = stack.pop()
            if node.number in self.values:
                continue
            if ready:
                self.values[node.number] = self._write(node)
                continue
            stack.append((node, True))
            if node.op in ("table", "fold", "while"):
                stack.extend((a, False) for a in self._outside(node))
            stack.extend((a, False) for a in reversed(self._operands(node)))

    def _outside(self, node: Node) -> list[Node]:
        """What a loop needs that does not change in it: computed before it."""
        seen: set[int] = set()
        out: list[Node] = []
        loops = {node.attribute[0]}  # this one, and those within it
        todo = list(self.graph.regions[node.attribute[0]].inner)
        while todo:
            inner = todo.pop()
            if inner.number in seen or inner.number in self.values:
                continue
            seen.add(inner.number)
            if not loops.isdisjoint(inner.inside):
                if inner.op in ("table", "fold", "while"):
                    loops.add(inner.attribute[0])
                todo.extend(self.graph.children(inner))
            else:
                out.append(inner)
        return sorted(out, key=lambda n: n.number)

    def _fused(self, node: Node) -> tuple[Node, Node, Node, bool, bool] | None:
        """`x * y + z` in a sum: x, y, z, and whether the product and z are negative; None if there is none."""
        if not self.fused or node.op not in ("add", "sub") or not node.is_float:
            return None
        a, b = node.args
        for product, other, first in ((a, b, True), (b, a, False)):
            if product.op == "mul" and self.uses[product.number] == 1 and product.number not in self.values:
                minus, (x, y) = node.op == "sub", product.args
                return x, y, other, minus and not first, minus and first
        return None

    def _operands(self, node: Node) -> list[Node]:
        parts = self._fused(node)
        return list(node.args) if parts is None else list(parts[:3])

    def _write(self, node: Node) -> Any:
        op = node.op
        if op == "constant":
            return self._constant(node)
        if op == "input":
            return self.inputs[node.attribute]()
        if op == "result":
            return self.values[node.args[0].number][node.attribute]
        if op in ("pack", "table", "cholesky", "triangular_solve"):
            return self._array(node)
        if op == "load":
            return self._load(node.args[0], self.values[node.args[1].number])
        if op == "fold":
            return self._fold(node)
        if op == "while":
            return self._while(node)
        parts = self._fused(node)
        if parts is not None:
            x, y, z = map(self.vector, parts[:3])
            lanes = self.lanes[node.type]
            return lanes.fma(lanes.neg(x) if parts[3] else x, y, lanes.neg(z) if parts[4] else z)
        values = [self.values[a.number] for a in node.args]
        alone = all(not isinstance(value.type, ir.VectorType) for value in values)
        if not (alone and self._may_be_scalar(node)):
            values = [self.vector(a) for a in node.args]
        return self._compute(op, node.type, values, node.args[0].type)

    def _constant(self, node: Node) -> ir.Constant:
        if node.is_float:
            return self.lanes[node.type].constant(node.value)
        return ir.Constant(SCALARS[node.type], int(node.value))

    @staticmethod
    def _may_be_scalar(node: Node) -> bool:
        return all(not a.is_float for a in node.args)

    def _compute(self, op: str, type: str, a: list[ir.Value], argument: str) -> ir.Value:
        """The value of a node from those of its arguments, the first of which has the type `argument`."""
        builder = self.builder
        if op == "select":
            return builder.select(*a)
        if op in COMPARISONS:
            return self._compare(op, argument, a)
        if op == "convert":
            return self._convert(argument, type, a[0])
        if type in FLOATS:
            return self._float(op, type, a)
        signed = not type.startswith("u")
        if op in ("max", "min"):
            order = (">" if op == "max" else "<",)
            compare = builder.icmp_signed if signed else builder.icmp_unsigned
            return builder.select(compare(*order, *a), *a)
        plain = {
            "add": builder.add,
            "sub": builder.sub,
            "mul": builder.mul,
            "and": builder.and_,
            "or": builder.or_,
        }
        plain |= {"xor": builder.xor, "neg": builder.neg, "not": builder.not_, "shift_left": builder.shl}
        plain |= {"div": builder.sdiv if signed else builder.udiv, "shift_right_logical": builder.lshr}
        plain |= {"shift_right_arithmetic": builder.ashr}
        if op not in plain:
            raise Unsupported(op)
        return plain[op](*a)

    def _float(self, op: str, type: str, a: list[ir.Value]) -> ir.Value:
        lanes = self.lanes[type]
        if op in ("add", "sub", "mul", "div", "neg", "max", "min", "abs", "sqrt", "floor", "ceil"):
            return getattr(lanes, op)(*a)
        if op == "reciprocal":
            return lanes.div(lanes.constant(1), a[0])
        if op == "round_even":
            return lanes.round(a[0])
        if op == "round_away":
            return lanes.intrinsic("round", a[0])
        if op not in self.functions:
            raise Unsupported(op)
        return self.functions[op](lanes, *a)

    def _compare(self, op: str, type: str, a: list[ir.Value]) -> ir.Value:
        if type in FLOATS:
            return self.lanes[type].compare(COMPARISONS[op], *a)
        compare = self.builder.icmp_unsigned if type.startswith("u") else self.builder.icmp_signed
        return compare(COMPARISONS[op], *a)

    def _convert(self, old: str, new: str, a: ir.Value) -> ir.Value:
        builder = self.builder
        target = self.vector_type(new) if isinstance(a.type, ir.VectorType) else SCALARS[new]
        if old in FLOATS:
            if new in FLOATS:
                return (builder.fpext if new == "float64" else builder.fptrunc)(a, target)
            name = "fptoui.sat" if new.startswith("u") else "fptosi.sat"
            return self.lanes[old].intrinsic(name, a, result=target)
        signed = not old.startswith("u")
        if new in FLOATS:
            return (builder.sitofp if signed else builder.uitofp)(a, target)
        if SIZES[new] < SIZES[old]:
            return builder.trunc(a, target)
        if SIZES[new] > SIZES[old]:
            return (builder.sext if signed else builder.zext)(a, target)
        return a

    # Arrays in memory.

    def element_type(self, type: str) -> Any:
        """The type of an element of an array in memory: a vector."""
        return ir.VectorType(INT8 if type == "bool" else SCALARS[type], self.width)

    def room(self, type: str, size: int) -> ir.Value:
        """Memory for an array."""
        assert self.workspace is not None
        return self.workspace.take(self.builder, size * self.width * SIZES[type])

    def load(self, pointer: ir.Value, type: str, index: ir.Value | int, aligned: bool = True) -> ir.Value:
        """An element of an array; `aligned` if that begins where a vector may, not only where a number may."""
        kind = self.element_type(type)
        align = None if aligned else SIZES[type]
        value = self.builder.load(at(self.builder, pointer, index, kind), typ=kind, align=align)
        return self.builder.trunc(value, self.vector_type("bool")) if type == "bool" else value

    def store(
        self, value: ir.Value, pointer: ir.Value, type: str, index: ir.Value | int, aligned: bool = True
    ) -> None:
        """Put an element into an array, as `load` brings it."""
        kind = self.element_type(type)
        value = self.builder.zext(value, kind) if type == "bool" else value
        align = None if aligned else SIZES[type]
        self.builder.store(value, at(self.builder, pointer, index, kind), align=align)

    def _load(self, memory: Node, index: ir.Value) -> ir.Value:
        return self.load(self.values[memory.number], memory.type[0], index)

    def _array(self, node: Node) -> ir.Value:
        type, size = node.type
        pointer = self.room(type, size)
        if node.op == "pack":
            for i, a in enumerate(node.args):
                self.store(self.vector(a), pointer, type, i)
        elif node.op == "table":
            region = self.graph.regions[node.attribute[0]]

            def fill(index: list[ir.Value]) -> None:
                (value,) = self._inside(region, index, region.results)
                self.store(value, pointer, type, _position(self.builder, index, region.shape))

            nested(self.builder, region.shape, fill)
        else:
            memory = [self.values[a.number] for a in node.args]
            getattr(matrix_code, node.op)(self, type, node.attribute, pointer, *memory)
        return pointer

    def _inside(self, region: Region, variables: list[Any], nodes: list[Node]) -> list[ir.Value]:
        """Nodes of a loop, with these values of its variables; nothing of it is known behind the loop."""
        saved = dict(self.values)
        self.values.update((v.number, value) for v, value in zip(region.variables, variables))
        out = self.vectors(nodes)
        self.values = saved
        return out

    def _fold(self, node: Node) -> ir.Value:
        region, op = self.graph.regions[node.attribute[0]], node.attribute[1]
        total = slot(self.builder, self.element_type(node.type))
        self.store(self.vector(node.args[0]), total, node.type, 0)

        def term(index: list[ir.Value]) -> None:
            (result,) = region.results
            before = self.load(total, node.type, 0)
            saved = dict(self.values)
            self.values.update((v.number, value) for v, value in zip(region.variables, index))
            if op == "add" and self._product(result):
                self.need(result.args)
                x, y = map(self.vector, result.args)
                value = self.lanes[node.type].fma(x, y, before)
            else:
                (here,) = self.vectors([result])
                value = self._compute(op, node.type, [before, here], node.type)
            self.values = saved
            self.store(value, total, node.type, 0)

        nested(self.builder, region.shape, term)
        return self.load(total, node.type, 0)

    def _product(self, node: Node) -> bool:
        return self.fused and node.op == "mul" and node.is_float and self.uses[node.number] <= 1

    def _while(self, node: Node) -> list[Any]:
        """Turns until no lane goes on; lanes that are done keep what they have."""
        region, builder = self.graph.regions[node.attribute[0]], self.builder
        assert region.condition is not None
        places, arrays = [], []
        for first, variable in zip(node.args, region.variables):
            array = isinstance(variable.type, tuple)
            type, size = variable.type if array else (variable.type, 1)
            arrays.append((array, type, size))
            place = self.room(type, size) if array else slot(builder, self.element_type(type))
            places.append(place)
            if array:
                self._copy(self.values[first.number], place, type, size)
            else:
                self.store(self.vector(first), place, type, 0)
        mask = slot(builder, self.element_type("bool"))

        def carried() -> list[Any]:
            return [p if array else self.load(p, type, 0) for p, (array, type, _) in zip(places, arrays)]

        def condition() -> ir.Value:
            (goes_on,) = self._inside(region, carried(), [region.condition])  # type: ignore[list-item]
            self.store(goes_on, mask, "bool", 0)
            return self.lanes["float64"].any(goes_on)

        def body() -> None:
            saved, before = dict(self.values), carried()
            self.values.update((v.number, value) for v, value in zip(region.variables, before))
            self.need(region.results)
            new = [self.values[r.number] if a[0] else self.vector(r) for r, a in zip(region.results, arrays)]
            goes_on = self.load(mask, "bool", 0)
            for i, (array, type, size) in enumerate(arrays):
                if array and any(new[i] is place for place in places):
                    if new[i] is places[i]:
                        continue
                    other = self.room(type, size)
                    self._copy(new[i], other, type, size)
                    new[i] = other
            for value, place, old, (array, type, size) in zip(new, places, before, arrays):
                if not array:
                    self.store(builder.select(goes_on, value, old), place, type, 0)
                elif value is not place:
                    self._copy(value, place, type, size, goes_on)
            self.values = saved

        while_true(builder, condition, body)
        return carried()

    def _copy(self, source: ir.Value, target: ir.Value, type: str, size: int, mask: Any = None) -> None:
        def one(i: ir.Value) -> None:
            value = self.load(source, type, i)
            if mask is not None:
                value = self.builder.select(mask, value, self.load(target, type, i))
            self.store(value, target, type, i)

        counted(self.builder, number(0), number(size), one, name="copy")


def _position(builder: ir.IRBuilder, index: list[ir.Value], shape: tuple[int, ...]) -> ir.Value:
    place = number(0)
    for i, (value, n) in enumerate(zip(index, shape)):
        place = value if i == 0 else builder.add(builder.mul(place, number(n)), value)
    return place


def count_uses(graph: Graph, roots: Iterable[Node]) -> Counter[int]:
    """How often each node is used by others, by its number; a root is used once more."""
    roots = list(roots)
    uses = Counter(root.number for root in roots)
    for node in graph.reach(roots):
        uses.update(child.number for child in graph.children(node))
    return uses
