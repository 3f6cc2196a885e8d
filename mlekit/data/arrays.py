"""Checks of data before tracing: their leaves, lengths and dtypes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ..core.dtypes import widened
from ..core.trees import place_name
from .columns import NotNumericError, encoding, is_dataset, is_table, table_columns


def as_arrays(data: Any, name: str = "data", axes: int = 1) -> PyTree:
    """The data as a PyTree of arrays that share their leading axes.

    Args:
        data: PyTree of arrays; a pyarrow, polars or pandas table, which becomes a dict of its columns; or an
            xarray Dataset, which becomes a dict of its variables, and of its coordinates along the axis of
            observations where these are numbers.
        name: the argument, for messages.
        axes: number of leading axes shared: one for `(n_obs, ...)`, two for `(n_sets, n_obs, ...)`.

    Raises:
        ValueError: no leaves, leaves without those axes or of different lengths, no rows, or xarray variables
            whose dimensions do not say which axis is which.
        TypeError: a leaf that is no array of numbers.
    """
    if is_table(data):
        if axes > 1:
            raise ValueError(
                f"{name} is a table of one row an observation; make groups of it with mle.group_by(table, by)"
            )
        try:
            data = table_columns(data)
        except NotNumericError as error:
            message = _not_numeric(f'{name}["{error.name}"]', error.kind)
            raise NotNumericError(message, error.name, error.kind) from None
    elif is_dataset(data):
        data = _variables(data, name, axes)
    else:
        _check_layout(data, name)
        labelled = {
            place_name(name, path): leaf
            for path, leaf in jtu.tree_flatten_with_path(data)[0]
            if hasattr(leaf, "dims")
        }
        _leading({leaf: array.dims for leaf, array in labelled.items()}, name, axes)
        _check_same_labels(data, name, axes)
    data = jax.tree.map(lambda leaf: widened(leaf.to_numpy() if hasattr(leaf, "to_numpy") else leaf), data)
    wanted = "(n_obs, ...)" if axes == 1 else "(n_sets, n_obs, ...)"
    found = {place_name(name, path): leaf for path, leaf in jtu.tree_flatten_with_path(data)[0]}
    if not found:
        raise ValueError(f"{name} holds no arrays; it must be a PyTree of arrays of shape {wanted}")
    for leaf, value in found.items():
        _check_leaf(leaf, value, axes, wanted)
    lengths = {leaf: jnp.shape(value)[:axes] for leaf, value in found.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{leaf} has {'x'.join(map(str, shape))}" for leaf, shape in lengths.items())
        raise ValueError(f"{name}: all leaves must share their leading axis, one slice an observation; {shown}")
    if 0 in next(iter(lengths.values())):
        raise ValueError(f"{name} is empty: its leaves have shape {jnp.shape(next(iter(found.values())))}")
    return data


def as_weights(weights: Any, data: PyTree, shape: tuple[int, ...], dtype: Any) -> Array | None:
    """The weights as an array of floats of this shape.

    Args:
        weights: one for each row, or the name of a column of `data`.
        data: the data, as `as_arrays` returns them.
        shape: the shape that they must have.
        dtype: the dtype that they get.

    Raises:
        ValueError: another shape, a weight below zero, or no such column.
        TypeError: no numbers.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        if not isinstance(data, dict):
            raise ValueError(f"weights: {weights!r} names a column, and data has none; pass one weight a row")
        if weights not in data:
            raise ValueError(f"weights: there is no column {weights!r}; there are {', '.join(map(str, data))}")
        weights = data[weights]
    if hasattr(weights, "to_numpy") or isinstance(weights, list | tuple):
        weights = np.asarray(weights)
    weights = widened(weights)
    _check_leaf("weights", weights, 1, str(shape))
    if jnp.shape(weights) != shape:
        raise ValueError(f"weights must have one entry an observation, shape {shape}; got {jnp.shape(weights)}")
    if not isinstance(weights, jax.core.Tracer) and np.any(np.asarray(weights) < 0):
        raise ValueError(f"weights must not be negative; the least is {np.min(np.asarray(weights))}")
    return jnp.asarray(weights, dtype)


def as_lengths(lengths: Any, n_sets: int, n_obs: int) -> Any:
    """The lengths of ragged sets as integers, shape `(n_sets,)`.

    Raises:
        ValueError: another shape, or a length below zero or above `n_obs`.
        TypeError: no whole numbers.
    """
    if lengths is None:
        return None
    if isinstance(lengths, list | tuple):
        lengths = np.asarray(lengths)
    if not jnp.issubdtype(jnp.result_type(lengths), jnp.integer):
        raise TypeError(f"lengths must be whole numbers, got dtype {jnp.result_type(lengths)}")
    if jnp.shape(lengths) != (n_sets,):
        raise ValueError(f"lengths must have one entry a data set, shape ({n_sets},); got {jnp.shape(lengths)}")
    if isinstance(lengths, jax.core.Tracer):
        return lengths
    lengths = np.asarray(lengths)
    if lengths.min() < 0 or lengths.max() > n_obs:
        raise ValueError(
            f"lengths must lie between 0 and n_obs = {n_obs}; they run from {lengths.min()} to {lengths.max()}"
        )
    return lengths


def _variables(dataset: Any, name: str, axes: int) -> dict[str, np.ndarray]:
    """The variables of an xarray Dataset, and its coordinates along the axis of observations that are numbers.

    A coordinate that data sets share, such as the years of many series, is repeated for each of them.
    """
    dims = {label: variable.dims for label, variable in dataset.data_vars.items()}
    shared = set.intersection(*map(set, dims.values())) if dims else set()
    # The one dimension that all variables share can only be that of the observations.
    first = tuple(shared) if len(shared) == axes == 1 else _leading(dims, name, axes)
    columns = {label: dataset[label].transpose(*first, ...).to_numpy() for label in dims}
    for label, coordinate in dataset.coords.items():
        along = set(first[-1:]) <= set(coordinate.dims) <= set(first)
        if along and coordinate.ndim and coordinate.dtype.kind in "biuf":
            values = coordinate.transpose(*(dim for dim in first if dim in coordinate.dims)).to_numpy()
            columns[label] = np.broadcast_to(values, [dataset.sizes[dim] for dim in first])
    return {str(label): column for label, column in columns.items()}


def _leading(dims: dict[Any, tuple[Any, ...]], name: str, axes: int) -> tuple[Any, ...]:
    """The leading dimensions of all variables of xarray; a `ValueError` where they differ."""
    first = {own[:axes] for own in dims.values()}
    if len(first) > 1:
        wanted = (
            "the axis of observations" if axes == 1 else "the axes of data sets and of observations, in that order"
        )
        shown = ", ".join(f"{label} has {own}" for label, own in dims.items())
        raise ValueError(f"{name}: dimensions must begin with {wanted}; use .transpose(...), for {shown}")
    return first.pop() if first else ()


def _check_same_labels(data: PyTree, name: str, axes: int) -> None:
    """A `ValueError` where leaves of xarray or pandas label their rows differently: rows are joined in order."""
    known: dict[Any, tuple[str, Any]] = {}
    for path, leaf in jtu.tree_flatten_with_path(data)[0]:
        if hasattr(leaf, "dims"):
            labels = {dim: leaf.indexes[dim] for dim in leaf.dims[:axes] if dim in leaf.indexes}
        else:
            labels = {"index": leaf.index} if hasattr(leaf, "to_numpy") and hasattr(leaf, "index") else {}
        for axis, index in labels.items():
            first, other = known.setdefault(axis, (place_name(name, path), index))
            if not other.equals(index):
                raise ValueError(
                    f"{name}: {first} and {place_name(name, path)} have different labels along {axis!r}, and "
                    "rows are joined in their order: align them first, or leave the labels out with .to_numpy()"
                )


def _check_layout(data: Any, name: str) -> None:
    """A `TypeError` for records and for lists of numbers."""
    if isinstance(data, list) and data and isinstance(data[0], dict):
        raise TypeError(
            f"{name} is a list of {len(data)} dicts, one an observation; it must be one dict of arrays: "
            f"{{name: jnp.asarray([row[name] for row in {name}]) for name in {name}[0]}}"
        )
    if isinstance(data, list | tuple) and data and all(isinstance(one, int | float | tuple) for one in data):
        raise TypeError(
            f"{name} is a {type(data).__name__} of {type(data[0]).__name__}s; it must be an array, one slice an "
            f"observation: jnp.asarray({name})"
        )


def _not_numeric(shown: str, kind: Any) -> str:
    return f"{shown} holds {kind}; a log-density needs numbers: {encoding(shown, kind)}, or leave it out"


def _check_leaf(shown: str, value: Any, axes: int, wanted: str) -> None:
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        inside, _, last = shown.rpartition("[")
        if isinstance(value, int | float | bool | str) and last.rstrip("]").isdigit() and inside:
            if isinstance(value, str):
                raise TypeError(_not_numeric(inside, "text"))
            raise TypeError(
                f"{inside} is a list of {type(value).__name__}s; it must be an array of shape {wanted}: "
                f"jnp.asarray({inside})"
            )
        raise TypeError(
            f"{shown} is {type(value).__name__}; it must be an array of shape {wanted}"
            + (" (call .collect() first)" if hasattr(value, "collect") else "")
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{shown} is a masked array; leave the masked rows out, or give them a weight of zero")
    if value.dtype.kind in "OSUMmV":
        kind = {"O": "objects", "S": "text", "U": "text", "M": "dates", "m": "durations"}.get(value.dtype.kind)
        raise TypeError(_not_numeric(shown, kind or value.dtype))
    if value.ndim < axes:
        raise ValueError(f"{shown} has shape {value.shape}; it must have shape {wanted}")
