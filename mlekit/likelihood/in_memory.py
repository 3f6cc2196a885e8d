"""From a log-density to a log-likelihood: summed over a data set, weighted, padded, and in blocks of rows.

A data set is a stretch of rows, `offset` to `offset + length`, of flat arrays that it may share with
others. Sums run over it block by block, and every block yields its exact derivatives, which are added up:
so a large data set needs the memory of one block, and data sets of every length share one compiled shape.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..core import compensated_sum, devices, differentiable_loops
from ..core.dtypes import as_index
from ..core.trees import default_float, is_inexact, n_rows, traced, where_rows
from ..models.model import Model
from .weights import known_where, scaled_rows, weighted_rows

#: Numbers that a block of rows of a single data set takes, its data and as many tangents as there are parameters:
#: on a CPU what fits into a core's cache, elsewhere what memory can spare. And rows of a block at most on a CPU.
BLOCK_NUMBERS, BLOCK_NUMBERS_WIDE, BLOCK_ROWS = 1 << 18, 1 << 26, 1 << 12
#: Blocks of a sample, from all over the data set; there is one where it takes at least three times as many.
SAMPLE_BLOCKS = 8


class InMemoryLikelihood(eqx.Module):
    r"""A model together with one data set.

    $$\ell(\theta) = \sum_i w_i \log p(x_i \mid \theta)$$

    Args:
        model: the log-density with its companions.
        data: PyTree of arrays with a leading axis of rows.
        weights: frequency weights, shape `(rows,)`; `None` means ones.
        args: what the model gets as its third argument; `None` for a model with two.
        offset: first row of the data set; `None` means the first.
        length: number of its rows; `None` means all.
        anchor: position in the data set of a row with a positive weight; `None` means it is looked up.
        sampled: whether to sum over a sample of the rows alone; `None` means no.
        longest: rows of the longest data set that shares the arrays; 0 means all rows.
        block: rows evaluated at once; 0 means all of a data set.
        reversible: whether reverse mode must be able to cross the sums over blocks; then all blocks are summed,
            those of padding included.
        keeps: whether rows of weight zero stay what they are, so that derivatives with respect to their weights
            are theirs.
    """

    model: Model
    data: PyTree
    weights: Float[Array, " rows"] | None = None
    args: PyTree = None
    offset: Int[Array, ""] | None = None
    length: Int[Array, ""] | None = None
    anchor: Int[Array, ""] | None = None
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

    @property
    def finite_data(self) -> Array:
        """Whether the data set, weights included, is free of NaN and infinite values."""

        def count(data: PyTree, weights: Array | None) -> Array:
            bad = [jnp.sum(~jnp.isfinite(leaf)) for leaf in (*jax.tree.leaves(data), weights) if is_inexact(leaf)]
            return sum(bad, jnp.asarray(0))

        return self.total(count, jnp.asarray(0)) == 0

    def spoilt_data(self, asked: Bool[Array, ""]) -> Array:
        """Whether anybody asks, and there is a NaN or an infinite value."""
        return asked & ~self.finite_data

    def has_contributions(self, params: PyTree) -> bool:
        """Whether the model gives one log-density a row; a joint one may give their sum alone."""
        data, _ = self.aligned()
        return not self.model.is_joint or jax.eval_shape(self._values, params, data).ndim > 0

    def contributions(self, params: PyTree) -> Float[Array, " rows"]:
        """Log-densities of the rows at `params`, unweighted; zero for the rows of padding."""
        data, _ = self.aligned()
        values = self._values(params, data)
        if values.ndim == 0:
            raise ValueError(
                "contributions are wanted, but the joint model returns a scalar; return the vector of "
                "log p(x_t | x_<t), shape (n_obs,), instead"
            )
        return (
            values if self.length is None else jnp.where(jnp.arange(self.rows) < as_index(self.length), values, 0)
        )

    def scores(
        self, free: Float[Array, " n_free"], natural: Callable[[Array], PyTree]
    ) -> Float[Array, "rows n_free"]:
        """Gradients of the contributions with respect to the free vector; zero for the rows of padding."""
        _, scores = self.block_scores(free, natural, self.aligned()[0])
        return (
            scores
            if self.length is None
            else jnp.where(jnp.arange(self.rows)[:, None] < as_index(self.length), scores, 0)
        )

    def log_likelihood(self, params: PyTree) -> Float[Array, ""]:
        """The sum, over all rows at once: differentiable in every way."""
        here = self.weighing(params) if traced(self.weights) else self
        return here.block_sum(params, *here.whole())

    def block_sum(self, params: PyTree, data: PyTree, weights: Array | None) -> Float[Array, ""]:
        """The log-likelihood of one block of rows."""
        values = self._values(params, data)
        if values.ndim == 0:
            return values
        return jnp.sum((weighted_rows if self.model.is_joint else scaled_rows)(values, weights))

    def block_scores(self, vector: Array, natural: Callable[[Array], PyTree], data: PyTree) -> tuple[Array, Array]:
        """Log-densities of a block of rows, and their gradients with respect to `vector`."""
        if self.model.is_joint:

            def twice(z: Array) -> tuple[Array, Array]:
                values = self._values(natural(z), data)
                if values.ndim == 0:
                    raise ValueError(
                        "scores are wanted, but the joint model returns a scalar; return the vector of "
                        "log p(x_t | x_<t), shape (n_obs,), instead"
                    )
                return values, values

            scores, values = jax.jacfwd(twice, has_aux=True)(vector)
            return values, scores

        def one(z: Array, obs: PyTree) -> Array:
            return self._density(natural(z), obs)

        return jax.vmap(jax.value_and_grad(one), in_axes=(None, 0))(vector, data)

    @property
    def n_blocks(self) -> int:
        """Blocks that the longest data set takes."""
        single = self.model.is_joint or self.block == 0 or self.block >= self.rows
        return 1 if single else -(-self.rows // self.block)

    def part(self, fn: Callable[[PyTree, Array | None], Any], b: Any) -> Any:
        """What block `b` adds to a sum over the data set.

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
        length = jnp.asarray(self.rows if self.length is None else self.length)
        stride = 1 if self.sampled is None else jnp.where(self.sampled, max(1, self.n_blocks // SAMPLE_BLOCKS), 1)

        def add(b: Array, sums: Any) -> Any:
            return compensated_sum.add(sums, self.part(fn, b * stride))

        return compensated_sum.total(
            jax.lax.fori_loop(0, -(-length // (self.block * stride)), add, compensated_sum.begin(zero))
        )

    @property
    def has_sample(self) -> bool:
        """Whether there are so many rows that a sample of them is worth a look."""
        return self.n_blocks >= 3 * SAMPLE_BLOCKS

    def of_sample(self, yes: Any) -> InMemoryLikelihood:
        """The likelihood of a sample of the rows where `yes`, and of all of them elsewhere."""
        return dataclasses.replace(self, sampled=jnp.asarray(yes))

    def weighing(self, params: PyTree) -> InMemoryLikelihood:
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
        self, key: Array, steps: Int[Array, ""], size: int
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
        length = self.rows if self.length is None else as_index(self.length)
        chances = jax.random.uniform(jax.random.fold_in(key, steps), (self.rows,))
        order = jnp.argsort(jnp.where(jnp.arange(self.rows) < length, chances, jnp.inf))

        def batch(j: Array) -> InMemoryLikelihood:
            position = order[(j * size + jnp.arange(size)) % length]
            chosen = position if self.offset is None else as_index(self.offset) + position
            weights = None if self.weights is None else self.weights[chosen]
            return InMemoryLikelihood(
                self.model, jax.tree.map(lambda leaf: leaf[chosen], self.data), weights, self.args
            )

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
            counts = (position >= first) & (
                position < (self.rows if self.length is None else as_index(self.length))
            )
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
        counts = position < (self.rows if self.length is None else as_index(self.length))
        chosen = (0 if self.offset is None else as_index(self.offset)) + jnp.where(counts, position, 0)
        data = jax.tree.map(lambda leaf: leaf[chosen], self.data)
        if self.weights is not None:
            return data, jnp.where(counts, self.weights[chosen], 0)
        return data, None if self.length is None else counts.astype(default_float(self.data))

    def _values(self, params: PyTree, data: PyTree) -> Array:
        if not self.model.is_joint:
            return jax.vmap(self._density, in_axes=(None, 0))(params, data)
        out = self._call(params, data)
        rows = n_rows(data)
        if jnp.shape(out) not in ((), (rows,)):
            raise ValueError(
                f"a joint model must return a scalar or one value an observation, shape ({rows},); "
                f"it returned shape {jnp.shape(out)}"
            )
        if jnp.shape(out) == () and (self.weights is not None or self.length is not None):
            raise ValueError(
                "weights and data sets of unequal length need a joint model that returns the vector of "
                "contributions log p(x_t | x_<t), shape (n_obs,); it returned a scalar"
            )
        return _real(out, "a joint model")

    def _density(self, params: PyTree, obs: PyTree) -> Array:
        out = self._call(params, obs)
        if jnp.shape(out) != ():
            raise ValueError(
                "log_density must return one number, the log-density of ONE observation; it returned shape "
                f"{jnp.shape(out)}. obs is one slice of data, of shapes "
                f"{jax.tree.map(jnp.shape, obs)}: mlekit does the summing over observations; sum over the "
                "parts of one observation with jnp.sum"
            )
        return _real(out, "log_density")

    def _call(self, params: PyTree, obs: PyTree) -> Any:
        extra = () if self.args is None else (self.args,)
        try:
            return self.model(params, obs, *extra)
        except KeyError as error:
            known = [
                f"{name} has {sorted(map(str, tree))}"
                for name, tree in (("obs", obs), ("params", params))
                if isinstance(tree, dict)
            ]
            raise ValueError(
                f"log_density looks up {error} and there is no such name: {'; '.join(known)}"
            ) from error


class ApartLikelihood(InMemoryLikelihood):
    """The likelihood of rows that are not at hand, so that every pass over them is dear."""

    def spoilt_data(self, asked: Bool[Array, ""]) -> Array:
        """As `Likelihood.spoilt_data`: no pass over the rows unless it is asked for."""
        return jax.lax.cond(asked, lambda: ~self.finite_data, lambda: jnp.asarray(False))

    def has_contributions(self, params: PyTree) -> bool:
        """There is one log-density a row."""
        return True


def count_rows(data: PyTree, weights: Array | None) -> Array:
    """Rows of a block that count."""
    return jnp.asarray(n_rows(data)) if weights is None else jnp.sum(weights > 0)


def block_rows(data: PyTree, n_free: int, rows: int) -> int:
    """Rows of a large data set to evaluate at once; 0 means all."""
    width = n_free + sum(math.prod(jnp.shape(leaf)[1:]) for leaf in jax.tree.leaves(data))
    block = min(BLOCK_ROWS, BLOCK_NUMBERS // width) if devices.on_cpu() else BLOCK_NUMBERS_WIDE // width
    block = max(256, block)
    return block if rows > 2 * block else 0


def _real(out: Any, who: str) -> Array:
    kind = jnp.result_type(out)
    if not jnp.issubdtype(kind, jnp.floating):
        raise TypeError(f"{who} must return a real floating-point number, a log-density; it returned dtype {kind}")
    return jnp.asarray(out)
