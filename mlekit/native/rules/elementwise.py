"""Rules of primitives that work element by element."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from ..arrays import Array
from ..interpreter import Interpreter, out_type, rule
from ..nodes import FLOATS, Node
from ..unsupported import Unsupported


@rule("add", "add_any", "sub", "mul", "div", "neg", "max", "min")
def arithmetic(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Arithmetic."""
    graph, name = interpreter.graph, equation.primitive.name
    if name == "div" and out_type(equation) not in FLOATS:
        return interpreter.map(lambda a, b: integer_quotient(interpreter, a, b), equation, inputs)
    fns: dict[str, Callable[..., Node]] = {"add": graph.add, "add_any": graph.add, "sub": graph.sub}
    fns |= {"mul": graph.mul, "div": graph.div, "neg": graph.neg}
    return interpreter.map(fns.get(name, functools.partial(graph.extreme, name)), equation, inputs)


def integer_quotient(interpreter: Interpreter, a: Node, b: Node) -> Node:
    """Division of integers by a known one; by another it could be by zero, which the machine does not forgive."""
    if not (b.is_constant and b.value != 0 and b.value != -1):
        raise Unsupported("division of integers by a number that is not known")
    return interpreter.graph.div(a, b)


@rule("rem")
def remainder(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """The remainder, with the sign of the dividend."""
    graph = interpreter.graph

    def one(a: Node, b: Node) -> Node:
        if a.is_float:
            if "rem" not in interpreter.functions:
                raise Unsupported("rem")
            return graph.function("rem", a, b)
        if a.is_constant and b.is_constant and b.value != 0:
            return graph.constant(math.fmod(int(a.value), int(b.value)), a.type)
        return graph.sub(a, graph.mul(integer_quotient(interpreter, a, b), b))

    return interpreter.map(one, equation, inputs)


@rule("lt", "le", "gt", "ge", "eq", "ne")
def comparison(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Comparisons."""
    return interpreter.map(functools.partial(interpreter.graph.compare, equation.primitive.name), equation, inputs)


@rule("and", "or", "xor", "not")
def logic(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Logic of booleans, and bit by bit of integers."""
    return interpreter.map(functools.partial(interpreter.graph.logic, equation.primitive.name), equation, inputs)


@rule("shift_left", "shift_right_logical", "shift_right_arithmetic")
def shift(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Shifts by a known number of bits."""
    graph, name = interpreter.graph, equation.primitive.name

    def one(a: Node, b: Node) -> Node:
        bits = 8 if a.type in ("int8", "uint8") else int(a.type.lstrip("uint"))
        if not (b.is_constant and 0 <= b.value < bits):
            raise Unsupported(name)
        return graph.node(name, (a, b))

    return interpreter.map(one, equation, inputs)


@rule("select_n")
def select(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """One of several arrays, by a boolean or a number."""
    graph = interpreter.graph

    def one(which: Node, *cases: Node) -> Node:
        if which.type == "bool":
            return graph.select(which, cases[1], cases[0])
        out = cases[-1]
        for i in reversed(range(len(cases) - 1)):
            out = graph.select(graph.compare("le", which, graph.constant(i, which.type)), cases[i], out)
        return out

    return interpreter.map(one, equation, inputs)


@rule("clamp")
def clamp(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """A number kept between two others."""
    graph = interpreter.graph
    fn = lambda low, x, high: graph.extreme("min", graph.extreme("max", low, x), high)  # noqa: E731
    return interpreter.map(fn, equation, inputs)


@rule("is_finite")
def is_finite(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """True of numbers that are neither infinite nor NaN."""
    graph = interpreter.graph

    def one(a: Node) -> Node:
        return graph.compare("lt", graph.function("abs", a), graph.constant(math.inf, a.type))

    return interpreter.map(one, equation, inputs)


@rule("integer_pow")
def integer_power(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """A power with a known whole exponent."""
    exponent = equation.params["y"]
    if exponent < 0 and out_type(equation) not in FLOATS:
        raise Unsupported("a negative power of integers")
    return interpreter.map(lambda a: interpreter.graph.integer_power(a, exponent), equation, inputs)


@rule("pow")
def power(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """A power."""
    graph = interpreter.graph

    def one(a: Node, b: Node) -> Node:
        if "pow" not in interpreter.functions or not a.is_float:
            raise Unsupported("pow")
        return graph.function("pow", a, graph.convert(b, a.type))

    return interpreter.map(one, equation, inputs)


@rule("square")
def square(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """The square."""
    return interpreter.map(lambda a: interpreter.graph.mul(a, a), equation, inputs)


@rule("rsqrt")
def inverse_root(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """One over the square root."""
    graph = interpreter.graph
    one = lambda a: graph.div(graph.constant(1, a.type), graph.function("sqrt", a))  # noqa: E731
    return interpreter.map(one, equation, inputs)


@rule("logistic")
def logistic(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """One over one plus the exponential of minus the number, as XLA has it."""
    graph = interpreter.graph

    def one(a: Node) -> Node:
        unit = graph.constant(1, a.type)
        return graph.div(unit, graph.add(unit, graph.function("exp", graph.neg(a))))

    return interpreter.map(one, equation, inputs)


@rule("sqrt", "abs", "floor", "ceil", "sign")
def plain_function(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Functions that the machine knows; `abs` and `sign` of integers by comparisons."""
    graph, name = interpreter.graph, equation.primitive.name

    def one(a: Node) -> Node:
        zero = graph.constant(0, a.type)
        if name == "sign":
            one = graph.constant(1, a.type)
            if a.type.startswith("u") or a.type == "bool":
                return graph.select(graph.compare("ne", a, zero), one, zero)
            below = graph.select(
                graph.compare("lt", a, zero), graph.constant(-1, a.type), a if a.is_float else zero
            )
            return graph.select(graph.compare("lt", zero, a), one, below)
        if not a.is_float:
            return a if a.type.startswith("u") else graph.select(graph.compare("lt", a, zero), graph.neg(a), a)
        return graph.function(name, a)

    return interpreter.map(one, equation, inputs)


@rule("round")
def rounded(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """The nearest whole number; halves go to the even one, or away from zero."""
    graph = interpreter.graph
    name = "round_even" if int(equation.params["rounding_method"]) == 1 else "round_away"
    return interpreter.map(lambda a: graph.node(name, (a,)) if a.is_float else a, equation, inputs)


@rule("convert_element_type")
def convert(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Another type of number."""
    return interpreter.map(lambda a: interpreter.graph.convert(a, out_type(equation)), equation, inputs)


@rule("reduce_precision")
def reduce_precision(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Nothing, if the precision is that of the type."""
    bits = {"float32": (8, 23), "float64": (11, 52)}[out_type(equation)]
    if (equation.params["exponent_bits"], equation.params["mantissa_bits"]) != bits:
        raise Unsupported("reduce_precision")
    return inputs[0]


@rule("copy", "copy_p", "stop_gradient", "optimization_barrier", "pvary", "name")
def same(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> list[Array]:
    """Its inputs."""
    return inputs
