"""Many fits of one data set whose rows are not at hand: they go side by side, and share every pass over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ..core.compilation import Compiled
from ..core.runtime_errors import RUNTIME_ERRORS, Raised, raised
from ..core.trees import is_array, traced
from ..likelihood.base import AbstractLikelihood
from ..likelihood.objective import Objective
from ..models.model import Model
from ..models.parameters import Parameters
from .problem import Problem
from .search import maximise
from .solution import Solution
from .stepwise import search_each

#: Fits that share a pass at most.
AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class RepeatedLikelihood:
    """The likelihood of one data set many times over, where a `RaggedBatch` holds those of many data sets.

    Args:
        likelihood: that of the data set.
        checked: passes on what was computed, unless the rows could not be read.
        n_sets: how often it comes.
    """

    likelihood: AbstractLikelihood
    checked: Callable[[Any], Any]
    n_sets: int = 1

    @property
    def model(self) -> Model:
        """The log-density with its companions."""
        return self.likelihood.model

    @property
    def args(self) -> PyTree:
        """The third argument of the model."""
        return self.likelihood.args

    @property
    def arrays(self) -> PyTree:
        """Model and args: whatever may have derivatives."""
        return self.likelihood.model, self.likelihood.args

    def with_arrays(self, arrays: PyTree) -> RepeatedLikelihood:
        """The same data set with other `arrays`."""
        model, args = arrays
        return dataclasses.replace(self, likelihood=dataclasses.replace(self.likelihood, model=model, args=args))

    @property
    def longest(self) -> int:
        """Number of rows."""
        return self.likelihood.rows

    @property
    def traced(self) -> bool:
        """True if any array is known only to a trace."""
        return traced(self.likelihood)

    @property
    def row_counts(self) -> np.ndarray:
        """Number of rows, in an array."""
        return np.array([self.longest])

    def repeated(self, times: int) -> RepeatedLikelihood:
        """The same so many times as often."""
        return dataclasses.replace(self, n_sets=self.n_sets * times)


def solve_repeated(problem: Problem, lost: Raised) -> Solution:
    """The maxima from all starts of a problem whose likelihood is repeated.

    Args:
        problem: the problem.
        lost: gets what the log-density raises on the way from each start; then they go one by one.
    """
    repeated = problem.likelihood

    starts = list(problem.starts)
    try:
        return repeated.checked(jax.block_until_ready(_solve(problem.of(repeated.likelihood, starts))))
    except RUNTIME_ERRORS as error:
        raised(error)
    each = [problem.of(repeated.likelihood, [leaf[i] for leaf in starts]) for i in range(repeated.n_sets)]
    found, said = search_each(each, False, [""] * repeated.n_sets)
    lost.update(said)
    return repeated.checked(found)


def map_repeated(
    fn: Callable[[Objective, Any], Any], repeated: RepeatedLikelihood, parameters: Parameters, value: PyTree
) -> Any:
    """`map_datasets` of a likelihood that is repeated."""
    return repeated.checked(_map(fn, repeated.likelihood, parameters, value))


@Compiled
def _solve(problem: Problem) -> Solution:
    def from_start(starts: list[Array]) -> Solution:
        return maximise(problem.of(problem.likelihood, starts), by_sample=False)

    return jax.lax.map(from_start, problem.starts, batch_size=AT_ONCE)


@Compiled
def _map(
    fn: Callable[[Objective, Any], Any], likelihood: AbstractLikelihood, parameters: Parameters, value: PyTree
) -> Any:
    arrays, rest = eqx.partition((parameters, value), is_array)

    def of_set(arrays: PyTree) -> Any:
        mine, value = eqx.combine(arrays, rest)
        return fn(Objective(likelihood, mine), value)

    return jax.lax.map(of_set, arrays, batch_size=AT_ONCE)
