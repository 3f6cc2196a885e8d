"""The record of a fit: the solution, its data and model, and the indexing of a batch."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..core.compilation import Static
from ..core.status import ADVICE, Status, StatusArray
from ..core.trees import map_arrays, transforming
from ..engine.backend import NOT_KNOWN, SearchedBy
from ..engine.certificate import Certificate
from ..engine.history import History
from ..engine.implicit import without_derivative
from ..engine.modes import Modes
from ..engine.solution import Solution
from ..likelihood.dataset import AbstractDataset
from ..likelihood.objective import Objective
from ..models.model import Model
from ..models.parameters import Parameters
from ..models.written_order import WrittenOrder
from . import bound_messages, criteria, obstacle_messages
from .failure import first_row

Record = TypeVar("Record", bound="FitRecord")

#: Parameters of a weak direction that a message names.
NAMED = 30


class FitRecord(eqx.Module):
    """The arrays of a fit, or of a batch of fits, and what they are called; `Fit` adds what follows from them."""

    _solution: Solution
    _arrays: PyTree  # array leaves of (parameters, model)
    _structure: Static  # their static part
    _dataset: AbstractDataset
    args: PyTree
    solver: str = eqx.field(static=True)
    _modes: Modes | None = None  # without `params`, whose tree may hold what is no array
    _history: History | None = None  # likewise
    _written: WrittenOrder = eqx.field(static=True, default=WrittenOrder())
    _raised: tuple[tuple[int, str], ...] = eqx.field(static=True, default=())  # by number of the data set
    _searched_by: SearchedBy = eqx.field(static=True, default=NOT_KNOWN)

    @property
    def parameters(self) -> Parameters:
        """How the parameters map to the free vector."""
        parameters = eqx.combine(self._arrays, self._structure.value)[0]
        return dataclasses.replace(parameters, active=self._solution.active)

    @property
    def model(self) -> Model:
        """The log-density with its companions."""
        return eqx.combine(self._arrays, self._structure.value)[1]

    @property
    def data(self) -> Any:
        """The data: arrays, or the groups, the table or the shards that were fitted."""
        return self._dataset.source

    @property
    def weights(self) -> Array | None:
        """The frequency weights, where these are an array."""
        arrays = self._dataset.arrays
        return None if arrays is None else arrays[1]

    # What was found.

    @property
    def params(self) -> PyTree:
        """The estimates in natural units, a PyTree like `init`."""
        return self.parameters.tree(self._solution.estimates)

    @property
    def log_likelihood(self) -> Float[Array, "..."]:
        """The log-likelihood at the estimates: the sum, in nats."""
        return self._solution.log_likelihood

    @property
    def n_obs(self) -> Array:
        """Number of observations: the sum of the weights."""
        return self._solution.n_obs

    @property
    def n_free(self) -> int:
        """Number of free parameters: fixed and tied ones do not count."""
        return self.parameters.n_free

    @property
    def steps(self) -> Array:
        """Steps that were taken."""
        return self._solution.steps

    @property
    def backend(self) -> str:
        """What ran the search, `"native"` or `"xla"`; `diagnose()` says why. Empty where a file does not know."""
        return self._searched_by.backend

    @property
    def status(self) -> StatusArray:
        """Why the fit ended: compares with `mle.Status` and prints as a name."""
        return StatusArray(self._solution.status)

    @property
    def converged(self) -> Bool[Array, "..."]:
        """True where the maximum is proven."""
        return self._solution.status == Status.converged

    @property
    def message(self) -> Any:
        """Why the fit ended and what to try next: a sentence, or an array of them."""
        if self.batched:
            check_one_axis(self)
            sentences = {int(status): f"{status.name}: {ADVICE[status]}" for status in Status}
            said = (sentences[int(code)] for code in np.asarray(self._solution.status))
            return np.array([text + more for text, more in zip(said, self._exceptions)], dtype=object)
        status = Status(int(self._solution.status))
        text = f"{status.name}: {ADVICE[status]}{self.cause}"
        if status == Status.converged:
            text += self.bounds_in_words
        if status in (Status.unbounded, Status.not_identified):
            strong = self.certificate.weak_parameters
            if strong:
                more = f" and {len(strong) - NAMED} more" if len(strong) > NAMED else ""
                text += f" Weak direction: {', '.join(strong[:NAMED])}{more}."
        return text + self.edges_in_words

    @property
    def bounds_in_words(self) -> str:
        """The estimates of a single fit that lie on their bounds, in words, after a blank."""
        solution = self._solution
        return bound_messages.at_bounds(self.parameters, solution.estimates, solution.multiplier)

    @property
    def edges_in_words(self) -> str:
        """The walls, kinks and open edges of constraints that a single fit ran to, in words, after a blank."""
        status, solution = Status(int(self._solution.status)), self._solution
        structure = self._dataset, self.model, self.args, self.parameters
        text = obstacle_messages.obstacles(status, *structure, solution.free)
        if status in (Status.unbounded, Status.not_identified):
            strong = self.certificate.weak_parameters
            text += bound_messages.at_edges(self.parameters, solution.estimates, strong)
            text += bound_messages.at_infinite(self.parameters, solution.free, solution.multiplier)
        return text

    @property
    def cause(self) -> str:
        """What made a single fit fail, in words, after a blank: the first row that is not finite, an exception."""
        structure = self._dataset, self.model, self.args, self.parameters
        status = Status(int(self._solution.status))
        return self._exceptions[0] + first_row(status, *structure, self._solution.free)

    @property
    def _exceptions(self) -> list[str]:
        """What the log-density of each unproven data set raised, in words, after a blank; perhaps nothing."""
        known = dict(self._raised)
        numbers = np.atleast_1d(0 if (number := index(self)) is None else np.asarray(number)).tolist()
        codes = np.atleast_1d(np.asarray(self._solution.status)).tolist()
        said = (known.get(number, "") if code else "" for number, code in zip(numbers, codes))
        where = ("It was" if code == Status.raised else "On the way the log-density raised" for code in codes)
        return [f" {here} {text.rstrip('.')}." if text else "" for here, text in zip(where, said)]

    @property
    def certificate(self) -> Certificate:
        """The second-order proof. It describes the search, and its derivatives are NaN."""
        found = without_derivative(self._solution, self)
        return Certificate(
            found.decrement,
            found.gradient_norm,
            found.min_eigenvalue,
            found.condition_number,
            found.weak_direction,
            self.parameter_names,
            None if found.multiplier is None else self.parameters.at_bounds(found.multiplier, jnp.nan),
        )

    @property
    def at_bound(self) -> PyTree:
        """Which estimates lie on a bound of a closed constraint that holds them there, a PyTree like `params`."""
        return self.parameters.tree(self._at_bound)

    @property
    def _at_bound(self) -> Bool[Array, "... k"]:
        """`at_bound` as a vector over `parameter_names`."""
        multiplier, estimates = self._solution.multiplier, self._solution.estimates
        if multiplier is None:
            return jnp.zeros(estimates.shape, bool)
        return ~jnp.isnan(self.parameters.at_bounds(multiplier, jnp.nan))

    @property
    def modes(self) -> Modes | None:
        """The maxima that many starts found, and how many found which; `None` without `starts=`.

        Their derivatives are NaN.
        """
        if self._modes is None:
            return None
        found = without_derivative(self._modes, self)
        return dataclasses.replace(found, params=self.parameters.tree(found.vector))

    @property
    def history(self) -> History | None:
        """The path of the search, of many starts that of the first; `None` without `history=True`."""
        if self._history is None:
            return None
        return dataclasses.replace(self._history, params=self.parameters.tree(self._history.vector))

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """One flat name a scalar parameter, fixed and tied ones included, in the order of the leaves."""
        return self.parameters.names

    @property
    def fixed(self) -> tuple[bool, ...]:
        """For each of `parameter_names`, whether it kept the value it started with."""
        return tuple(leaf.is_fixed for leaf in self.parameters.leaves for _ in range(leaf.size))

    @property
    def aic(self) -> Array:
        """Akaike's information criterion."""
        return criteria.aic(self.log_likelihood, self.n_free)

    @property
    def aicc(self) -> Array:
        """Akaike's information criterion with the correction for small samples."""
        return criteria.aicc(self.log_likelihood, self.n_free, self.n_obs)

    @property
    def bic(self) -> Array:
        """Schwarz's information criterion."""
        return criteria.bic(self.log_likelihood, self.n_free, self.n_obs)

    # The batch.

    @property
    def batched(self) -> bool:
        """True for a batch of fits."""
        return jnp.ndim(self._solution.status) > 0

    @property
    def n_sets(self) -> int:
        """Number of data sets."""
        return self._solution.status.shape[0] if self.batched else 1

    @property
    def keys(self) -> Any:
        """The keys of the data sets, a pyarrow Table of one row each; `None` without `mle.group_by`."""
        return self._dataset.keys

    def __len__(self) -> int:
        if not self.batched:
            raise TypeError("a single fit has no length; only a batch of fits does")
        return self.n_sets

    def __getitem__(self: Record, index: Any) -> Record:
        if not self.batched:
            raise TypeError("a single fit cannot be indexed; only a batch of fits can")
        if isinstance(index, int | np.integer) and not -self.n_sets <= index < self.n_sets:
            raise IndexError(f"data set {index} is out of range: the batch holds {self.n_sets}")
        if not isinstance(index, slice | jax.core.Tracer):
            index = np.asarray(index)
            index = index if index.size else index.astype(int)
        if not isinstance(index, jax.core.Tracer):
            index = np.arange(self.n_sets)[index]
        return map_arrays(operator.getitem, self, index)


def objective(fit: FitRecord) -> Objective:
    """The objective of a single fit: its likelihood on the free scale."""
    likelihood = fit._dataset.likelihood(fit.model, fit.args, fit.n_free, transforming())
    return Objective(likelihood, fit.parameters)


def index(fit: FitRecord) -> Array | None:
    """The number of the data set in its batch, or of each; `None` where there never was a batch."""
    return jnp.arange(fit.n_sets) if fit._dataset.index is None and fit.batched else fit._dataset.index


def check_one_axis(fit: FitRecord) -> None:
    """A `ValueError` where a batch has more than one axis of data sets."""
    shape = fit.status.shape
    if len(shape) > 1:
        raise ValueError(f"this batch has axes {shape}; index or reshape it to one axis of data sets first")
