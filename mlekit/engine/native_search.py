"""Searches of many data sets by native kernels: what these need to know of a problem, and what they bring back."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core.compilation import Compiled, Static
from ..core.trees import is_array
from ..likelihood.curvature import BLOCK_TERMS, block_loss
from ..likelihood.facts import DataFacts, HostRows
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..likelihood.ragged import RaggedBatch
from ..models.parameters import Parameters
from ..native import derivatives, fits
from ..native.fit_kernel import FitKernel
from ..native.row_program import RowProgram
from ..native.step import StepKernel
from ..native.sums_kernel import SumsKernel
from ..native.unsupported import Unsupported
from ..solvers import AbstractSolver, Stop
from ..solvers.base import AbstractPointSolver
from ..solvers.box import Box
from ..solvers.choice import DENSE_CERTIFICATE
from ..solvers.objective import Curvature, Evaluation
from .backend import Finish
from .chunks import of_sets
from .lanes import for_each
from .problem import Problem
from .search import running, search
from .solution import Solution, doubtful, solution_of_facts

#: Data sets of more rows are summed with rows as the elements of vectors.
SHORT = 64
#: Numbers beside parameters and rows that a kernel may depend on.
MOST_SETTINGS = 512
#: Kernels that are kept.
REMEMBERED = 64

_kernels: OrderedDict[Any, Any] = OrderedDict()


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
        if not problem.solver.exact and problem.parameters.n_free > DENSE_CERTIFICATE:
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
        model = model_kernels(self, solver)
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
        if self.problem.parameters.box is None:
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


class ModelKernels:
    """The kernels of a model with a solver.

    Args:
        searches: whose data sets tell the shapes.
        solver: the solver.
    """

    def __init__(self, searches: Searches, solver: AbstractPointSolver) -> None:
        problem, dtype, k = searches.problem, searches.dtype, searches.problem.parameters.n_free
        of_one = lambda value: None if value is None else value[0]  # noqa: E731
        parameters = problem.parameters.with_values(tuple(map(of_one, searches.fixed)))
        given, static = eqx.partition((problem.model, problem.args, parameters), is_array)
        settings = jax.tree.map(derivatives.shape_of, given)
        if sum(leaf.size for leaf in jax.tree.leaves(settings)) > MOST_SETTINGS:
            raise Unsupported("log-densities that depend on large arrays")
        obs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), searches.data)
        free = jax.ShapeDtypeStruct((k,), dtype)

        def parts(given: Any, row: Any) -> tuple[Any, Any, Any]:
            model, args, parameters = eqx.combine(given, static)
            data = jax.tree.map(lambda leaf: leaf[None], row)
            return InMemoryLikelihood(model, args, data), parameters, data

        def loss(free: Any, given: Any, row: Any) -> Any:
            likelihood, parameters, data = parts(given, row)
            return block_loss(likelihood, parameters, free, data, None)

        def expected(free: Any, given: Any, row: Any) -> Any:
            likelihood, parameters, data = parts(given, row)
            return BLOCK_TERMS[Curvature.expected](likelihood, parameters, free)(data, None).curvature

        sample = Objective(InMemoryLikelihood(problem.model, problem.args, searches.data), parameters)
        curvature = solver.curvature(sample)
        if curvature is Curvature.expected:
            terms = derivatives.with_matrix(expected, loss, free, settings, obs)
        else:
            make = {
                Curvature.none: derivatives.gradient,
                Curvature.exact: derivatives.exact,
                Curvature.outer_product: derivatives.outer_product,
            }[curvature]
            terms = make(loss, free, settings, obs)
        self.program = RowProgram(terms, k, dtype, settings, obs)
        self.step = step_kernel(solver, k, dtype, self.program.has_matrix, problem.parameters.box is not None)
        self._weighted = searches.rows.weights is not None

    @functools.cache  # noqa: B019  # a model is kept as long as its kernels
    def kernel(self, rows_in_vectors: bool) -> FitKernel:
        """The kernel for data sets of many rows, or of few."""
        return FitKernel(self.program, self.step, self._weighted, rows_in_vectors)

    @functools.cached_property
    def sums(self) -> SumsKernel:
        """The kernel for one data set of very many rows."""
        return SumsKernel(self.program, self._weighted)


def step_kernel(
    solver: AbstractPointSolver, n_free: int, dtype: Any, has_matrix: bool, has_box: bool
) -> StepKernel:
    """The solver's native step for so many parameters; the sums come first, and are made means.

    Args:
        solver: the solver.
        n_free: number of parameters.
        dtype: the precision.
        has_matrix: whether it needs a matrix of second order.
        has_box: whether there are bounds.
    """
    key = ("step", Static(solver), n_free, np.dtype(dtype).name, has_matrix, has_box)
    if key not in _kernels:
        shape = lambda *dims: jax.ShapeDtypeStruct(dims, dtype)  # noqa: E731
        limit = jax.ShapeDtypeStruct((), jnp.int32)
        state = jax.eval_shape(solver.init, shape(n_free))
        sums = [shape(), shape(n_free), *([shape(n_free, n_free)] if has_matrix else [])]
        others = [shape(), shape(), limit, *([shape(n_free)] * 2 if has_box else [])]

        def advance(state: Any, *rest: Any) -> tuple[Any, Any, Any]:
            found, (n_obs, tolerance, max_steps, *ends) = rest[: len(sums)], rest[len(sums) :]
            stop, box = Stop(tolerance, max_steps), Box(*ends) if has_box else None
            loss, gradient, *matrix = (total / n_obs for total in found)
            trial = Evaluation(loss, gradient, matrix[0] if has_matrix else None, box)
            new = solver.update(state, trial, n_obs, stop)
            return new, solver.trial_point(new), running(new, stop)

        text = f"{solver!r} {has_matrix} {has_box}"
        _remember(key, StepKernel(advance, (state, *sums, *others), n_free, dtype, text))
    return _kernels[key]


def model_kernels(searches: Searches, solver: AbstractSolver) -> ModelKernels:
    """The kernels of the model that data sets share, with a solver; made once."""
    if not isinstance(solver, AbstractPointSolver):
        raise Unsupported(f"the solver {solver.name}")
    problem = searches.problem
    shapes = lambda tree: tuple((jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(tree))  # noqa: E731
    parts = (problem.model, problem.args, problem.parameters.with_values(searches.fixed))
    arrays, static = eqx.partition(parts, is_array)
    rows = [(leaf.shape[1:], leaf.dtype) for leaf in searches.rows.leaves]
    key = (
        "model",
        Static((static, solver)),
        shapes(arrays),
        tuple(rows),
        jax.tree.structure(searches.data),
        searches.rows.weights is not None,
    )
    if key not in _kernels:
        try:
            _remember(key, ModelKernels(searches, solver))
        except Unsupported as error:
            _remember(key, error)
    _kernels.move_to_end(key)
    found = _kernels[key]
    if isinstance(found, Unsupported):
        raise found.with_traceback(None)
    return found


def _remember(key: Any, value: Any) -> None:
    _kernels[key] = value
    while len(_kernels) > REMEMBERED:
        _kernels.popitem(last=False)


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
    starts, parts = [np.asarray(leaf) for leaf in problem.starts], []
    for chosen, data, weights, offsets, lengths in batch.on_host(problem.parameters.n_free):
        n_sets = padded(len(chosen))
        fill = lambda array: np.concatenate([array, np.zeros(n_sets - len(array), array.dtype)])  # noqa: B023, E731
        rows = HostRows(jax.tree.leaves(data), weights, fill(offsets), fill(lengths))
        here = problem.of(batch.bound, of_sets(starts, chosen, n_sets))
        job = Searches(data, rows, len(chosen), here, n_threads)
        states, steps = job.last_states(warm_up)
        known = rows.facts(doubtful(np.asarray(states.status)) & (np.arange(n_sets) < len(chosen)))
        found = _solutions(here.parameters, job.fixed, known, states, steps, here.stop, n_lanes, len(chosen))
        parts.append(finish((jax.tree.map(np.array, found), 0), len(chosen), np.zeros(0, int)))
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *parts)


@Compiled
def _solutions(
    parameters: Parameters,
    fixed: tuple[Any, ...],
    known: DataFacts,
    states: Any,
    steps: Any,
    stop: Stop,
    n_lanes: int,
    count: Any,
) -> Solution:
    def of_set(i: Any) -> Solution:
        values, data, state, taken = jax.tree.map(lambda leaf: leaf[i], (fixed, known, states, steps))
        return solution_of_facts(parameters.with_values(values), data, state, taken, stop)

    return for_each(of_set, len(steps), n_lanes, count)


def padded(n_sets: int) -> int:
    """So many data sets or a few more: only few numbers of them are ever compiled for."""
    return max(16, 4 ** math.ceil(math.log(max(1, n_sets), 4)))
