"""Many fits of one data set whose rows lie elsewhere: they go side by side, and share every pass over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ..core.compilation import Compiled
from ..core.trees import is_array, traced
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..models.model import Model
from ..models.parameters import Parameters
from ..solvers import AbstractSolver, Stop
from .search import Steps, run, search
from .solution import Solution, nothing_to_find, solution

#: Fits that share a pass at most.
AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class RepeatedDataset:
    """One data set many times over, as `collection.Collection` holds many data sets.

    Args:
        likelihood: that of the data set.
        args: third argument of the model.
        checked: passes on what was computed, unless the rows could not be read.
        n_sets: how often it comes.
        rows: `None`: they are not at hand,
        weights: and neither are these.
    """

    likelihood: InMemoryLikelihood
    args: PyTree
    checked: Callable[[Any], Any]
    n_sets: int = 1
    rows: None = None
    weights: None = None

    @property
    def longest(self) -> int:
        """Number of its rows."""
        return self.likelihood.rows

    @property
    def traced(self) -> bool:
        """Whether any array is known only to a trace."""
        return traced((self.likelihood, self.args))

    @property
    def row_counts(self) -> np.ndarray:
        """Number of its rows, in an array."""
        return np.array([self.longest])

    def repeated(self, times: int) -> RepeatedDataset:
        """The same so many times as often."""
        return dataclasses.replace(self, n_sets=self.n_sets * times)

    def solve(
        self, model: Model, parameters: Parameters, starts: PyTree, solver: AbstractSolver, stop: Stop
    ) -> Solution:
        """The maxima from all starts; the arguments are those of `pieces.solve`."""
        return self.checked(_solve(self._of(model), parameters, starts, solver, stop))

    def map(self, fn: Callable[[Objective, Any], Any], model: Model, parameters: Parameters, value: PyTree) -> Any:
        """As `pieces.map_sets`."""
        return self.checked(_map(fn, self._of(model), parameters, value))

    def _of(self, model: Model) -> InMemoryLikelihood:
        return dataclasses.replace(self.likelihood, model=model, args=self.args)


@Compiled
def _solve(
    likelihood: InMemoryLikelihood, parameters: Parameters, starts: list[Array], solver: AbstractSolver, stop: Stop
) -> Solution:
    def one(leaves: list[Array]) -> Solution:
        mine = parameters.fixed_at(parameters.join(leaves))
        objective = Objective(likelihood, mine)
        free = mine.free(parameters.join(leaves))
        if not parameters.n_free:
            return nothing_to_find(objective)
        drive = lambda solver, state, stop: run(Steps(solver, objective, stop), state)  # noqa: E731
        return solution(objective, *search(solver, drive, lambda fn: fn, free, stop), stop)

    return jax.lax.map(one, list(starts), batch_size=AT_ONCE)


@Compiled
def _map(
    fn: Callable[[Objective, Any], Any], likelihood: InMemoryLikelihood, parameters: Parameters, value: PyTree
) -> Any:
    arrays, rest = eqx.partition((parameters, value), is_array)

    def one(arrays: PyTree) -> Any:
        mine, value = eqx.combine(arrays, rest)
        return fn(Objective(likelihood, mine), value)

    return jax.lax.map(one, arrays, batch_size=AT_ONCE)
