"""A function of numbers compiled to run over columns."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from llvmlite import ir

from mlekit.native import rules
from mlekit.native.arrays import Array, small
from mlekit.native.denormals import flushed
from mlekit.native.emit import Emitter, Workspace, count_uses
from mlekit.native.functions import FUNCTIONS
from mlekit.native.graph import Graph
from mlekit.native.interpreter import Interpreter
from mlekit.native.layout import workspace
from mlekit.native.loops import INT64, POINTER, SCALARS, body_of, counted, load_at, number
from mlekit.native.machine import Code, compile_module, host
from mlekit.native.nodes import PARAMETERS, Node

assert rules.__all__  # the rules are known once they are imported


class ElementwiseKernel:
    """A traced function, compiled to run over the rows of its arguments.

    Args:
        jaxpr: the function's closed jaxpr, of one row.
        dtype: the precision, which says how many rows make a vector.
        limit: arrays of more elements are computed in loops.
        width: rows at a time, if not as many as the machine takes.
    """

    def __init__(self, jaxpr: Any, dtype: Any, limit: int | None = None, width: int | None = None) -> None:
        self.width = width or host().width(dtype)
        graph = Graph()
        interpreter = Interpreter(graph, FUNCTIONS, limit)
        self._in = [(tuple(v.aval.shape), v.aval.dtype.name) for v in jaxpr.jaxpr.invars]
        self._out = [(tuple(v.aval.shape), v.aval.dtype.name) for v in jaxpr.jaxpr.outvars]
        inputs: list[Array] = []
        columns: list[Node] = []
        for shape, type in self._in:
            first = len(columns)
            columns += [graph.input(first + i, type, PARAMETERS) for i in range(int(np.prod(shape, dtype=int)))]
            inputs.append(small(shape, columns[first:]))
        results = [node for x in interpreter.closed(jaxpr, inputs) for node in interpreter.all_elements(x)]
        self.n_nodes = len(graph.reach(results))
        code = Code(compile_module(self._module(graph, columns, results)))
        self._call = code.function("kernel", [ctypes.c_void_p] * 3 + [ctypes.c_int64])

    def _module(self, graph: Graph, columns: list[Node], results: list[Node]) -> ir.Module:
        module = ir.Module("elementwise")
        kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, POINTER, INT64])
        function = ir.Function(module, kind, "kernel")
        builder = body_of(function)
        sources, targets, memory, count = function.args
        self._workspace = Workspace(memory)

        def block(start: ir.Value) -> None:
            emitter: Emitter

            def bring(i: int, type: str) -> Callable[[], ir.Value]:
                def load() -> ir.Value:
                    column = load_at(builder, sources, i, POINTER)
                    size = ir.IntType(8) if type == "bool" else SCALARS[type]
                    return emitter.load(builder.gep(column, [start], source_etype=size), type, 0)

                return load

            inputs = {node.attribute: bring(i, node.type) for i, node in enumerate(columns)}
            uses = count_uses(graph, results)
            emitter = Emitter(
                graph, builder, self.width, FUNCTIONS, inputs, uses, self._workspace, fused=host().fused
            )
            for i, (value, node) in enumerate(zip(emitter.vectors(results), results)):
                column = load_at(builder, targets, i, POINTER)
                size = ir.IntType(8) if node.type == "bool" else SCALARS[node.type]
                emitter.store(value, builder.gep(column, [start], source_etype=size), node.type, 0)

        with flushed(builder):
            counted(builder, number(0), count, block, step=self.width)
        builder.ret_void()
        return module

    def __call__(self, *arguments: Any) -> list[np.ndarray]:
        """The results of all rows; arguments and results have a leading axis of rows."""
        n_rows = np.shape(arguments[0])[0]
        padded = -(-n_rows // self.width) * self.width
        columns = []
        for x, (_, type) in zip(arguments, self._in, strict=True):
            flat = np.asarray(x).astype(type, copy=False).reshape(n_rows, -1)
            whole = np.concatenate([flat, np.repeat(flat[-1:], padded - n_rows, axis=0)])
            columns += [_aligned(c) for c in whole.T]
        out = [
            [_aligned(np.zeros(padded, type)) for _ in range(int(np.prod(s, dtype=int)))] for s, type in self._out
        ]
        memory = workspace(self._workspace.size + 64)
        self._call(_pointers(columns), _pointers([c for part in out for c in part]), memory.ctypes.data, padded)
        shapes = [shape for shape, _ in self._out]
        return [
            np.stack([c[:n_rows] for c in part], axis=1).reshape(n_rows, *shape)
            for part, shape in zip(out, shapes)
        ]


def compiled(fn: Callable[..., Any], *examples: Any, **options: Any) -> ElementwiseKernel:
    """The kernel of a function of arrays like these, of one row each; `options` as `ElementwiseKernel` takes."""
    jaxpr = jax.make_jaxpr(fn)(*examples)
    floats = [np.dtype(v.aval.dtype) for v in jaxpr.jaxpr.invars if v.aval.dtype.name.startswith("float")]
    return ElementwiseKernel(jaxpr, floats[0] if floats else np.float64, **options)


def _aligned(column: np.ndarray) -> np.ndarray:
    """A copy that begins where a vector may."""
    out = workspace(column.nbytes).view(column.dtype)
    out[:] = column
    return out


def _pointers(columns: Sequence[np.ndarray]) -> Any:
    return (ctypes.c_void_p * max(1, len(columns)))(*[c.ctypes.data for c in columns])
