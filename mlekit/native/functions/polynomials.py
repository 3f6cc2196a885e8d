"""Polynomials of vectors, and where the coefficients in this folder come from.

Unless another source is named beside them, coefficients are those of the least largest error, found by Remez's
exchange in 200-bit arithmetic (mpmath) and rounded. The error that is weighted is that of the function's result,
and stays below 2^-56 of it in float64 and 2^-27 in float32. Each table is for float64 and for float32.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ..lanes import Lanes

#: Coefficients from the constant upwards: those for float64, and those for float32.
Table = tuple[Sequence[float], Sequence[float]]


def horner(lanes: Lanes, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    """A polynomial, its coefficients from the constant upwards."""
    *rest, last = coefficients
    value: ir.Value = lanes.constant(last)
    for coefficient in reversed(rest):
        value = lanes.fma(value, x, lanes.constant(coefficient))
    return value


def polynomial(lanes: Lanes, x: ir.Value, table: Table) -> ir.Value:
    """A polynomial with the coefficients for the lanes' precision."""
    return horner(lanes, x, table[0 if lanes.double else 1])
