"""Many data sets, and where and how to look for the maxima of their likelihoods."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ..core import differentiable_loops
from ..core.compilation import Static
from ..likelihood.objective import Objective
from ..likelihood.ragged import RaggedBatch, ragged_batch
from ..models.closure_convert import is_converted
from ..models.model import Model
from ..models.parameters import Parameters
from ..solvers import AbstractSolver, Stop
from . import batch_solve, modes, multistart
from .implicit import Linearisation, differentiable_weights
from .repeated import RepeatedDataset
from .solution import Solution


class Batch(eqx.Module):
    """Many data sets, and where and how to look for the maxima of their likelihoods.

    Args:
        model: the model.
        data: arrays of shape `(n_sets, n_obs, ...)`, or groups out of JAX's sight.
        weights: shape `(n_sets, n_obs)`, or `None`.
        lengths: shape `(n_sets,)`, or `None`.
        args: third argument of the model.
        parameters: how its parameters map to the free vector.
        starts: the leaves of the starting parameters, in order, each with a leading axis of sets.
        solver: the solver.
        stop: when to stop.
        weight_column: where groups have their weights.
    """

    model: Model
    data: PyTree
    weights: Array | None
    lengths: Any
    args: PyTree
    parameters: Parameters
    starts: list[Any]
    solver: AbstractSolver
    stop: Stop
    weight_column: str | None = eqx.field(static=True)

    @property
    def collection(self) -> RaggedBatch:
        """The data sets."""
        found = ragged_batch(self.data, self.weights, self.lengths, self.args, self.weight_column)
        return dataclasses.replace(found, together=self.model.is_joint and is_converted(self.model))

    def search(
        self,
        keys: Array | None,
        drawn: list[Any] | None,
        lanes: int | None = None,
        report: Callable[[Solution], None] | None = None,
    ) -> tuple[Solution, modes.Modes | None]:
        """The maxima, and where there are keys the best that many starts find, and their modes.

        Args:
            keys: random keys, one a start.
            drawn: the leaves of the starts but the first, if they were drawn already.
            lanes: as in `pieces.solve`.
            report: likewise.
        """
        model, parameters = self.model, self.parameters

        def solve(collection: RaggedBatch | RepeatedDataset, starts: list[Any]) -> Solution:
            return batch_solve.solve_batch(
                collection, model, parameters, starts, self.solver, self.stop, lanes, report
            )

        collection = self.collection
        found = solve(collection, self.starts)
        if keys is None:
            return found, None
        rest = (self.starts, drawn, collection, model, parameters, self.stop.tolerance)
        return multistart.best_of(keys, found, *rest, solve)

    @property
    def shared(self) -> tuple[Any, ...]:
        """What the data sets share."""
        return self.model, self.args, self.parameters


def linearise_batch(
    local: Callable[..., Linearisation], batch: Batch, change: Any, free: Array, proven: Array
) -> Linearisation:
    """What is around the maximum of each data set; `implicit.maximum` says what the arguments are."""
    collection = batch.collection
    own, rest = collection.apart(batch.model)
    moving = jax.tree.map(lambda leaf: None, own)
    if not isinstance(batch.data, Static):
        moving = dataclasses.replace(moving, data=change.data, weights=change.weights)
    shared, shared_change = batch.shared, change.shared

    def one(values: tuple[Any, ...]) -> Linearisation:
        mine, my_change, free, proven = values

        def objective(operands: PyTree) -> Objective:
            (own, starts), (model, args, parameters) = operands
            likelihood = dataclasses.replace(eqx.combine(own, rest), model=model, args=args)
            fixed = parameters.with_values(parameters.fixed_leaves(starts))
            return differentiable_weights(Objective(likelihood, fixed), change.weights, free)

        return local(objective, (mine, shared), (my_change, shared_change), free, proven)

    values = ((own, batch.starts), (moving, change.starts), free, proven)
    return differentiable_loops.checkpointed_map(one, values, collection.lanes(batch.model))
