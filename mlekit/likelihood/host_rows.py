"""Data sets in flat rows on the host, where native kernels read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .base import largest_with_powers
from .facts import DataFacts
from .ragged import CHUNK_HESSIANS, CHUNK_ROWS, RaggedBatch

#: Data sets that are searched at a time, whose states stay in the cache.
MOST_SETS = 1 << 14


def host_array(leaf: Any) -> np.ndarray:
    """An array on the host, with numbers as JAX would have them."""
    return np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype))


class HostRows:
    """Data sets in flat rows on the host.

    Args:
        leaves: arrays with a leading axis of rows.
        weights: of the rows, or `None`.
        offsets: first row of each data set.
        lengths: number of its rows.
    """

    def __init__(
        self,
        leaves: Sequence[np.ndarray],
        weights: np.ndarray | None,
        offsets: np.ndarray,
        lengths: np.ndarray,
    ) -> None:
        self.leaves, self.weights, self.offsets, self.lengths = leaves, weights, offsets, lengths
        self.longest = int(lengths.max(initial=0))

    def filled(self, n_sets: int) -> HostRows:
        """With so many data sets, of which further ones are empty."""
        more = np.zeros(n_sets - len(self.offsets), np.int64)
        offsets, lengths = (np.concatenate([array, more]) for array in (self.offsets, self.lengths))
        return HostRows(self.leaves, self.weights, offsets, lengths)

    def sums(self, rows: np.ndarray) -> np.ndarray:
        """The sum of a number of each row over the rows of each data set."""
        ends = np.stack([self.offsets, self.offsets + self.lengths], axis=1)
        padded = np.append(rows, np.zeros(1, rows.dtype))
        out = np.add.reduceat(padded, np.minimum(ends, len(rows)).ravel())[::2]
        return np.where(self.lengths > 0, out, 0).astype(rows.dtype)  # of no rows it gives one

    def facts(self, asked: np.ndarray) -> DataFacts:
        """The facts of all data sets; the numbers of those that are `asked` are looked at."""
        n_obs = n_rows = self.lengths.astype(jax.dtypes.canonicalize_dtype(np.int64))
        if self.weights is not None:
            n_obs, n_rows = self.sums(self.weights), self.sums((self.weights > 0).astype(n_rows.dtype))
        return DataFacts(n_obs, n_rows, *self.bad_numbers(asked))

    def bad_numbers(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `AbstractLikelihood.bad_numbers`, of all data sets."""
        out = np.zeros((2, len(self.offsets)), bool)
        chosen = np.flatnonzero(asked & (self.lengths > 0))
        if not len(chosen):
            return out[0], out[1]
        lengths = self.lengths[chosen]
        begins = np.cumsum(lengths) - lengths
        index = np.arange(int(lengths.sum())) + np.repeat(self.offsets[chosen] - begins, lengths)
        counts = weights = None
        if self.weights is not None:
            weights = self.weights[index]
            counts = weights > 0
            out[0, chosen] = np.logical_or.reduceat(~np.isfinite(weights), begins)
        for leaf in self.leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                continue
            rows = leaf[index].reshape(len(index), -1)
            finite = np.isfinite(rows)
            sizes = np.max(np.where(finite, np.abs(rows), 0), axis=1, initial=0)
            bad = ~np.all(finite, axis=1)
            if counts is not None:
                sizes, bad = np.where(counts, sizes, 0), bad & counts
            largest, limit = np.maximum.reduceat(sizes, begins), largest_with_powers(leaf.dtype)
            out[0, chosen] |= np.logical_or.reduceat(bad, begins)
            out[1, chosen] |= (largest > limit) | ((largest > 0) & (largest < 1 / limit))
        return out[0], out[1]


def host_rows(batch: RaggedBatch, n_free: int) -> Iterator[tuple[np.ndarray, PyTree, HostRows]]:
    """The data sets of a batch in their order, as many at a time as memory has room for.

    Yields the numbers of the sets, and their rows: as a PyTree, and with where they lie.
    """
    most = max(1, min(MOST_SETS, CHUNK_HESSIANS // max(1, n_free) ** 2) // batch.repeats)
    lengths, ends = batch.row_counts, np.cumsum(batch.row_counts)
    rows = jax.tree.map(host_array, batch.rows)
    weights = None if batch.weights is None else host_array(batch.weights)
    begin, n_sets = 0, len(batch.offsets)
    while begin < n_sets:
        end, here = min(begin + most, n_sets), (rows, weights)
        if batch.row_index is not None:  # a copy, of which there must not be too much
            within = int(np.searchsorted(ends, ends[begin] - lengths[begin] + CHUNK_ROWS, side="right"))
            end = min(end, max(within, begin + 1))
        sets = np.arange(begin, end)
        offsets = batch.offsets[sets]
        if batch.row_index is not None:
            firsts = ends[sets] - lengths[sets] - (ends[begin] - lengths[begin])
            source = np.arange(int(lengths[sets].sum())) + np.repeat(offsets - firsts, lengths[sets])
            take = lambda leaf: leaf[batch.row_index[source]]  # noqa: B023, E731
            here = jax.tree.map(take, rows), None if weights is None else weights[source]
            offsets = firsts
        every = lambda numbers: np.repeat(numbers, batch.repeats).astype(np.int64)  # noqa: E731
        chosen = (sets[:, None] * batch.repeats + np.arange(batch.repeats)).ravel()
        data, here_weights = here
        yield chosen, data, HostRows(jax.tree.leaves(data), here_weights, every(offsets), every(lengths[sets]))
        begin = end
