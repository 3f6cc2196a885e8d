"""The likelihood of a table on disk: the sum over its blocks, each read while the one before is computed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ..core import compensated_sum, differentiable_loops
from ..core.dtypes import common_dtype
from ..core.trees import differential, is_inexact
from ..data import block_reader
from ..data.block_reader import BlockLayout
from ..data.table import Table
from ..models.model import Model
from .base import AbstractLikelihood, block_rows, count_rows
from .in_memory import InMemoryLikelihood


class Stream(eqx.Module):
    """A table as compiled programs see it.

    Args:
        handle: number of its reader.
        n_rows: rows with a positive weight.
        n_obs: the sum of the weights.
        sample: some of its rows, in memory, where there are many; else `None`.
        layout: the layout of its blocks.
    """

    handle: Int[Array | np.ndarray, ""]
    n_rows: Any
    n_obs: Any
    sample: PyTree
    layout: BlockLayout = eqx.field(static=True)

    def block(self, b: Any, following: Any, silent: bool = False) -> tuple[PyTree, Any, Bool[Array, ""]]:
        """Block `b`, as `BlockReader.block` returns it."""
        here = jnp.asarray(b, jnp.int32), jnp.asarray(following, jnp.int32), jnp.asarray(silent)
        # Equal numbers give equal blocks, as the files do not change.
        return jax.pure_callback(_read, self.layout.result, self.handle, *here, vmap_method="sequential")


def _read(handle: Any, b: Any, following: Any, silent: Any) -> Any:
    return block_reader.reader_of(int(handle)).block(int(b), int(following), bool(silent))


def stream(source: Table, layout: BlockLayout) -> Stream:
    """A table, or a part of one, in this layout."""
    reader = source.reader(layout)
    n_rows, n_obs = source.n_rows, float(source.n_rows)
    if layout.weights is not None:
        totals = source.weight_totals(layout.weights)
        n_rows, n_obs = totals.n_rows, totals.n_obs
    whole = jnp.zeros((), int).dtype
    handle = np.asarray(reader.handle, np.int32)
    kind = whole if layout.weights is None else layout.weight_dtype
    sample = source.sample() if source.is_large(layout) else None
    return Stream(handle, np.asarray(n_rows, whole), np.asarray(n_obs, kind), sample, layout)


class StreamedLikelihood(AbstractLikelihood):
    """A model together with a table on disk.

    Args:
        model: the log-density with its companions.
        args: third argument of the model.
        data: the table as compiled programs see it.
        sampled: True to sum over a sample of the rows alone; `None` means no.
        block: rows evaluated at once, of those that are read at once; 0 means all.
        reversible: True if reverse mode must be able to cross the sums over blocks.
    """

    model: Model
    args: PyTree
    data: Stream
    sampled: Bool[Array, ""] | None = None
    block: int = eqx.field(static=True, default=0)
    reversible: bool = eqx.field(static=True, default=False)

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.data.layout.n_rows

    @property
    def n_unpadded(self) -> int:
        """Rows of the table."""
        return self.rows

    @property
    def n_rows(self) -> Int[Array, ""]:
        """Number of rows with a positive weight."""
        return self.data.n_rows if self.sampled is None else self.total(count_rows, jnp.asarray(0))

    @property
    def n_obs(self) -> Array:
        """Number of observations: the sum of the weights."""
        if self.sampled is None:
            return self.data.n_obs
        zero = jnp.zeros_like(self.data.n_obs)
        return self.total(
            lambda data, weights: count_rows(data, weights) if weights is None else jnp.sum(weights), zero
        )

    @property
    def n_blocks(self) -> int:
        """Blocks that the table is read in."""
        return self.data.layout.n_blocks

    @property
    def has_sample(self) -> bool:
        """True where there are so many rows that a sample of them is kept in memory."""
        return self.data.sample is not None

    def of_sample(self, yes: Any) -> StreamedLikelihood:
        """As `AbstractLikelihood.of_sample`."""
        return dataclasses.replace(self, sampled=jnp.asarray(yes))

    def reversibly(self) -> StreamedLikelihood:
        """As `AbstractLikelihood.reversibly`: blocks are read again on the way back."""
        return dataclasses.replace(self, reversible=True)

    def differentiable_weights(self, params: PyTree) -> StreamedLikelihood:
        """The same: weights on disk have no derivatives."""
        return self

    def total(self, fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        """As `AbstractLikelihood.total`."""
        if self.sampled is None or not self.has_sample:
            return self._total(fn, zero)
        data, layout = self.data.sample, self.data.layout
        weights = None if layout.weights is None else data[layout.weights].astype(layout.weight_dtype)
        some = InMemoryLikelihood(self.model, self.args, data, weights, block=self.block)
        return jax.lax.cond(self.sampled, lambda: some.total(fn, zero), lambda: self._total(fn, zero))

    def total_where(self, yes: Bool[Array, ""], fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        """As `AbstractLikelihood.total_where`."""
        return jax.lax.cond(yes, lambda: self.total(fn, zero), lambda: zero)

    def _total(self, fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        def add(sums: Any, b: Any) -> tuple[Any, None]:
            here, sound = self._block(b, (b + 1) % self.n_blocks)
            return compensated_sum.add(sums, _nan_unless_read(sound, here.total(fn, zero))), None

        sums = compensated_sum.begin(zero)
        if self.reversible:
            differentiable_loops.check_rules(fn, (self.data.layout.block, None))
            sums, _ = jax.lax.scan(jax.checkpoint(add, prevent_cse=False), sums, jnp.arange(self.n_blocks))
        else:
            # Of a loop of known length JAX makes a scan, in which rules of functions are lost (`RULES_SURVIVE`).
            turns = jnp.asarray(self.n_blocks)
            sums = jax.lax.fori_loop(0, turns, lambda b, sums: add(sums, b)[0], sums)
        return compensated_sum.total(sums)

    def log_likelihood(self, params: PyTree) -> Float[Array, ""]:
        """The sum; its derivative with respect to `params` is summed block by block, too."""
        return _log_likelihood(params, self)

    def contributions(self, params: PyTree) -> Float[Array, " rows"]:
        """As `AbstractLikelihood.contributions`: one number for each row of the table."""
        return self._rows(lambda here: here.contributions(params))

    def scores(
        self, free: Float[Array, " n_free"], natural: Callable[[Array], PyTree]
    ) -> Float[Array, "rows n_free"]:
        """As `AbstractLikelihood.scores`: a vector for each row of the table."""
        return self._rows(lambda here: here.scores(free, natural))

    def aligned(self) -> tuple[PyTree, Array | None]:
        """All rows in memory, with their weights."""
        return self._rows(lambda here: here.aligned() if here.length is None else (here.data, None))

    def whole(self) -> tuple[PyTree, Array | None]:
        """All rows in memory, with their weights."""
        return self.aligned()

    def minibatches(
        self, key: PRNGKeyArray, steps: Int[Array, ""], size: int
    ) -> tuple[int, Callable[[Array], InMemoryLikelihood]]:
        """As `AbstractLikelihood.minibatches`: blocks come in random order, and so do the rows of each."""
        layout = self.data.layout
        if size > layout.size and self.n_blocks > 1:
            raise ValueError(
                f"batch_size is {size:,}, and mini-batches are drawn from one block of the table at a time, of "
                f"{layout.size:,} rows: open it with larger block_rows"
            )
        number = max(1, layout.size // size)
        turn = steps // number
        epoch, place = turn // self.n_blocks, turn % self.n_blocks
        order = jax.random.permutation(jax.random.fold_in(key, epoch), self.n_blocks)
        here, sound = self._block(order[place], order[(place + 1) % self.n_blocks])
        weights = jnp.ones(layout.size, layout.weight_dtype) if here.weights is None else here.weights
        here = dataclasses.replace(here, weights=jnp.where(sound, weights, jnp.nan))
        return here.minibatches(jax.random.fold_in(key, self.n_blocks + turn), steps, size)

    def _block(self, b: Any, following: Any, silent: bool = False) -> tuple[InMemoryLikelihood, Bool[Array, ""]]:
        """The likelihood of one block, and whether it could be read; with rows of weight zero if `silent`."""
        data, extra, sound = self.data.block(b, following, silent)
        weighted = self.data.layout.weights is not None
        here = InMemoryLikelihood(
            self.model,
            self.args,
            data,
            extra if weighted else None,
            length=None if weighted else extra,
            block=self.block,
            keeps=weighted,
        )
        return here, sound

    def _rows(self, fn: Callable[[InMemoryLikelihood], Any]) -> Any:
        """`fn` of every block, whose value has a leading axis of rows, put together."""
        layout = self.data.layout
        n, count, size = layout.n_rows, layout.n_blocks, layout.size

        def of_block(b: Array) -> Any:
            here, sound = self._block(b, (b + 1) % count, silent=True)
            return _nan_unless_read(sound, fn(here))

        found = jax.lax.map(of_block, jnp.arange(count))
        return jax.tree.map(lambda leaf: leaf.reshape(count * size, *leaf.shape[2:])[:n], found)


@eqx.filter_custom_jvp
def _log_likelihood(params: PyTree, likelihood: StreamedLikelihood) -> Array:
    return likelihood.total(functools.partial(likelihood.block_sum, params), _zero(params, likelihood))


@_log_likelihood.def_jvp
def _log_likelihood_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (params, likelihood), (change, others) = primals, tangents
    zero = _zero(params, likelihood)
    moving, still = eqx.partition(params, jax.tree.map(lambda _, c: c is not None, params, change))

    def both(data: PyTree, weights: Array | None) -> Any:
        whole = lambda moving: likelihood.block_sum(eqx.combine(moving, still), data, weights)  # noqa: E731
        return jax.value_and_grad(whole)(moving)

    value, gradient = likelihood.total(both, (zero, jax.tree.map(jnp.zeros_like, moving)))
    moved = sum((jnp.sum(g * c) for g, c in zip(*map(jax.tree.leaves, (gradient, change)))), zero)
    if jax.tree.leaves(others):  # what the model closes over, or its args
        moved += differential(
            lambda it: it.reversibly().total(functools.partial(it.block_sum, params), zero), likelihood, others
        )
    return value, moved


def _nan_unless_read(sound: Array, tree: PyTree) -> PyTree:
    """NaN in place of what was computed of rows that could not be read."""
    return jax.tree.map(lambda leaf: jnp.where(sound, leaf, jnp.nan) if is_inexact(leaf) else leaf, tree)


def _zero(params: PyTree, likelihood: StreamedLikelihood) -> Array:
    kinds = map(jnp.result_type, jax.tree.leaves(params))
    return jnp.zeros((), common_dtype(likelihood.data.layout.weight_dtype, *kinds))


def streamed_likelihood(
    source: Table, model: Model, args: PyTree, weights: str | None, n_free: int, reversible: bool = False
) -> StreamedLikelihood:
    """The likelihood of a table.

    Args:
        source: the table.
        model: the log-density with its companions.
        args: its third argument, or `None`.
        weights: column of frequency weights, if there is one.
        n_free: how many parameters are free.
        reversible: as in `StreamedLikelihood`.

    Raises:
        ValueError: a joint model, or weights that are none.
    """
    if model.is_joint:
        raise ValueError(
            "data is a table on disk, read in blocks; a joint model sees all rows at once: pass arrays"
        )
    layout = source.layout(weights)
    block = block_rows(layout.block, n_free, layout.size)
    return StreamedLikelihood(model, args, stream(source, layout), block=block, reversible=reversible)
