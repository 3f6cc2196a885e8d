"""From a jaxpr to a graph: every equation is read by the rule of its primitive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core as jaxpr_core

from .arrays import Array, Lazy, Store, small
from .graph import Graph
from .nodes import TYPES, Node
from .unsupported import Unsupported, place_of

#: A rule makes the outputs of an equation from its inputs.
Rule = Callable[["Interpreter", Any, list[Array]], "Array | Sequence[Array]"]

#: The rules by the name of the primitive; the files of `rules` fill it.
RULES: dict[str, Rule] = {}

#: A graph of more nodes takes too long to compile.
MOST_NODES = 60_000

#: Primitives that call a jaxpr, and the names of the parameter that holds it.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "custom_vmap_call": "call",
}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorates the rule of primitives of these names."""

    def put(fn: Rule) -> Rule:
        for name in names:
            RULES[name] = fn
        return fn

    return put


class Interpreter(Store):
    """Reads jaxprs into a graph.

    Args:
        graph: the graph.
        functions: names of the functions of floats that have native code.
        limit: arrays of more elements are computed in loops; None means that none are.
        most_nodes: nodes of the graph at most.
    """

    def __init__(
        self, graph: Graph, functions: Any = (), limit: int | None = None, most_nodes: int = MOST_NODES
    ) -> None:
        super().__init__(graph, limit)
        self.most_nodes = most_nodes
        self.functions = frozenset(functions)

    def closed(self, jaxpr: Any, inputs: Sequence[Array]) -> list[Array]:
        """The outputs of a closed jaxpr, or of one that has no constants."""
        if isinstance(jaxpr, jaxpr_core.ClosedJaxpr):
            return self.run(jaxpr.jaxpr, [self.constant(_known(value)) for value in jaxpr.consts], inputs)
        return self.run(jaxpr, [], inputs)

    def run(self, jaxpr: Any, constants: Sequence[Array], inputs: Sequence[Array]) -> list[Array]:
        """The outputs of a jaxpr."""
        uses = Counter(v for e in jaxpr.eqns for v in e.invars if not isinstance(v, jaxpr_core.Literal))
        uses.update(v for v in jaxpr.outvars if not isinstance(v, jaxpr_core.Literal))
        values: dict[Any, Array] = {}

        def write(variable: Any, array: Array) -> None:
            values[variable] = self.settled(array) if uses[variable] > 1 else array

        def read(atom: Any) -> Array:
            return self.constant(_known(atom.val)) if isinstance(atom, jaxpr_core.Literal) else values[atom]

        for variable, array in zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *inputs), strict=True):
            write(variable, array)
        for equation in jaxpr.eqns:
            outputs = self.equation(equation, [read(atom) for atom in equation.invars])
            for variable, array in zip(equation.outvars, outputs, strict=True):
                write(variable, array)
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, inputs: list[Array]) -> Sequence[Array]:
        """The outputs of one equation.

        Raises:
            Unsupported: there is no rule for its primitive, or the rule does not cover its parameters.
        """
        name = equation.primitive.name
        try:
            for out in equation.outvars:
                if out.aval.dtype.name not in TYPES:
                    raise Unsupported(f"{name} of {out.aval.dtype.name}")
            if len(self.graph) > self.most_nodes:
                raise Unsupported(f"a program of more than {self.most_nodes:,} operations")
            if name in CALLS:
                return self.closed(equation.params[CALLS[name]], inputs)
            if name in RULES:
                outputs = RULES[name](self, equation, inputs)
            else:
                shape = equation.outvars[0].aval.shape if equation.outvars else ()
                if len(equation.outvars) != 1 or any(x.shape not in ((), shape) for x in inputs):
                    raise Unsupported(name)
                outputs = self.map(lambda *args: self._function(name, *args), equation, inputs)
        except Unsupported as error:
            if error.where:
                raise
            raise Unsupported(error.what, place_of(equation)) from None
        return [outputs] if isinstance(outputs, (np.ndarray, Lazy)) else outputs

    def map(self, fn: Callable[..., Node], equation: Any, inputs: Sequence[Array]) -> Array:
        """`fn` of every element of the inputs; scalars serve all."""
        shape = equation.outvars[0].aval.shape
        if self.is_large(shape):
            return Lazy(shape, out_type(equation), lambda index: fn(*(self.element(x, index) for x in inputs)))
        flat = [np.broadcast_to(self.small(x), shape).reshape(-1) for x in inputs]
        return small(shape, map(fn, *flat))

    def _function(self, name: str, *args: Node) -> Node:
        """A function of floats, which has native code or known arguments."""
        out = self.graph.function(name, *args) if all(a.is_float for a in args) and args else None
        if out is None or not (out.is_constant or name in self.functions):
            raise Unsupported(name)
        return out

    def small(self, array: Array) -> np.ndarray:
        """The array with its elements one by one."""
        return small(array.shape, self.all_elements(array)) if isinstance(array, Lazy) else array


def out_type(equation: Any) -> str:
    """The type of the elements of an equation's first output."""
    return str(equation.outvars[0].aval.dtype.name)


def _known(value: Any) -> np.ndarray:
    try:
        out = np.asarray(value)
    except Exception as error:  # a tracer, whose value another trace knows
        raise Unsupported("a constant that is not known yet") from error
    if out.dtype.name not in TYPES:
        raise Unsupported(f"a constant of {out.dtype.name}")
    return out
