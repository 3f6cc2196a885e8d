"""What can be known of data before tracing: their leaves, lengths and kinds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from .groups import is_table, table_columns
from .parameters import leaf_name


def as_arrays(data: Any, name: str = "data", axes: int = 1) -> PyTree:
    """The data as a PyTree of arrays that share their leading axes.

    Args:
        data: PyTree of arrays, or a pyarrow, polars or pandas table.
        name: what messages call it.
        axes: number of leading axes shared: one for `(n_obs, ...)`, two for `(n_sets, n_obs, ...)`.

    Raises:
        ValueError: no leaves, leaves without those axes or of different lengths, or no rows.
        TypeError: a leaf that is no array of numbers.
    """
    if is_table(data):
        if axes > 1:
            raise ValueError(
                f"{name} is a table of one row an observation; make groups of it with mle.group_by(table, by)"
            )
        data = table_columns(data)
    data = jax.tree.map(lambda leaf: leaf.to_numpy() if hasattr(leaf, "to_numpy") else leaf, data)
    wanted = "(n_obs, ...)" if axes == 1 else "(n_sets, n_obs, ...)"
    found = {leaf_name(path): leaf for path, leaf in jtu.tree_flatten_with_path(data)[0]}
    if not found:
        raise ValueError(f"{name} holds no arrays; it must be a PyTree of arrays of shape {wanted}")
    for leaf, value in found.items():
        _check_leaf(name, leaf, value, axes, wanted)
    lengths = {leaf: jnp.shape(value)[:axes] for leaf, value in found.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{leaf} has {'x'.join(map(str, shape))}" for leaf, shape in lengths.items())
        raise ValueError(f"{name}: all leaves must share their leading axis, one slice an observation; {shown}")
    if 0 in next(iter(lengths.values())):
        raise ValueError(f"{name} is empty: its leaves have shape {jnp.shape(next(iter(found.values())))}")
    return data


def as_weights(weights: Any, shape: tuple[int, ...], dtype: Any) -> Array | None:
    """The weights as an array of floats of this shape.

    Raises:
        ValueError: another shape, or a weight below zero.
        TypeError: no numbers.
    """
    if weights is None:
        return None
    if hasattr(weights, "to_numpy") or isinstance(weights, list | tuple):
        weights = np.asarray(weights)
    _check_leaf("weights", "weights", weights, 1, str(shape))
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


def _check_leaf(name: str, leaf: str, value: Any, axes: int, wanted: str) -> None:
    shown = leaf if leaf in (name, "params") else f"{name}: {leaf}"
    shown = name if leaf == "params" else shown
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise TypeError(
            f"{shown} is {type(value).__name__}; it must be an array of shape {wanted}"
            + ("" if not isinstance(value, int | float | bool) else " (make lists into arrays with jnp.asarray)")
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{shown} is a masked array; leave the masked rows out, or give them a weight of zero")
    if value.dtype.kind in "OSUMmV":
        kind = {"O": "objects", "S": "text", "U": "text", "M": "dates", "m": "durations"}.get(value.dtype.kind)
        raise TypeError(
            f"{shown} holds {kind or value.dtype}; a log-density needs numbers: encode it, or leave it out"
        )
    if value.ndim < axes:
        raise ValueError(f"{shown} has shape {value.shape}; it must have shape {wanted}")
