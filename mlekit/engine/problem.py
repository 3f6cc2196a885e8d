"""The problem that an engine solves: likelihood, parameters, start, solver, and when to stop."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ..core.trees import is_array, repeat
from ..likelihood.dataset import AbstractDataset
from ..likelihood.objective import Objective
from ..likelihood.ragged import RaggedBatch
from ..models.closure_convert import is_converted
from ..models.model import Model
from ..models.parameters import Parameters
from ..solvers import AbstractSolver, Newton, Stop
from ..solvers.newton import PlainNewton


class BatchLikelihood(eqx.Module):
    """The likelihoods of a batch as derivatives see them: a PyTree of all arrays that they depend on.

    Args:
        model: the log-density with its companions.
        args: its third argument, or `None`.
        dataset: the data sets.
    """

    model: Model
    args: PyTree
    dataset: AbstractDataset

    @property
    def ragged(self) -> RaggedBatch:
        """The likelihoods as the engine takes them."""
        found = self.dataset.ragged(self.model, self.args)
        assert found is not None  # those who hand over many data sets hand over their rows
        return dataclasses.replace(found, one_chunk=self.model.is_joint and is_converted(self.model))


class Problem(eqx.Module):
    """The input of a search for one maximum, or for many.

    Args:
        likelihood: of one data set, an `AbstractLikelihood`; of many a `BatchLikelihood`, a `RaggedBatch` or a
            `RepeatedLikelihood`; where the rows come chunk by chunk, the `BoundModel` that these share. All of
            them have a `model` and its `args`.
        parameters: how the parameters map to the free vector.
        starts: the leaves of the starting parameters, in order; of many data sets with a leading axis of sets.
        solver: the solver.
        stop: when to stop.
        backend: the name of the backend that was asked for, or `None`.
    """

    likelihood: Any
    parameters: Parameters
    starts: list[Any]
    solver: AbstractSolver
    stop: Stop
    backend: str | None = eqx.field(default=None, static=True)

    @property
    def model(self) -> Model:
        """The model of the likelihood."""
        return self.likelihood.model

    @property
    def args(self) -> PyTree:
        """The third argument of the model, or `None`."""
        return self.likelihood.args

    @property
    def start(self) -> PyTree:
        """The starting parameters, a PyTree like `init`."""
        return self.parameters.join(self.starts)

    @property
    def objective(self) -> Objective:
        """The objective of one data set: fixed parameters keep the values they start with."""
        return Objective(self.likelihood, self.parameters.with_values(self.parameters.fixed_leaves(self.starts)))

    @property
    def free(self) -> Array:
        """The free vector that the search of one data set begins with."""
        return self.objective.parameters.free(self.start)

    @property
    def reversible(self) -> Objective:
        """The objective in a form that reverse mode can cross."""
        return dataclasses.replace(self.objective, likelihood=self.likelihood.reversibly())

    @property
    def has_two_ways(self) -> bool:
        """True if the search may begin on the expected information: not where that is dear."""
        regression = self.model.regression
        return self.solver.exact and regression is not None and regression.family.cheap_information

    @property
    def plain(self) -> Problem | None:
        """The same for a solver that ends at walls and kinks, where that is compiled sooner; else `None`."""
        solver = self.solver
        return dataclasses.replace(self, solver=PlainNewton(solver.radius)) if type(solver) is Newton else None

    def of(self, likelihood: Any, starts: list[Any]) -> Problem:
        """The same for another likelihood, from other starts."""
        return dataclasses.replace(self, likelihood=likelihood, starts=starts)

    def parameters_per_set(self, n_sets: int) -> Parameters:
        """The parameters with a leading axis of sets on every array."""
        arrays, rest = eqx.partition(self.parameters.with_values((None,) * len(self.starts)), is_array)
        every = eqx.combine(jax.tree.map(lambda leaf: repeat(leaf, n_sets), arrays), rest)
        return every.with_values(self.parameters.fixed_leaves(self.starts))
