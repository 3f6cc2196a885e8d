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
from ..engine import batch_solve
from ..engine.implicit import without_derivative
from ..engine.repeated import RepeatedDataset
from ..engine.solution import Solution
from ..likelihood.ragged import RaggedBatch
from ..models.model import Model
from ..models.parameters import Parameters
from ..solvers import Stop
from ..solvers.base import usual_tolerance
from ..solvers.choice import choose_solver
from .evaluate import batch_of
from .record import FitRecord


def shared_parameters(fit: FitRecord) -> Parameters:
    """The parameters of a batch without fixed values, with constraints that all data sets share."""
    parameters = fit.parameters.with_values((None,) * len(fit.parameters.leaves))
    return jax.tree.map(functools.partial(_first, "constraints"), parameters)


def shared_collection(fit: FitRecord) -> tuple[RaggedBatch | RepeatedDataset, Model]:
    """The data sets of a batch, and the model that they share."""
    everything, _, _ = batch_of(fit)
    model, args = jax.tree.map(functools.partial(_first, "models or args"), (fit.model, fit.args))
    return dataclasses.replace(everything, args=args), model


def shared_rows(fit: FitRecord) -> tuple[RaggedBatch, Model]:
    """As `shared_collection`; a `ValueError` where the rows are not at hand."""
    found, model = shared_collection(fit)
    if isinstance(found, RepeatedDataset):
        raise ValueError(
            "this draws data sets anew, and needs the rows in the memory of one device for that: fit arrays, of a "
            "sample of the rows where there are too many"
        )
    return found, model


def _first(what: str, leaf: Any) -> Any:
    """The entry of the first data set; a `ValueError` where the others differ from it."""
    if not is_array(leaf):
        return leaf
    if not tracing(leaf):
        known = np.asarray(jax.random.key_data(leaf) if holds_keys(leaf) else leaf)
        if not np.array_equal(known, np.broadcast_to(known[:1], known.shape), equal_nan=known.dtype.kind == "f"):
            raise ValueError(f"the fits of this batch have {what} of their own; go one by one: fits[i]")
    return leaf[0]


def leaves_at(parameters: Parameters, free: Float[Array, "n n_free"], values: tuple[Any, ...]) -> list[Array]:
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
    everything: RaggedBatch | RepeatedDataset,
    model: Model,
    parameters: Parameters,
    leaves: list[Any],
    report: Any = None,
) -> Solution:
    """The maxima of all data sets of a collection from starts nearby, by the solver that suits them.

    They have no derivatives: NaN.

    Args:
        everything: the data sets.
        model: the model.
        parameters: how its parameters map to the free vector.
        leaves: of the starting parameters, each with a leading axis of data sets.
        report: as in `batch_solve.solve_batch`.
    """
    solver = choose_solver(None, parameters.n_free, everything.longest)
    stop = Stop(
        jnp.asarray(usual_tolerance(parameters.dtype), parameters.dtype),
        jnp.asarray(solver.default_max_steps, jnp.int32),
    )
    operands = (everything.rows, everything.weights, everything.args, model, parameters, leaves)
    still = lambda leaf: jax.lax.stop_gradient(leaf) if traced(leaf) else leaf  # noqa: E731
    rows, weights, args, model, parameters, leaves = jax.tree.map(still, operands)
    everything = dataclasses.replace(everything, rows=rows, weights=weights, args=args)
    found = batch_solve.solve_batch(everything, model, parameters, leaves, solver, stop, report=report, near=True)
    return without_derivative(found, operands)


def from_better(fit: FitRecord, free: Float[Array, "n_sets n_free"], those: Any) -> FitRecord:
    """The batch refitted from other points, with the higher of both maxima where `those` is true."""
    everything, model = shared_collection(fit)
    parameters = shared_parameters(fit)
    values = fit.parameters.values
    found = refit(everything, model, parameters, leaves_at(parameters, free, values))
    higher = (found.status == Status.converged) & (found.log_likelihood > fit.log_likelihood) & jnp.asarray(those)
    solution = jax.tree.map(functools.partial(where_rows, higher), found, fit.solution)
    return eqx.tree_at(lambda fit: fit.solution, fit, solution)
