"""What is left over a whole multiple."""

from __future__ import annotations

from llvmlite import ir

from ..lanes import Lanes


def rem(lanes: Lanes, x: ir.Value, y: ir.Value) -> ir.Value:
    r"""`x` less the multiple of `y` next to it towards zero, exact, with the sign of `x`: C's `fmod`."""
    return lanes.call("rem", _rem, x, y)


def _rem(lanes: Lanes, x: ir.Value, y: ir.Value) -> ir.Value:
    size, unit = lanes.abs(x), lanes.abs(y)
    ratio = lanes.div(size, unit)
    # Below, the multiple is known but for one, and fused products leave no error; otherwise the C library's loop.
    few = lanes.compare("<", ratio, lanes.constant(2.0 ** (52 if lanes.double else 23)))

    def fast() -> ir.Value:
        left = lanes.fma(lanes.neg(lanes.trunc(ratio)), unit, size)
        above = lanes.compare("<", left, lanes.constant(0))
        left = lanes.select(above, lanes.add(left, unit), left)
        return lanes.copysign(left, x)

    return lanes.branch(lanes.all(lanes.both(few, lanes.is_finite(y))), fast, lambda: lanes.rem(x, y))
