"""Functions of the data set of a fit, or of each data set of a batch: compiled once, bounded in memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..core.checks import warn
from ..core.compilation import Compiled
from ..core.runtime_errors import Raised
from ..core.status import Status
from ..core.trees import batch_of_one, is_array, only_one, shared, traced
from ..engine import implicit, map_datasets
from ..engine.apart import unknown
from ..engine.repeated import RepeatedLikelihood
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..likelihood.ragged import RaggedBatch
from ..models.parameters import Parameters
from .record import FitRecord, check_one_axis, objective


def has_contributions(fit: FitRecord) -> bool:
    """True if the model gives one log-density a row, and so scores."""
    if not fit.model.is_joint:
        return True
    one = fit[0] if fit.batched else fit
    return objective(one).likelihood.has_contributions(one.params)


def evaluate(fit: FitRecord, fn: Callable[..., Any], value: Any, rows: PyTree = None) -> Any:
    """`fn(objective, value)` of the data set, or of each data set of a batch with a leading axis.

    Args:
        fit: the fit, or batch of fits.
        fn: compiled once for as long as it is the same function.
        value: what it needs; of a batch arrays with a leading axis of data sets.
        rows: what else belongs to each row, as `encode_row_labels` makes it; then it is
            `fn(objective, value, rows)`.
    """
    raised = _raised(fit)
    if not fit.batched:
        given = fn, objective(fit), value, *(() if rows is None else (rows,))
        if raised.size:
            return jax.tree.map(lambda one: jnp.asarray(unknown(one)), eqx.filter_eval_shape(_apply, *given))
        return fit._dataset.checked(_apply(*given))
    batch, own = batch_of(fit)
    if rows is not None:
        assert isinstance(batch, RaggedBatch)  # labels are for rows in memory
        batch = dataclasses.replace(batch, rows=(batch.rows, fit._dataset.flat_labels(rows)))
        fn = _with_rows(fn)
    return _map(raised, fn, batch, fit.parameters, value, own, {})


def _raised(fit: FitRecord) -> np.ndarray:
    """The places of the data sets whose log-density raised, and would again."""
    status = fit._solution.status
    return np.empty(0, int) if traced(status) else np.flatnonzero(np.asarray(status) == Status.raised)


def _map(
    raised: np.ndarray,
    fn: Callable[..., Any],
    batch: RaggedBatch | RepeatedLikelihood,
    parameters: Parameters,
    value: Any,
    own: Any,
    lost: Raised,
) -> Any:
    """`map_datasets` without the data sets that raised, and with a warning where others do, which are NaN."""
    if raised.size and isinstance(batch, RaggedBatch):
        found = map_datasets.map_others(raised, fn, batch, parameters, value, own, lost)
    else:
        found = map_datasets.map_datasets(fn, batch, parameters, value, own, lost)
    if lost:
        warn(
            f"the log-density raised an exception in {len(lost):,} of {batch.n_sets:,} computations, whose "
            f"results are NaN: {next(iter(lost.values()))}"
        )
    return found


def evaluate_proven(fit: FitRecord, fn: Callable[..., Any], value: Any, rows: PyTree = None) -> Any:
    """`evaluate` where a maximum is proven, and NaN elsewhere."""
    return evaluate(fit, _where_proven(fn), (fit.converged, value), rows)


@functools.cache
def _where_proven(fn: Callable[..., Any]) -> Callable[..., Any]:
    def at(objective: Objective, both: tuple[Array, Any], *rest: Any) -> Any:
        proven, value = both
        return implicit.where_proven(fn, proven, objective, value, *rest)

    return at


def evaluate_repeated(
    fit: FitRecord, times: int, fn: Callable[..., Any], value: Any, lost: Raised | None = None
) -> Any:
    """`fn(objective, value)` so many times for each data set, all of them side by side in lanes.

    Args:
        fit: the fit, or batch of fits.
        times: how often.
        fn: compiled once for as long as it is the same function.
        value: what it needs, arrays with axes of data sets, if there are several, and of `times`.
        lost: gets what log-densities raise, by data set and then by times.

    Returns:
        What it returns, with the same leading axes.
    """
    if not fit.batched:
        return only_one(evaluate_repeated(batch_of_one(fit), times, fn, batch_of_one(value), lost))
    batch, own = batch_of(fit)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), value)
    arrays = lambda leaf: repeat_each(leaf, times) if is_array(leaf) else leaf  # noqa: E731
    parameters, own = jax.tree.map(arrays, (fit.parameters, own))
    raised = (_raised(fit)[:, None] * times + np.arange(times)).ravel()
    out = _map(raised, fn, batch.repeated(times), parameters, flat, own, {} if lost is None else lost)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, times, *leaf.shape[1:]), out)


def repeat_each(leaf: Any, times: int) -> Any:
    """Every entry of the leading axis so many times."""
    xp = np if isinstance(leaf, np.ndarray) else jnp
    return xp.repeat(leaf, times, axis=0)


def batch_of(fit: FitRecord) -> tuple[RaggedBatch | RepeatedLikelihood, Any]:
    """The likelihoods of a batch, and `(model, args)` with a leading axis where each data set has its own."""
    check_one_axis(fit)
    if not fit.n_sets:
        raise ValueError("this batch holds no data sets, so there is nothing to compute from them")
    own, dataset = (fit.model, fit.args), fit._dataset
    model, args = jax.tree.map(lambda leaf: leaf[0] if is_array(leaf) else leaf, own)
    batch = dataset.ragged(model, args)
    if batch is None:
        likelihood = dataset.likelihood(model, args, fit.n_free)
        return RepeatedLikelihood(likelihood, dataset.checked, fit.n_sets), None
    return batch, None if shared(own) else own


def encode_row_labels(fit: FitRecord, columns: Any, name: str) -> tuple[Any, ...]:
    """Labels of rows, from arrays or from columns of the data, as whole numbers that tell them apart.

    Args:
        fit: the fit, or batch of fits.
        columns: an array of labels of shape `(n_obs,)`, of a batch `(n_sets, n_obs)`; the name of a column of
            the data; or a list, tuple or table of such.
        name: what messages call it.
    """
    if hasattr(columns, "column_names") or hasattr(columns, "columns"):  # pyarrow; pandas, polars
        columns = [columns[label] for label in getattr(columns, "column_names", getattr(columns, "columns", ()))]
    elif not isinstance(columns, list | tuple) or _is_vector(columns):
        columns = [columns]
    if not len(columns):
        raise ValueError(f"{name}: there are no columns in it; pass labels, or the name of a column")
    data, shape = fit._dataset.labelled(columns, fit.batched, name)
    return tuple(_labels(column, data, shape, name) for column in columns)


def _labels(column: Any, data: PyTree, shape: tuple[int, ...], name: str) -> Any:
    if isinstance(column, str):
        known = list(map(str, data)) if isinstance(data, dict) else []
        if column not in known:
            has = f"which has {', '.join(known)}" if known else "whose columns have no names"
            raise ValueError(f"{name}: {column!r} is no column of the data, {has}; labels go into an array")
        column = data[column]
    if not isinstance(column, jax.core.Tracer):
        column = np.asarray(column)
        if column.shape == shape:
            column = _numbered(column)
    if jnp.shape(column) != shape:
        raise ValueError(f"{name} must hold one label an observation, shape {shape}; got {jnp.shape(column)}")
    return column


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Labels of any kind as whole numbers; missing ones are labels like any other."""
    if labels.dtype.kind != "O":
        return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    numbers: dict[Any, int] = {}
    flat = [numbers.setdefault(label, len(numbers)) for label in labels.ravel().tolist()]
    return np.array(flat, np.int64).reshape(labels.shape)


def longest(fit: FitRecord) -> int:
    """Rows of the longest data set."""
    return fit._dataset.longest(fit.batched)


def contributions_of(fit: FitRecord) -> Float[Array, "... n_obs"]:
    """`Fit.contributions`."""
    return evaluate(fit, contributions(longest(fit)), fit._solution.free)


def scores_of(fit: FitRecord) -> Float[Array, "... n_obs n_free"]:
    """`Fit.scores`."""
    return evaluate(fit, scores(longest(fit)), fit._solution.free)


@functools.cache
def contributions(width: int) -> Callable[[Objective, Any], Array]:
    """Log-densities of the rows of a data set at the free vector, shape `(width,)`."""

    def at(objective: Objective, free: Array) -> Array:
        return to_width(objective.likelihood.contributions(objective.parameters.natural(free)), width)

    return at


@functools.cache
def scores(width: int) -> Callable[[Objective, Any], Array]:
    """Their gradients, shape `(width, n_free)`."""

    def at(objective: Objective, free: Array) -> Array:
        return to_width(objective.likelihood.scores(free, objective.parameters.natural), width)

    return at


def to_width(rows: Array, width: int) -> Array:
    """Zero rows added, or padding cut off, so that there are `width` rows."""
    missing = max(0, width - rows.shape[0])
    return jnp.pad(rows[:width], [(0, missing)] + [(0, 0)] * (rows.ndim - 1))


def _is_vector(columns: Any) -> bool:
    """True for a list of labels, one an observation, false for one of columns."""
    return bool(columns) and not any(isinstance(one, str) or np.ndim(one) for one in columns)


@functools.cache
def _with_rows(fn: Callable[..., Any]) -> Callable[[Objective, Any], Any]:
    """`fn(objective, value, rows)` where the rows of the batch are pairs of data and further rows."""

    def at(whole: Objective, value: Any) -> Any:
        assert isinstance(whole.likelihood, InMemoryLikelihood)
        data, rest = whole.likelihood.data
        mine = dataclasses.replace(whole.likelihood, data=rest).aligned()[0]
        likelihood = dataclasses.replace(whole.likelihood, data=data)
        return fn(dataclasses.replace(whole, likelihood=likelihood), value, mine)

    return at


@Compiled
def _apply(fn: Callable[..., Any], *args: Any) -> Any:
    return fn(*args)
