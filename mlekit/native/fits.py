"""Runs the native fits of many data sets on threads."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from .fit_arguments import Argument
from .fit_kernel import FitKernel
from .layout import workspace
from .threads import StopFlag, share_out

#: Chunks that each thread takes, so that all end at about the same time.
CHUNKS = 8


@dataclasses.dataclass
class DataSets:
    """Data sets in flat rows, and the states of their searches.

    Args:
        leaves: arrays of shape `(rows, ...)`, C-contiguous.
        weights: of rows, in the precision of the fit; None without.
        offsets: first row of each data set.
        lengths: number of its rows.
        n_obs: number of its observations.
        settings: numbers that differ between data sets, shape `(n_sets, n_settings)`, or `(1, n_settings)` where
            all share them; eight bytes each, of whatever type.
        extra: further numbers of the step's arguments, shape `(n_sets, n)` or `(1, n)`; None without.
        floats: numbers of the states, shape `(n_sets, n_floats)`; replaced by those of the last states.
        integers: their whole numbers and booleans, likewise, 32 bits each.
        points: where each data set is evaluated first, shape `(n_sets, n_free)`.
        max_steps: of each data set.
        tolerance: on the decrement.
    """

    leaves: Sequence[np.ndarray]
    weights: np.ndarray | None
    offsets: np.ndarray
    lengths: np.ndarray
    n_obs: np.ndarray
    settings: np.ndarray
    extra: np.ndarray | None
    floats: np.ndarray
    integers: np.ndarray
    points: np.ndarray
    max_steps: np.ndarray
    tolerance: float


def run(kernel: FitKernel, sets: DataSets, order: np.ndarray, n_threads: int = 1) -> int:
    """Search all data sets in the order given; their last states replace the first ones.

    Args:
        kernel: the compiled fit.
        sets: the data sets and their states.
        order: the numbers of those that are searched.
        n_threads: threads to use.

    Returns:
        Turns taken, of all vectors.
    """
    dtype = np.dtype(kernel.program.type)
    n_sets = len(sets.offsets)
    arrays: list[Any] = []  # they must live as long as the calls do

    def address(array: np.ndarray | None, kind: Any) -> int:
        if array is None:
            return 0
        array = np.ascontiguousarray(array, kind)
        arrays.append(array)
        return array.ctypes.data

    def whole(array: np.ndarray, kind: Any) -> int:
        if array.dtype != kind or not array.flags.c_contiguous:
            raise ValueError(f"states must be contiguous arrays of {np.dtype(kind)}")
        return array.ctypes.data

    leaves = [np.ascontiguousarray(leaf) for leaf in sets.leaves]
    arrays.append((ctypes.c_void_p * max(1, len(leaves)))(*[leaf.ctypes.data for leaf in leaves]))
    table, stop = np.zeros(len(Argument), np.int64), StopFlag()
    table[Argument.leaves] = ctypes.addressof(arrays[-1])
    table[Argument.weights] = address(sets.weights, dtype)
    table[Argument.offsets] = address(sets.offsets, np.int64)
    table[Argument.lengths] = address(sets.lengths, np.int64)
    table[Argument.order] = address(order, np.int64)
    table[Argument.n_obs] = address(sets.n_obs, dtype)
    settings = np.ascontiguousarray(sets.settings)
    table[Argument.settings] = address(settings, settings.dtype)
    table[Argument.settings_stride] = settings.strides[0] if len(settings) == n_sets else 0
    table[Argument.max_steps] = address(np.broadcast_to(sets.max_steps, n_sets), np.int32)
    table[Argument.tolerance] = address(np.asarray([sets.tolerance]), dtype)
    table[Argument.floats] = whole(sets.floats, dtype)
    table[Argument.integers] = whole(sets.integers, np.int32)
    table[Argument.points] = address(sets.points, dtype)
    extra = None if sets.extra is None else np.ascontiguousarray(sets.extra, dtype)
    table[Argument.extra] = address(extra, dtype)
    table[Argument.extra_stride] = 0 if extra is None or len(extra) != n_sets else extra.strides[0]
    table[Argument.step] = kernel.step.address
    table[Argument.stop] = stop.address
    capacity, scratch_size = kernel.scratch_size(int(sets.lengths.max(initial=1)))
    table[Argument.capacity] = capacity
    width = kernel.width
    chunk = -(-max(1, len(order)) // (CHUNKS * n_threads)) if n_threads > 1 else max(1, len(order))
    chunk = -(-chunk // width) * width
    n_threads = max(1, min(n_threads, -(-len(order) // chunk)))
    tables, turns = [], np.zeros(n_threads, np.int64)
    for thread in range(n_threads):
        mine = table.copy()
        names = (Argument.memory, Argument.step_workspace, Argument.workspace, Argument.scratch)
        sizes = (kernel.step.layout.size, kernel.step.workspace_size, kernel.workspace_size, scratch_size)
        for name, size in zip(names, sizes):
            arrays.append(workspace(size))
            mine[name] = arrays[-1].ctypes.data
        mine[Argument.turns] = turns[thread:].ctypes.data
        tables.append(mine)

    def work(thread: int, begin: int, end: int) -> None:
        tables[thread][Argument.begin], tables[thread][Argument.end] = begin, end
        kernel.function(tables[thread].ctypes.data)

    if len(order):
        share_out(len(order), chunk, n_threads, work, stop)
    return int(turns.sum())
