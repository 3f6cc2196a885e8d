"""Parameters: the user's PyTree in natural units <-> the free vector the solvers move."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from ..solvers.box import Box
from .constraints import Constraint, Fixed, unconstrained
from .constraints.bounds import GreaterThan
from .constraints.closed_bounds import AbstractClosed, beside_held


class Leaf(eqx.Module):
    """One leaf of `params`: its name, shape and constraint, and its place in the free vector."""

    name: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    constraint: Constraint | Fixed  # a tied leaf has its twin's
    free_shape: tuple[int, ...] = eqx.field(static=True)
    start: int = eqx.field(static=True)  # first entry in the free vector; a tied leaf has its twin's
    tied_to: str | None = eqx.field(static=True)
    frozen: tuple[int, ...] = eqx.field(static=True, default=())  # elements that keep the value they started with

    @property
    def is_fixed(self) -> bool:
        """True if the leaf, or the twin it is tied to, keeps the value it started with."""
        return isinstance(self.constraint, Fixed)

    @property
    def rule(self) -> Constraint:
        """The constraint of a leaf that moves."""
        assert isinstance(self.constraint, Constraint)
        return self.constraint

    @property
    def is_closed(self) -> bool:
        """True if the estimate may lie on a bound."""
        return isinstance(self.constraint, AbstractClosed)

    @property
    def moving(self) -> np.ndarray:
        """The indices of the entries of its free array that are part of the free vector."""
        return np.delete(np.arange(math.prod(self.free_shape)), self.frozen)

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
    """The map between a PyTree of parameters in natural units and the free vector.

    Made by `build_parameters`. `natural` and `free` are inverse to each other; both may be jitted, mapped and
    differentiated.
    """

    leaves: tuple[Leaf, ...]
    values: tuple[Array | None, ...]  # of the fixed leaves; None where a leaf is free
    others: tuple[Any, ...]  # leaves of the tree that are no parameters: functions, flags, ...
    places: tuple[int | None, ...] = eqx.field(static=True)  # leaf of the tree -> index in `leaves`
    treedef: Any = eqx.field(static=True)
    n_free: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    active: Bool[Array, "... n_free"] | None = None  # of a fit: entries held by active bounds, in `jacobian` too

    @property
    def names(self) -> tuple[str, ...]:
        """One flat name a scalar parameter, in the order of the leaves."""
        return tuple(name for leaf in self.leaves for name in leaf.names())

    def names_with(self, entries: np.ndarray) -> list[str]:
        """The names of the parameters, arrays as a whole, that have one of these entries of the free vector."""
        leaves = [leaf for leaf in self.leaves if not leaf.is_fixed and leaf.tied_to is None]
        return [leaf.name for leaf in leaves if entries[leaf.start : leaf.start + len(leaf.moving)].any()]

    def natural(self, free: Float[Array, " n_free"] | tuple[Array, ...]) -> PyTree:
        """The parameters in natural units at the free vector `free`, or at its entries in a tuple.

        A tuple will do where `all_numbers` holds. Those with closed bounds stay a hair inside, where log-densities
        have derivatives.
        """
        values = [self._leaf_value(i, free) for i in range(len(self.leaves))]
        for i, leaf in enumerate(self.leaves):
            if isinstance(leaf.constraint, AbstractClosed):
                values[i] = self._closed_rule(leaf).inside(values[i])
        return self.join(values)

    @property
    def all_numbers(self) -> bool:
        """True if every free leaf is a single number."""
        return all(
            leaf.is_fixed or leaf.free_shape == () for leaf in self.leaves
        )  # none of which is frozen in part

    def natural_vector(self, free: Float[Array, " n_free"]) -> Float[Array, " k"]:
        """All scalar parameters in natural units, in the order of `names`."""
        values = [self._leaf_value(i, free).astype(self.dtype) for i in range(len(self.leaves))]
        return jnp.concatenate([jnp.ravel(value) for value in values]) if values else jnp.zeros(0, self.dtype)

    def jacobian(self, free: Float[Array, " n_free"]) -> Float[Array, "k n_free"]:
        """Derivative of `natural_vector`; rows of fixed parameters are zero, and columns of active bounds."""
        jacobian = jax.jacfwd(self.natural_vector)(free)
        return jacobian if self.active is None else jnp.where(self.active[None, :], 0.0, jacobian)

    def at_bounds(self, values: Float[Array, "... n_free"], elsewhere: float) -> Float[Array, "... k"]:
        """Numbers that belong to entries of the free vector, for the scalar parameters with closed bounds."""
        batch, parts = values.shape[:-1], []
        for leaf in self.leaves:
            part = jnp.full((*batch, leaf.size), elsewhere, values.dtype)
            if leaf.is_closed:
                part = part.at[..., leaf.moving].set(values[..., leaf.start : leaf.start + len(leaf.moving)])
            parts.append(part)
        return jnp.concatenate(parts, axis=-1)

    def free(self, params: PyTree) -> Float[Array, " n_free"]:
        """The free vector of `params`; NaN or infinite where `params` lie outside their constraints."""
        values = self.split(params)
        parts = [
            leaf.rule.with_bounds(lambda name: values[self._place(name)])
            .inverse(jnp.asarray(value, leaf.dtype))
            .astype(self.dtype)
            .ravel()[leaf.moving]
            for leaf, value in zip(self.leaves, values)
            if not leaf.is_fixed and leaf.tied_to is None
        ]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, self.dtype)

    def fixed_at(self, params: PyTree) -> Parameters:
        """The same parameters with the fixed leaves at their values in `params`."""
        return self.with_values(self.fixed_leaves(self.split(params)))

    def fixed_leaves(self, values: list[Any]) -> tuple[Array | None, ...]:
        """The leaves `values` that are fixed, in whole or in part; `None` in place of the others."""
        by_name = dict(zip((leaf.name for leaf in self.leaves), values))
        return tuple(
            jnp.asarray(by_name[leaf.tied_to or leaf.name], leaf.dtype) if leaf.is_fixed or leaf.frozen else None
            for leaf in self.leaves
        )

    def with_values(self, values: tuple[Array | None, ...]) -> Parameters:
        """The same parameters with other values of the fixed leaves."""
        return dataclasses.replace(self, values=values)

    def with_fixed(self, names: Sequence[str]) -> Parameters:
        """The same parameters with further ones fixed at the value they start with.

        Args:
            names: some of `names`; of an array whose elements share a constraint, as those of a simplex do,
                none can be fixed alone.

        Raises:
            ValueError: no such parameter, one that is fixed already, or one that cannot be fixed alone.
        """
        owner = {name: (leaf, i) for leaf in self.leaves for i, name in enumerate(leaf.names())}
        frozen: dict[str, set[int]] = {}
        for name in names:
            if name not in owner:
                raise ValueError(f"there is no parameter {name!r}; there are {', '.join(self.names)}")
            leaf, i = owner[name]
            if leaf.is_fixed:
                raise ValueError(f"{name} is fixed: there is nothing to hold")
            if leaf.size > 1 and not leaf.rule.elementwise:
                raise ValueError(
                    f"{name} shares a constraint with the rest of {leaf.name} and cannot be held by itself; "
                    "its profile intervals are there: fit.intervals(method='profile')"
                )
            elements = frozen.setdefault(leaf.tied_to or leaf.name, set())
            if i in elements:
                raise ValueError(f"{' and '.join(names)} are tied: they cannot be held at values of their own")
            elements.add(i)
        leaves, free = [], self._kept_apart(frozen)
        for leaf in free:
            mine = tuple(sorted(frozen.get(leaf.tied_to or leaf.name, set()) | set(leaf.frozen)))
            if mine and len(mine) == leaf.size:
                leaf = dataclasses.replace(leaf, constraint=Fixed(), free_shape=(0,), frozen=())
            elif mine:
                leaf = dataclasses.replace(leaf, frozen=mine)
            leaves.append(leaf)
        placed, n_free = lay_out(leaves)
        return dataclasses.replace(self, leaves=tuple(placed), values=(None,) * len(leaves), n_free=n_free)

    def _kept_apart(self, held: Mapping[str, Collection[int]]) -> tuple[Leaf, ...]:
        """The leaves, where one that bounds a held leaf, or is bounded by it, has that as a closed bound."""
        whole = {leaf.name for leaf in self.leaves if len(held.get(leaf.name, ())) == leaf.size}
        rules: dict[str, Any] = {leaf.name: leaf.constraint for leaf in self.leaves}
        root = {leaf.name: leaf.tied_to or leaf.name for leaf in self.leaves}
        for leaf in self.leaves:
            moves = leaf.tied_to is None and not leaf.is_fixed
            for bound in leaf.rule.named_bounds if moves else ():
                above, other = isinstance(leaf.rule, GreaterThan), root[bound]
                if leaf.name not in held and other in whole:
                    rules[leaf.name] = beside_held(unconstrained, bound, below=not above)
                elif leaf.name in held and other not in whole and not isinstance(rules[other], Fixed):
                    rules[other] = None if leaf.shape else beside_held(rules[other], leaf.name, below=above)
                    if rules[other] is None:
                        raise ValueError(
                            f"{leaf.name} cannot be held by itself, as {bound} bounds it and has other bounds; "
                            "its profile intervals are there: fit.intervals(method='profile')"
                        )
        return tuple(dataclasses.replace(leaf, constraint=rules[root[leaf.name]]) for leaf in self.leaves)

    def allows(self, vector: Float[Array, " k"]) -> Bool[Array, ""]:
        """Whether parameters in natural units lie in their ranges, or on the ends of these."""
        values = self.split(self.tree(vector))
        inside = jnp.asarray(True)
        for leaf, value in zip(self.leaves, values):
            if not leaf.is_fixed:
                low, high = leaf.rule.with_bounds(lambda name: values[self._place(name)]).range(value)
                inside &= jnp.all((value >= low) & (value <= high))
        return inside

    @property
    def has_box(self) -> bool:
        """True if a constraint is closed."""
        return any(leaf.is_closed for leaf in self.leaves)

    @property
    def box(self) -> Box | None:
        """The bounds of the free vector; `None` where no constraint is closed."""
        if not self.has_box:
            return None
        lows: list[Array] = []
        highs: list[Array] = []
        for leaf in self.leaves:
            if leaf.is_fixed or leaf.tied_to is not None:
                continue
            like = jnp.zeros(leaf.free_shape, self.dtype)
            ends = self._closed_rule(leaf).range(like) if leaf.is_closed else (-jnp.inf + like, jnp.inf + like)
            for ends_of_all, end in zip((lows, highs), ends):
                ends_of_all.append(jnp.broadcast_to(end, like.shape).ravel()[leaf.moving].astype(self.dtype))
        return Box(jnp.concatenate(lows), jnp.concatenate(highs)) if lows else None

    def ranges(
        self, vector: Float[Array, " k"], closed: bool = True
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """The lower and upper ends of the range of each scalar parameter; without `closed` the open ends only.

        A parameter that bounds another one counts with its own range.
        """
        values = self.split(self.tree(vector))

        def end(leaf: Leaf, side: int) -> Array:
            """One end of the range of a leaf; that of a fixed one is its value."""
            value = values[self._place(leaf.tied_to or leaf.name)]
            if leaf.is_fixed:
                return value
            rule = leaf.rule.with_bounds(lambda name: end(self.leaves[self._place(name)], side))
            return rule.range(value)[side]

        def ends(side: int) -> Array:
            found = []
            for leaf in self.leaves:
                known = not leaf.is_fixed and (closed or not leaf.is_closed)
                one = end(leaf, side) if known else jnp.asarray((-jnp.inf, jnp.inf)[side])
                found.append(jnp.broadcast_to(one, leaf.shape).ravel().astype(vector.dtype))
            return jnp.concatenate(found)

        return ends(0), ends(1)

    def split(self, params: PyTree) -> list[Any]:
        """The leaves of `params` that are parameters, in order."""
        leaves, treedef = jtu.tree_flatten(params)
        if treedef != self.treedef:
            raise ValueError(f"params: expected the structure {self.treedef}, got {treedef}")
        return [leaf for leaf, place in zip(leaves, self.places) if place is not None]

    def tree(self, vector: Shaped[Array | np.ndarray, "... k"]) -> PyTree:
        """A PyTree like `params` whose entries are those of `vector`, in the order of `names`.

        Floats get the dtypes of `params`, and truth values stay what they are.
        """
        batch = vector.shape[:-1]
        bounds = np.cumsum([leaf.size for leaf in self.leaves])[:-1]
        pieces = jnp.split(vector, [int(bound) for bound in bounds], axis=-1) if self.leaves else []
        cast = lambda piece, leaf: piece if piece.dtype == bool else piece.astype(leaf.dtype)  # noqa: E731
        return self.join(
            [cast(piece.reshape(batch + leaf.shape), leaf) for piece, leaf in zip(pieces, self.leaves)]
        )

    def join(self, values: list[Any]) -> PyTree:
        """The tree whose parameters are `values`, in order."""
        others = iter(self.others)
        return self.treedef.unflatten([next(others) if place is None else values[place] for place in self.places])

    def _leaf_value(self, i: int, free: Array | tuple[Array, ...]) -> Array:
        leaf, value = self.leaves[i], self.values[i]
        if leaf.is_fixed:
            assert value is not None
            return value
        rule = leaf.rule.with_bounds(lambda name: self._leaf_value(self._place(name), free))
        if isinstance(free, tuple):
            return rule.forward(free[leaf.start]).astype(leaf.dtype)
        part = free[leaf.start : leaf.start + len(leaf.moving)]
        if leaf.frozen:
            assert value is not None
            kept = rule.inverse(value).astype(self.dtype).ravel()
            part = kept.at[leaf.moving].set(part)
        return rule.forward(part.reshape(leaf.free_shape)).astype(leaf.dtype)

    def _closed_rule(self, leaf: Leaf) -> Any:
        """The closed constraint of a leaf, with the values of fixed ones in place of their names."""
        return leaf.rule.with_bounds(lambda name: self.values[self._place(name)])

    def _place(self, name: str) -> int:
        return [leaf.name for leaf in self.leaves].index(name)


def lay_out(leaves: list[Leaf]) -> tuple[list[Leaf], int]:
    """The leaves with their places in the free vector, tied ones with that of their twin; and its length."""
    starts: dict[str, int] = {}
    total = 0
    for leaf in leaves:
        if leaf.tied_to is None and not leaf.is_fixed:
            starts[leaf.name] = total
            total += len(leaf.moving)
    return [dataclasses.replace(leaf, start=starts.get(leaf.tied_to or leaf.name, 0)) for leaf in leaves], total


def open_ranges(
    parameters: Parameters, vector: Float[Array, " k"]
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """The open ends of the ranges, as in `Parameters.ranges`."""
    return parameters.ranges(vector, closed=False)
