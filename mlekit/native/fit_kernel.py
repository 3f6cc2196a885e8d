"""Whole fits of many data sets as native code: the elements of vectors are data sets, refilled as they finish."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .denormals import flushed
from .emit import Workspace
from .fit_arguments import Argument
from .layout import Place
from .loops import (
    INT8,
    INT32,
    INT64,
    POINTER,
    SCALARS,
    SIZES,
    as_function,
    at,
    counted,
    load_at,
    number,
    slot,
    store_at,
    while_true,
)
from .machine import Code, compile_module
from .row_code import RowCode
from .row_program import RowProgram
from .step import StepKernel


class FitKernel:
    """The fits of many data sets.

    Args:
        program: the sums over rows.
        step: the solver's step. Its arguments are the state; the sums' loss, gradient and, if the program has one,
            matrix; then the number of observations, the tolerance, the number of steps; then, if there are any,
            arrays that differ between data sets, such as bounds.
        weighted: whether rows have weights.
        rows_in_vectors: whether the elements of vectors are rows while rows are summed.
    """

    def __init__(self, program: RowProgram, step: StepKernel, weighted: bool, rows_in_vectors: bool) -> None:
        self.program, self.step, self.width = program, step, step.width
        self.rows_in_vectors = rows_in_vectors and program.has_row_loop
        places = step.layout.places
        self.state_places = places[: step.n_state]
        first = step.n_state
        self._loss, self._gradient = places[first], places[first + 1]
        self._matrix = places[first + 2] if program.has_matrix else None
        first += 3 if program.has_matrix else 2
        self._n_obs, self._tolerance, self._max_steps = places[first : first + 3]
        self.extra_places = places[first + 3 : len(places) - 2]
        self._point, self._running = places[-2:]
        self.n_floats = sum(p.size for p in self.state_places if p.type == program.type)
        self.n_integers = sum(p.size for p in self.state_places if p.type != program.type)
        self.weighted = weighted
        module = self._write()
        self.row_bytes = self._rows.row_bytes
        self.workspace_size = self._workspace.size
        self._code = Code(compile_module(module))
        self.function = self._code.function("fit", [ctypes.c_void_p])
        self.address = self._code.address("fit")

    def scratch_size(self, longest: int) -> tuple[int, int]:
        """Rows that a data set may have in the scratch memory, and its bytes, for data sets of so many rows."""
        capacity = -(-max(1, longest) // self.width) * self.width
        return capacity, capacity * self.row_bytes * self.width + 64

    def _write(self) -> ir.Module:
        module = ir.Module("fit")
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "fit")
        self._builder = builder = ir.IRBuilder(function.append_basic_block("entry"))
        table = function.args[0]
        kinds = {Argument.settings_stride, Argument.begin, Argument.end, Argument.capacity, Argument.extra_stride}
        self._given = {
            name: builder.load(at(builder, table, name, INT64), typ=INT64 if name in kinds else POINTER)
            for name in Argument
        }
        self._workspace = Workspace(self._given[Argument.workspace])
        builder.branch(function.append_basic_block("start"))
        builder.position_at_end(function.blocks[-1])
        self._rows = RowCode(self.program, builder, self.width, self.weighted, self._workspace)
        self._where = slot(builder, ir.VectorType(INT64, self.width))  # the data set in each lane, or -1
        self._lengths = slot(builder, ir.VectorType(INT64, self.width))
        self._next, self._live = slot(builder, INT64), slot(builder, INT64)
        self._data_sums = [slot(builder, self._rows.vector) for _ in self.program.sums.data]
        real = ir.Constant(self._rows.vector, [0.0] * self.width)
        for place in self._data_sums:
            builder.store(real, place)
        builder.store(self._given[Argument.begin], self._next)
        builder.store(number(0), self._live)
        with flushed(builder):
            counted(builder, number(0), number(self.width), self._begin_lane, name="begin")
            while_true(builder, self._goes_on, self._turn)
        builder.ret_void()
        return module

    # Turns.

    def _goes_on(self) -> ir.Value:
        builder = self._builder
        stop = builder.load(self._given[Argument.stop], typ=INT32)
        live = builder.icmp_signed(">", builder.load(self._live, typ=INT64), number(0))
        return builder.and_(live, builder.icmp_signed("==", stop, ir.Constant(INT32, 0)))

    def _turn(self) -> None:
        """Evaluate the points of all lanes, take a step, and let those that are done make way."""
        builder = self._builder
        turns = self._given[Argument.turns]
        builder.store(builder.add(builder.load(turns, typ=INT64), number(1)), turns)
        self._evaluate()
        kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER])
        step = self._given[Argument.step]
        call = as_function(builder, step, kind)
        builder.call(call, [self._given[Argument.memory], self._given[Argument.step_workspace]])
        bits = ir.VectorType(INT8, self.width)
        running = builder.load(self._address(self._running), typ=bits)
        wide = ir.VectorType(INT64, self.width)
        where = builder.load(self._where, typ=wide)
        done = builder.and_(
            builder.icmp_unsigned("==", running, ir.Constant(bits, [0] * self.width)),
            builder.icmp_signed(">=", where, ir.Constant(wide, [0] * self.width)),
        )
        flags = slot(builder, bits)
        builder.store(builder.zext(done, bits), flags)
        whole = ir.IntType(self.width)
        some = builder.icmp_unsigned("!=", builder.bitcast(done, whole), ir.Constant(whole, 0))

        def one(lane: ir.Value) -> None:
            flag = load_at(builder, flags, lane, INT8)
            with builder.if_then(builder.icmp_unsigned("!=", flag, ir.Constant(INT8, 0))):
                self._state_of_lane(lane, load_at(builder, self._where, lane, INT64), out=True)
                builder.store(builder.sub(builder.load(self._live, typ=INT64), number(1)), self._live)
                self._begin_lane(lane)

        with builder.if_then(some):
            counted(builder, number(0), number(self.width), one, name="finish")

    def _evaluate(self) -> None:
        builder, program, rows = self._builder, self.program, self._rows
        inputs: dict[Any, Callable[[], ir.Value]] = {"n_obs": lambda: self._vector(self._n_obs, 0)}
        emitter = rows.emitter(inputs)
        for i in range(program.n_free):
            inputs["free", i] = functools.partial(self._vector, self._point, i)
        for i, (_, _, type) in enumerate(program.settings):
            inputs["setting", i] = functools.partial(self._setting, i, type)
        for node, place in zip(program.sums.data_sums, self._data_sums):
            emitter.values[node.number] = builder.load(place, typ=rows.vector)
        emitter.need(program.sums.outer)
        if program.has_row_loop:
            known = {n.number: emitter.values[n.number] for n in program.sums.outer}
            known |= {n: v for n, v in emitter.values.items() if isinstance(v, ir.Constant)}
            totals = self._over_rows(known) if self.rows_in_vectors else self._over_sets(known)
            for node, total in zip(program.sums.core_sums, totals):
                emitter.values[node.number] = total
        places = {"loss": self._loss, "gradient": self._gradient, "matrix": self._matrix}
        values = emitter.vectors(program.sums.outputs)
        for (name, targets), value in zip(program.entries(), values):
            place = places[name]
            assert place is not None
            for i in targets:
                emitter.store(value, self._address(place), program.type, i)

    def _over_sets(self, known: dict[int, Any]) -> list[ir.Value]:
        """Sums over rows where the elements of vectors are data sets."""
        builder, rows = self._builder, self._rows
        wide = ir.VectorType(INT64, self.width)
        lengths = builder.load(self._lengths, typ=wide)
        emitter = rows.emitter({})
        lanes = emitter.lanes["float64"]
        longest, shortest = (self._extreme(lengths, order) for order in (">", "<"))
        record = number(rows.row_bytes * self.width)
        scratch = self._given[Argument.scratch]

        def column(c: int, type: str, r: ir.Value) -> ir.Value:
            place = at(builder, scratch, builder.mul(r, record), INT8)
            return emitter.load(at(builder, place, rows.starts[c] * self.width, INT8), type, 0, aligned=False)

        accumulators = rows.sum_rows(known, shortest, column, lambda r: None, 1)
        with builder.if_then(builder.icmp_signed("<", shortest, longest)):
            below = lambda r: builder.icmp_signed("<", lanes.broadcast(r), lengths)  # noqa: E731
            rows.sum_rows(known, longest, column, below, 1, shortest, accumulators)
        return [builder.load(place, typ=rows.vector) for place in accumulators]

    def _extreme(self, values: ir.Value, order: str) -> ir.Value:
        builder = self._builder
        out = builder.extract_element(values, ir.Constant(INT32, 0))
        for i in range(1, self.width):
            other = builder.extract_element(values, ir.Constant(INT32, i))
            out = builder.select(builder.icmp_signed(order, other, out), other, out)
        return out

    def _over_rows(self, known: dict[int, Any]) -> list[ir.Value]:
        """Sums over rows where the elements of vectors are rows: one data set after the other."""
        builder, rows, program = self._builder, self._rows, self.program
        emitter = rows.emitter({})
        kept = {}
        for node in program.sums.outer:
            if not isinstance(known[node.number].type, ir.VectorType):
                continue
            place = slot(builder, emitter.element_type(node.type))
            emitter.store(known[node.number], place, node.type, 0)
            kept[node] = place
        lanes, n_cores = emitter.lanes[program.type], len(program.sums.cores)
        totals = emitter.room(program.type, n_cores)
        zero = lambda i: emitter.store(lanes.constant(0), totals, program.type, i)  # noqa: E731
        counted(builder, number(0), number(n_cores), zero, name="zero")

        def one(lane: ir.Value) -> None:
            length = load_at(builder, self._lengths, lane, INT64)
            mine = dict(known)
            for node, place in kept.items():
                scalar = INT8 if node.type == "bool" else SCALARS[node.type]
                value = lanes.broadcast(load_at(builder, place, lane, scalar))
                mine[node.number] = builder.trunc(value, rows.mask) if node.type == "bool" else value
            base = self._lane_base(lane)

            def column(c: int, type: str, r: ir.Value) -> ir.Value:
                place = self._column_place(base, c)
                return emitter.load(
                    at(builder, place, builder.mul(r, number(SIZES[type])), INT8), type, 0, aligned=False
                )

            def put(i: ir.Value, total: ir.Value) -> None:
                store_at(builder, total, totals, builder.add(builder.mul(i, number(self.width)), lane))

            rows.totals(mine, length, column, put)

        def if_any(lane: ir.Value) -> None:
            there = builder.icmp_signed(">", load_at(builder, self._lengths, lane, INT64), number(0))
            with builder.if_then(there):
                one(lane)

        counted(builder, number(0), number(self.width), if_any, name="sets")
        return [emitter.load(totals, program.type, i) for i in range(n_cores)]

    def _lane_base(self, lane: ir.Value) -> ir.Value:
        """Where the columns of a lane begin, if each lies by itself."""
        builder = self._builder
        bytes = builder.mul(self._given[Argument.capacity], number(self._rows.row_bytes))
        return at(builder, self._given[Argument.scratch], builder.mul(lane, bytes), INT8)

    def _column_place(self, base: ir.Value, c: int) -> ir.Value:
        builder = self._builder
        return at(builder, base, builder.mul(self._given[Argument.capacity], number(self._rows.starts[c])), INT8)

    # Lanes.

    def _begin_lane(self, lane: ir.Value) -> None:
        """Put the next data set into a lane, if there is one."""
        builder = self._builder
        place = builder.load(self._next, typ=INT64)
        there = builder.icmp_signed("<", place, self._given[Argument.end])
        builder.store(number(-1), at(builder, self._where, lane, INT64))
        builder.store(number(0), at(builder, self._lengths, lane, INT64))
        with builder.if_then(there):
            i = load_at(builder, self._given[Argument.order], place, INT64)
            builder.store(i, at(builder, self._where, lane, INT64))
            builder.store(builder.add(place, number(1)), self._next)
            builder.store(builder.add(builder.load(self._live, typ=INT64), number(1)), self._live)
            length = load_at(builder, self._given[Argument.lengths], i, INT64)
            builder.store(length, at(builder, self._lengths, lane, INT64))
            self._state_of_lane(lane, i, out=False)
            real = self._rows.real
            self._put(self._n_obs, 0, lane, load_at(builder, self._given[Argument.n_obs], i, real))
            self._put(self._tolerance, 0, lane, builder.load(self._given[Argument.tolerance], typ=real))
            limit = load_at(builder, self._given[Argument.max_steps], i, INT32)
            self._put(self._max_steps, 0, lane, limit)
            points = at(builder, self._given[Argument.points], builder.mul(i, number(self.program.n_free)), real)
            self._each(self._point, points, number(0), lane, out=False)
            self._extra_of_lane(lane, i)
            self._rows_of_lane(lane, i, length)

    def _rows_of_lane(self, lane: ir.Value, i: ir.Value, length: ir.Value) -> None:
        """Columns and sums of the data of a lane's data set."""
        builder, rows, program = self._builder, self._rows, self.program
        begin = load_at(builder, self._given[Argument.offsets], i, INT64)
        n_leaves = 1 + max((c.leaf for c in program.columns), default=-1)
        leaves = [load_at(builder, self._given[Argument.leaves], j, POINTER) for j in range(n_leaves)]
        weights = self._given[Argument.weights] if self.weighted else None
        emitter = rows.emitter({})
        if self.rows_in_vectors:
            base = self._lane_base(lane)

            def put(c: int, type: str, r: ir.Value, value: ir.Value) -> None:
                place = self._column_place(base, c)
                place = at(builder, place, builder.mul(r, number(SIZES[type])), INT8)
                emitter.store(value, place, type, 0, aligned=False)
        else:
            scratch = self._given[Argument.scratch]
            record = rows.row_bytes * self.width

            def put(c: int, type: str, r: ir.Value, value: ir.Value) -> None:
                start = at(builder, scratch, builder.mul(r, number(record)), INT8)
                start = at(builder, start, rows.starts[c] * self.width, INT8)
                start = at(builder, start, builder.mul(lane, number(SIZES[type])), INT8)
                value = builder.zext(value, emitter.element_type(type)) if type == "bool" else value
                for q in range(self.width):
                    scalar = builder.extract_element(value, ir.Constant(INT32, q))
                    builder.store(scalar, at(builder, start, q * record, INT8))

        sums = [at(builder, place, lane, rows.real) for place in self._data_sums]
        with builder.if_then(builder.icmp_signed(">", length, number(0))):
            rows.fill(leaves, weights, begin, length, put, sums)

    def _state_of_lane(self, lane: ir.Value, i: ir.Value, out: bool) -> None:
        """Bring the state of data set `i` into a lane, or out of it."""
        builder = self._builder
        counts = {True: 0, False: 0}
        for place in self.state_places:
            real = place.type == self.program.type
            name, width = (Argument.floats, self.n_floats) if real else (Argument.integers, self.n_integers)
            kind = self._rows.real if real else INT32
            row = at(builder, self._given[name], builder.mul(i, number(width)), kind)
            self._each(place, row, number(counts[real]), lane, out)
            counts[real] += place.size

    def _extra_of_lane(self, lane: ir.Value, i: ir.Value) -> None:
        builder, count = self._builder, 0
        bytes = builder.mul(i, self._given[Argument.extra_stride])
        row = at(builder, self._given[Argument.extra], bytes, INT8)
        for place in self.extra_places:
            self._each(place, row, number(count), lane, out=False)
            count += place.size

    def _each(self, place: Place, row: ir.Value, first: ir.Value, lane: ir.Value, out: bool) -> None:
        """Copy the numbers of an array between a lane and a row of numbers in memory."""
        builder = self._builder
        real = place.type == self.program.type
        kind = self._rows.real if real else INT32

        def one(j: ir.Value) -> None:
            outside = at(builder, row, builder.add(first, j), kind)
            inside = self._lane_address(place, j, lane)
            if out:
                value = builder.load(inside, typ=INT8 if place.type == "bool" else SCALARS[place.type])
                builder.store(builder.zext(value, INT32) if place.type == "bool" else value, outside)
            else:
                value = builder.load(outside, typ=kind)
                builder.store(builder.trunc(value, INT8) if place.type == "bool" else value, inside)

        if place.size == 1:
            one(number(0))
        else:
            counted(builder, number(0), number(place.size), one, name="copy")

    def _address(self, place: Place) -> ir.Value:
        return at(self._builder, self._given[Argument.memory], place.offset, INT8)

    def _lane_address(self, place: Place, j: ir.Value, lane: ir.Value) -> ir.Value:
        builder = self._builder
        start = at(builder, self._address(place), builder.mul(j, number(place.stride)), INT8)
        return at(builder, start, builder.mul(lane, number(SIZES[place.type])), INT8)

    def _put(self, place: Place, j: int, lane: ir.Value, value: ir.Value) -> None:
        self._builder.store(value, self._lane_address(place, number(j), lane))

    def _vector(self, place: Place, j: int) -> ir.Value:
        kind = ir.VectorType(SCALARS[place.type], self.width)
        return self._builder.load(at(self._builder, self._address(place), j, kind), typ=kind)

    def _setting(self, i: int, type: str) -> ir.Value:
        """A number of each lane's data set, a vector."""
        builder = self._builder
        kind = INT8 if type == "bool" else SCALARS[type]
        out = ir.Constant(ir.VectorType(kind, self.width), ir.Undefined)
        for lane in range(self.width):
            which = load_at(builder, self._where, lane, INT64)
            which = builder.select(builder.icmp_signed(">=", which, number(0)), which, number(0))
            row = builder.mul(which, self._given[Argument.settings_stride])
            place = at(builder, at(builder, self._given[Argument.settings], row, INT8), 8 * i, INT8)
            out = builder.insert_element(out, builder.load(place, typ=kind), ir.Constant(INT32, lane))
        return builder.trunc(out, self._rows.mask) if type == "bool" else out
