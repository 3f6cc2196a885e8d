"""The first row that makes a log-likelihood not finite, in words; computed where a message is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ..core.compilation import Compiled
from ..core.status import Status
from ..core.trees import is_inexact, place_name
from ..likelihood.dataset import AbstractDataset
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..models.model import Model
from ..models.parameters import Parameters

#: Derivatives of all rows are not looked at beyond so many numbers.
MOST_SCORES = 1 << 26
#: Values of a row that are shown.
SHOWN = 4


def first_row(
    status: Status, dataset: AbstractDataset, model: Model, args: PyTree, parameters: Parameters, free: Array
) -> str:
    """A sentence about the first row in trouble of one data set, after a blank; empty where none is known.

    Args:
        status: why the fit ended.
        dataset: its data; only rows in memory are looked at.
        model: the log-density.
        args: its third argument, or `None`.
        parameters: how its parameters map to the free vector.
        free: the free vector.
    """
    if status not in (Status.nonfinite_start, Status.nonfinite_data) or not dataset.at_hand:
        return ""
    likelihood = dataset.likelihood(model, args, parameters.n_free)
    if not isinstance(likelihood, InMemoryLikelihood):
        return ""
    rows, weights = likelihood.aligned()
    counts = np.arange(likelihood.rows) < np.asarray(likelihood.n_unpadded)
    if weights is not None:
        counts &= ~(np.asarray(weights) <= 0)  # a weight of NaN counts
    where = "" if dataset.index is None else f" of data set {int(dataset.index)}"
    if status == Status.nonfinite_data:
        return _bad_number(rows, weights, counts, where)
    if model.is_joint and not likelihood.has_contributions(parameters.natural(free)):
        return ""
    return _bad_density(Objective(likelihood, parameters), free, rows, counts, where)


def _bad_number(rows: PyTree, weights: Array | None, counts: np.ndarray, where: str) -> str:
    found = []
    columns = [(place_name("data", path), leaf) for path, leaf in jtu.tree_flatten_with_path(rows)[0]]
    for name, leaf in [*columns, ("weights", weights)]:
        if not is_inexact(leaf):
            continue
        bad = ~np.isfinite(np.asarray(leaf)) & counts.reshape(-1, *(1,) * (jnp.ndim(leaf) - 1))
        if bad.any():
            row, *inside = (int(i) for i in np.argwhere(bad)[0])
            element = f"[{', '.join(map(str, inside))}]" if inside else ""
            found.append((row, name + element, np.asarray(leaf)[(row, *inside)]))
    if not found:
        return _largest(columns, counts)
    row, name, value = min(found, key=lambda one: one[0])
    return f" The first is in row {row}{where}: {name} is {value}."


def _largest(columns: Sequence[tuple[str, Array]], counts: np.ndarray) -> str:
    """The leaf whose largest number is the farthest from one."""
    sizes = {name: np.abs(np.asarray(leaf)[counts]).max(initial=0.0) for name, leaf in columns if is_inexact(leaf)}
    sizes = {name: float(size) for name, size in sizes.items() if size > 0}
    if not sizes:
        return ""
    name = max(sizes, key=lambda name: abs(np.log(sizes[name])))
    return f" The largest number of {name} is {sizes[name]:.3g}."


def _bad_density(objective: Objective, free: Array, rows: PyTree, counts: np.ndarray, where: str) -> str:
    values = np.asarray(_values(objective, free))
    bad = np.flatnonzero(~np.isfinite(values) & counts)
    if bad.size:
        row = int(bad[0])
        return f" The log-density of row {row}{where} is {values[row]}, where {_shown(rows, row)}."
    if values.size * len(free) > MOST_SCORES:
        return ""
    scores = np.asarray(_scores(objective, free))
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1) & counts)
    if not bad.size:
        return ""
    row = int(bad[0])
    names = objective.parameters.names_with(~np.isfinite(scores[row]))
    return (
        f" The log-density of row {row}{where} is finite, {values[row]:.6g}, but its derivative with respect to "
        f"{', '.join(names)} is not, where {_shown(rows, row)}. So it is of 0 * log(0) behind jnp.where: make the "
        "argument of the logarithm safe as well, or use jax.scipy.special.xlogy with a positive second argument."
    )


def _shown(rows: PyTree, row: int) -> str:
    """The values of a row."""
    leaves = jtu.tree_flatten_with_path(rows)[0]
    parts = [f"{place_name('data', path)} is {_short(leaf[row])}" for path, leaf in leaves[:SHOWN]]
    return ", ".join(parts) + (f" and {len(leaves) - SHOWN} more" if len(leaves) > SHOWN else "")


def _short(value: Any) -> str:
    if np.ndim(value):
        return np.array2string(np.asarray(value), precision=4, threshold=6, edgeitems=2).replace("\n", "")
    return f"{np.asarray(value).item():.6g}" if is_inexact(value) else str(value)


@Compiled
def _values(objective: Objective, free: Array) -> Array:
    return objective.likelihood.contributions(objective.parameters.natural(free))


@Compiled
def _scores(objective: Objective, free: Array) -> Array:
    return objective.likelihood.scores(free, objective.parameters.natural)
