"""Rules of factorisations: written out for small matrices, loops in memory for large ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, small
from ..interpreter import Interpreter, out_type, rule
from ..nodes import Node
from ..unsupported import Unsupported


@rule("cholesky")
def cholesky(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """Cholesky's lower triangle; NaN throughout where the matrix is not positive definite."""
    x, graph, type = inputs[0], interpreter.graph, out_type(equation)
    k = x.shape[-1]
    if x.ndim != 2:
        raise Unsupported("cholesky of several matrices")
    if equation.params.get("symmetrize_input"):
        raise Unsupported("cholesky of a matrix made symmetric")
    if interpreter.is_large(x.shape):
        memory = interpreter.memory(x)
        return interpreter.in_memory(graph.node("cholesky", (memory,), k, (type, k * k)), x.shape)
    a, zero = interpreter.small(x), graph.constant(0, type)
    lower = np.full((k, k), zero, object)
    good = graph.constant(True, "bool")
    for j in range(k):
        pivot = a[j, j]
        for m in range(j):
            pivot = graph.sub(pivot, graph.mul(lower[j, m], lower[j, m]))
        good = graph.logic("and", good, graph.compare("lt", zero, pivot))
        lower[j, j] = graph.function("sqrt", pivot)
        for i in range(j + 1, k):
            entry = a[i, j]
            for m in range(j):
                entry = graph.sub(entry, graph.mul(lower[i, m], lower[j, m]))
            lower[i, j] = graph.div(entry, lower[j, j])
    nan = graph.constant(math.nan, type)
    return small((k, k), (graph.select(good, node, nan) for node in lower.reshape(-1)))


@rule("triangular_solve")
def triangular_solve(interpreter: Interpreter, equation: Any, inputs: list[Array]) -> Array:
    """The solution of a linear system with a triangular matrix."""
    p, graph, type = equation.params, interpreter.graph, out_type(equation)
    a, b = inputs
    if a.ndim != 2:
        raise Unsupported("triangular_solve of several matrices")
    if not p["left_side"]:
        raise Unsupported("triangular_solve from the right")
    k, columns = b.shape
    flags = (bool(p["lower"]) != bool(p["transpose_a"]), bool(p["transpose_a"]), bool(p["unit_diagonal"]))
    if interpreter.is_large(a.shape):
        memory = [interpreter.memory(x) for x in (a, b)]
        solved = graph.node("triangular_solve", memory, (k, columns, *flags), (type, k * columns))
        out = interpreter.in_memory(solved, b.shape)
        return out if interpreter.is_large(b.shape) else small(b.shape, interpreter.all_elements(out))
    forward, transposed, unit = flags
    matrix, right = interpreter.small(a), interpreter.small(b)
    matrix = matrix.T if transposed else matrix
    order = range(k) if forward else range(k - 1, -1, -1)
    solution = np.empty((k, columns), object)
    for c in range(columns):
        known: list[int] = []
        for i in order:
            entry: Node = right[i, c]
            for j in known:
                entry = graph.sub(entry, graph.mul(matrix[i, j], solution[j, c]))
            solution[i, c] = entry if unit else graph.div(entry, matrix[i, i])
            known.append(i)
    return solution
