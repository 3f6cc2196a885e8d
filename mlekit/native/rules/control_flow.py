"""Rules of primitives that choose what to compute, or repeat it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core as jaxpr_core

from ..arrays import Array, Lazy, small
from ..interpreter import Interpreter, rule
from ..nodes import DATA, PARAMETERS, Node, Region
from ..unsupported import Unsupported

#: A loop of known length is written out where its turns have no more equations than this in all.
WRITTEN_OUT = 600


@rule("cond")
def cond(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> list[Array]:
    """One of several programs; where it is not known which, all of them, and then one of their results."""
    graph, branches = interpreter.graph, equation.params["branches"]
    index = interpreter.element(inputs[0], ())
    if index.is_constant:
        return interpreter.closed(branches[min(max(int(index.value), 0), len(branches) - 1)], inputs[1:])
    if equation.effects:
        raise Unsupported("cond with effects")
    settled = [interpreter.settled(x) for x in inputs[1:]]
    out = interpreter.closed(branches[-1], settled)
    for i in reversed(range(len(branches) - 1)):
        here = graph.compare("le", index, graph.constant(i, index.type))
        out = [choose(interpreter, here, a, b) for a, b in zip(interpreter.closed(branches[i], settled), out)]
    return out


def choose(interpreter: Interpreter, condition: Node, yes: Array, no: Array) -> Array:
    """One of two arrays."""
    graph = interpreter.graph
    if isinstance(yes, np.ndarray) and isinstance(no, np.ndarray):
        pairs = zip(yes.reshape(-1), no.reshape(-1))
        return small(yes.shape, (graph.select(condition, a, b) for a, b in pairs))
    type = yes.type if isinstance(yes, Lazy) else no.type if isinstance(no, Lazy) else ""

    def at(index: Any) -> Node:
        return graph.select(condition, interpreter.element(yes, index), interpreter.element(no, index))

    return Lazy(yes.shape, type, at)


@rule("while")
def while_loop(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> list[Array]:
    """A loop: elements of vectors that are done keep what they have until all are."""
    p = equation.params
    n_condition, n_body = p["cond_nconsts"], p["body_nconsts"]
    condition_constants = inputs[:n_condition]
    body_constants = inputs[n_condition : n_condition + n_body]
    carry = inputs[n_condition + n_body :]

    def condition(carry: Sequence[Array]) -> Node:
        (out,) = interpreter.closed(p["cond_jaxpr"], [*condition_constants, *carry])
        if math.prod(out.shape) != 1:  # of a loop that is mapped, one for each of its elements
            raise Unsupported("while of several loops at once")
        return interpreter.element(out, (interpreter.graph.constant(0, "index"),) * out.ndim)

    def body(carry: Sequence[Array]) -> list[Array]:
        return interpreter.closed(p["body_jaxpr"], [*body_constants, *carry])

    return loop(interpreter, carry, condition, body, [*condition_constants, *body_constants])


def loop(
    interpreter: Interpreter, carry: Sequence[Array], condition: Any, body: Any, constants: Sequence[Array]
) -> list[Array]:
    """The last carry of a loop."""
    graph = interpreter.graph
    first: list[Node] = []
    for x in carry:
        first.extend(x.reshape(-1) if isinstance(x, np.ndarray) else [interpreter.memory(x)])
    depends = 0
    for node in first:
        depends |= node.depends
    for x in constants:
        depends |= _depends(x)
    variables = graph.new_variables([node.type for node in first], depends)

    def arrays(nodes: list[Node]) -> list[Array]:
        rest = iter(nodes)
        out: list[Array] = []
        for x in carry:
            if isinstance(x, np.ndarray):
                out.append(small(x.shape, (next(rest) for _ in range(x.size))))
            else:
                out.append(interpreter.in_memory(next(rest), x.shape))
        return out

    goes_on = condition(arrays(variables))
    results: list[Node] = []
    for x, new in zip(carry, body(arrays(variables))):
        if isinstance(x, np.ndarray):
            results.extend(interpreter.all_elements(new))
        else:
            results.append(interpreter.memory(new))
    region = Region(variables, results, (), goes_on)
    node = graph.region_node("while", first, region, "loop")
    return arrays([graph.node("result", (node,), i, v.type) for i, v in enumerate(variables)])


def _depends(array: Array) -> int:
    if isinstance(array, np.ndarray):
        out = 0
        for node in array.reshape(-1):
            out |= node.depends
        return out
    return PARAMETERS | DATA


@rule("scan")
def scan(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> list[Array]:
    """A loop of known length: written out, or where that is long a loop if it stacks nothing."""
    p, length = equation.params, equation.params["length"]
    n_constants, n_carry = p["num_consts"], p["num_carry"]
    inputs = [interpreter.settled(x) for x in inputs]
    constants, carry, rows = (
        inputs[:n_constants],
        inputs[n_constants : n_constants + n_carry],
        inputs[n_constants:],
    )
    rows = rows[n_carry:]
    stacks = len(equation.outvars) > n_carry
    if length * count_equations(p["jaxpr"].jaxpr) > WRITTEN_OUT and not stacks and not rows:
        return _counted(interpreter, p["jaxpr"], constants, carry, length)
    turns: list[list[Array]] = [[] for _ in range(length)]
    for i in reversed(range(length)) if p["reverse"] else range(length):
        out = interpreter.closed(p["jaxpr"], [*constants, *carry, *(_row(interpreter, x, i) for x in rows)])
        carry, turns[i] = out[:n_carry], [interpreter.settled(x) for x in out[n_carry:]]
    return [*carry, *(_stacked(interpreter, v.aval, column) for v, column in _columns(equation, n_carry, turns))]


def _columns(equation: Any, n_carry: int, turns: list[list[Array]]) -> list[tuple[Any, list[Array]]]:
    return [(v, [turn[j] for turn in turns]) for j, v in enumerate(equation.outvars[n_carry:])]


def _row(interpreter: Interpreter, x: Array, i: int) -> Array:
    if isinstance(x, np.ndarray):
        return x[i] if x.ndim > 1 else small((), [x[i]])
    count = interpreter.graph.constant(i, "index")
    return interpreter.make(x.shape[1:], x.type, lambda index: x.at((count, *index)), cheap=x.cheap)


def _stacked(interpreter: Interpreter, aval: Any, rows: list[Array]) -> Array:
    if not interpreter.is_large(aval.shape):
        return small(aval.shape, (node for row in rows for node in interpreter.all_elements(row)))
    graph = interpreter.graph

    def at(index: Any) -> Node:
        if index[0].is_constant:
            return interpreter.element(rows[int(index[0].value)], index[1:])
        out = interpreter.element(rows[0], index[1:])
        for i in range(1, len(rows)):
            here = graph.compare("eq", index[0], graph.constant(i, "index"))
            out = graph.select(here, interpreter.element(rows[i], index[1:]), out)
        return out

    return Lazy(aval.shape, aval.dtype.name, at, cheap=len(rows) <= 4)


def _counted(
    interpreter: Interpreter, jaxpr: Any, constants: Sequence[Array], carry: Sequence[Array], length: int
) -> list[Array]:
    graph = interpreter.graph
    counter = small((), [graph.constant(0, "int64")])

    def condition(now: Sequence[Array]) -> Node:
        return graph.compare("lt", interpreter.element(now[0], ()), graph.constant(length, "int64"))

    def body(now: Sequence[Array]) -> list[Array]:
        after = graph.add(interpreter.element(now[0], ()), graph.constant(1, "int64"))
        return [small((), [after]), *interpreter.closed(jaxpr, [*constants, *now[1:]])]

    return loop(interpreter, [counter, *carry], condition, body, constants)[1:]


def count_equations(jaxpr: Any) -> int:
    """Equations of a jaxpr and of all that it calls."""
    count = len(jaxpr.eqns)
    for equation in jaxpr.eqns:
        for inner in jaxpr_core.jaxprs_in_params(equation.params):
            count += count_equations(inner)
    return count
