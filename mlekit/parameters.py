"""Parameters: the user's PyTree in natural units <-> the free vector the solvers move."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PyTree

from .constraints import Constraint, Fixed, Tied, as_constraint, is_constraint


class Leaf(eqx.Module):
    """One leaf of `params`: its name, its shape, what it may be, and where it lies in the vectors."""

    name: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    constraint: Constraint | Fixed  # a tied leaf has its twin's
    free_shape: tuple[int, ...] = eqx.field(static=True)
    start: int = eqx.field(static=True)  # first entry in the free vector; a tied leaf has its twin's
    tied_to: str | None = eqx.field(static=True)

    @property
    def is_fixed(self) -> bool:
        """Whether the leaf, or the twin it is tied to, keeps the value it started with."""
        return isinstance(self.constraint, Fixed)

    @property
    def size(self) -> int:
        """Number of scalar parameters in the leaf."""
        return math.prod(self.shape)

    def names(self) -> list[str]:
        """One flat name a scalar: `scale`, `coef[0]`, `layer.weight[1,2]`."""
        if not self.shape:
            return [self.name]
        indices = itertools.product(*map(range, self.shape))
        return [f"{self.name}[{','.join(map(str, index))}]" for index in indices]


class Parameters(eqx.Module):
    """How a PyTree of parameters in natural units maps to the free vector and back.

    Built by `parameters_like`. `natural` and `free` are inverse to each other; both may be jitted, mapped
    and differentiated.
    """

    leaves: tuple[Leaf, ...]
    values: tuple[Array | None, ...]  # of the fixed leaves; None where a leaf is free
    others: tuple[Any, ...]  # leaves of the tree that are no parameters: functions, flags, ...
    places: tuple[int | None, ...] = eqx.field(static=True)  # leaf of the tree -> index in `leaves`
    treedef: Any = eqx.field(static=True)
    n_free: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """One flat name a scalar parameter, in the order of the leaves."""
        return tuple(name for leaf in self.leaves for name in leaf.names())

    def natural(self, free: Float[Array, " n_free"]) -> PyTree:
        """The parameters in natural units at the free vector `free`."""
        return self._tree([self._leaf_value(i, free) for i in range(len(self.leaves))])

    def natural_vector(self, free: Float[Array, " n_free"]) -> Float[Array, " k"]:
        """All scalar parameters in natural units, in the order of `names`."""
        values = [self._leaf_value(i, free).astype(self.dtype) for i in range(len(self.leaves))]
        return jnp.concatenate([jnp.ravel(value) for value in values]) if values else jnp.zeros(0, self.dtype)

    def jacobian(self, free: Float[Array, " n_free"]) -> Float[Array, "k n_free"]:
        """Derivative of `natural_vector`; rows of fixed parameters are zero."""
        return jax.jacfwd(self.natural_vector)(free)

    def free(self, params: PyTree) -> Float[Array, " n_free"]:
        """The free vector of `params`; NaN or infinite where `params` lie outside their constraints."""
        values = self.split(params)
        parts = [
            leaf.constraint.inverse(jnp.asarray(value, leaf.dtype)).astype(self.dtype).ravel()
            for leaf, value in zip(self.leaves, values)
            if not leaf.is_fixed and leaf.tied_to is None
        ]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, self.dtype)

    def fixed_at(self, params: PyTree) -> Parameters:
        """The same parameters with the fixed leaves held at their values in `params`."""
        return self.with_values(self.fixed_values(params))

    def fixed_at_each(self, params: PyTree) -> Parameters:
        """The same for `params` with a leading axis of data sets."""
        return self.with_values(jax.vmap(self.fixed_values)(params))

    def fixed_values(self, params: PyTree) -> tuple[Array | None, ...]:
        """The values in `params` of the fixed leaves, `None` for the others."""
        by_name = dict(zip((leaf.name for leaf in self.leaves), self.split(params)))
        return tuple(
            jnp.asarray(by_name[leaf.tied_to or leaf.name], leaf.dtype) if leaf.is_fixed else None
            for leaf in self.leaves
        )

    def with_values(self, values: tuple[Array | None, ...]) -> Parameters:
        """The same parameters with other values of the fixed leaves."""
        return dataclasses.replace(self, values=values)

    def split(self, params: PyTree) -> list[Any]:
        """The leaves of `params` that are parameters, in order."""
        leaves, treedef = jtu.tree_flatten(params)
        if treedef != self.treedef:
            raise ValueError(f"params: expected the structure {self.treedef}, got {treedef}")
        return [leaf for leaf, place in zip(leaves, self.places) if place is not None]

    def tree(self, vector: Float[Array, "... k"]) -> PyTree:
        """A PyTree like `params` whose entries are those of `vector`, in the order of `names`."""
        batch = vector.shape[:-1]
        bounds = np.cumsum([leaf.size for leaf in self.leaves])[:-1]
        pieces = jnp.split(vector, [int(bound) for bound in bounds], axis=-1) if self.leaves else []
        return self._tree(
            [piece.reshape(batch + leaf.shape).astype(leaf.dtype) for piece, leaf in zip(pieces, self.leaves)]
        )

    def _tree(self, values: list[Any]) -> PyTree:
        others = iter(self.others)
        return self.treedef.unflatten(
            [next(others) if place is None else values[place] for place in self.places]
        )

    def _leaf_value(self, i: int, free: Array) -> Array:
        leaf, value = self.leaves[i], self.values[i]
        if leaf.is_fixed:
            assert value is not None
            return value
        part = free[leaf.start : leaf.start + math.prod(leaf.free_shape)]
        return leaf.constraint.forward(part.reshape(leaf.free_shape)).astype(leaf.dtype)


def parameters_like(
    init: PyTree, constraints: PyTree = None, *, dtype: Any = None, batched: bool = False, check: bool = True
) -> tuple[Parameters, PyTree]:
    """The `Parameters` of a start, after all that can be known before tracing was checked.

    Args:
        init: starting `params`. Real numbers and arrays of them are parameters; inside an
            `equinox.Module` whole numbers, flags and functions stay what they are.
        constraints: PyTree prefix of `init`; `None` or a key left out of a dict means unconstrained.
        dtype: what Python numbers become; by default JAX's default float.
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
    leaves, n_free = _place(_tie(leaves))
    if check:
        _check_start(leaves, arrays, batched)

    free_dtype = functools.reduce(jnp.promote_types, (a.dtype for a in arrays), jnp.dtype("float32"))
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
    return parameters, parameters._tree(list(arrays))


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
    if jnp.issubdtype(kind, jnp.complexfloating) or not (
        jnp.issubdtype(kind, jnp.number) or kind == jnp.bool_
    ):
        raise TypeError(
            f"init: {leaf_name(path)} has dtype {kind}; parameters are real: write a complex one as two"
        )
    if jnp.issubdtype(kind, jnp.inexact):
        return True
    return not inside_module and kind != jnp.bool_


def _inside_modules(init: PyTree) -> list[bool]:
    """For every leaf of `init`, whether it lies inside an `equinox.Module`, where integers are settings."""
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
    return jnp.asarray(value)


def _leaf(name: str, shape: tuple[int, ...], dtype: Any, constraint: Any) -> Leaf:
    if isinstance(constraint, Tied):
        return Leaf(name, shape, dtype, as_constraint(None), (0,), 0, constraint.to)
    if isinstance(constraint, Fixed):
        return Leaf(name, shape, dtype, constraint, (0,), 0, None)
    try:
        free_shape = constraint.free_shape(shape)
    except ValueError as error:
        raise ValueError(f"constraints: {name} has shape {shape}: {error}") from None
    return Leaf(name, shape, dtype, constraint, tuple(free_shape), 0, None)


def _tie(leaves: list[Leaf]) -> list[Leaf]:
    """Point every tied leaf at the leaf that is really moved, through chains of ties."""
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
            raise ValueError(f"constraints: {leaf.name} is tied to itself through {' -> '.join(seen) or leaf.name}")
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
        else dataclasses.replace(
            leaf, tied_to=twin.name, constraint=twin.constraint, free_shape=twin.free_shape
        )
        for leaf, twin in zip(leaves, roots)
    ]


def _place(leaves: list[Leaf]) -> tuple[list[Leaf], int]:
    """Give every free leaf its stretch of the free vector, and tied leaves that of their twin."""
    starts: dict[str, int] = {}
    total = 0
    for leaf in leaves:
        if leaf.tied_to is None and not leaf.is_fixed:
            starts[leaf.name] = total
            total += math.prod(leaf.free_shape)
    return [
        dataclasses.replace(leaf, start=starts.get(leaf.tied_to or leaf.name, 0)) for leaf in leaves
    ], total


def _check_start(leaves: list[Leaf], arrays: list[Array], batched: bool) -> None:
    for leaf, array in zip(leaves, arrays):
        if isinstance(array, jax.core.Tracer) or leaf.tied_to is not None:
            continue
        value = np.asarray(array)
        check = leaf.constraint.problem if isinstance(leaf.constraint, Constraint) else _not_finite
        trouble = check(value)
        if trouble is None:
            continue
        where = ""
        if batched:
            first = next(i for i, one in enumerate(value) if check(one) is not None)
            where, value = f" of data set {first}", value[first]
        raise ValueError(f"init: {leaf.name}{where} is {_shorten(value)}; it {trouble}")


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
