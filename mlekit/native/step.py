"""A solver's step, compiled apart from any model: for many data sets at a time, the elements of vectors.

It depends on the solver, the number of parameters and the precision alone, so its code is kept.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from llvmlite import ir

from . import rules
from .arrays import Array, small
from .denormals import flushed
from .emit import Emitter, Workspace, count_uses
from .functions import FUNCTIONS
from .graph import Graph
from .interpreter import Interpreter
from .layout import Layout, shapes
from .loops import INT8, INT64, POINTER, at, body_of, counted, number
from .machine import host, load
from .nodes import PARAMETERS, Node

assert rules.__all__  # the rules are known once they are imported

#: With so many parameters arrays are written out number by number; with more, loops run over them.
WRITTEN_OUT = 10
#: Elements of the largest array that is written out even then.
SMALL = 4


class StepKernel:
    """A step, compiled.

    In memory lie, number by number, the leaves of all arguments, then those of the results that are no state. The
    step puts the new state in place of the old one.

    Args:
        advance: `advance(state, *others)` gives the next state and other results.
        arguments: arrays, or shapes and dtypes, like its arguments.
        n_free: number of parameters.
        dtype: the precision.
        key: what `advance` depends on beside its arguments' shapes.
    """

    def __init__(
        self, advance: Callable[..., Any], arguments: tuple[Any, ...], n_free: int, dtype: Any, key: str
    ) -> None:
        self.width = host().width(dtype)
        self.arguments = tuple(jax.tree.map(_shape, argument) for argument in arguments)
        self.n_state = len(jax.tree.leaves(self.arguments[0]))
        self._advance, self._limit = advance, None if n_free <= WRITTEN_OUT else SMALL
        # The point to look at next, and whether the search goes on.
        self.results = [jax.ShapeDtypeStruct((n_free,), np.dtype(dtype)), jax.ShapeDtypeStruct((), np.dtype(bool))]
        self.layout = Layout([*shapes(self.arguments), *self.results], self.width)
        leaves = [(place.shape, place.type) for place in self.layout]
        self._code = load(f"step {key} {self.width} {leaves} {sources()}", self._module)
        self.function = self._code.function("step", [ctypes.c_void_p] * 2)
        self.address = self._code.address("step")
        self.workspace_size = int(self._code.function("workspace_size", [], ctypes.c_int64)())

    def _module(self) -> ir.Module:
        jaxpr = jax.make_jaxpr(self._advance)(*self.arguments)
        graph = Graph()
        interpreter = Interpreter(graph, FUNCTIONS, self._limit)
        n_arguments = len(jaxpr.jaxpr.invars)
        inputs: list[Array] = []
        for i, place in enumerate(self.layout.places[:n_arguments]):
            if interpreter.is_large(place.shape):
                memory = graph.input((i, None), (place.type, place.size), PARAMETERS)  # type: ignore[arg-type]
                inputs.append(interpreter.in_memory(memory, place.shape))
            else:
                numbers = (graph.input((i, j), place.type, PARAMETERS) for j in range(place.size))
                inputs.append(small(place.shape, numbers))
        outputs = interpreter.closed(jaxpr, inputs)
        targets = [*self.layout.places[: self.n_state], *self.layout.places[n_arguments:]]
        roots: list[tuple[Node, Any]] = []
        for array, place in zip(outputs, targets, strict=True):
            if interpreter.is_large(place.shape):
                roots.append((interpreter.memory(array), place))
            else:
                roots += [(node, (place, j)) for j, node in enumerate(interpreter.all_elements(array))]
        self.n_nodes = len(graph.reach(node for node, _ in roots))
        return self._write(graph, roots)

    def _write(self, graph: Graph, roots: list[tuple[Node, Any]]) -> ir.Module:
        module = ir.Module("step")
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, POINTER]), "step")
        memory, room = function.args
        for argument in function.args:
            argument.add_attribute("noalias")
        builder = body_of(function)
        space, nodes = Workspace(room), [node for node, _ in roots]
        uses = count_uses(graph, nodes)
        emitter = Emitter(graph, builder, self.width, FUNCTIONS, {}, uses, space, fused=host().fused)

        def place_of(offset: int) -> ir.Value:
            return at(builder, memory, offset, INT8)

        def bring(i: int, j: int | None) -> ir.Value:
            place = self.layout[i]
            if j is None:
                return place_of(place.offset)
            return emitter.load(place_of(place.offset), place.type, j)

        class Inputs(dict[Any, Any]):
            def __missing__(self, name: Any) -> Any:
                return functools.partial(bring, *name)

        emitter.inputs = Inputs()
        with flushed(builder):
            emitter.need(nodes)
            values = [emitter.values[n.number] if isinstance(n.type, tuple) else emitter.vector(n) for n in nodes]
            given = [i for i, node in enumerate(nodes) if isinstance(node.type, tuple) and node.op == "input"]
            for i in given:  # what lies in the place of another result must not be written over
                type, size = nodes[i].type
                if self.layout[nodes[i].attribute[0]] is not roots[i][1]:
                    other = emitter.room(type, size)
                    _copy(emitter, values[i], other, type, size)
                    values[i] = other
            for (node, target), value in zip(roots, values):
                if not isinstance(node.type, tuple):
                    place, j = target
                    emitter.store(value, place_of(place.offset), place.type, j)
                elif not (node.op == "input" and self.layout[node.attribute[0]] is target):
                    _copy(emitter, value, place_of(target.offset), *node.type)
        builder.ret_void()
        size = ir.Function(module, ir.FunctionType(INT64, []), "workspace_size")
        ir.IRBuilder(size.append_basic_block()).ret(number(space.size))
        return module


def _copy(emitter: Emitter, source: ir.Value, target: ir.Value, type: str, size: int) -> None:
    def one(i: ir.Value) -> None:
        emitter.store(emitter.load(source, type, i), target, type, i)

    counted(emitter.builder, number(0), number(size), one, name="put")


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


@functools.cache
def sources() -> str:
    """A digest of all code that a compiled step depends on: the library's, and the versions of JAX."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256(jax.__version__.encode())
    for room in ("core", "solvers", "native"):
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
