"""Data sets drawn anew from those of a batch: resampled, reweighted or simulated, on the host."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from ...core.random_keys import from_seed
from ...core.trees import is_array, n_rows
from ...likelihood.objective import Objective
from ...likelihood.ragged import CHUNK_ROWS, RaggedBatch, from_arrays, round_up
from ..evaluate import evaluate_repeated
from ..record import FitRecord
from ..simulate import simulated


def resampled_sets(
    fits: FitRecord,
    batch: RaggedBatch,
    words: np.ndarray,
    fine: np.ndarray,
    replicates: int,
    kind: str,
    labels: np.ndarray | None,
    influence: Float[np.ndarray, "n_sets rows n_free"] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, RaggedBatch, np.ndarray]]:
    """The resampled data sets, so many at a time that memory holds them.

    Yields the numbers of data sets, those of their replicates, the data, and to first order the change of the free
    vector of each: the sum of the influence of its rows, zero where that is not known.
    """
    # Simulated sets are as wide as the widest of the batch.
    wide = kind == "parametric" and batch.lengths is not None
    lengths = np.full(len(fine), batch.longest) if wide else batch.row_counts[fine]
    # Sets of similar length go together.
    order = fine[np.argsort(lengths, kind="stable")]
    lengths = np.sort(lengths, kind="stable")
    first = 0
    while first < len(order):
        longest = np.maximum(lengths[first:], 1)
        room = np.arange(1, len(longest) + 1) * longest * replicates <= CHUNK_ROWS
        count = max(1, int(np.argmin(room)) if not room.all() else len(room))
        sets = order[first : first + count]
        generators = [np.random.Generator(np.random.Philox(key=_philox(words[b]))) for b in sets]
        share = max(1, min(replicates, CHUNK_ROWS // int(longest[count - 1]))) if count == 1 else replicates
        for begin in range(0, replicates, share):
            times = np.arange(begin, min(begin + share, replicates))
            if kind == "parametric":
                data, weights = _simulated_sets(fits, batch, words, sets, times), None
            else:
                weights = _random_weights(batch, generators, sets, times, kind, labels)
                data = _weighted_sets(batch, sets, weights, kind, fits._solution.estimates.dtype)
            moves = np.zeros((len(sets), len(times), fits.n_free))
            if weights is not None and influence is not None:
                rows = min(weights.shape[2], influence.shape[1])
                # Not by NumPy, whose BLAS threads keep spinning for a while after a matrix product
                # (https://github.com/OpenMathLib/OpenBLAS/issues/5171). Once they sleep: `weights @ influence`.
                moves = np.asarray(
                    jnp.matmul(weights[:, :, :rows].astype(influence.dtype), influence[sets, :rows])
                )
            yield sets, times, data, np.where(np.isfinite(moves).all(axis=2, keepdims=True), moves, 0.0)
        first += count


def repeat_sets(tree: PyTree, sets: np.ndarray, times: int) -> PyTree:
    """The entries of these data sets in all arrays, each `times` times."""
    return jax.tree.map(
        lambda leaf: np.repeat(np.asarray(leaf)[sets], times, axis=0) if is_array(leaf) else leaf, tree
    )


def _philox(word: np.ndarray) -> int:
    return int(word[0]) << 32 | int(word[1])


def _random_weights(
    batch: RaggedBatch,
    generators: list[np.random.Generator],
    sets: np.ndarray,
    times: np.ndarray,
    kind: str,
    labels: np.ndarray | None,
) -> Float[np.ndarray, "n_sets times width"]:
    """Random weights of the rows of data sets; zero for padding."""
    lengths = batch.row_counts[sets]
    width = int(lengths.max()) if batch.lengths is None else round_up(int(lengths.max()))
    weights = np.zeros((len(sets), len(times), width))
    for i, b in enumerate(sets):
        begin, length = batch.offsets[b], lengths[i]
        rows = slice(begin, begin + length)
        own = None if batch.weights is None else np.asarray(batch.weights)[rows]
        mine = None if labels is None else labels[rows]
        weights[i, :, :length] = _weights_of_set(generators[i], kind, own, mine, len(times), int(length))
    return weights


def _weighted_sets(
    batch: RaggedBatch,
    sets: np.ndarray,
    weights: Float[np.ndarray, "n_sets times width"],
    kind: str,
    dtype: Any,
) -> RaggedBatch:
    """Data sets with such weights; where many are zero, their rows are left out."""
    _, times, width = weights.shape
    flat = weights.reshape(-1, width)
    offsets = np.repeat(batch.offsets[sets], times)
    kept = _distinct(width) if kind == "nonparametric" and batch.weights is None else width
    which, where = np.nonzero(flat) if kept < width else (np.zeros(1, int), ())
    if kept < width and np.bincount(which).max() <= kept:
        place = np.zeros((len(flat), kept), np.int64)
        count = np.bincount(which, minlength=len(flat))
        place[which, np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)] = where
        flat = np.where(np.arange(kept) < count[:, None], np.take_along_axis(flat, place, axis=1), 0.0)
    else:
        place, kept = np.broadcast_to(np.arange(width), flat.shape), width
    source = np.minimum(offsets[:, None] + place, n_rows(batch.rows) - 1).ravel()
    return RaggedBatch(
        model=batch.model,
        args=batch.args,
        rows=jax.tree.map(np.asarray, batch.rows),
        weights=flat.ravel().astype(dtype),
        offsets=np.arange(len(flat)) * kept,
        lengths=None,
        longest=kept,
        row_index=source,
    )


def _distinct(n: int) -> int:
    """A bound on the number of distinct rows among `n` draws of `n`: its mean plus six standard deviations."""
    share = math.exp(-1)
    return min(n, int(n * (1 - share) + 6 * math.sqrt(n * share * (1 - 2 * share))) + 2)


def _weights_of_set(
    generator: np.random.Generator, kind: str, own: Any, labels: Any, times: int, length: int
) -> Float[np.ndarray, "times length"]:
    """Random weights of the rows of one data set."""
    if kind == "weights":
        drawn = generator.exponential(size=(times, length))
        drawn = drawn if own is None else drawn * own
        total = length if own is None else own.sum()
        return drawn * (total / drawn.sum(axis=1, keepdims=True))
    if kind == "cluster":
        _, number = np.unique(labels, return_inverse=True)
        n = int(number.max()) + 1
        counts = _counts(generator.integers(0, n, size=(times, n)), n)[:, number]
        return counts if own is None else counts * own
    if own is None:
        return _counts(generator.integers(0, length, size=(times, length)), length)
    size = max(1, round(float(own.sum())))
    return generator.multinomial(size, own / own.sum(), size=times).astype(float)


def _counts(drawn: np.ndarray, n: int) -> np.ndarray:
    """The number of times that each of `n` was drawn, for each row of draws."""
    times = len(drawn)
    flat = (drawn + n * np.arange(times)[:, None]).ravel()
    return np.bincount(flat, minlength=n * times).reshape(times, n).astype(float)


def _simulated_sets(
    fits: FitRecord, batch: RaggedBatch, words: np.ndarray, sets: np.ndarray, times: np.ndarray
) -> RaggedBatch:
    """Data sets drawn from the model at their estimates."""
    some = fits[sets]
    per_time = lambda array: np.repeat(np.asarray(array)[:, None], len(times), axis=1)  # noqa: E731
    value = (per_time(some._solution.free), per_time(words[sets]), np.tile(times, (len(sets), 1)))
    data = evaluate_repeated(some, len(times), _simulate, value)
    data = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), data)
    lengths = None if batch.lengths is None else np.repeat(batch.row_counts[sets], len(times))
    return from_arrays(batch.model, batch.args, data, None, lengths)


def _simulate(objective: Objective, value: Any) -> PyTree:
    free, seed, number = value
    return simulated(objective, free, jax.random.fold_in(from_seed(seed), number))
