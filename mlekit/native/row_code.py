"""Code that runs over rows: it makes columns of the data once, and sums what depends on parameters too.

Rows are summed in one of two ways. Where the elements of vectors are data sets, the rows of all of them lie
interleaved, and all sums advance by a row at a time. Where they are rows, one data set comes after the other, and
what its vectors hold is added up at the end. Either way the order of a sum depends on its data set alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from .emit import Emitter, Workspace
from .functions import FUNCTIONS
from .loops import INT8, INT32, INT64, POINTER, SCALARS, SIZES, at, counted, number, slot
from .machine import host
from .nodes import Node
from .row_program import RowProgram
from .tiled_sums import IN_REGISTERS, tiled


class RowCode:
    """Writes the loops over rows of one data set, or of many, into a function.

    Args:
        program: what is summed.
        builder: where instructions go.
        width: the number of lanes.
        weighted: whether rows have weights.
        workspace: memory for arrays.
    """

    def __init__(
        self, program: RowProgram, builder: ir.IRBuilder, width: int, weighted: bool, workspace: Workspace
    ) -> None:
        self.program, self.builder, self.width, self.weighted = program, builder, width, weighted
        self.workspace = workspace
        self.real = SCALARS[program.type]
        self.size = SIZES[program.type]
        self.vector = ir.VectorType(self.real, width)
        self.mask = ir.VectorType(ir.IntType(1), width)
        self.columns: list[Node] = program.sums.columns
        sizes = [*program.column_sizes, *([self.size] if weighted else [])]
        #: Bytes of a row of the columns, and where each begins in it.
        self.row_bytes = sum(sizes)
        self.starts = [sum(sizes[:c]) for c in range(len(sizes))]

    def emitter(self, inputs: dict[Any, Callable[[], ir.Value]], known: dict[int, Any] | None = None) -> Emitter:
        """An emitter of the program's graph."""
        emitter = Emitter(
            self.program.graph,
            self.builder,
            self.width,
            FUNCTIONS,
            inputs,
            self.program.uses,
            self.workspace,
            fused=host().fused,
        )
        emitter.values.update(known or {})
        return emitter

    # What is done once.

    def fill(
        self,
        leaves: Sequence[ir.Value],
        weights: ir.Value | None,
        begin: ir.Value,
        length: ir.Value,
        put: Callable[[int, str, ir.Value, ir.Value], None],
        data_sums: Sequence[ir.Value],
    ) -> None:
        """Run over the rows of a data set once: columns, and the sums that depend on the data alone.

        Args:
            leaves: pointers to the user's arrays.
            weights: pointer to the weights of rows.
            begin: the first row of the data set.
            length: number of its rows.
            put: `put(column, type, row, value)` stores a vector of rows of a column; the weights are the last one.
            data_sums: where each sum of data goes, a scalar.
        """
        builder, program = self.builder, self.program
        sums = program.sums.data
        if not sums and not self.columns and not self.weighted:
            return
        places = [slot(builder, self.vector) for _ in sums]
        lanes = self.emitter({}).lanes[program.type]
        for place in places:
            builder.store(lanes.constant(0), place)

        def rows(r: ir.Value) -> None:
            mask = self._below(r, length)

            def bring(leaf: int, element: int, type: str) -> Callable[[], ir.Value]:
                return lambda: self._raw(leaves[leaf], leaf, element, type, begin, r, mask)

            inputs = {("column", i): bring(c.leaf, c.element, c.type) for i, c in enumerate(program.columns)}
            emitter = self.emitter(inputs)
            counts, weight = mask, None
            if weights is not None:
                weight = self._contiguous(weights, program.type, begin, r, mask)
                counts = builder.and_(mask, builder.fcmp_unordered("une", weight, lanes.constant(0)))
                put(len(self.columns), program.type, r, builder.select(mask, weight, lanes.constant(0)))
            for i, (node, value) in enumerate(zip(self.columns, emitter.vectors(self.columns))):
                put(i, node.type, r, value)
            for place, value in zip(places, emitter.vectors(sums)):
                value = value if weight is None else lanes.mul(value, weight)
                value = builder.select(counts, value, lanes.constant(0))
                builder.store(lanes.add(builder.load(place, typ=self.vector), value), place)

        counted(builder, number(0), length, rows, step=self.width, name="fill")
        for place, target in zip(places, data_sums):
            builder.store(lanes.sum(builder.load(place, typ=self.vector)), target)

    def _below(self, r: ir.Value, length: ir.Value) -> ir.Value:
        """Which of the rows from `r` on belong to the data set."""
        builder = self.builder
        wide = ir.VectorType(INT64, self.width)
        steps = ir.Constant(wide, list(range(self.width)))
        return builder.icmp_signed("<", builder.add(self._splat(r), steps), self._splat(length))

    def _splat(self, scalar: ir.Value) -> ir.Value:
        return self.emitter({}).lanes["float64"].broadcast(scalar)

    def _raw(
        self, pointer: ir.Value, leaf: int, element: int, type: str, begin: ir.Value, r: ir.Value, mask: ir.Value
    ) -> ir.Value:
        """A column of the user's arrays, a vector of rows."""
        in_row = sum(1 for c in self.program.columns if c.leaf == leaf)
        if in_row == 1:
            return self._as_number(self._contiguous(pointer, type, begin, r, mask), type)
        builder, kind = self.builder, self._memory_type(type)
        scalar = kind.element
        first = builder.add(builder.mul(begin, number(in_row)), number(element))
        origin = at(builder, pointer, first, scalar)
        steps = ir.Constant(ir.VectorType(INT64, self.width), [i * in_row for i in range(self.width)])
        index = builder.add(self._splat(builder.mul(r, number(in_row))), steps)
        index = builder.select(mask, index, ir.Constant(index.type, [0] * self.width))
        value = ir.Constant(kind, ir.Undefined)
        for i in range(self.width):
            place = at(builder, origin, builder.extract_element(index, ir.Constant(INT32, i)), scalar)
            value = builder.insert_element(value, builder.load(place, typ=scalar), ir.Constant(INT32, i))
        return self._as_number(value, type)

    def _contiguous(self, pointer: ir.Value, type: str, begin: ir.Value, r: ir.Value, mask: ir.Value) -> ir.Value:
        """Rows that lie side by side; the first one in place of those that are none of the data set."""
        builder, kind = self.builder, self._memory_type(type)
        origin = at(builder, pointer, begin, kind.element)
        first = self._splat(builder.load(origin, typ=kind.element))
        place = at(builder, origin, r, kind.element)
        bits = SIZES[type] * 8
        name = f"llvm.masked.load.v{self.width}{'f' if type.startswith('float') else 'i'}{bits}.p0"
        function = builder.module.globals.get(name)
        if function is None:
            kinds = [POINTER, self.mask, kind]
            function = ir.Function(builder.module, ir.FunctionType(kind, kinds), name)
        return builder.call(function, [place, mask, first])

    def _memory_type(self, type: str) -> ir.VectorType:
        return ir.VectorType(INT8 if type == "bool" else SCALARS[type], self.width)

    def _as_number(self, value: ir.Value, type: str) -> ir.Value:
        if type != "bool":
            return value
        return self.builder.icmp_unsigned("!=", value, ir.Constant(value.type, [0] * self.width))

    # What every evaluation does.

    def sum_rows(
        self,
        known: dict[int, Any],
        count: ir.Value,
        column: Callable[[int, str, ir.Value], ir.Value],
        mask: Callable[[ir.Value], ir.Value | None],
        step: int,
        start: ir.Value | None = None,
        accumulators: Sequence[ir.Value] | None = None,
    ) -> list[ir.Value]:
        """Add up all cores over rows; where each sum is, a vector.

        Args:
            known: values of what depends on parameters alone, by the numbers of nodes.
            count: rows, or vectors of rows times their size.
            column: `column(c, type, r)` loads column `c` at row `r`; the weights are the last one.
            mask: which elements of a vector count at row `r`; None if all do.
            step: from one row to the next.
            start: the first row; zero if it is not said.
            accumulators: where the sums go on; without them, new ones begin, and all elements count.
        """
        builder, cores = self.builder, self.program.sums.cores
        lanes = self.emitter({}).lanes[self.program.type]
        if accumulators is None:
            accumulators = [slot(builder, self.vector) for _ in cores]
            for place in accumulators:
                builder.store(lanes.constant(0), place)

        def row(r: ir.Value) -> None:
            emitter = self.emitter({}, known)
            for i, node in enumerate(self.columns):
                emitter.values[node.number] = column(i, node.type, r)
            counts, weight = self.counting(column, r, mask(r))
            for core, place in zip(cores, accumulators):
                before = builder.load(place, typ=self.vector)
                if weight is not None:
                    after = lanes.fma(emitter.vectors([core])[0], weight, before)
                elif self.is_own_product(core, emitter):
                    x, y = emitter.vectors(core.args)
                    after = lanes.fma(x, y, before)
                else:
                    after = lanes.add(before, emitter.vectors([core])[0])
                builder.store(after if counts is None else builder.select(counts, after, before), place)

        counted(builder, number(0) if start is None else start, count, row, step=step, name="rows")
        return list(accumulators)

    def totals(
        self,
        known: dict[int, Any],
        length: ir.Value,
        column: Callable[[int, str, ir.Value], ir.Value],
        put: Callable[[ir.Value, ir.Value], None],
    ) -> None:
        """Add up all cores over the rows of one data set.

        Args:
            known: as of `sum_rows`.
            length: number of rows.
            column: as of `sum_rows`.
            put: `put(i, total)` takes the sum of core `i`.
        """
        builder, emitter, n_cores = self.builder, self.emitter({}), len(self.program.sums.cores)
        lanes = emitter.lanes[self.program.type]
        below = lambda r: self._below(r, length)  # noqa: E731
        whole = builder.and_(length, number(-self.width))
        if n_cores > IN_REGISTERS:
            sums = tiled(self, known, length, whole, column, below)
            one = lambda i: put(i, lanes.sum(emitter.load(sums, self.program.type, i)))  # noqa: E731
            counted(builder, number(0), number(n_cores), one, name="totals")
            return
        places = self.sum_rows(known, whole, column, lambda r: None, self.width)
        self.sum_rows(known, length, column, below, self.width, whole, places)
        for i, place in enumerate(places):
            put(number(i), lanes.sum(builder.load(place, typ=self.vector)))

    def counting(
        self, column: Callable[[int, str, ir.Value], ir.Value], r: ir.Value, mask: ir.Value | None
    ) -> tuple[ir.Value | None, ir.Value | None]:
        """Which elements of a vector count, None if all do; and their weights, None without."""
        if not self.weighted:
            return mask, None
        builder, weight = self.builder, column(len(self.columns), self.program.type, r)
        some = builder.fcmp_unordered("une", weight, ir.Constant(self.vector, [0.0] * self.width))
        return (some if mask is None else builder.and_(mask, some)), weight

    def is_own_product(self, core: Node, emitter: Emitter) -> bool:
        """True if a core is a product that nothing else needs, which may be added as it is made."""
        alone = self.program.uses[core.number] == 1 and core.number not in emitter.values
        return core.op == "mul" and alone and host().fused
