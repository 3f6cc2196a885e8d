"""What is wanted of the data set of a fit, or of each data set of a batch, compiled once and bounded in memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .. import implicit, pieces
from ..alike import Alike
from ..collection import Collection, collection_of
from ..compilation import Compiled
from ..objective import Objective
from ..observed import InMemory, Observed, observed
from ..trees import batch_of_one, is_array, only_one, shared, transforming

if TYPE_CHECKING:
    from ..fitted import Fitted
    from ..model import Model
    from ..result import Fit


def objective(fit: Fitted) -> Objective:
    """The objective of a single fit: its likelihood on the free scale."""
    return _objective(given(fit), fit)


def _objective(here: Observed, fit: Fitted) -> Objective:
    return Objective(here.likelihood(fit.model, fit.args, fit.n_free, transforming()), fit.parameters)


def given(fit: Fitted) -> Observed:
    """The data of a single fit."""
    apart = fit.table or fit.shards
    if apart is not None:
        return observed(apart, fit.weight_column)
    if fit.groups is not None:
        data = jax.tree.map(jnp.asarray, fit.groups[int(fit.index)])  # type: ignore[arg-type]
        return InMemory(data, None if fit.weight_column is None else data[fit.weight_column])
    return InMemory(fit.data, fit.weights, fit.lengths)


def has_contributions(fit: Fit) -> bool:
    """Whether the model gives one log-density a row, and so scores."""
    if not fit.model.is_joint:
        return True
    one = fit[0] if fit.batched else fit
    return objective(one).likelihood.has_contributions(one.params)


def evaluate(fit: Fit, fn: Callable[..., Any], value: Any, rows: PyTree = None) -> Any:
    """`fn(objective, value)` of the data set, or of each data set of a batch with a leading axis.

    Args:
        fit: the fit, or batch of fits.
        fn: compiled once for as long as it is the same function.
        value: what it needs; of a batch arrays with a leading axis of data sets.
        rows: what else belongs to each row, as `beside_rows` makes it; then it is `fn(objective, value, rows)`.
    """
    if not fit.batched:
        here = given(fit)
        return here.checked(_apply(fn, _objective(here, fit), value, *(() if rows is None else (rows,))))
    everything, model, own = collection(fit)
    if rows is not None:
        assert isinstance(everything, Collection)  # of batches alone, and the data of these are in memory
        flat = rows if fit.groups is not None else jax.tree.map(lambda leaf: leaf.reshape(-1), rows)
        everything = dataclasses.replace(everything, rows=(everything.rows, flat))
        fn = _with_rows(fn)
    return pieces.map_sets(fn, everything, model, fit.parameters, value, own)


def evaluate_proven(fit: Fit, fn: Callable[..., Any], value: Any, rows: PyTree = None) -> Any:
    """`evaluate` where a maximum is proven, and NaN elsewhere."""
    return evaluate(fit, _where_proven(fn), (fit.converged, value), rows)


@functools.cache
def _where_proven(fn: Callable[..., Any]) -> Callable[..., Any]:
    def at(objective: Objective, both: tuple[Array, Any], *rest: Any) -> Any:
        proven, value = both
        return implicit.where_proven(fn, proven, objective, value, *rest)

    return at


def evaluate_times(fit: Fit, times: int, fn: Callable[..., Any], value: Any) -> Any:
    """`fn(objective, value)` so many times for each data set, all of them side by side in lanes.

    Args:
        fit: the fit, or batch of fits.
        times: how often.
        fn: compiled once for as long as it is the same function.
        value: what it needs, arrays with axes of data sets, if there are several, and of `times`.

    Returns:
        What it returns, with the same leading axes.
    """
    if not fit.batched:
        return only_one(evaluate_times(batch_of_one(fit), times, fn, batch_of_one(value)))
    everything, model, own = collection(fit)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), value)
    arrays = lambda leaf: repeat_each(leaf, times) if is_array(leaf) else leaf  # noqa: E731
    parameters, own = jax.tree.map(arrays, (fit.parameters, own))
    out = pieces.map_sets(fn, everything.repeated(times), model, parameters, flat, own)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, times, *leaf.shape[1:]), out)


def repeat_each(leaf: Any, times: int) -> Any:
    """Every entry of the leading axis so many times."""
    xp = np if isinstance(leaf, np.ndarray) else jnp
    return xp.repeat(leaf, times, axis=0)


def collection(fit: Fit) -> tuple[Collection | Alike, Model, Any]:
    """The data sets of a batch, their model, and `(model, args)` with a leading axis where each has its own."""
    need_one_axis(fit)
    if not fit.n_sets:
        raise ValueError("this batch holds no data sets, so there is nothing to compute from them")
    own = (fit.model, fit.args)
    model, args = jax.tree.map(lambda leaf: leaf[0] if is_array(leaf) else leaf, own)
    if fit.table is not None or fit.shards is not None:
        here = given(fit)
        return Alike(here.likelihood(model, args, fit.n_free), args, here.checked, fit.n_sets), model, None
    found = collection_of(fit.data, fit.weights, fit.lengths, args, fit.weight_column, fit.index)
    return found, model, None if shared(own) else own


def beside_rows(fit: Fit, columns: Any, name: str) -> tuple[Any, ...]:
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
    flat = fit.groups is not None and fit.batched  # all groups one behind the other
    if fit.table is not None:
        data = fit.table.labels(columns)
        shape: tuple[int, ...] = (fit.table.n_rows,)
    else:
        if fit.groups is None:
            data = fit.data
        else:
            data = fit.groups.columns if flat else fit.groups[int(fit.index)]  # type: ignore[arg-type]
        shape = jnp.shape(jax.tree.leaves(data)[0])[: 2 if fit.batched and not flat else 1]
    return tuple(_labels(column, data, shape, flat, name) for column in columns)


def _labels(column: Any, data: PyTree, shape: tuple[int, ...], flat: bool, name: str) -> Any:
    if isinstance(column, str):
        known = list(map(str, data)) if isinstance(data, dict) else []
        if column not in known:
            has = f"which has {', '.join(known)}" if known else "whose columns have no names"
            raise ValueError(f"{name}: {column!r} is no column of the data, {has}; labels go into an array")
        column = data[column]
    elif flat:
        raise ValueError(f"{name} of groups are names of columns, such as {name}='firm'; put them into the table")
    if not isinstance(column, jax.core.Tracer):
        column = np.asarray(column)
        if column.shape == shape:
            column = _numbered(column)
    if jnp.shape(column) != shape:
        raise ValueError(f"{name} must hold one label an observation, shape {shape}; got {jnp.shape(column)}")
    return column if flat else jnp.asarray(column)


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Labels of any kind as whole numbers; missing ones are labels like any other."""
    if labels.dtype.kind != "O":
        return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    numbers: dict[Any, int] = {}
    flat = [numbers.setdefault(label, len(numbers)) for label in labels.ravel().tolist()]
    return np.array(flat, np.int64).reshape(labels.shape)


def index(fit: Fit) -> Array | None:
    """The number of the data set in its batch, or of each; `None` where there never was a batch."""
    return jnp.arange(fit.n_sets) if fit.index is None and fit.batched else fit.index


def need_one_axis(fit: Fitted) -> None:
    """A `ValueError` where a batch has more than one axis of data sets."""
    shape = fit.status.shape
    if len(shape) > 1:
        raise ValueError(f"this batch has axes {shape}; index or reshape it to one axis of data sets first")


def longest(fit: Fit) -> int:
    """Rows of the longest data set."""
    if fit.groups is not None:
        return int(np.max(fit.groups.lengths[np.asarray(fit.index)]))
    apart = fit.table or fit.shards
    if apart is not None:
        return apart.n_rows
    return jnp.shape(jax.tree.leaves(fit.data)[0])[1 if fit.batched else 0]


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
    """Whether a list holds labels, one an observation, and no columns."""
    return bool(columns) and not any(isinstance(one, str) or np.ndim(one) for one in columns)


@functools.cache
def _with_rows(fn: Callable[..., Any]) -> Callable[[Objective, Any], Any]:
    """`fn(objective, value, rows)` where the rows of the collection are pairs of data and the rest."""

    def at(whole: Objective, value: Any) -> Any:
        data, rest = whole.likelihood.data
        mine = dataclasses.replace(whole.likelihood, data=rest).aligned()[0]
        likelihood = dataclasses.replace(whole.likelihood, data=data)
        return fn(dataclasses.replace(whole, likelihood=likelihood), value, mine)

    return at


@Compiled
def _apply(fn: Callable[..., Any], *args: Any) -> Any:
    return fn(*args)
