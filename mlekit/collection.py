"""All data sets of a batch: flat rows on the host, handed to the device in pieces of one compiled shape.

Data sets lie one behind the other in flat rows, and each is a position in them. So sets of every length share
one compiled shape, a set that moves into a lane copies nothing, and padding costs at most one block of rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .groups import Groups
from .likelihood import Likelihood
from .model import Model

#: Steps between two looks at which lanes have finished.
STRIDE = 2
#: Rows that all lanes together evaluate at once; more no longer fit into a core's cache.
TILE_ROWS = 1 << 11
#: Data sets and rows of a piece: what is on the device at a time.
PIECE_SETS, PIECE_ROWS = 1 << 10, 1 << 20
#: Numbers that the Hessians of a piece may take.
PIECE_HESSIANS = 1 << 24


class Sets(eqx.Module):
    """A piece of the work on the device: data sets in flat rows.

    Args:
        model: the log-density with its companions.
        rows: PyTree of arrays, leading axis `(rows,)`.
        weights: shape `(rows,)`, or `None`.
        args: third argument of the model.
        offset: first row of each set, shape `(n_sets,)`.
        length: number of its rows.
        anchor: position of a row with a positive weight; `None` without weights.
        count: how many data sets there are; the rest of a piece is empty.
        longest: rows of the longest set.
        block: rows evaluated at once in a lane.
    """

    model: Model
    rows: PyTree
    weights: Float[Array, " rows"] | None
    args: PyTree
    offset: Int[Array, " n_sets"]
    length: Int[Array, " n_sets"] | None
    anchor: Int[Array, " n_sets"] | None
    count: Int[Array, ""]
    longest: int = eqx.field(static=True)
    block: int = eqx.field(static=True)

    @property
    def n_sets(self) -> int:
        """Number of data sets, the empty ones at the end of a piece included."""
        return self.offset.shape[0]

    def likelihood(self, i: Int[Array, ""]) -> Likelihood:
        """The likelihood of data set `i`."""
        pick = lambda array: None if array is None else array[i]  # noqa: E731
        return Likelihood(
            model=self.model,
            data=self.rows,
            weights=self.weights,
            args=self.args,
            offset=self.offset[i],
            length=pick(self.length),
            anchor=pick(self.anchor),
            longest=self.longest,
            block=self.block,
        )


@dataclasses.dataclass(frozen=True)
class Work:
    """Rows times steps: what was needed, and what was evaluated.

    Args:
        needed: rows of the data sets times the steps each took.
        padding: rows added to fill whole blocks, times those steps.
        evaluated: rows that all lanes ran over, waiting ones included.
    """

    needed: int
    padding: int
    evaluated: int


@dataclasses.dataclass(frozen=True)
class Collection:
    """All data sets of a batch, wherever they are: flat rows, and where each set lies in them.

    Args:
        rows: PyTree of arrays, leading axis of all rows.
        weights: shape `(rows,)`, or `None`.
        args: third argument of the model.
        offsets: first row of each set.
        lengths: number of its rows; `None` where every set has `longest`.
        longest: rows of the longest set.
    """

    rows: PyTree
    weights: Any
    args: PyTree
    offsets: np.ndarray
    lengths: Any
    longest: int

    @property
    def n_sets(self) -> int:
        """Number of data sets."""
        return len(self.offsets)

    @property
    def traced(self) -> bool:
        """Whether any of its arrays is known only to a trace."""
        return traced((self.rows, self.weights, self.args, self.lengths))

    def block(self, model: Model) -> int:
        """Rows that a lane evaluates at once: few where sets differ in length, all where they do not."""
        if model.is_joint or (self.lengths is None and self.longest <= 512):
            return 0
        typical = self.longest if self.lengths is None or traced(self.lengths) else int(np.median(self.lengths))
        return min(256, max(8, power_of_two(typical) // 4))

    def lanes(self, model: Model) -> int:
        """How many lanes fill a core's cache."""
        rows = self.block(model) or self.longest
        return min(1024, max(32, power_of_two(TILE_ROWS // rows)))

    def whole(self, model: Model) -> Sets:
        """All data sets as one piece; the only way under a trace."""
        offset = jnp.asarray(self.offsets)
        return Sets(
            model=model,
            rows=self.rows,
            weights=self.weights,
            args=self.args,
            offset=offset,
            length=None if self.lengths is None else jnp.asarray(self.lengths),
            anchor=self._anchor_traced(),
            count=jnp.asarray(self.n_sets),
            longest=self.longest,
            block=self.block(model),
        )

    def _anchor_traced(self) -> Any:
        if self.weights is None:
            return None
        counting = jnp.reshape(self.weights > 0, (self.n_sets, -1))
        return jnp.argmax(counting, axis=1)

    def pieces(self, model: Model, n_free: int) -> Iterator[tuple[np.ndarray, Sets]]:
        """The data sets in pieces of one compiled shape, longest sets first.

        Yields the numbers of the sets in the piece, and the piece; it may end with sets of no rows.
        """
        lengths = self._known_lengths()
        n_sets, n_rows = self._piece_shape(lengths, n_free)
        for chosen in self._partition(model, lengths, n_free):
            yield chosen, self._piece(model, chosen, lengths[chosen], n_sets, n_rows)

    def work(self, model: Model, n_free: int, steps: np.ndarray, n_lanes: int | None = None) -> Work:
        """What the lanes evaluated for a search that took so many `steps` a data set.

        Counted by going through the schedule again: lanes step together, and all of them run over as many
        blocks as the longest set that any of them holds.
        """
        lengths = self._known_lengths()
        width, lanes = self.block(model), n_lanes or self.lanes(model)
        needed = int((lengths * steps).sum())
        padding = evaluated = 0
        for chosen in self._partition(model, lengths, n_free):
            size = width or (self.longest if self.lengths is None else power_of_two(int(lengths[chosen].max())))
            blocks = -(-lengths[chosen] // size)
            left = np.append(steps[chosen], 0)
            padding += int((blocks * size * steps[chosen] - lengths[chosen] * steps[chosen]).sum())
            slot = np.arange(min(lanes, len(chosen)))
            following = len(slot)
            blocks = np.append(blocks, 0)
            while np.any(slot < len(chosen)):
                evaluated += STRIDE * len(slot) * size * int(blocks[slot].max())
                left[slot] -= STRIDE
                done = left[slot] <= 0
                slot = np.where(done, np.minimum(following + np.cumsum(done) - 1, len(chosen)), slot)
                following += int(done.sum())
        return Work(needed, padding, evaluated)

    def _known_lengths(self) -> np.ndarray:
        return np.full(self.n_sets, self.longest) if self.lengths is None else np.asarray(self.lengths)

    def _piece_shape(self, lengths: np.ndarray, n_free: int) -> tuple[int, int]:
        """Data sets and rows that every piece has room for."""
        budget = max(PIECE_ROWS, power_of_two(self.longest))
        hessians = max(1, PIECE_HESSIANS // max(1, n_free) ** 2)
        n_sets = min(PIECE_SETS, hessians, power_of_two(self.n_sets))
        return n_sets, min(budget, power_of_two(int(lengths.sum())))

    def _partition(self, model: Model, lengths: np.ndarray, n_free: int) -> Iterator[np.ndarray]:
        """The numbers of the sets of each piece."""
        order = np.argsort(-lengths, kind="stable")
        n_sets, n_rows = self._piece_shape(lengths, n_free)
        start = 0
        while start < len(order):
            within = lengths[order[start : start + n_sets]]
            fits = np.cumsum(within) <= n_rows
            if model.is_joint:
                # A joint model sees whole sets at once, so sets of a piece must be of similar length.
                fits &= 2 * within >= within[0]
            count = max(1, int(fits.sum()))
            yield order[start : start + count]
            start += count

    def _piece(self, model: Model, chosen: np.ndarray, lengths: np.ndarray, n_sets: int, n_rows: int) -> Sets:
        offset = np.zeros(n_sets, np.int32)
        length = np.zeros(n_sets, np.int32)
        ends = np.cumsum(lengths)
        offset[: len(chosen)], length[: len(chosen)] = ends - lengths, lengths
        total = int(ends[-1])
        # Row j of the piece is row source[j] of the collection.
        source = np.zeros(n_rows, np.int64)
        source[:total] = np.arange(total) + np.repeat(self.offsets[chosen] - (ends - lengths), lengths)
        take = lambda leaf: leaf[source]  # noqa: E731
        weights = None if self.weights is None else take(self.weights)
        anchor = None
        if weights is not None:
            counting = np.flatnonzero(np.asarray(weights) > 0)
            place = np.searchsorted(counting, offset)
            first = counting[np.minimum(place, max(len(counting) - 1, 0))] if len(counting) else offset
            anchor = jnp.asarray(np.where((first >= offset) & (first < offset + length), first - offset, 0))
        longest = self.longest if self.lengths is None else power_of_two(self.longest)
        if model.is_joint and self.lengths is not None:
            longest = power_of_two(int(lengths[0]))
        return Sets(
            model=model,
            rows=jax.tree.map(lambda leaf: jnp.asarray(take(leaf)), self.rows),
            weights=None if weights is None else jnp.asarray(weights),
            args=self.args,
            offset=jnp.asarray(offset),
            length=None if self.lengths is None else jnp.asarray(length),
            anchor=anchor,
            count=jnp.asarray(len(chosen)),
            longest=longest,
            block=self.block(model),
        )


def from_arrays(data: PyTree, weights: Any, lengths: Any, args: PyTree) -> Collection:
    """The collection of data sets in arrays of shape `(n_sets, n_obs, ...)`, padded at the end if `lengths`."""
    n_sets, n_obs = jnp.shape(jax.tree.leaves(data)[0])[:2]
    flat = lambda leaf: leaf.reshape(n_sets * n_obs, *leaf.shape[2:])  # noqa: E731
    return Collection(
        rows=jax.tree.map(flat, data),
        weights=None if weights is None else flat(weights),
        args=args,
        offsets=np.arange(n_sets) * n_obs,
        lengths=lengths if lengths is None or traced(lengths) else np.asarray(lengths),
        longest=n_obs,
    )


def from_groups(groups: Groups, index: np.ndarray, weight_column: str | None, args: PyTree) -> Collection:
    """The collection of the groups with these numbers."""
    lengths = groups.lengths[index]
    return Collection(
        rows=groups.columns,
        weights=None if weight_column is None else groups.columns[weight_column],
        args=args,
        offsets=groups.offsets[index],
        lengths=lengths,
        longest=int(lengths.max()),
    )


def traced(tree: PyTree) -> bool:
    """Whether any array is known only to a trace, inside `jit` or `vmap`."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def power_of_two(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << max(0, int(number) - 1).bit_length()
