"""Refits: to other data, from other points, or with further parameters fixed."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.status import Status
from ..core.trees import holds_keys, is_array, traced, tracing, where_rows
from ..engine.batch_solve import solve_batch
from ..engine.implicit import without_derivative
from ..engine.problem import Problem
from ..engine.repeated import RepeatedLikelihood
from ..engine.solution import Solution
from ..likelihood.ragged import RaggedBatch
from ..models.parameters import Parameters
from ..solvers import Stop, choose_solver
from ..solvers.base import usual_tolerance
from .evaluate import batch_of
from .record import FitRecord


def shared_parameters(fit: FitRecord) -> Parameters:
    """The parameters of a batch without fixed values, with constraints that all data sets share."""
    parameters = dataclasses.replace(fit.parameters, values=(None,) * len(fit.parameters.leaves), active=None)
    return jax.tree.map(functools.partial(_first, "constraints"), parameters)


def shared_batch(fit: FitRecord) -> RaggedBatch | RepeatedLikelihood:
    """The likelihoods of a batch whose data sets share model and args."""
    batch, _ = batch_of(fit)
    model, args = jax.tree.map(functools.partial(_first, "models or args"), (fit.model, fit.args))
    return batch.with_arrays((model, args, *batch.arrays[2:]))


def shared_rows(fit: FitRecord) -> RaggedBatch:
    """As `shared_batch`; a `ValueError` where the rows are not at hand."""
    batch = shared_batch(fit)
    if isinstance(batch, RepeatedLikelihood):
        raise ValueError(
            "this draws data sets anew, and needs the rows in the memory of one device for that: fit arrays, of a "
            "sample of the rows where there are too many"
        )
    return batch


def _first(what: str, leaf: Any) -> Any:
    """The entry of the first data set; a `ValueError` where the others differ from it."""
    if not is_array(leaf):
        return leaf
    if not tracing(leaf):
        known = np.asarray(jax.random.key_data(leaf) if holds_keys(leaf) else leaf)
        if not np.array_equal(known, np.broadcast_to(known[:1], known.shape), equal_nan=known.dtype.kind == "f"):
            raise ValueError(f"the fits of this batch have {what} of their own; go one by one: fits[i]")
    return leaf[0]


def leaves_at(
    parameters: Parameters, free: Float[Array | np.ndarray, "n n_free"], values: tuple[Any, ...]
) -> list[Array]:
    """The leaves of `params` of many free vectors.

    Args:
        parameters: as `shared_parameters` gives them.
        free: free vectors.
        values: the fixed leaves, each with a leading axis like `free`.
    """

    def leaves(free: Array, values: tuple[Any, ...]) -> list[Array]:
        mine = parameters.with_values(values)
        return mine.split(mine.natural(free))

    return eqx.filter_vmap(leaves)(free, values)


def refit(
    batch: RaggedBatch | RepeatedLikelihood, parameters: Parameters, starts: list[Any], report: Any = None
) -> Solution:
    """The maxima of all data sets of a batch from starts nearby, by the solver that suits them.

    They have no derivatives: NaN.

    Args:
        batch: the likelihoods.
        parameters: how the parameters map to the free vector.
        starts: leaves of the starting parameters, each with a leading axis of data sets.
        report: as in `solve_batch`.
    """
    solver = choose_solver(None, parameters.n_free, batch.longest)
    tolerance = jnp.asarray(usual_tolerance(parameters.dtype), parameters.dtype)
    stop = Stop(tolerance, jnp.asarray(solver.default_max_steps, jnp.int32))
    operands = (batch.arrays, parameters, starts)
    still = lambda leaf: jax.lax.stop_gradient(leaf) if traced(leaf) else leaf  # noqa: E731
    arrays, parameters, starts = jax.tree.map(still, operands)
    problem = Problem(batch.with_arrays(arrays), parameters, starts, solver, stop)
    return without_derivative(solve_batch(problem, report=report, near=True), operands)


def from_better(fit: FitRecord, free: Float[Array, "n_sets n_free"], those: Any) -> FitRecord:
    """The batch refitted from other points, with the higher of both maxima where `those` is true."""
    parameters = shared_parameters(fit)
    found = refit(shared_batch(fit), parameters, leaves_at(parameters, free, fit.parameters.values))
    higher = (found.status == Status.converged) & (found.log_likelihood > fit.log_likelihood) & jnp.asarray(those)
    solution = jax.tree.map(functools.partial(where_rows, higher), found, fit._solution)
    return eqx.tree_at(lambda fit: fit._solution, fit, solution)
