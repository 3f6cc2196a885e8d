"""Rules of primitives that read or write elements at places that may be computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, Index, combine, uniform
from ..graph import Graph
from ..interpreter import Interpreter, out_type, rule
from ..nodes import Node
from ..unsupported import Unsupported

SCATTERS = {"scatter": "", "scatter-add": "add", "scatter_add": "add", "scatter-mul": "mul", "scatter_mul": "mul"}
SCATTERS |= {"scatter-min": "min", "scatter_min": "min", "scatter-max": "max", "scatter_max": "max"}


def clamped(graph: Graph, i: Node, last: int) -> Node:
    """An index kept within `0` to `last`."""
    low, high = graph.constant(0, i.type), graph.constant(last, i.type)
    if i.is_constant:
        return graph.constant(min(max(int(i.value), 0), last), i.type)
    return graph.extreme("max", graph.extreme("min", i, high), low)


def read(interpreter: Interpreter, x: Array, index: Sequence[Node]) -> Node:
    """The element at an index within the array: by selects where it differs between elements of a vector."""
    graph = interpreter.graph
    known = [uniform(graph, i) for i in index]
    for axis, (i, place) in enumerate(zip(index, known)):
        if place is None:
            count = lambda j: graph.constant(j, "index")  # noqa: E731
            before, after = index[:axis], index[axis + 1 :]
            out = read(interpreter, x, (*before, count(0), *after))
            for j in range(1, x.shape[axis]):
                here = read(interpreter, x, (*before, count(j), *after))
                out = graph.select(graph.compare("eq", i, graph.constant(j, i.type)), here, out)
            return out
    return interpreter.element(x, tuple(k for k in known if k is not None))


@rule("gather")
def gather(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Slices that begin at places in an array."""
    x, where = map(interpreter.settled, inputs)
    p, graph = equation.params, interpreter.graph
    d, sizes, mode = p["dimension_numbers"], p["slice_sizes"], str(p["mode"])
    shape, type = equation.outvars[0].aval.shape, out_type(equation)
    batch_axes = [a for a in range(len(shape)) if a not in d.offset_dims]
    batching = tuple(getattr(d, "operand_batching_dims", ()))
    slice_axes = [a for a in range(x.ndim) if a not in (*d.collapsed_slice_dims, *batching)]
    fill = p["fill_value"]
    if fill is None:
        fill = np.nan if type.startswith("float") else True if type == "bool" else np.iinfo(type).min
        if type.startswith("u"):
            fill = np.iinfo(type).max
    filled = "FILL" in mode or mode == "1"

    def at(index: Index) -> Node:
        batch = tuple(index[a] for a in batch_axes)
        within, inside = [graph.constant(0, "index")] * x.ndim, graph.constant(True, "bool")
        place: list[Node] = list(within)
        for a, axis in zip(slice_axes, d.offset_dims):
            place[a] = index[axis]
        for a, b in zip(batching, getattr(d, "start_indices_batching_dims", ())):
            place[a] = batch[b]
        for n, a in enumerate(d.start_index_map):
            start = interpreter.element(where, (*batch, graph.constant(n, "index")))
            exact = uniform(graph, start)
            start, last = start if exact is None else exact, x.shape[a] - sizes[a]
            if filled:
                inside = graph.logic("and", inside, graph.compare("le", graph.constant(0, start.type), start))
                inside = graph.logic("and", inside, graph.compare("le", start, graph.constant(last, start.type)))
            start = clamped(graph, start, last)
            if sizes[a] == 1:
                place[a] = start
            elif start.type == "index":
                place[a] = graph.add(start, place[a])
            else:
                place[a] = graph.add(start, graph.convert(place[a], start.type))
        return graph.select(inside, read(interpreter, x, place), graph.constant(fill, type))

    return interpreter.make(shape, type, at)


@rule("dynamic_slice")
def dynamic_slice(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """A slice that begins at a computed place."""
    x, graph = interpreter.settled(inputs[0]), interpreter.graph
    shape = equation.outvars[0].aval.shape
    starts = _starts(interpreter, inputs[1:], x.shape, shape)

    def at(index: Index) -> Node:
        place = [graph.add(s, graph.convert(i, s.type)) for s, i in zip(starts, index)]
        return read(interpreter, x, place)

    return interpreter.make(shape, out_type(equation), at)


@rule("dynamic_update_slice")
def dynamic_update_slice(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """An array with a slice replaced that begins at a computed place."""
    x, new = map(interpreter.settled, inputs[:2])
    graph = interpreter.graph
    starts = _starts(interpreter, inputs[2:], x.shape, new.shape)

    def at(index: Index) -> Node:
        inside, places = graph.constant(True, "bool"), []
        for s, i, n in zip(starts, index, new.shape):
            offset = graph.sub(graph.convert(i, s.type), s)
            inside = graph.logic("and", inside, graph.compare("le", graph.constant(0, s.type), offset))
            inside = graph.logic("and", inside, graph.compare("lt", offset, graph.constant(n, s.type)))
            places.append(clamped(graph, offset, n - 1))
        return graph.select(inside, read(interpreter, new, places), interpreter.element(x, index))

    return interpreter.make(x.shape, out_type(equation), at)


def _starts(
    interpreter: Interpreter, starts: Sequence[Array], whole: Sequence[int], part: Sequence[int]
) -> list[Node]:
    graph, out = interpreter.graph, []
    for start, n, m in zip(starts, whole, part):
        node = interpreter.element(start, ())
        exact = uniform(graph, node)
        out.append(clamped(graph, node if exact is None else exact, n - m))
    return out


@rule(*SCATTERS)
def scatter(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """An array with slices replaced, or combined with others, at places."""
    x, where, new = (interpreter.small(one) for one in inputs)
    p, graph, op = equation.params, interpreter.graph, SCATTERS[equation.primitive.name]
    d, mode = p["dimension_numbers"], str(p["mode"])
    if getattr(d, "operand_batching_dims", ()):
        raise Unsupported("scatter in batches")
    batch_axes = [a for a in range(new.ndim) if a not in d.update_window_dims]
    window_axes = [a for a in range(x.ndim) if a not in d.inserted_window_dims]
    sizes = [1] * x.ndim
    for a, w in zip(window_axes, d.update_window_dims):
        sizes[a] = new.shape[w]
    out = x.copy()
    for index in np.ndindex(*new.shape):
        batch = tuple(index[a] for a in batch_axes)
        place = [graph.constant(0, "int64")] * x.ndim
        for a, w in zip(window_axes, d.update_window_dims):
            place[a] = graph.constant(index[w], "int64")
        inside = graph.constant(True, "bool")
        for n, a in enumerate(d.scatter_dims_to_operand_dims):
            start, last = graph.convert(where[(*batch, n)], "int64"), x.shape[a] - sizes[a]
            if "CLIP" in mode:
                start = clamped(graph, start, last)
            inside = graph.logic("and", inside, graph.compare("le", graph.constant(0, "int64"), start))
            inside = graph.logic("and", inside, graph.compare("le", start, graph.constant(last, "int64")))
            place[a] = graph.add(start, place[a])
        value: Node = new[index]  # type: ignore[assignment]  # NumPy knows no arrays of nodes
        _write(graph, out, place, inside, op, value)
    return out


def _write(graph: Graph, out: np.ndarray, place: list[Node], inside: Node, op: str, value: Node) -> None:
    """Replace the element at a place that may be computed, or combine it with the value."""
    ranges = [[int(i.value)] if i.is_constant else range(n) for i, n in zip(place, out.shape)]
    for where in np.ndindex(*map(len, ranges)):
        target = tuple(r[w] for r, w in zip(ranges, where))
        if any(not 0 <= t < n for t, n in zip(target, out.shape)):
            continue
        here = inside
        for i, t in zip(place, target):
            if not i.is_constant:
                here = graph.logic("and", here, graph.compare("eq", i, graph.constant(t, "int64")))
        changed = combine(graph, op, out[target], value) if op else value
        out[target] = graph.select(here, changed, out[target])
