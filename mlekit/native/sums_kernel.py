"""Loss, gradient and matrix of one data set as native code: the elements of vectors are rows, in blocks."""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from .denormals import flushed
from .emit import Workspace
from .layout import workspace
from .loops import INT8, INT64, POINTER, SCALARS, SIZES, at, load_at, number, store_at
from .machine import Code, compile_module, host
from .row_code import RowCode
from .row_program import RowProgram
from .threads import StopFlag, share_out

#: Rows of a block. Blocks are summed by themselves, and their sums in order, whichever thread they come from.
BLOCK = 4096
#: Blocks that a thread takes at a time.
CHUNK = 8


class Argument(enum.IntEnum):
    """The arguments of the functions, a table of eight bytes each."""

    leaves = 0  #: pointer to pointers to the arrays of rows
    weights = 1  #: of rows
    begin = 2  #: the first row
    length = 3  #: number of rows
    columns = 4  #: memory of the columns
    capacity = 5  #: rows that they have room for
    free = 6  #: where
    settings = 7  #: eight bytes each
    n_obs = 8
    sums = 9  #: what is summed, of the block or in all
    data_sums = 10  #: the same of what depends on the data alone
    outputs = 11  #: loss, gradient, and the matrix
    workspace = 12


class Prepared:
    """A data set whose columns lie in memory.

    Args:
        leaves: arrays of shape `(rows, ...)`.
        weights: of the rows, or None.
        columns: memory of the columns.
        capacity: rows they have room for.
        data_sums: sums of what depends on the data alone.
        n_rows: number of rows.
    """

    def __init__(
        self,
        leaves: Sequence[np.ndarray],
        weights: np.ndarray | None,
        columns: np.ndarray,
        capacity: int,
        data_sums: np.ndarray,
        n_rows: int,
    ) -> None:
        self.leaves, self.weights, self.columns = leaves, weights, columns
        self.capacity, self.data_sums, self.n_rows = capacity, data_sums, n_rows


class SumsKernel:
    """The sums of one data set.

    Args:
        program: what is summed.
        weighted: whether rows have weights.
    """

    def __init__(self, program: RowProgram, weighted: bool) -> None:
        self.program, self.weighted = program, weighted
        self.width = host().width(program.type)
        self._sizes: dict[str, int] = {}
        module = ir.Module("sums")
        for name, write in (("prepare", self._prepare), ("partial", self._partial), ("finish", self._finish)):
            function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), name)
            builder = ir.IRBuilder(function.append_basic_block("entry"))
            given = {}
            for argument in Argument:
                whole = argument in (Argument.begin, Argument.length, Argument.capacity)
                place = at(builder, function.args[0], argument, INT64)
                given[argument] = builder.load(place, typ=INT64 if whole else POINTER)
            space = Workspace(given[Argument.workspace])
            builder.branch(function.append_basic_block("start"))
            builder.position_at_end(function.blocks[-1])
            rows = RowCode(program, builder, self.width, weighted, space)
            with flushed(builder):
                write(builder, rows, given)
            builder.ret_void()
            self._sizes[name] = space.size
            self._row_bytes = rows.row_bytes
        self._code = Code(compile_module(module))
        self._functions = {name: self._code.function(name, [ctypes.c_void_p]) for name in self._sizes}

    # Code.

    def _prepare(self, builder: ir.IRBuilder, rows: RowCode, given: dict[Argument, ir.Value]) -> None:
        """Columns of a block of rows, and its sums of data."""
        n_leaves = 1 + max((c.leaf for c in self.program.columns), default=-1)
        leaves = [load_at(builder, given[Argument.leaves], j, POINTER) for j in range(n_leaves)]
        emitter, begin = rows.emitter({}), given[Argument.begin]

        def put(c: int, type: str, r: ir.Value, value: ir.Value) -> None:
            place = self._column(builder, rows, given, c, type, builder.add(begin, r))
            emitter.store(value, place, type, 0, aligned=False)

        sums = [at(builder, given[Argument.data_sums], i, rows.real) for i in range(len(self.program.sums.data))]
        weights = given[Argument.weights] if self.weighted else None
        rows.fill(leaves, weights, begin, given[Argument.length], put, sums)

    def _column(
        self,
        builder: ir.IRBuilder,
        rows: RowCode,
        given: dict[Argument, ir.Value],
        c: int,
        type: str,
        r: ir.Value,
    ) -> ir.Value:
        start = builder.mul(given[Argument.capacity], number(rows.starts[c]))
        place = at(builder, given[Argument.columns], start, INT8)
        return at(builder, place, builder.mul(r, number(SIZES[type])), INT8)

    def _inputs(self, builder: ir.IRBuilder, rows: RowCode, given: dict[Argument, ir.Value]) -> dict[Any, Any]:
        lanes = rows.emitter({}).lanes["float64"]

        def number_at(pointer: ir.Value, offset: int, type: str) -> ir.Value:
            kind = INT8 if type == "bool" else SCALARS[type]
            value = lanes.broadcast(builder.load(at(builder, pointer, offset, INT8), typ=kind))
            return builder.trunc(value, rows.mask) if type == "bool" else value

        real = self.program.type
        inputs: dict[Any, Any] = {"n_obs": lambda: number_at(given[Argument.n_obs], 0, real)}
        for i in range(self.program.n_free):
            inputs["free", i] = lambda i=i: number_at(given[Argument.free], i * SIZES[real], real)
        for i, (_, _, type) in enumerate(self.program.settings):
            inputs["setting", i] = lambda i=i, type=type: number_at(given[Argument.settings], 8 * i, type)
        return inputs

    def _partial(self, builder: ir.IRBuilder, rows: RowCode, given: dict[Argument, ir.Value]) -> None:
        """The sums of a block of rows."""
        outer = rows.emitter(self._inputs(builder, rows, given))
        outer.need(self.program.sums.outer)
        length, begin = given[Argument.length], given[Argument.begin]
        emitter = rows.emitter({})

        def column(c: int, type: str, r: ir.Value) -> ir.Value:
            place = self._column(builder, rows, given, c, type, builder.add(begin, r))
            return emitter.load(place, type, 0, aligned=False)

        put = lambda i, total: store_at(builder, total, given[Argument.sums], i)  # noqa: E731
        rows.totals(outer.values, length, column, put)

    def _finish(self, builder: ir.IRBuilder, rows: RowCode, given: dict[Argument, ir.Value]) -> None:
        """Loss, gradient and matrix from the sums."""
        emitter, sums = rows.emitter(self._inputs(builder, rows, given)), self.program.sums
        lanes = emitter.lanes[self.program.type]
        for nodes, name in ((sums.core_sums, Argument.sums), (sums.data_sums, Argument.data_sums)):
            for i, node in enumerate(nodes):
                emitter.values[node.number] = lanes.broadcast(load_at(builder, given[name], i, rows.real))
        for i, value in enumerate(emitter.vectors(sums.outputs)):
            store_at(builder, lanes.lane(value, 0), given[Argument.outputs], i)

    # Runs.

    def prepare(
        self, leaves: Sequence[np.ndarray], weights: np.ndarray | None, n_rows: int, n_threads: int = 1
    ) -> Prepared:
        """The columns of a data set.

        Args:
            leaves: arrays of shape `(rows, ...)`.
            weights: of the rows, or None.
            n_rows: number of rows.
            n_threads: threads to use.
        """
        real = np.dtype(self.program.type)
        leaves = [np.ascontiguousarray(leaf) for leaf in leaves]
        weights = None if weights is None else np.ascontiguousarray(weights, real)
        capacity = -(-max(1, n_rows) // self.width) * self.width
        columns = workspace(capacity * self._row_bytes)
        n_blocks = max(1, -(-n_rows // BLOCK))
        parts = np.zeros((n_blocks, len(self.program.sums.data)), real)
        prepared = Prepared(leaves, weights, columns, capacity, parts, n_rows)
        if self.program.sums.data or self._row_bytes:
            self._over_blocks("prepare", prepared, Argument.data_sums, parts, {}, n_threads, StopFlag())
        prepared.data_sums = np.add.reduce(parts, axis=0)
        return prepared

    def evaluate(
        self,
        prepared: Prepared,
        free: np.ndarray,
        settings: np.ndarray,
        n_obs: float,
        n_threads: int = 1,
        stop: StopFlag | None = None,
    ) -> tuple[float, np.ndarray, np.ndarray | None]:
        """Loss, gradient and matrix at a point, as sums over rows.

        Args:
            prepared: the data set.
            free: the point.
            settings: numbers that the terms depend on beside it, eight bytes each.
            n_obs: number of rows, or the sum of their weights.
            n_threads: threads to use.
            stop: ends the evaluation, whose result then means nothing.
        """
        real, k = np.dtype(self.program.type), self.program.n_free
        arrays = {
            Argument.free: np.ascontiguousarray(free, real),
            Argument.settings: np.ascontiguousarray(settings),
            Argument.n_obs: np.asarray([n_obs], real),
            Argument.data_sums: np.ascontiguousarray(prepared.data_sums, real),
        }
        totals = np.zeros(len(self.program.sums.cores), real)
        if self.program.has_row_loop:
            n_blocks = max(1, -(-prepared.n_rows // BLOCK))
            parts = np.zeros((n_blocks, len(totals)), real)
            self._over_blocks("partial", prepared, Argument.sums, parts, arrays, n_threads, stop or StopFlag())
            totals = np.add.reduce(parts, axis=0)
        outputs = np.zeros(len(self.program.sums.outputs), real)
        table = self._table(prepared, arrays)
        space = workspace(self._sizes["finish"])
        table[Argument.sums], table[Argument.outputs] = totals.ctypes.data, outputs.ctypes.data
        table[Argument.workspace] = space.ctypes.data
        self._functions["finish"](table.ctypes.data)
        matrix = None
        if self.program.has_matrix:
            matrix = np.empty((k, k), real)
            above = np.triu_indices(k)
            matrix[above] = matrix.T[above] = outputs[1 + k :]
        return float(outputs[0]), outputs[1 : 1 + k], matrix

    def _table(self, prepared: Prepared, arrays: dict[Argument, np.ndarray]) -> np.ndarray:
        table = np.zeros(len(Argument), np.int64)
        pointers = (ctypes.c_void_p * max(1, len(prepared.leaves)))(*[x.ctypes.data for x in prepared.leaves])
        prepared.pointers = pointers  # type: ignore[attr-defined]  # it must live as long as the calls do
        table[Argument.leaves] = ctypes.addressof(pointers)
        table[Argument.weights] = 0 if prepared.weights is None else prepared.weights.ctypes.data
        table[Argument.columns], table[Argument.capacity] = prepared.columns.ctypes.data, prepared.capacity
        for name, array in arrays.items():
            table[name] = array.ctypes.data
        return table

    def _over_blocks(
        self,
        name: str,
        prepared: Prepared,
        target: Argument,
        parts: np.ndarray,
        arrays: dict[Argument, np.ndarray],
        n_threads: int,
        stop: StopFlag,
    ) -> None:
        """Run a function over all blocks of rows; what each of them sums goes to its row of `parts`."""
        function, table, n_blocks = self._functions[name], self._table(prepared, arrays), len(parts)

        def work(thread: int, begin: int, end: int) -> None:
            mine, space = table.copy(), workspace(self._sizes[name])
            mine[Argument.workspace] = space.ctypes.data
            for block in range(begin, end):
                if stop.is_set:
                    return
                mine[Argument.begin] = block * BLOCK
                mine[Argument.length] = min(BLOCK, prepared.n_rows - block * BLOCK)
                mine[target] = parts[block:].ctypes.data
                function(mine.ctypes.data)

        if n_blocks <= CHUNK:  # too little to be worth a thread
            work(0, 0, n_blocks)
        else:
            share_out(n_blocks, CHUNK, n_threads, work, stop)
