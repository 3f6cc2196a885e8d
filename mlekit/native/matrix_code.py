"""Factorisations of matrices in memory: loops over their entries, each of which is a vector."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from .loops import counted, number, slot


def cholesky(emitter: Any, type: str, k: int, out: ir.Value, matrix: ir.Value) -> None:
    """Cholesky's lower triangle; NaN throughout where a pivot is not positive."""
    builder, lanes = emitter.builder, emitter.lanes[type]
    zero, size = lanes.constant(0), number(k)
    good, total = slot(builder, emitter.element_type("bool")), slot(builder, emitter.element_type(type))
    emitter.store(lanes.truth(True), good, "bool", 0)
    place = lambda i, j: builder.add(builder.mul(i, size), j)  # noqa: E731

    def column(j: ir.Value) -> None:
        def entry(i: ir.Value) -> ir.Value:
            """An entry of the matrix less what the columns before explain."""
            emitter.store(emitter.load(matrix, type, place(i, j)), total, type, 0)

            def take(m: ir.Value) -> None:
                left, right = emitter.load(out, type, place(i, m)), emitter.load(out, type, place(j, m))
                rest = lanes.fma(lanes.neg(left), right, emitter.load(total, type, 0))
                emitter.store(rest, total, type, 0)

            counted(builder, number(0), j, take, name="entry")
            return emitter.load(total, type, 0)

        pivot = entry(j)
        fine = lanes.both(emitter.load(good, "bool", 0), lanes.compare(">", pivot, zero))
        emitter.store(fine, good, "bool", 0)
        root = lanes.sqrt(pivot)
        emitter.store(root, out, type, place(j, j))
        inverse = lanes.div(lanes.constant(1), root)

        def below(i: ir.Value) -> None:
            emitter.store(lanes.mul(entry(i), inverse), out, type, place(i, j))
            emitter.store(zero, out, type, place(j, i))

        counted(builder, builder.add(j, number(1)), size, below, name="column")

    counted(builder, number(0), size, column, name="cholesky")
    fine, nan = emitter.load(good, "bool", 0), lanes.constant(math.nan)

    def mark(i: ir.Value) -> None:
        emitter.store(builder.select(fine, emitter.load(out, type, i), nan), out, type, i)

    counted(builder, number(0), number(k * k), mark, name="mark")


def triangular_solve(
    emitter: Any,
    type: str,
    shape: tuple[int, int, bool, bool, bool],
    out: ir.Value,
    matrix: ir.Value,
    right: ir.Value,
) -> None:
    """The solution of a triangular system, all right sides at once.

    Args:
        emitter: writes it.
        type: of the entries.
        shape: rows, right sides; whether it goes from the first row to the last; whether the matrix is to be
            transposed; whether its diagonal counts as ones.
        out: where the solution goes.
        matrix: the matrix in memory.
        right: the right sides.
    """
    k, columns, forward, transposed, unit = shape
    builder, lanes = emitter.builder, emitter.lanes[type]
    total = slot(builder, emitter.element_type(type))

    def place(i: ir.Value, j: ir.Value, n: int) -> ir.Value:
        return builder.add(builder.mul(i, number(n)), j)

    def row(turn: ir.Value) -> None:
        i = turn if forward else builder.sub(number(k - 1), turn)
        diagonal = None if unit else emitter.load(matrix, type, place(i, i, k))

        def one(c: ir.Value) -> None:
            emitter.store(emitter.load(right, type, place(i, c, columns)), total, type, 0)

            def take(before: ir.Value) -> None:
                j = before if forward else builder.sub(number(k - 1), before)
                at = place(j, i, k) if transposed else place(i, j, k)
                left, known = emitter.load(matrix, type, at), emitter.load(out, type, place(j, c, columns))
                rest = lanes.fma(lanes.neg(left), known, emitter.load(total, type, 0))
                emitter.store(rest, total, type, 0)

            counted(builder, number(0), turn, take, name="row")
            value = emitter.load(total, type, 0)
            value = value if diagonal is None else lanes.div(value, diagonal)
            emitter.store(value, out, type, place(i, c, columns))

        counted(builder, number(0), number(columns), one, name="sides")

    counted(builder, number(0), number(k), row, name="solve")
