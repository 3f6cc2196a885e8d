"""PyTrees of arrays: names and kinds of leaves, selecting their rows, and packing them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, PyTree

from .dtypes import common_dtype, computed_dtype


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf from its path in the PyTree: `layer.weight`, `layers[0].bias`; `params` at the root."""
    text = ""
    for key in path:
        if isinstance(key, jtu.DictKey):
            text += f".{key.key}" if text else str(key.key)
        elif isinstance(key, jtu.GetAttrKey):
            text += f".{key.name}" if text else key.name
        elif isinstance(key, jtu.SequenceKey):
            text += f"[{key.idx}]" if text else f"params[{key.idx}]"
        else:
            text += f"[{getattr(key, 'key', key)}]" if text else f"params[{getattr(key, 'key', key)}]"
    return text or "params"


def place_name(argument: str, path: tuple[Any, ...]) -> str:
    """The expression that picks a leaf out of an argument: `data["x"]`, `data[0].weight`."""
    text = argument
    for key in path:
        if isinstance(key, jtu.GetAttrKey):
            text += f".{key.name}"
        else:
            one = getattr(key, "key", getattr(key, "idx", key))
            text += f'["{one}"]' if isinstance(one, str) else f"[{one!r}]"
    return text


Tree = TypeVar("Tree", bound=PyTree)
_ADD_AXIS, _DROP_AXIS = operator.itemgetter(None), operator.itemgetter(0)


def is_array(leaf: Any) -> bool:
    """True for an array of JAX or of NumPy."""
    return isinstance(leaf, jax.Array | np.ndarray)


def holds_keys(leaf: Any) -> bool:
    """True for an array of typed random keys, which only JAX has."""
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def on_host(leaf: Any) -> Any:
    """An array as NumPy's, without a copy where it lies in the host's memory; random keys as they are."""
    return leaf if holds_keys(leaf) else np.asarray(leaf)


def traced(tree: PyTree) -> bool:
    """True if any array is a tracer, inside `jit` or `vmap`."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def tracing(tree: PyTree = ()) -> bool:
    """True during a trace of `jit`, even if none of these arrays belongs to it."""
    return traced((tree, jnp.zeros(())))


def transforming() -> bool:
    """True during any of JAX's transformations, `grad` and `vmap` included."""
    return get_opaque_trace_state(convention="flax") != _nothing_under_way()


@functools.cache
def _nothing_under_way() -> Any:
    with jax.core.eval_context():
        return get_opaque_trace_state(convention="flax")


def repeat(leaf: Any, n_sets: int) -> Any:
    """A leaf repeated for each data set: numbers and known arrays without further memory; others are unchanged."""
    if isinstance(leaf, jax.core.Tracer) or holds_keys(leaf):
        return jnp.broadcast_to(leaf, (n_sets, *leaf.shape))
    if is_array(leaf) or isinstance(leaf, np.generic | float | int):
        return np.broadcast_to(np.asarray(leaf), (n_sets, *np.shape(leaf)))
    return leaf


def shared(tree: PyTree) -> bool:
    """True if `repeat` made every array of the tree, so that one serves all data sets."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if is_array(leaf)]
    return all(isinstance(leaf, np.ndarray) and leaf.strides[:1] == (0,) for leaf in arrays)


def map_arrays(fn: Callable[..., Any], tree: Tree, *others: Any) -> Tree:
    """`fn(leaf, *others)` for every leaf; those of JAX by one compiled program, those of NumPy where they are.

    Args:
        fn: compiled once for as long as it is the same function.
        tree: all leaves are arrays.
        others: arrays.
    """
    leaves, treedef = jax.tree.flatten(tree)
    found = iter(_map_leaves(fn, [leaf for leaf in leaves if isinstance(leaf, jax.Array)], others))
    every = [next(found) if isinstance(leaf, jax.Array) else fn(leaf, *others) for leaf in leaves]
    return jax.tree.unflatten(treedef, every)


@functools.partial(jax.jit, static_argnums=0)
def _map_leaves(fn: Callable[..., Array], leaves: list[Array], others: tuple[Any, ...]) -> list[Array]:
    return [fn(leaf, *others) for leaf in leaves]


def batch_of_one(tree: Tree) -> Tree:
    """The same with a leading axis of one on every leaf."""
    return map_arrays(_ADD_AXIS, tree)


def only_one(tree: Tree) -> Tree:
    """A batch of one without its axis."""
    return map_arrays(_DROP_AXIS, tree)


def numbers_as_arrays(tree: PyTree) -> PyTree:
    """The tree with Python's numbers as arrays."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float | int) else leaf, tree)


def align_to_rows(rows: Any, leaf: Any) -> Any:
    """A vector of one entry a row, reshaped so that it broadcasts against a leaf `(n_rows, ...)`."""
    return rows.reshape(-1, *(1,) * (leaf.ndim - 1))


def where_rows(mask: Array, new: Array, old: Any) -> Array:
    """The rows of `new` where `mask` says so, elsewhere those of `old`."""
    return jnp.where(align_to_rows(mask, new), new, old)


def choose(yes: Array, this: PyTree, other: PyTree) -> PyTree:
    """The arrays of one tree where `yes`, elsewhere those of another of the same structure."""
    return jax.tree.map(lambda a, b: jnp.where(yes, a, b), this, other)


def replace_rows(rows: np.ndarray, old: Array, new: Array) -> Array:
    """The array with `new` in place of these rows."""
    return old.at[rows].set(new)


def vmap_if(batched: bool, fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function of every data set of a batch, or of the one there is."""
    return eqx.filter_vmap(fn, **options) if batched else fn


def pack(tree: PyTree) -> tuple[Array, ...]:
    """The arrays of a tree as flat vectors, one for each dtype: few large copies instead of many small ones."""
    leaves = jax.tree.leaves(tree)
    return tuple(
        jnp.concatenate([leaf.ravel() for leaf in leaves if leaf.dtype == kind]) for kind in _dtypes(leaves)
    )


def unpack(vectors: tuple[Array, ...], like: PyTree) -> PyTree:
    """The tree that `pack` made these vectors of; `like` has its shapes and dtypes."""
    leaves, treedef = jax.tree.flatten(like)
    kinds = _dtypes(leaves)
    starts = [0] * len(kinds)
    out = []
    for leaf in leaves:
        i = kinds.index(leaf.dtype)
        out.append(vectors[i][starts[i] : starts[i] + leaf.size].reshape(leaf.shape))
        starts[i] += leaf.size
    return jax.tree.unflatten(treedef, out)


def _dtypes(leaves: list[Array]) -> list[Any]:
    return list(dict.fromkeys(leaf.dtype for leaf in leaves))


def n_rows(data: PyTree) -> int:
    """The leading axis that the arrays of `data` share."""
    return jnp.shape(jax.tree.leaves(data)[0])[0]


def is_inexact(leaf: Any) -> bool:
    """True for floating-point numbers."""
    return leaf is not None and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def default_float(data: PyTree) -> Any:
    """The widest floating-point dtype that the leaves are computed in, or JAX's default where there is none."""
    kinds = [computed_dtype(jnp.result_type(leaf)) for leaf in jax.tree.leaves(data) if is_inexact(leaf)]
    return common_dtype(*kinds) if kinds else jnp.result_type(float)


def differential(fn: Callable[[PyTree], Any], operands: PyTree, tangents: PyTree) -> Any:
    """The tangent of `fn(operands)`; tangents of operands that do not change are `None`."""
    moving, still = eqx.partition(operands, jax.tree.map(lambda _, t: t is not None, operands, tangents))
    return jax.jvp(lambda moving: fn(eqx.combine(moving, still)), (moving,), (tangents,))[1]
