"""What a status depends on beside the search: how many rows a data set has, and whether its numbers are finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from .base import AbstractLikelihood, largest_with_powers


class DataFacts(eqx.Module):
    """What is known of a data set, or of many with a leading axis.

    Args:
        n_obs: number of observations, the sum of the weights.
        n_rows: number of rows that count.
        nonfinite: whether the data, weights included, hold NaN or an infinite value; false where nobody asked.
        beyond_powers: whether they hold numbers whose powers are infinite or vanish; likewise.
    """

    n_obs: Array | np.ndarray
    n_rows: Int[Array | np.ndarray, "..."]
    nonfinite: Bool[Array | np.ndarray, "..."]
    beyond_powers: Bool[Array | np.ndarray, "..."]


def facts(likelihood: AbstractLikelihood, asked: Bool[Array, ""]) -> DataFacts:
    """The facts of one data set; its numbers are looked at where `asked`."""
    return DataFacts(likelihood.n_obs, likelihood.n_rows, *likelihood.bad_numbers(asked))


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
