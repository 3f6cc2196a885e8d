"""The likelihood of rows in memory: weighted, padded, and summed in blocks of rows.

A data set is a stretch of rows, `offset` to `offset + length`, of flat arrays that it may share with
others, so that data sets of every length share one compiled shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ..core import compensated_sum, differentiable_loops
from ..core.dtypes import as_index
from ..core.trees import choose, default_float, n_rows, traced, where_rows
from ..models.model import Model
from . import density_call
from .base import AbstractLikelihood, count_rows
from .weights import known_where

#: Blocks of a sample, from all over the data set; there is one where it takes at least three times as many.
SAMPLE_BLOCKS = 8


class InMemoryLikelihood(AbstractLikelihood):
    """A model together with a data set in memory.

    Args:
        model: the log-density with its companions.
        args: what the model gets as its third argument; `None` for a model with two.
        data: PyTree of arrays with a leading axis of rows.
        weights: frequency weights, shape `(rows,)`; `None` means ones.
        offset: first row of the data set; `None` means the first.
        length: number of its rows; `None` means all.
        anchor: position in the data set of a row with a positive weight; `None` means it is looked up.
        sampled: True to sum over a sample of the rows alone; `None` means no.
        longest: rows of the longest data set that shares the arrays; 0 means all rows.
        block: rows evaluated at once; 0 means all of a data set.
        reversible: True if reverse mode must be able to cross the sums over blocks; then all blocks are summed,
            those of padding included.
        keeps: True if rows of weight zero stay what they are, so that derivatives with respect to their weights
            are theirs.
    """

    model: Model
    args: PyTree
    data: PyTree
    weights: Float[Array, "... rows"] | None = None
    offset: Int[Array | np.ndarray, "..."] | None = None
    length: Int[Array | np.ndarray, "..."] | None = None
    anchor: Int[Array | np.ndarray, "..."] | None = None
    sampled: Bool[Array, ""] | None = None
    longest: int = eqx.field(static=True, default=0)
    block: int = eqx.field(static=True, default=0)
    reversible: bool = eqx.field(static=True, default=False)
    keeps: bool = eqx.field(static=True, default=False)

    @property
    def rows(self) -> int:
        """Rows that a data set may have, padding included."""
        return self.longest or n_rows(self.data)

    @property
    def n_unpadded(self) -> Any:
        """As `AbstractLikelihood.n_unpadded`."""
        return self.rows if self.length is None else as_index(self.length)

    @property
    def n_rows(self) -> Int[Array, ""]:
        """Number of rows that count: those of the data set with a positive weight."""
        if self.weights is None and self.sampled is None:
            return jnp.asarray(self.rows if self.length is None else self.length)
        return self.total(count_rows, jnp.asarray(0))

    @property
    def n_obs(self) -> Array:
        """Number of observations: the sum of the weights."""
        if self.weights is None:
            return self.n_rows
        return self.total(lambda _, weights: jnp.sum(jnp.asarray(weights)), jnp.zeros((), self.weights.dtype))

    def contributions(self, params: PyTree) -> Float[Array, " rows"]:
        """Log-densities of the rows at `params`, unweighted; zero for the rows of padding."""
        values = density_call.contributions_of_rows(self.model, self.args, params, self.aligned()[0])
        return values if self.length is None else jnp.where(jnp.arange(self.rows) < self.n_unpadded, values, 0)

    def scores(
        self, free: Float[Array, " n_free"], natural: Callable[[Array], PyTree]
    ) -> Float[Array, "rows n_free"]:
        """Gradients of the contributions with respect to the free vector; zero for the rows of padding."""
        _, scores = self.block_scores(free, natural, self.aligned()[0])
        keep = jnp.arange(self.rows)[:, None] < self.n_unpadded
        return scores if self.length is None else jnp.where(keep, scores, 0)

    def log_likelihood(self, params: PyTree) -> Float[Array, ""]:
        """The sum, over all rows at once: differentiable in every way."""
        here = self.differentiable_weights(params) if traced(self.weights) else self
        return here.block_sum(params, *here.whole())

    @property
    def n_blocks(self) -> int:
        """Blocks that the longest data set takes."""
        single = self.model.is_joint or self.block == 0 or self.block >= self.rows
        return 1 if single else -(-self.rows // self.block)

    def part(self, fn: Callable[[PyTree, Array | None], Any], b: Any) -> Any:
        """The part of block `b` in a sum over the data set.

        Args:
            fn: `fn(data, weights)` of one block of rows; `weights` are zero for padding, or `None` where all
                count.
            b: which block.
        """
        if self.n_blocks == 1:
            return fn(*self.whole())
        return fn(*self._stretch(b * self.block, self.block))

    def total(self, fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        """The sum of `fn(data, weights)` over the blocks of the data set.

        Args:
            fn: as in `part`.
            zero: what the sum starts from: the shapes and dtypes of what `fn` returns.
        """
        if self.n_blocks == 1:
            return self.part(fn, 0)
        if self.reversible:
            return differentiable_loops.checkpointed_sum(lambda block: fn(*block), self.whole(), self.block, zero)
        length = jnp.asarray(self.n_unpadded)
        stride = 1 if self.sampled is None else jnp.where(self.sampled, max(1, self.n_blocks // SAMPLE_BLOCKS), 1)

        def add(b: Array, sums: Any) -> Any:
            return compensated_sum.add(sums, self.part(fn, b * stride))

        return compensated_sum.total(
            jax.lax.fori_loop(0, -(-length // (self.block * stride)), add, compensated_sum.begin(zero))
        )

    def total_where(self, yes: Bool[Array, ""], fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        """As `AbstractLikelihood.total_where`."""
        if self.n_blocks == 1:
            return choose(yes, self.total(fn, zero), zero)
        # Where data sets are mapped, a condition computes both branches; a loop ends early there, too.
        return dataclasses.replace(self, length=jnp.where(yes, self.n_unpadded, 0)).total(fn, zero)

    @property
    def has_sample(self) -> bool:
        """As `AbstractLikelihood.has_sample`."""
        return self.n_blocks >= 3 * SAMPLE_BLOCKS

    def of_sample(self, yes: Any) -> InMemoryLikelihood:
        """The likelihood of a sample of the rows where `yes`, and of all of them elsewhere."""
        return dataclasses.replace(self, sampled=jnp.asarray(yes))

    def reversibly(self) -> InMemoryLikelihood:
        """As `AbstractLikelihood.reversibly`."""
        return dataclasses.replace(self, reversible=True)

    def differentiable_weights(self, params: PyTree) -> InMemoryLikelihood:
        """The same for derivatives with respect to its weights, those of zero included.

        A row of weight zero adds nothing, but to the derivative with respect to its weight. Where even that is not
        known, as its log-density at `params` is not finite, it is replaced, and the derivative is NaN.
        """
        if self.weights is None or self.model.is_joint:
            return self
        values = jax.lax.stop_gradient(self.contributions(params))
        silent = (self.weights == 0) & ~jnp.isfinite(values)
        anchor = jnp.argmax(self.weights > 0)
        data = jax.tree.map(lambda leaf: where_rows(~silent, leaf, leaf[anchor]), self.data)
        return dataclasses.replace(self, data=data, weights=known_where(~silent, self.weights), keeps=True)

    def minibatches(
        self, key: PRNGKeyArray, steps: Int[Array, ""], size: int
    ) -> tuple[int, Callable[[Array], InMemoryLikelihood]]:
        """The likelihoods of some rows at a time, in random order: how many come next, and number `j` of them.

        Args:
            key: random key.
            steps: how many there were before.
            size: how many rows each has.
        """
        if self.model.is_joint:
            raise ValueError(
                "mini-batches need independent observations; a joint model has none: leave out batch_size"
            )
        length = self.n_unpadded
        chances = jax.random.uniform(jax.random.fold_in(key, steps), (self.rows,))
        order = jnp.argsort(jnp.where(jnp.arange(self.rows) < length, chances, jnp.inf))

        def batch(j: Array) -> InMemoryLikelihood:
            position = order[(j * size + jnp.arange(size)) % length]
            index = position if self.offset is None else as_index(self.offset) + position
            weights = None if self.weights is None else self.weights[index]
            data = jax.tree.map(lambda leaf: leaf[index], self.data)
            return InMemoryLikelihood(self.model, self.args, data, weights)

        return max(1, self.rows // size), batch

    def whole(self) -> tuple[PyTree, Array | None]:
        """All rows with their weights, and one that counts for each that does not; a series in its order."""
        return self.aligned() if self.model.is_joint else self._stretch(0, self.rows)

    def _stretch(self, first: Any, size: int) -> tuple[PyTree, Array | None]:
        """Rows `first` to `first + size` of the data set in any order, with their weights: a copy of one stretch.

        Rows that do not count are replaced by one that does, so that they cannot bring in a NaN that the data
        set itself doesn't have.
        """
        rows = n_rows(self.data)
        aligned = self.offset is None and size == rows
        if aligned and self.length is None and self.weights is None:
            return self.data, None
        base, first = 0 if self.offset is None else as_index(self.offset), as_index(first)
        begin = jnp.minimum(base + first, rows - size)  # where the arrays end, the stretch begins earlier
        cut = lambda leaf: leaf if aligned else jax.lax.dynamic_slice_in_dim(leaf, begin, size)  # noqa: E731
        data = jax.tree.map(cut, self.data)
        if self.length is None and self.rows % size == 0:
            counts = weights = None
        else:
            position = begin + jnp.arange(size) - base
            counts = (position >= first) & (position < self.n_unpadded)
            weights = counts.astype(default_float(self.data))
        if self.weights is not None:
            weights = cut(self.weights) if counts is None else jnp.where(counts, cut(self.weights), 0)
            if not self.keeps:
                counts = weights > 0
                weights = known_where(counts, weights) if self.reversible else weights
        if counts is None:
            return data, weights
        anchor: Any = 0
        if self.weights is not None:
            anchor = jnp.argmax(self.weights > 0) if self.anchor is None else as_index(self.anchor)

        def replace(leaf: Array, whole: Array) -> Array:
            one = jax.lax.dynamic_index_in_dim(whole, base + anchor)
            return where_rows(counts, leaf, one)

        return jax.tree.map(replace, data, self.data), weights

    def aligned(self) -> tuple[PyTree, Array | None]:
        """All rows of the data set in their order, with their weights.

        Rows of padding repeat the first row of the data set.
        """
        if self.offset is None and self.rows == n_rows(self.data) and self.length is None:
            return self.data, self.weights
        position = jnp.arange(self.rows)
        counts = position < self.n_unpadded
        index = (0 if self.offset is None else as_index(self.offset)) + jnp.where(counts, position, 0)
        data = jax.tree.map(lambda leaf: leaf[index], self.data)
        if self.weights is not None:
            return data, jnp.where(counts, self.weights[index], 0)
        return data, None if self.length is None else counts.astype(default_float(self.data))
