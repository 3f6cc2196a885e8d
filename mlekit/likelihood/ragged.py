"""The likelihoods of many data sets: flat rows on the host, handed to the device in chunks of one compiled shape.

Data sets lie one behind the other in flat rows, and each is a position in them. So sets of every length share
one compiled shape, a set that moves into a lane copies nothing, and padding costs at most one block of rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..core import devices
from ..core.trees import n_rows, traced
from ..data.groups import Groups
from ..models.model import Model
from .base import block_rows
from .in_memory import InMemoryLikelihood

FEWEST_LANES = 16
#: Data sets and rows of a chunk: as much as is on the device at a time.
CHUNK_SETS, CHUNK_ROWS = 1 << 17, 1 << 22
#: Numbers that the Hessians of a chunk may take.
CHUNK_HESSIANS = 1 << 24


class BoundModel(eqx.Module):
    """The model and its third argument, which all likelihoods of a batch share."""

    model: Model
    args: PyTree


class Chunk(eqx.Module):
    """A chunk of a batch: data sets in flat rows.

    Args:
        rows: PyTree of arrays, leading axis `(rows,)`.
        weights: shape `(rows,)`, or `None`.
        offset: first row of each set, shape `(n_sets,)`.
        length: number of its rows.
        anchor: position of a row with a positive weight; `None` without weights.
        count: number of data sets; the rest of a chunk is empty.
        longest: rows of the longest set.
        block: rows evaluated at once in a lane.
    """

    rows: PyTree
    weights: Float[Array | np.ndarray, " rows"] | None
    offset: Int[Array | np.ndarray, " n_sets"]
    length: Int[Array | np.ndarray, " n_sets"] | None
    anchor: Int[Array | np.ndarray, " n_sets"] | None
    count: Int[Array | np.ndarray, ""]
    longest: int = eqx.field(static=True)
    block: int = eqx.field(static=True)

    @property
    def n_sets(self) -> int:
        """Number of data sets, the empty ones at the end of a chunk included."""
        return self.offset.shape[0]

    def likelihood(self, bound: BoundModel, i: Int[Array, ""]) -> InMemoryLikelihood:
        """The likelihood of data set `i`."""
        pick = lambda array: None if array is None else array[i]  # noqa: E731
        return self.likelihood_at(bound, self.offset[i], pick(self.length), pick(self.anchor))

    def likelihood_at(
        self, bound: BoundModel, offset: Array, length: Array | None, anchor: Array | None
    ) -> InMemoryLikelihood:
        """The likelihood of the data set that lies there."""
        return InMemoryLikelihood(
            model=bound.model,
            args=bound.args,
            data=self.rows,
            weights=cast(Array | None, self.weights),  # a chunk is on the device by now
            offset=offset,
            length=length,
            anchor=anchor,
            longest=self.longest,
            block=self.block,
        )

    def of(self, index: np.ndarray, count: int) -> Chunk:
        """The chunk with these of its data sets, as many as it holds, of which so many are to be fitted."""
        pick = lambda array: None if array is None else array[index]  # noqa: E731
        return dataclasses.replace(
            self,
            offset=self.offset[index],
            length=pick(self.length),
            anchor=pick(self.anchor),
            count=np.full_like(self.count, count),
        )

    def emptied(self) -> Chunk:
        """The same chunk with no data sets to fit."""
        return dataclasses.replace(self, count=np.zeros_like(self.count))


@dataclasses.dataclass(frozen=True)
class RaggedBatch:
    """A model together with many data sets: flat rows, and where each set lies in them.

    Args:
        model: the log-density with its companions.
        args: third argument of the model.
        rows: PyTree of arrays with a leading axis.
        weights: of all rows of the data sets, or `None`.
        offsets: first row of each set.
        lengths: number of its rows; `None` where every set has `longest`.
        longest: rows of the longest set.
        repeats: how often each set comes, one after the other: sets that share their rows.
        row_index: position in `rows` of each row of the data sets, if not one behind the other; known outside a
            trace.
        one_chunk: True if all sets must make one chunk.
    """

    model: Model
    args: PyTree
    rows: PyTree
    weights: Any
    offsets: np.ndarray
    lengths: Any
    longest: int
    repeats: int = 1
    row_index: np.ndarray | None = None
    one_chunk: bool = False

    @property
    def bound(self) -> BoundModel:
        """The model and its third argument."""
        return BoundModel(self.model, self.args)

    @property
    def arrays(self) -> PyTree:
        """Model, args, rows and weights: whatever may have derivatives."""
        return self.model, self.args, self.rows, self.weights

    def with_arrays(self, arrays: PyTree) -> RaggedBatch:
        """The same data sets with other `arrays`."""
        model, args, rows, weights = arrays
        return dataclasses.replace(self, model=model, args=args, rows=rows, weights=weights)

    @property
    def n_sets(self) -> int:
        """Number of data sets, repeated ones included."""
        return len(self.offsets) * self.repeats

    def repeated(self, times: int) -> RaggedBatch:
        """The same data sets, each of them so many times."""
        return dataclasses.replace(self, repeats=self.repeats * times)

    def subset(self, chosen: np.ndarray) -> RaggedBatch:
        """The chosen data sets, repeated ones counted one by one."""
        sets = chosen // self.repeats
        lengths = None if self.lengths is None else np.asarray(self.lengths)[sets]
        return dataclasses.replace(self, offsets=self.offsets[sets], lengths=lengths, repeats=1)

    @property
    def row_counts(self) -> np.ndarray:
        """Rows of each set, of repeated ones once; known only outside a trace."""
        return np.full(len(self.offsets), self.longest) if self.lengths is None else np.asarray(self.lengths)

    @property
    def traced(self) -> bool:
        """True if any of its arrays is known only to a trace, or it must be handled as if it were."""
        return self.one_chunk or traced((self.rows, self.weights, self.args, self.lengths))

    def block(self) -> int:
        """Rows that a lane evaluates at once: few where sets differ in length, all where they do not."""
        if self.model.is_joint or (self.lengths is None and self.longest <= 512):
            return 0
        typical = self.longest if self.lengths is None or traced(self.lengths) else int(np.median(self.lengths))
        return min(256, max(8, power_of_two(typical) // 4), power_of_two(self.longest))

    def lanes(self) -> int:
        """A number of lanes that suits the device."""
        rows = self.block() or self.longest
        device = devices.profile()
        return min(device.max_lanes, max(FEWEST_LANES, power_of_two(device.tile_rows // rows)))

    def as_chunk(self) -> Chunk:
        """All data sets as one chunk; the only way under a trace."""
        every = lambda one: jnp.repeat(jnp.asarray(one), self.repeats)  # noqa: E731
        anchor = self._anchor_traced()
        return Chunk(
            rows=self.rows,
            weights=self.weights,
            offset=every(self.offsets),
            length=None if self.lengths is None else every(self.lengths),
            anchor=None if anchor is None else every(anchor),
            count=jnp.asarray(self.n_sets),
            longest=self.longest,
            block=self.block(),
        )

    def per_set(self) -> tuple[InMemoryLikelihood, InMemoryLikelihood]:
        """The likelihoods in a form that reverse mode can cross: the arrays of each, and the rest.

        The arrays of the first have a leading axis of data sets. One of each, combined with the second, is the
        likelihood of a data set.
        """
        longest, fields = self.longest, ("data", "weights", "length")
        likelihood = InMemoryLikelihood(self.model, self.args, self.rows, self.weights, length=self.lengths)
        stacked = self.repeats == 1 and self.row_index is None and len(self.offsets) * longest == n_rows(self.rows)
        if stacked and np.array_equal(self.offsets, np.arange(len(self.offsets)) * longest):
            stack = lambda leaf: leaf.reshape(-1, longest, *leaf.shape[1:])  # noqa: E731
            data, weights = jax.tree.map(stack, (self.rows, self.weights))
            likelihood = dataclasses.replace(likelihood, data=data, weights=weights)
        else:
            chunk, fields = self.as_chunk(), ("offset", "length", "anchor")
            likelihood = chunk.likelihood_at(self.bound, *(getattr(chunk, field) for field in fields))
        block = block_rows(self.rows, 0, longest)
        likelihood = dataclasses.replace(likelihood, block=block, reversible=True)
        chosen = lambda likelihood: [getattr(likelihood, field) for field in fields]  # noqa: E731
        mine = eqx.tree_at(
            chosen,
            jax.tree.map(lambda _: False, likelihood),
            replace_fn=lambda part: jax.tree.map(lambda _: True, part),
            is_leaf=lambda x: x is None,
        )
        return eqx.partition(likelihood, mine)

    def _anchor_traced(self) -> Any:
        if self.weights is None:
            return None
        counting = jnp.reshape(self.weights > 0, (len(self.offsets), -1))
        return jnp.argmax(counting, axis=1)

    def chunks(self, n_free: int, n_lanes: int) -> Iterator[tuple[np.ndarray, Chunk]]:
        """The data sets in chunks of one compiled shape, longest sets first.

        Yields the numbers of the sets in the chunk, and the chunk, on the host; it may end with sets of no rows.
        """
        lengths = self.row_counts
        parts = self._partition(lengths, n_free, n_lanes)
        n_sets = round_up(max(map(len, parts)))
        if n_sets > n_lanes:
            n_sets = -(-n_sets // n_lanes) * n_lanes
        needed = (int(lengths[self._distinct(part)[0]].sum()) for part in parts)
        n_rows = round_up(max(*needed, self._longest))
        for chosen in parts:
            yield chosen, self._chunk(chosen, lengths, n_sets, n_rows)

    def _distinct(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The data sets among the chosen ones without repeats, and which of these each is."""
        sets = chosen // self.repeats
        first = np.diff(sets, prepend=-1) != 0
        return sets[first], np.cumsum(first) - 1

    @property
    def _longest(self) -> int:
        """Rows of the longest set as chunks are compiled for them: of ragged sets few numbers."""
        return self.longest if self.lengths is None else power_of_two(self.longest)

    def _partition(self, lengths: np.ndarray, n_free: int, n_lanes: int) -> list[np.ndarray]:
        """The numbers of the sets of each chunk, repeats of a set side by side."""
        order = np.argsort(-lengths, kind="stable")
        every = lambda sets: (sets[:, None] * self.repeats + np.arange(self.repeats)).ravel()  # noqa: E731
        most = max(1, min(CHUNK_SETS, CHUNK_HESSIANS // max(1, n_free) ** 2))
        workers = devices.workers(devices.mesh())
        if not (self.model.is_joint and self.lengths is not None):
            wanted = min(workers, self.n_sets // (2 * n_lanes))
            by_rows = min(-(-int(lengths.sum()) // CHUNK_ROWS), len(order))
            needed = max(-(-self.n_sets // most), by_rows, wanted, 1)
            needed = -(-needed // workers) * workers if needed > 1 else 1  # so that none is left to one alone
            if needed > len(order):
                return np.array_split(every(order), min(needed, self.n_sets))
            # Dealt out in turn, so that all chunks are alike and take the same time.
            return [every(order[p::needed]) for p in range(needed)]
        # A joint model sees whole sets at once, so sets of a chunk must be of similar length.
        parts, start = [], 0
        while start < len(order):
            within = lengths[order[start : start + max(1, most // self.repeats)]]
            fits = (np.cumsum(within) <= max(CHUNK_ROWS, self.longest)) & (2 * within >= within[0])
            here = every(order[start : start + max(1, int(fits.sum()))])
            parts += np.array_split(here, -(-len(here) // most))
            start += len(here) // self.repeats
        return parts

    def _chunk(self, chosen: np.ndarray, lengths: np.ndarray, n_sets: int, n_rows: int) -> Chunk:
        """The rows of the chosen sets, those of repeated ones once, and where each set lies in them."""
        sets, which = self._distinct(chosen)
        lengths = lengths[sets]
        offset = np.zeros(n_sets, np.int32)
        length = np.zeros(n_sets, np.int32)
        ends = np.cumsum(lengths)
        offset[: len(chosen)], length[: len(chosen)] = (ends - lengths)[which], lengths[which]
        total = int(ends[-1])
        # Row j of the chunk is row source[j] of the data sets.
        source = np.zeros(n_rows, np.int64)
        source[:total] = np.arange(total) + np.repeat(self.offsets[sets] - (ends - lengths), lengths)
        weights = None if self.weights is None else _rows_of(self.weights, source)
        anchor = None if weights is None else _anchors(np.asarray(weights), offset, length)
        longest = self._longest
        if self.model.is_joint and self.lengths is not None:
            longest = power_of_two(int(lengths[0]))
        place = source if self.row_index is None else self.row_index[source]
        return Chunk(
            rows=jax.tree.map(lambda leaf: _rows_of(leaf, place), self.rows),
            weights=weights,
            offset=offset,
            length=None if self.lengths is None else length,
            anchor=anchor,
            count=np.asarray(len(chosen)),
            longest=longest,
            block=self.block(),
        )


def _anchors(weights: np.ndarray, offset: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Position in each set of its first row with a positive weight; zero where there is none."""
    if np.all(np.take(weights, offset, mode="clip") > 0):  # an empty set may begin where the arrays end
        return np.zeros_like(offset)
    counting = np.append(np.flatnonzero(weights > 0), len(weights))
    first = counting[np.searchsorted(counting, offset)]
    return np.where(first < offset + length, first - offset, 0)


def _rows_of(leaf: Any, source: np.ndarray) -> Any:
    """These rows of an array, where a device takes them without another copy."""
    if not (isinstance(leaf, np.ndarray) and leaf.flags.c_contiguous):
        return leaf[source]
    out = devices.aligned((len(source), *leaf.shape[1:]), leaf.dtype)
    return np.take(leaf, source, axis=0, out=out, mode="clip")  # other modes gather into a buffer first


def from_arrays(model: Model, args: PyTree, data: PyTree, weights: Any, lengths: Any) -> RaggedBatch:
    """The batch of data sets in arrays of shape `(n_sets, n_obs, ...)`, padded at the end if `lengths`."""
    n_sets, n_obs = jnp.shape(jax.tree.leaves(data)[0])[:2]
    flat = lambda leaf: leaf.reshape(n_sets * n_obs, *leaf.shape[2:])  # noqa: E731
    return RaggedBatch(
        model=model,
        args=args,
        rows=jax.tree.map(flat, data),
        weights=None if weights is None else flat(weights),
        offsets=np.arange(n_sets) * n_obs,
        lengths=lengths if lengths is None or traced(lengths) else np.asarray(lengths),
        longest=n_obs,
    )


def from_groups(
    model: Model, args: PyTree, groups: Groups, index: np.ndarray, weight_column: str | None
) -> RaggedBatch:
    """The batch of the groups with these numbers."""
    lengths = groups.lengths[index]
    return RaggedBatch(
        model=model,
        args=args,
        rows=groups.columns,
        weights=None if weight_column is None else groups.columns[weight_column],
        offsets=groups.offsets[index],
        lengths=lengths,
        longest=int(lengths.max()),
    )


def power_of_two(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << max(0, int(number) - 1).bit_length()


def round_up(number: int) -> int:
    """A number not much above: the next power of two, and beyond 256 the next of four binary digits and zeros.

    So few shapes are compiled, and large ones are at most an eighth too large.
    """
    step = power_of_two(number) // 16 if number > 256 else power_of_two(number)
    return -(-number // step) * step
