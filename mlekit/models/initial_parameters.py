"""Parameters from a start and its constraints, checked as far as that is possible before tracing."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ..core.dtypes import common_dtype, widened
from ..core.trees import leaf_name
from .constraints import Constraint, Fixed, Tied, as_constraint, is_constraint, unconstrained
from .parameters import Leaf, Parameters, lay_out


def build_parameters(
    init: PyTree, constraints: PyTree = None, *, dtype: Any = None, batched: bool = False, check: bool = True
) -> tuple[Parameters, PyTree]:
    """The `Parameters` of a start, checked as far as that is possible before tracing.

    Args:
        init: starting `params`. Real numbers and arrays of them are parameters; inside an
            `equinox.Module` whole numbers, flags and functions stay what they are.
        constraints: PyTree prefix of `init`; `None` or a key left out of a dict means unconstrained.
        dtype: of Python numbers; by default JAX's default float.
        batched: whether every leaf of `init` has a leading axis of data sets.
        check: whether a start outside its constraint is an error.

    Returns:
        The parameters, and `init` with every parameter an array.

    Raises:
        TypeError: `init` holds text, complex numbers or an object that is no PyTree.
        ValueError: the constraints do not match, or the start lies outside one.
    """
    paths, treedef = jtu.tree_flatten_with_path(init)
    _refuse_opaque(paths)
    in_module = _inside_modules(init)
    is_parameter = [_is_parameter(path, leaf, inside) for (path, leaf), inside in zip(paths, in_module)]
    if not any(is_parameter):
        raise ValueError(
            f"init: found no parameter in {_shorten(init)}; it must hold at least one real number or array"
        )
    default = dtype or jnp.result_type(float)
    constraint_of = _match(constraints, init)

    leaves: list[Leaf] = []
    arrays: list[Array] = []
    places: list[int | None] = []
    for (path, value), wanted in zip(paths, is_parameter):
        places.append(len(leaves) if wanted else None)
        if not wanted:
            continue
        name = leaf_name(path)
        array = _as_array(value, default)
        shape = array.shape
        if batched:
            if not shape:
                raise ValueError(f"init: {name} has no leading axis of data sets, which init_axis=0 asks for")
            shape = shape[1:]
        leaves.append(_leaf(name, shape, array.dtype, constraint_of[jtu.keystr(path)]))
        arrays.append(array)
    leaves, n_free = lay_out(_tie(leaves))
    _check_named_bounds(leaves)
    if check:
        _check_start(leaves, arrays, batched)

    free_dtype = common_dtype(*(array.dtype for array in arrays), jnp.float32)
    others = tuple(value for (_, value), wanted in zip(paths, is_parameter) if not wanted)
    parameters = Parameters(
        leaves=tuple(leaves),
        values=(None,) * len(leaves),
        others=others,
        places=tuple(places),
        treedef=treedef,
        n_free=n_free,
        dtype=free_dtype,
    )
    return parameters, parameters.join(arrays)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, float | int | np.generic | np.ndarray | jax.Array) and not isinstance(leaf, bool)


def _is_parameter(path: Any, leaf: Any, inside_module: bool) -> bool:
    if not _is_number(leaf):
        if isinstance(leaf, str | bytes | complex) and not inside_module:
            raise TypeError(
                f"init: {leaf_name(path)} is {leaf!r}; a parameter is a real number or an array of them"
            )
        return False
    kind = jnp.result_type(leaf)
    if jnp.issubdtype(kind, jnp.complexfloating) or not (jnp.issubdtype(kind, jnp.number) or kind == jnp.bool_):
        raise TypeError(
            f"init: {leaf_name(path)} has dtype {kind}; parameters are real: write a complex one as two"
        )
    if jnp.issubdtype(kind, jnp.inexact):
        return True
    return not inside_module and kind != jnp.bool_


def _inside_modules(init: PyTree) -> list[bool]:
    """True for each leaf of `init` inside an `equinox.Module`, where integers are settings."""
    is_module = lambda node: isinstance(node, eqx.Module)  # noqa: E731
    tops = jtu.tree_leaves(init, is_leaf=is_module)
    return [is_module(top) for top in tops for _ in jtu.tree_leaves(top)]


def _refuse_opaque(paths: Any) -> None:
    for path, leaf in paths:
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            kind = type(leaf).__name__
            raise TypeError(
                f"init: {leaf_name(path)} is a dataclass {kind} that JAX does not know as a PyTree; decorate "
                f"it with jax.tree_util.register_dataclass, or make it an equinox.Module"
            )


def _as_array(value: Any, default: Any) -> Array:
    strong = getattr(value, "dtype", None)
    if strong is None or not jnp.issubdtype(strong, jnp.inexact) or getattr(value, "weak_type", False):
        return jnp.asarray(value, default)
    return jnp.asarray(widened(value))


def _leaf(name: str, shape: tuple[int, ...], dtype: Any, constraint: Any) -> Leaf:
    if isinstance(constraint, Tied):
        return Leaf(name, shape, dtype, unconstrained, (0,), 0, constraint.to)
    if isinstance(constraint, Fixed):
        return Leaf(name, shape, dtype, constraint, (0,), 0, None)
    try:
        free_shape = constraint.free_shape(shape)
    except ValueError as error:
        raise ValueError(f"constraints: {name} has shape {shape}: {error}") from None
    return Leaf(name, shape, dtype, constraint, tuple(free_shape), 0, None)


def _tie(leaves: list[Leaf]) -> list[Leaf]:
    """The leaves, each tied one with the free leaf at the end of its chain of ties."""
    by_name = {leaf.name: leaf for leaf in leaves}

    def root(leaf: Leaf, seen: tuple[str, ...]) -> Leaf:
        if leaf.tied_to is None:
            return leaf
        if leaf.tied_to not in by_name:
            raise ValueError(
                f"constraints: {leaf.name} is tied to {leaf.tied_to!r}, which is no parameter; "
                f"there are {', '.join(n for n in by_name if n != leaf.name) or 'no others'}"
            )
        if leaf.tied_to in (*seen, leaf.name):
            raise ValueError(
                f"constraints: {leaf.name} is tied to itself through {' -> '.join(seen) or leaf.name}"
            )
        return root(by_name[leaf.tied_to], (*seen, leaf.name))

    roots = [root(leaf, ()) for leaf in leaves]
    for leaf, twin in zip(leaves, roots):
        if leaf.shape != twin.shape:
            raise ValueError(
                f"constraints: {leaf.name} of shape {leaf.shape} is tied to {twin.name} of shape {twin.shape}"
            )
    return [
        leaf
        if leaf is twin
        else dataclasses.replace(leaf, tied_to=twin.name, constraint=twin.constraint, free_shape=twin.free_shape)
        for leaf, twin in zip(leaves, roots)
    ]


def _check_named_bounds(leaves: list[Leaf]) -> None:
    """A `ValueError` where a bound names no other parameter, one of another shape, or one that depends on it."""
    by_name = {leaf.name: leaf for leaf in leaves}

    def names(leaf: Leaf) -> tuple[str, ...]:
        return leaf.constraint.named_bounds if isinstance(leaf.constraint, Constraint) else ()

    def follow(leaf: Leaf, seen: tuple[str, ...]) -> None:
        for name in names(leaf):
            if name not in by_name:
                raise ValueError(
                    f"constraints: {leaf.name} is bounded by {name!r}, which is no parameter; there are "
                    f"{', '.join(other for other in by_name if other != leaf.name) or 'no others'}"
                )
            root = by_name[name].tied_to or name
            if root in seen:
                raise ValueError(f"constraints: {leaf.name} is bounded by itself through {' -> '.join(seen)}")
            shape = by_name[name].shape
            if shape not in ((), leaf.shape):
                raise ValueError(
                    f"constraints: {leaf.name} of shape {leaf.shape} is bounded by {name} of shape {shape}"
                )
            follow(by_name[root], (*seen, root))

    for leaf in leaves:
        follow(leaf, (leaf.tied_to or leaf.name,))


def _check_start(leaves: list[Leaf], arrays: list[Array], batched: bool) -> None:
    starts = {leaf.name: array for leaf, array in zip(leaves, arrays)}
    for leaf, array in zip(leaves, arrays):
        if isinstance(array, jax.core.Tracer) or leaf.tied_to is not None:
            continue
        value = np.asarray(array)
        trouble = _trouble(leaf, value, starts)
        if trouble is None:
            continue
        where = ""
        if batched:
            sets = ({name: start[i] for name, start in starts.items()} for i in range(len(value)))
            of_sets = (_trouble(leaf, mine, others) for mine, others in zip(value, sets))
            first, trouble = next((i, found) for i, found in enumerate(of_sets) if found is not None)
            where, value = f" of data set {first}", np.asarray(value[first])
        raise ValueError(f"init: {leaf.name}{where} is {_shorten(value)}; it {trouble}")


def _trouble(leaf: Leaf, value: np.ndarray, starts: dict[str, Array]) -> str | None:
    """The trouble with the start of a parameter, given those of the others, in words; else `None`."""
    if not isinstance(leaf.constraint, Constraint):
        return _not_finite(value)

    def bound(name: str) -> Array:
        other = starts[name]  # a number bounds all elements, of each data set
        return other.reshape(*other.shape, *[1] * (value.ndim - other.ndim))

    return leaf.constraint.with_bounds(bound).problem(value)


def _not_finite(value: np.ndarray) -> str | None:
    return None if np.all(np.isfinite(value)) else "must be finite"


def _match(constraints: PyTree, params: PyTree) -> dict[str, Any]:
    """The constraint of every leaf of `params`, by its path, from a PyTree prefix."""
    found: dict[str, Any] = {}

    def descend(rule: Any, node: Any, path: tuple[Any, ...]) -> None:
        if rule is None or is_constraint(rule):
            for tail, _ in jtu.tree_flatten_with_path(node)[0]:
                found[jtu.keystr(path + tail)] = as_constraint(rule)
            return
        children = _children(node)
        where = leaf_name(path) if path else "params"
        if isinstance(rule, dict):
            rules = {str(key): value for key, value in rule.items()}
        elif children:
            rules = {_key(key): value for key, value in _children(rule)}
        else:
            rules = {}
        names = [_key(key) for key, _ in children]
        if not children or (not rules and rule not in ({}, (), [])):
            raise ValueError(
                f"constraints: got {_shorten(rule)} for {where}; it must be a constraint such as "
                f"mle.positive, None, or a tree with the keys of {where}"
                + (f": {', '.join(names)}" if names else "")
                + ("; call it, as in mle.between(0.0, 1.0)" if isinstance(rule, type) else "")
            )
        unknown = [name for name in rules if name not in names]
        missing = [] if isinstance(rule, dict) else [name for name in names if name not in rules]
        if unknown or missing:
            raise ValueError(
                f"constraints: {where} has {', '.join(names)}, but the constraints name "
                f"{', '.join(rules) or 'nothing'}"
            )
        for key, child in children:
            descend(rules.get(_key(key)), child, (*path, key))

    descend(constraints, params, ())
    return found


def _children(node: Any) -> list[tuple[Any, Any]]:
    """The children of a PyTree node one level down, with their keys; none for a leaf."""
    if is_constraint(node):
        return []
    pairs = jtu.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)[0]
    return [(path[0], child) for path, child in pairs if path]


def _key(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _shorten(value: Any) -> str:
    text = repr(value) if not isinstance(value, np.ndarray) else np.array2string(value, threshold=6)
    return text if len(text) <= 80 else text[:77] + "..."
