"""Native kernels of a log-density and of a solver's step: made once for each model, and kept."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core.checks import first_line
from ..core.compilation import Static
from ..core.trees import is_array
from ..likelihood.curvature import BLOCK_TERMS, block_loss
from ..likelihood.host_rows import HostRows
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..native import derivatives
from ..native.fit_kernel import FitKernel
from ..native.interpreter import MOST_NODES
from ..native.row_program import RowProgram
from ..native.step import StepKernel
from ..native.sums_kernel import SumsKernel
from ..native.unsupported import Unsupported
from ..solvers import AbstractSolver, Stop
from ..solvers.base import AbstractPointSolver
from ..solvers.box import Box
from ..solvers.objective import Curvature, Evaluation
from .backend import NATIVE, asked_for
from .problem import Problem
from .search import running

#: Numbers beside parameters and rows that a kernel may depend on.
MOST_SETTINGS = 512
#: Operations of a log-density with its derivatives that take longer to compile than XLA takes, most of the time.
MANY_OPERATIONS = 10_000
#: Kernels that are kept.
REMEMBERED = 64

_kernels: OrderedDict[Any, Any] = OrderedDict()


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Makes a mistake of the compiler a reason for XLA to do the work, and a warning."""
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        warnings.warn(
            f"mlekit could not compile a log-density natively, and leaves it to XLA: {said}. Please report this.",
            RuntimeWarning,
            stacklevel=2,
        )
        raise Unsupported(f"an error of their compiler, {said}") from error


def most_operations(problem: Problem) -> int:
    """Operations that are compiled at most: more of them for who asks for native kernels."""
    return MOST_NODES if asked_for(problem) == NATIVE else MANY_OPERATIONS


class ModelKernels:
    """The kernels of a model with a solver.

    Args:
        problem: a problem with this model; its starts have a leading axis of data sets.
        data: PyTree of its rows.
        rows: the same rows, and where the data sets lie in them.
        solver: the solver.
    """

    def __init__(self, problem: Problem, data: Any, rows: HostRows, solver: AbstractPointSolver) -> None:
        dtype, k = np.dtype(problem.parameters.dtype), problem.parameters.n_free
        parameters = problem.parameters.with_values(_fixed_of_one(problem))
        given, static = eqx.partition((problem.model, problem.args, parameters), is_array)
        settings = jax.tree.map(derivatives.shape_of, given)
        if sum(leaf.size for leaf in jax.tree.leaves(settings)) > MOST_SETTINGS:
            raise Unsupported("log-densities that depend on large arrays")
        obs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)
        free = jax.ShapeDtypeStruct((k,), dtype)

        def parts(given: Any, row: Any) -> tuple[Any, Any, Any]:
            model, args, parameters = eqx.combine(given, static)
            data = jax.tree.map(lambda leaf: leaf[None], row)
            return InMemoryLikelihood(model, args, data), parameters, data

        def whole_loss(free: Any, given: Any, rows: Any) -> Any:
            model, args, parameters = eqx.combine(given, static)
            return block_loss(InMemoryLikelihood(model, args, rows), parameters, free, rows, None)

        def loss(free: Any, given: Any, row: Any) -> Any:
            likelihood, parameters, data = parts(given, row)
            return block_loss(likelihood, parameters, free, data, None)

        def expected(free: Any, given: Any, row: Any) -> Any:
            likelihood, parameters, data = parts(given, row)
            return BLOCK_TERMS[Curvature.expected](likelihood, parameters, free)(data, None).curvature

        if rows.longest > 1:  # what all rows at once tell of a log-density, one does not
            shape = lambda leaf: jax.ShapeDtypeStruct((rows.longest, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
            jax.eval_shape(whole_loss, free, settings, jax.tree.map(shape, data))
        sample = Objective(InMemoryLikelihood(problem.model, problem.args, data), parameters)
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
        with compiling():
            self.program = RowProgram(terms, k, dtype, settings, obs, most_operations(problem))
        self.step = step_kernel(solver, k, dtype, self.program.has_matrix, parameters.has_box)
        self._weighted = rows.weights is not None

    @functools.cache  # noqa: B019  # a model is kept as long as its kernels
    def kernel(self, rows_in_vectors: bool) -> FitKernel:
        """The kernel for data sets of many rows, or of few."""
        with compiling():
            return FitKernel(self.program, self.step, self._weighted, rows_in_vectors)

    @functools.cached_property
    def sums(self) -> SumsKernel:
        """The kernel for one data set of very many rows."""
        with compiling():
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


def _fixed_of_one(problem: Problem) -> tuple[Any, ...]:
    """The fixed leaves of the first data set."""
    fixed = problem.parameters.fixed_leaves(problem.starts)
    return tuple(None if value is None else value[0] for value in fixed)


def model_kernels(problem: Problem, data: Any, rows: HostRows, solver: AbstractSolver) -> ModelKernels:
    """The kernels of the model that data sets share, with a solver; made once. Arguments as of `ModelKernels`."""
    if not isinstance(solver, AbstractPointSolver):
        raise Unsupported(f"the solver {solver.name}")
    shapes = lambda tree: tuple((jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(tree))  # noqa: E731
    parts = (problem.model, problem.args, problem.parameters.with_values(_fixed_of_one(problem)))
    arrays, static = eqx.partition(parts, is_array)
    key = (
        "model",
        Static((static, solver)),
        shapes(arrays),
        tuple((leaf.shape[1:], leaf.dtype) for leaf in rows.leaves),
        jax.tree.structure(data),
        rows.weights is not None,
        rows.longest > 1,
        most_operations(problem),
    )
    if key not in _kernels:
        try:
            _remember(key, ModelKernels(problem, data, rows, solver))
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
