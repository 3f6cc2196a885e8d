"""Rules of primitives that make one number of many: sums, products, extremes and where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, Index, combine, small
from ..interpreter import Interpreter, out_type, rule
from ..nodes import Node
from ..unsupported import Unsupported

REDUCTIONS = {"reduce_sum": "add", "reduce_prod": "mul", "reduce_max": "max", "reduce_min": "min"}
REDUCTIONS |= {"reduce_and": "and", "reduce_or": "or", "reduce_xor": "xor"}
CUMULATIVE = {"cumsum": "add", "cumprod": "mul", "cummax": "max", "cummin": "min"}


@rule(*REDUCTIONS)
def reduce(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Along axes."""
    x, op = inputs[0], REDUCTIONS[equation.primitive.name]
    axes = tuple(equation.params["axes"])
    shape, type = tuple(equation.outvars[0].aval.shape), out_type(equation)
    kept = [a for a in range(x.ndim) if a not in axes]
    along = tuple(x.shape[a] for a in axes)

    def at(index: Index) -> Node:
        def term(inner: Index) -> Node:
            place: list[Any] = [None] * x.ndim
            for a, i in (*zip(kept, index), *zip(axes, inner)):
                place[a] = i
            return interpreter.element(x, tuple(place))

        return interpreter.fold(op, along, type, term)

    return interpreter.settled(interpreter.make(shape, type, at))


@rule(*CUMULATIVE)
def cumulative(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Along an axis, with what came before."""
    x, op, axis = interpreter.small(inputs[0]), CUMULATIVE[equation.primitive.name], equation.params["axis"]
    if equation.params["reverse"]:
        x = np.flip(x, axis)
    out = np.empty_like(x)
    rows, sums = np.moveaxis(x, axis, 0), np.moveaxis(out, axis, 0)
    for i in range(len(rows)):
        for place in np.ndindex(*rows.shape[1:]):
            here = (i, *place)
            sums[here] = combine(interpreter.graph, op, sums[i - 1, *place], rows[here]) if i else rows[here]
    return np.flip(out, axis) if equation.params["reverse"] else out


@rule("argmax", "argmin")
def place_of_extreme(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """The first place of the largest or smallest element along an axis; NaN counts as either."""
    graph, x = interpreter.graph, interpreter.small(inputs[0])
    (axis,) = equation.params["axes"]
    type, rows = out_type(equation), np.moveaxis(x, axis, 0)
    better = "gt" if equation.primitive.name == "argmax" else "lt"

    def one(place: tuple[int, ...]) -> Node:
        value, where = rows[0, *place], graph.constant(0, type)
        for i in range(1, len(rows)):
            other = rows[i, *place]
            wins = graph.compare(better, other, value)
            if value.is_float:
                is_nan = graph.logic("not", graph.compare("eq", other, other))
                known = graph.compare("eq", value, value)
                wins = graph.logic("and", graph.logic("or", wins, is_nan), known)
            value = graph.select(wins, other, value)
            where = graph.select(wins, graph.constant(i, type), where)
        return where

    shape = rows.shape[1:]
    return small(shape, (one(place) for place in np.ndindex(*shape)))


@rule("dot_general")
def dot(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Products of matrices."""
    graph, type = interpreter.graph, out_type(equation)
    (left_along, right_along), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = map(interpreter.settled, inputs)
    left_free = [a for a in range(left.ndim) if a not in (*left_along, *left_batch)]
    right_free = [a for a in range(right.ndim) if a not in (*right_along, *right_batch)]
    along = tuple(left.shape[a] for a in left_along)
    batch, first = len(left_batch), len(left_batch) + len(left_free)

    def at(index: Index) -> Node:
        def term(inner: Index) -> Node:
            x = _placed(
                left.ndim, (left_batch, index[:batch]), (left_free, index[batch:first]), (left_along, inner)
            )
            y = _placed(
                right.ndim, (right_batch, index[:batch]), (right_free, index[first:]), (right_along, inner)
            )
            return graph.mul(*(graph.convert(interpreter.element(*one), type) for one in ((left, x), (right, y))))

        return interpreter.fold("add", along, type, term)

    return interpreter.settled(interpreter.make(equation.outvars[0].aval.shape, type, at))


def _placed(ndim: int, *parts: tuple[Any, Index]) -> Index:
    place: list[Any] = [None] * ndim
    for axes, index in parts:
        for a, i in zip(axes, index):
            place[a] = i
    return tuple(place)


@rule("sort")
def sort(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> list[Array]:
    """Elements in ascending order along an axis, by comparing each with every other."""
    graph, keys = interpreter.graph, equation.params["num_keys"]
    arrays = [np.moveaxis(interpreter.small(x), equation.params["dimension"], 0) for x in inputs]
    if len(arrays[0]) > 32:
        raise Unsupported("sort of more than 32 elements")
    outs = [np.empty_like(x) for x in arrays]
    for place in np.ndindex(*arrays[0].shape[1:]):
        columns = [[x[i, *place] for i in range(len(x))] for x in arrays]
        # Insertion, with a comparison of neighbours: stable, and the order of XLA, where NaN comes last.
        for end in range(1, len(columns[0])):
            for i in reversed(range(end)):
                swap = _before(interpreter, [(c[i + 1], c[i]) for c in columns[:keys]])
                for c in columns:
                    c[i], c[i + 1] = graph.select(swap, c[i + 1], c[i]), graph.select(swap, c[i], c[i + 1])
        for out, c in zip(outs, columns):
            for i, node in enumerate(c):
                out[i, *place] = node
    return [np.moveaxis(out, 0, equation.params["dimension"]) for out in outs]


def _before(interpreter: Interpreter, pairs: list[tuple[Node, Node]]) -> Node:
    """Whether one entry comes before another, by its keys."""
    graph = interpreter.graph

    def less(a: Node, b: Node) -> Node:
        known = graph.compare("lt", a, b)
        if not a.is_float:
            return known
        return graph.logic("or", known, graph.logic("and", graph.compare("eq", a, a), graph.compare("ne", b, b)))

    out = graph.constant(False, "bool")
    for a, b in reversed(pairs):
        same = graph.logic("not", graph.logic("or", less(a, b), less(b, a)))
        out = graph.logic("or", less(a, b), graph.logic("and", same, out))
    return out
