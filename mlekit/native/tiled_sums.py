"""Many sums of products over rows: a block of rows at a time, and of it some sums at a time.

More sums than there are registers would be loaded and stored in every row. So the factors of a block of rows are
computed once and put into memory that stays in the fastest cache; then group after group of sums runs over them.
The order in which a sum adds up its rows is the same as without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from .loops import counted, number, slot
from .nodes import DATA, Node

#: So many sums stay in registers.
IN_REGISTERS = 26
#: Sums of a group.
GROUP = 24
#: Vectors that a block of rows may leave in memory.
KEPT = 400


def tiled(
    rows: Any,
    known: dict[int, Any],
    count: ir.Value,
    column: Callable[[int, str, ir.Value], ir.Value],
    accumulators: Sequence[ir.Value],
) -> None:
    """Add up all cores over whole vectors of rows.

    Args:
        rows: the `RowCode` that writes.
        known: values of what depends on parameters alone, by the numbers of nodes.
        count: rows, a multiple of those in a vector.
        column: `column(c, type, r)` loads column `c` at row `r`.
        accumulators: where the sums go on, places in memory.
    """
    builder, cores, width = rows.builder, rows.program.sums.cores, rows.width
    plain = rows.emitter({}, known)
    late = [i for i, core in enumerate(cores) if rows.is_own_product(core, plain)]
    early = [i for i in range(len(cores)) if i not in set(late)]
    factors = {a.number: a for i in late for a in cores[i].args if a.depends & DATA}
    types = rows.program.type
    n_turns = max(2, min(32, KEPT // max(1, len(factors))))  # vectors of rows of a block
    room = {name: plain.room(types, n_turns) for name in factors}

    def block(first: ir.Value) -> None:
        last = builder.add(first, number(n_turns * width))
        last = builder.select(builder.icmp_signed("<", last, count), last, count)

        def compute(r: ir.Value) -> None:
            emitter = rows.emitter({}, known)
            for i, node in enumerate(rows.columns):
                emitter.values[node.number] = column(i, node.type, r)
            turn = builder.sdiv(builder.sub(r, first), number(width))
            values = emitter.vectors([cores[i] for i in early])
            for i, value in zip(early, values):
                before = emitter.load(accumulators[i], types, 0)
                emitter.store(emitter.lanes[types].add(before, value), accumulators[i], types, 0)
            for node, value in zip(factors.values(), emitter.vectors(factors.values())):
                emitter.store(value, room[node.number], types, turn)

        counted(builder, first, last, compute, step=width, name="factors")
        turns = builder.sdiv(builder.sub(last, first), number(width))
        for begin in range(0, len(late), GROUP):
            _group(rows, known, [(cores[i], accumulators[i]) for i in late[begin : begin + GROUP]], room, turns)

    counted(builder, number(0), count, block, step=n_turns * width, name="tiles")


def _group(
    rows: Any,
    known: dict[int, Any],
    group: list[tuple[Node, ir.Value]],
    room: dict[int, ir.Value],
    turns: ir.Value,
) -> None:
    """Add the products of a block to some sums, which are in registers meanwhile."""
    builder, type = rows.builder, rows.program.type
    emitter = rows.emitter({}, known)
    places = [slot(builder, rows.vector) for _ in group]
    for place, (_, accumulator) in zip(places, group):
        builder.store(emitter.load(accumulator, type, 0), place)

    def turn(i: ir.Value) -> None:
        loaded: dict[int, ir.Value] = {}

        def value(node: Node) -> ir.Value:
            if node.number not in room:
                return emitter.vectors([node])[0]
            if node.number not in loaded:
                loaded[node.number] = emitter.load(room[node.number], type, i)
            return loaded[node.number]

        for place, (core, _) in zip(places, group):
            x, y = map(value, core.args)
            builder.store(emitter.lanes[type].fma(x, y, builder.load(place, typ=rows.vector)), place)

    emitter.need([a for core, _ in group for a in core.args if a.number not in room])
    counted(builder, number(0), turns, turn, name="group")
    for place, (_, accumulator) in zip(places, group):
        emitter.store(builder.load(place, typ=rows.vector), accumulator, type, 0)
