"""Many sums of products over rows: a block of rows at a time, and of it some sums at a time.

More sums than there are registers would be loaded and stored in every row. So the factors of a block of rows are
computed once and put into memory that stays in the fastest cache; then group after group of sums runs over them.
The order in which a sum adds up its rows is the same as without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .loops import counted, number, slot
from .nodes import DATA

#: So many sums stay in registers.
IN_REGISTERS = 26
#: Sums of a group.
GROUP = 24
#: Vectors that a block of rows may leave in memory.
KEPT = 400


def tiled(
    rows: Any,
    known: dict[int, Any],
    length: ir.Value,
    whole: ir.Value,
    column: Callable[[int, str, ir.Value], ir.Value],
    below: Callable[[ir.Value], ir.Value],
) -> ir.Value:
    """Add up all cores over rows; the array of their sums, a vector each.

    Args:
        rows: the `RowCode` that writes.
        known: values of what depends on parameters alone, by the numbers of nodes.
        length: number of rows.
        whole: the largest multiple of those in a vector that is not above it.
        column: `column(c, type, r)` loads column `c` at row `r`.
        below: which elements of the vector at row `r` are rows at all.
    """
    builder, cores, width, type = rows.builder, rows.program.sums.cores, rows.width, rows.program.type
    plain = rows.emitter({}, known)
    lanes, zero = plain.lanes[type], ir.Constant(rows.vector, [0.0] * width)
    sums = plain.room(type, len(cores))
    counted(builder, number(0), number(len(cores)), lambda i: plain.store(zero, sums, type, i), name="zero")
    of_rows = lambda core: all(a.depends & DATA for a in core.args)  # noqa: E731
    late = [i for i, core in enumerate(cores) if rows.is_own_product(core, plain) and of_rows(core)]
    early = [i for i in range(len(cores)) if i not in set(late)]
    factors = {a.number: a for i in late for a in cores[i].args}
    first_ones = {cores[i].args[0].number for i in late}  # one factor of a product has the weight
    n_turns = max(2, min(32, KEPT // max(1, len(factors) + rows.weighted * len(first_ones))))
    room = {name: plain.room(type, n_turns) for name in factors}
    heavy = {name: plain.room(type, n_turns) for name in first_ones} if rows.weighted else room

    def compute(first: ir.Value, r: ir.Value, mask: ir.Value | None) -> None:
        emitter = rows.emitter({}, known)
        for i, node in enumerate(rows.columns):
            emitter.values[node.number] = column(i, node.type, r)
        counts, weight = rows.counting(column, r, mask)
        counted_ones = lambda value: value if counts is None else builder.select(counts, value, zero)  # noqa: E731
        times_weight = lambda value: value if weight is None else lanes.mul(value, weight)  # noqa: E731
        for i, value in zip(early, emitter.vectors([cores[i] for i in early])):
            before = emitter.load(sums, type, i)
            emitter.store(lanes.add(before, counted_ones(times_weight(value))), sums, type, i)
        turn = builder.sdiv(builder.sub(r, first), number(width))
        for name, value in zip(factors, emitter.vectors(factors.values())):
            emitter.store(counted_ones(value), room[name], type, turn)
            if rows.weighted and name in first_ones:
                emitter.store(counted_ones(times_weight(value)), heavy[name], type, turn)

    def block(first: ir.Value) -> None:
        end = builder.add(first, number(n_turns * width))
        end = builder.select(builder.icmp_signed("<", end, length), end, length)
        rest = builder.icmp_signed(">", end, whole)
        last = builder.select(rest, whole, end)
        counted(builder, first, last, lambda r: compute(first, r, None), step=width, name="factors")
        with builder.if_then(rest):
            compute(first, whole, below(whole))
        turns = builder.sdiv(builder.add(builder.sub(end, first), number(width - 1)), number(width))
        for begin in range(0, len(late), GROUP):
            _group(rows, late[begin : begin + GROUP], sums, heavy, room, turns)

    counted(builder, number(0), length, block, step=n_turns * width, name="tiles")
    return sums


def _group(
    rows: Any,
    group: list[int],
    sums: ir.Value,
    heavy: dict[int, ir.Value],
    room: dict[int, ir.Value],
    turns: ir.Value,
) -> None:
    """Add the products of a block to the sums of these cores, which are in registers meanwhile."""
    builder, type = rows.builder, rows.program.type
    emitter = rows.emitter({})
    places = [slot(builder, rows.vector) for _ in group]
    for place, i in zip(places, group):
        builder.store(emitter.load(sums, type, i), place)

    def turn(at: ir.Value) -> None:
        @functools.cache
        def value(name: int, is_heavy: bool) -> ir.Value:
            return emitter.load((heavy if is_heavy else room)[name], type, at)

        for place, i in zip(places, group):
            x, y = rows.program.sums.cores[i].args
            before = builder.load(place, typ=rows.vector)
            after = emitter.lanes[type].fma(value(x.number, rows.weighted), value(y.number, False), before)
            builder.store(after, place)

    counted(builder, number(0), turns, turn, name="group")
    for place, i in zip(places, group):
        emitter.store(builder.load(place, typ=rows.vector), sums, type, i)
