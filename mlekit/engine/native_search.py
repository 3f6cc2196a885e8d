"""Searches of many data sets by native kernels: what these need to know of a problem, and what they bring back."""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core.compilation import Compiled, Program
from ..core.trees import is_array
from ..likelihood.facts import DataFacts
from ..likelihood.host_rows import HostRows, host_rows
from ..likelihood.ragged import RaggedBatch
from ..models.parameters import Parameters
from ..native import fits
from ..native.unsupported import Unsupported
from ..solvers import Stop
from .backend import Finish
from .chunks import of_sets
from .lanes import for_each
from .native_kernels import model_kernels
from .problem import Problem
from .search import search, without_matrix
from .solution import Solution, doubtful, solution_of_facts

#: Data sets of more rows are summed with rows as the elements of vectors.
SHORT = 64


@Compiled
def _map(fn: Callable[..., Any], *arguments: Any) -> Any:
    return jax.vmap(fn)(*arguments)


def _mapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one data set as one of all; a solver's methods are compiled once."""
    return functools.partial(_map, fn)


class Searches:
    """The searches of data sets.

    Args:
        data: PyTree of arrays of rows on the host.
        rows: the same rows, and where the data sets lie in them.
        count: data sets that are searched; the rest is empty.
        problem: the rest; its starts have a leading axis of data sets.
        n_threads: threads to use.
    """

    def __init__(self, data: Any, rows: HostRows, count: int, problem: Problem, n_threads: int) -> None:
        if problem.model.is_joint:
            raise Unsupported("a joint model")
        if without_matrix(problem.solver, problem.parameters.n_free):
            raise Unsupported("a proof without a matrix of all parameters")
        self.data, self.rows, self.count, self.problem, self.n_threads = data, rows, count, problem, n_threads
        self.n_sets = len(rows.offsets)
        self.dtype = np.dtype(problem.parameters.dtype)
        n_obs = rows.lengths if rows.weights is None else rows.sums(rows.weights)
        self.n_obs = n_obs.astype(self.dtype)
        self.fixed = problem.parameters.fixed_leaves(problem.starts)

    def last_states(self, warm_up: bool) -> tuple[Any, Any]:
        """The last states, and the steps of each; with `warm_up` Newton begins with the expected information."""
        return search(self.problem.solver, self.drive, _mapped, self.free(), self.problem.stop, warm_up)

    def free(self) -> jax.Array:
        """The free vectors that the searches begin with."""
        return _starts(self.problem.parameters, [jnp.asarray(leaf) for leaf in self.problem.starts])

    def drive(self, solver: Any, states: Any, stop: Stop) -> Any:
        """The solver's last states."""
        model = model_kernels(self.problem, self.data, self.rows, solver)
        n_sets, packed = self.n_sets, PackedStates(states, self.n_sets, self.dtype)
        sets = fits.DataSets(
            leaves=self.rows.leaves,
            weights=self.rows.weights,
            offsets=self.rows.offsets,
            lengths=self.rows.lengths,
            n_obs=self.n_obs,
            settings=self.settings(),
            extra=self.extra(),
            floats=packed.floats,
            integers=packed.integers,
            points=np.asarray(_mapped(solver.trial_point)(states)),
            max_steps=np.broadcast_to(np.asarray(stop.max_steps), n_sets),
            tolerance=float(stop.tolerance),
        )
        every = np.argsort(-self.rows.lengths[: self.count], kind="stable")  # those of a vector end together
        short = self.rows.lengths[every] <= SHORT
        for order, rows_in_vectors in ((every[short], False), (every[~short], True)):
            if len(order):
                fits.run(model.kernel(rows_in_vectors), sets, order, self.n_threads)
        return packed.unpacked()

    def settings(self) -> np.ndarray:
        """The numbers that log-densities depend on beside parameters and rows, of each set or of all."""
        fixed = [value for value in self.fixed if value is not None]
        n_sets = self.n_sets if fixed else 1
        parts: list[np.ndarray] = []
        for leaf, own in zip(*_arrays_and_owners(self.problem, self.fixed)):
            value = np.asarray(leaf).reshape(n_sets if own else 1, -1)
            parts.append(np.broadcast_to(value, (n_sets, value.shape[1])))
        count = sum(part.shape[1] for part in parts)
        out = np.zeros((n_sets, max(1, count)), np.int64)
        at = 0
        for part in parts:
            kind = np.dtype(np.int8) if part.dtype == bool else part.dtype
            view = np.zeros((n_sets, part.shape[1], 8 // kind.itemsize), kind)
            view[:, :, 0] = part
            out[:, at : at + part.shape[1]] = view.view(np.int64)[:, :, 0]
            at += part.shape[1]
        return out

    def extra(self) -> np.ndarray | None:
        """The bounds of the free vector, of each set."""
        if not self.problem.parameters.has_box:
            return None

        if any(value is not None for value in self.fixed):
            return np.asarray(_mapped(_Ends(self.problem.parameters))(self.fixed))
        return np.asarray(_Ends(self.problem.parameters)(self.fixed))[None]


class _Ends(eqx.Module):
    """The ends of the box of parameters with these values of the fixed ones."""

    parameters: Any

    def __call__(self, fixed: Any) -> jax.Array:
        box = self.parameters.with_values(fixed).box
        assert box is not None
        return jnp.concatenate([box.low, box.high])


class PackedStates:
    """The states of many searches as kernels see them: the numbers of each data set side by side.

    Args:
        states: a state whose leaves have a leading axis of data sets.
        n_sets: number of data sets.
        dtype: of the numbers that are no whole ones.
    """

    def __init__(self, states: Any, n_sets: int, dtype: np.dtype[Any]) -> None:
        leaves, self._treedef = jax.tree.flatten(states)
        self._shapes = [(leaf.shape, np.dtype(leaf.dtype)) for leaf in leaves]
        sizes = [math.prod(shape[1:]) for shape, _ in self._shapes]
        real = [kind == dtype for _, kind in self._shapes]
        self.floats, self.integers = (
            np.empty((n_sets, sum(size for size, yes in zip(sizes, real) if yes == mine)), kind)
            for mine, kind in ((True, dtype), (False, np.int32))
        )
        self._columns, ends = [], {True: 0, False: 0}
        for leaf, size, yes in zip(leaves, sizes, real):
            columns = (self.floats if yes else self.integers)[:, ends[yes] : ends[yes] + size]
            columns[:] = np.asarray(leaf).reshape(n_sets, size)
            self._columns.append(columns)
            ends[yes] += size

    def unpacked(self) -> Any:
        """The states, whose leaves share this memory where they can."""
        both = zip(self._columns, self._shapes)
        leaves = [columns.astype(kind, copy=False).reshape(shape) for columns, (shape, kind) in both]
        return jax.tree.unflatten(self._treedef, leaves)


def _arrays_and_owners(problem: Problem, fixed: tuple[Any, ...]) -> tuple[list[Any], list[bool]]:
    """The arrays that log-densities depend on, and whether each data set has its own."""
    parameters = problem.parameters.with_values(fixed)
    arrays = eqx.filter((problem.model, problem.args, parameters), is_array)
    marks = jax.tree.map(lambda _: False, arrays)
    marks = eqx.tree_at(
        lambda tree: tree[2].values,
        marks,
        tuple(None if value is None else True for value in fixed),
        is_leaf=lambda x: x is None,
    )
    return jax.tree.leaves(arrays), jax.tree.leaves(marks)


@eqx.filter_jit
def _starts(parameters: Any, starts: list[Any]) -> jax.Array:
    return jax.vmap(lambda leaves: parameters.free(parameters.join(leaves)))(starts)


def solve_chunks(problem: Problem, n_lanes: int, warm_up: bool, finish: Finish, n_threads: int = 1) -> Solution:
    """The maxima of all data sets of a batch, searched natively.

    Args:
        problem: of many data sets; its likelihood is a `RaggedBatch`.
        n_lanes: data sets whose solutions are worked out side by side.
        warm_up: True if Newton's method begins with the expected information.
        finish: is given each chunk.
        n_threads: threads to use.

    Raises:
        Unsupported: XLA must do it.
    """
    batch: RaggedBatch = problem.likelihood
    starts = [np.asarray(leaf) for leaf in problem.starts]
    double = jax.config.read("jax_enable_x64")
    under_way: collections.deque[tuple[Future[Solution], int]] = collections.deque()
    parts = []

    def collect() -> None:
        found, count = under_way.popleft()
        parts.append(finish((found.result(), 0), count, np.zeros(0, int)))

    def work_out(program: Program, arguments: tuple[Any, ...]) -> Solution:
        with jax.enable_x64(double):  # which other threads do not know
            return jax.tree.map(np.array, program(*arguments))

    # XLA works solutions out while the next data sets are searched: in threads of their own, as it works off what
    # one thread asks for one after the other.
    with ThreadPoolExecutor(n_threads) as pool:
        for chosen, data, rows in host_rows(batch, problem.parameters.n_free):
            n_sets = padded(len(chosen))
            rows = rows.filled(n_sets)
            here = problem.of(batch.bound, of_sets(starts, chosen, n_sets))
            job = Searches(data, rows, len(chosen), here, n_threads)
            states, steps = job.last_states(warm_up)
            known = rows.facts(doubtful(np.asarray(states.status)) & (np.arange(n_sets) < len(chosen)))
            of_each, count = (job.fixed, known, states, steps), np.asarray(len(chosen))
            arguments = (here.parameters, of_each, here.stop, n_lanes, count)
            program = _solutions.lower_and_compile(*arguments)
            under_way.append((pool.submit(work_out, program, arguments), len(chosen)))
            if program.alone or len(under_way) > n_threads:
                collect()
        while under_way:
            collect()
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *parts)


@Compiled
def _solutions(
    parameters: Parameters,
    of_each: tuple[tuple[Any, ...], DataFacts, Any, Any],
    stop: Stop,
    n_lanes: int,
    count: Any,
) -> Solution:
    def of_set(i: Any) -> Solution:
        values, known, state, steps = jax.tree.map(lambda leaf: leaf[i], of_each)
        return solution_of_facts(parameters.with_values(values), known, state, steps, stop)

    return for_each(of_set, len(of_each[-1]), n_lanes, jnp.asarray(count))


def padded(n_sets: int) -> int:
    """So many data sets or a few more: only few numbers of them are ever compiled for."""
    bits = max(4, (n_sets - 1).bit_length())
    return 1 << bits + bits % 2
