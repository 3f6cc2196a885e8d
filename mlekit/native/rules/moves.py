"""Rules of primitives that move elements to places that are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, Index, Lazy, small
from ..interpreter import Interpreter, out_type, rule
from ..nodes import Node


def _constant(interpreter: Interpreter, i: int) -> Node:
    return interpreter.graph.constant(i, "index")


def _shape(equation: Any) -> tuple[int, ...]:
    return tuple(equation.outvars[0].aval.shape)


def _view(interpreter: Interpreter, equation: Any, x: Array, at: Any, again: bool = False) -> Array:
    """An array whose element at an index is the one of `x` at `at(index)`."""
    x = interpreter.settled(x) if again else x
    cheap = isinstance(x, np.ndarray) or x.cheap
    fn = lambda index: interpreter.element(x, at(index))  # noqa: E731
    return interpreter.make(_shape(equation), out_type(equation), fn, cheap)


@rule("reshape", "squeeze", "expand_dims")
def reshape(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """The same elements in another shape."""
    x, shape = inputs[0], _shape(equation)
    if isinstance(x, np.ndarray) and not interpreter.is_large(shape):
        return x.reshape(shape)
    graph = interpreter.graph
    long = [n for n in x.shape if n != 1]
    if long == [n for n in shape if n != 1]:  # axes of one element come and go

        def at(index: Index) -> Index:
            rest = iter(i for i, n in zip(index, shape) if n != 1)
            return tuple(_constant(interpreter, 0) if n == 1 else next(rest) for n in x.shape)

        return _view(interpreter, equation, x, at)

    def split(index: Index) -> Index:
        place, out = interpreter.position(index, shape), []
        for n in reversed(x.shape):
            count = _constant(interpreter, n)
            if place.is_constant:
                out.append(_constant(interpreter, int(place.value) % n))
                place = _constant(interpreter, int(place.value) // n)
            else:
                quotient = graph.div(place, count)
                out.append(graph.sub(place, graph.mul(quotient, count)))
                place = quotient
        return tuple(reversed(out))

    return _view(interpreter, equation, x, split)


@rule("transpose")
def transpose(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Axes in another order."""
    x, order = inputs[0], equation.params["permutation"]
    if isinstance(x, np.ndarray):
        return x.transpose(order)
    return _view(interpreter, equation, x, lambda index: tuple(index[order.index(a)] for a in range(x.ndim)))


@rule("slice")
def slices(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """A part."""
    x, p = inputs[0], equation.params
    strides = p["strides"] or (1,) * x.ndim
    if isinstance(x, np.ndarray):
        return x[tuple(map(slice, p["start_indices"], p["limit_indices"], strides))]
    graph = interpreter.graph

    def at(index: Index) -> Index:
        return tuple(
            graph.add(graph.mul(i, _constant(interpreter, step)), _constant(interpreter, start))
            for i, start, step in zip(index, p["start_indices"], strides)
        )

    return _view(interpreter, equation, x, at)


@rule("rev")
def reverse(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Axes run through backwards."""
    x, axes = inputs[0], equation.params["dimensions"]
    if isinstance(x, np.ndarray):
        return np.flip(x, axes)
    graph = interpreter.graph

    def at(index: Index) -> Index:
        last = [_constant(interpreter, n - 1) for n in x.shape]
        return tuple(graph.sub(last[a], i) if a in axes else i for a, i in enumerate(index))

    return _view(interpreter, equation, x, at)


@rule("broadcast_in_dim")
def broadcast(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Elements repeated along new axes."""
    x, shape, axes = inputs[0], _shape(equation), equation.params["broadcast_dimensions"]
    if isinstance(x, np.ndarray) and not interpreter.is_large(shape):
        inner = [1] * len(shape)
        for a, n in zip(axes, x.shape):
            inner[a] = n
        return np.broadcast_to(x.reshape(inner), shape)

    def at(index: Index) -> Index:
        return tuple(_constant(interpreter, 0) if n == 1 else index[a] for a, n in zip(axes, x.shape))

    return _view(interpreter, equation, x, at, again=True)


@rule("tile")
def tile(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """An array laid out again and again."""
    x, times, graph = inputs[0], equation.params["reps"], interpreter.graph
    if isinstance(x, np.ndarray) and not interpreter.is_large(_shape(equation)):
        return np.tile(x, times)

    def at(index: Index) -> Index:
        out = []
        for i, n in zip(index, x.shape):
            whole = graph.div(i, _constant(interpreter, n))
            if i.is_constant:
                whole = _constant(interpreter, int(i.value) // n)
            out.append(graph.sub(i, graph.mul(whole, _constant(interpreter, n))))
        return tuple(out)

    return _view(interpreter, equation, x, at, again=True)


@rule("concatenate", "stack")
def concatenate(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Arrays one behind the other."""
    p, shape, graph = equation.params, _shape(equation), interpreter.graph
    if equation.primitive.name == "stack":
        axis = p.get("axis", 0)
        if all(isinstance(x, np.ndarray) for x in inputs) and not interpreter.is_large(shape):
            return np.stack(inputs, axis=axis)  # type: ignore[arg-type]
        starts = list(range(len(inputs)))
    else:
        axis = p["dimension"]
        if all(isinstance(x, np.ndarray) for x in inputs) and not interpreter.is_large(shape):
            return np.concatenate(inputs, axis=axis)  # type: ignore[arg-type]
        starts = list(np.cumsum([0, *(x.shape[axis] for x in inputs[:-1])]))
    stacked = equation.primitive.name == "stack"
    if stacked and all(x.ndim == 0 for x in inputs):
        return interpreter.packed(small(shape, (interpreter.element(x, ()) for x in inputs)), out_type(equation))
    inputs = [interpreter.settled(x) for x in inputs]

    widths = [1 if stacked else x.shape[axis] for x in inputs]

    def piece(index: Index, x: Array, start: int, width: int) -> Node:
        """The element, if it lies in this piece; otherwise any other element of it."""
        if stacked:
            return interpreter.element(x, (*index[:axis], *index[axis + 1 :]))
        inside = graph.sub(index[axis], _constant(interpreter, start))
        if not inside.is_constant:
            inside = graph.extreme("min", inside, _constant(interpreter, width - 1))
            inside = graph.extreme("max", inside, _constant(interpreter, 0))
        return interpreter.element(x, (*index[:axis], inside, *index[axis + 1 :]))

    def at(index: Index) -> Node:
        pieces = [piece for piece in zip(inputs, map(int, starts), widths) if piece[2]]
        i = index[axis]
        if i.is_constant:
            return next(piece(index, *one) for one in pieces if one[1] <= i.value < one[1] + one[2])
        out = piece(index, *pieces[0])
        for one in pieces[1:]:
            out = graph.select(graph.compare("le", _constant(interpreter, one[1]), i), piece(index, *one), out)
        return out

    return interpreter.make(shape, out_type(equation), at)


@rule("unstack")
def unstack(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> list[Array]:
    """The parts of an array along an axis."""
    x, axis = interpreter.settled(inputs[0]), equation.params.get("axis", 0)
    if isinstance(x, np.ndarray):
        return [small(p.shape, p.reshape(-1)) for p in (np.asarray(q) for q in _parts(x, axis))]
    return [_part(interpreter, x, axis, i) for i in range(x.shape[axis])]


def _parts(x: np.ndarray, axis: int) -> list[Any]:
    moved = np.moveaxis(x, axis, 0)
    return [moved[i] if x.ndim > 1 else small((), [moved[i]]) for i in range(len(moved))]


def _part(interpreter: Interpreter, x: Lazy, axis: int, i: int) -> Array:
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    here = _constant(interpreter, i)
    return interpreter.make(shape, x.type, lambda index: x.at((*index[:axis], here, *index[axis:])), cheap=True)


@rule("split")
def split(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> list[Array]:
    """An array cut along an axis."""
    x, axis, start = interpreter.settled(inputs[0]), equation.params["axis"], 0
    out: list[Array] = []
    for size in equation.params["sizes"]:
        if isinstance(x, np.ndarray):
            out.append(np.take(x, range(start, start + size), axis=axis))
        else:
            out.append(_stretch(interpreter, x, axis, start, size))
        start += size
    return out


def _stretch(interpreter: Interpreter, x: Lazy, axis: int, start: int, size: int) -> Array:
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    graph, first = interpreter.graph, _constant(interpreter, start)

    def at(index: Index) -> Node:
        return x.at((*index[:axis], graph.add(index[axis], first), *index[axis + 1 :]))

    return interpreter.make(shape, x.type, at, cheap=True)


@rule("pad")
def pad(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """An array with a rim, and with gaps, of one value."""
    x, value = interpreter.settled(inputs[0]), interpreter.element(inputs[1], ())
    config, shape, graph = equation.params["padding_config"], _shape(equation), interpreter.graph

    def at(index: Index) -> Node:
        inside, places = graph.constant(True, "bool"), []
        for i, n, (low, _, gap) in zip(index, x.shape, config):
            if n == 0:
                return value
            moved = graph.sub(i, _constant(interpreter, low))
            last = _constant(interpreter, (n - 1) * (gap + 1))
            inside = graph.logic("and", inside, graph.compare("le", _constant(interpreter, 0), moved))
            inside = graph.logic("and", inside, graph.compare("le", moved, last))
            place = graph.extreme("max", graph.extreme("min", moved, last), _constant(interpreter, 0))
            if gap:
                step = _constant(interpreter, gap + 1)
                if place.is_constant:
                    on, place = place.value % (gap + 1) == 0, _constant(interpreter, int(place.value) // (gap + 1))
                    inside = graph.logic("and", inside, graph.constant(on, "bool"))
                else:
                    quotient = graph.div(place, step)
                    inside = graph.logic("and", inside, graph.compare("eq", graph.mul(quotient, step), place))
                    place = quotient
            places.append(place)
        return graph.select(inside, interpreter.element(x, tuple(places)), value)

    return interpreter.make(shape, out_type(equation), at)


@rule("iota")
def count(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Whole numbers along an axis."""
    axis, type, graph = equation.params["dimension"], out_type(equation), interpreter.graph
    return interpreter.make(_shape(equation), type, lambda index: graph.convert(index[axis], type), cheap=True)


@rule("empty", "empty2")
def empty(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """An array whose elements are written before they are read."""
    return interpreter.constant(np.zeros(_shape(equation), out_type(equation)))


@rule("platform_index")
def platform_index(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Which of several programs suits the platform: that of a CPU, or the one for all."""
    for i, names in enumerate(equation.params["platforms"]):
        if names is None or "cpu" in names:
            return interpreter.constant(np.int32(i))
    return interpreter.constant(np.int32(len(equation.params["platforms"])))
