"""A function of the objective of every data set of a batch, with memory bounded by a chunk."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..core import devices, differentiable_loops
from ..core.compilation import Compiled
from ..core.runtime_errors import RUNTIME_ERRORS, Raised, raised
from ..core.trees import is_array, replace_rows, tracing
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..likelihood.ragged import BoundModel, Chunk, RaggedBatch
from ..models.parameters import Parameters
from .apart import unknown
from .chunks import run_chunks
from .lanes import for_each
from .repeated import RepeatedLikelihood, map_repeated


def map_datasets(
    fn: Callable[[Objective, Any], Any],
    batch: RaggedBatch | RepeatedLikelihood,
    parameters: Parameters,
    value: PyTree,
    own: PyTree = None,
    lost: Raised | None = None,
) -> Any:
    """`fn(objective, value)` for every data set, in their order, with memory bounded by a chunk.

    Args:
        fn: a function of one data set; compiled once for as long as it is the same function.
        batch: the likelihoods.
        parameters: how the parameters map to the free vector; its arrays have a leading axis of sets.
        value: what `fn` needs, arrays with a leading axis of sets.
        own: `(model, args)` where each set has its own, arrays with a leading axis of sets.
        lost: as in `chunks.run_chunks`; of rows in memory.
    """
    if isinstance(batch, RepeatedLikelihood):
        return map_repeated(fn, batch, parameters, value)
    width = batch.lanes()
    arrays, others = eqx.partition((parameters, value, own), is_array)
    if batch.traced or tracing(arrays):
        return _map_traced(batch.per_set(), arrays, others, fn, width)

    def finish(out: Any, count: int, _: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[:count], out)

    shared = (fn, batch.bound, others, width)
    return run_chunks(_map_chunk, batch, parameters.n_free, width, arrays, shared, finish, lost)


def map_or_else(
    fn: Callable[[Objective, Any], Any],
    otherwise: Callable[[Objective, Any], Any],
    batch: RaggedBatch | RepeatedLikelihood,
    parameters: Parameters,
    value: PyTree,
) -> Any:
    """`map_datasets` of arrays, with `otherwise` in place of `fn` for data sets whose log-density raises."""

    def instead(places: np.ndarray, fn: Callable[[Objective, Any], Any]) -> Any:
        pick = lambda leaf: leaf[places] if is_array(leaf) else leaf  # noqa: E731
        some = batch.subset(places) if isinstance(batch, RaggedBatch) else batch
        return map_datasets(fn, some, *jax.tree.map(pick, (parameters, value)))

    lost: Raised = {}
    try:
        found = jax.block_until_ready(map_datasets(fn, batch, parameters, value, lost=lost))
    except RUNTIME_ERRORS as error:  # of data sets that cannot be computed in parts
        raised(error)
        found = instead(np.arange(batch.n_sets), otherwise)
        for i in range(batch.n_sets if batch.n_sets > 1 else 0):
            try:
                one = jax.block_until_ready(instead(np.array([i]), fn))
            except RUNTIME_ERRORS as mine:
                raised(mine)
            else:
                found = jax.tree.map(functools.partial(replace_rows, np.array([i])), found, one)
        return found
    if not lost:
        return found
    places = np.array(sorted(lost))
    return jax.tree.map(functools.partial(replace_rows, places), found, instead(places, otherwise))


def map_others(
    places: np.ndarray,
    fn: Callable[[Objective, Any], Any],
    batch: RaggedBatch,
    parameters: Parameters,
    value: PyTree,
    own: PyTree = None,
    lost: Raised | None = None,
) -> Any:
    """`map_datasets` but for the data sets at these places, which get NaN, and zero where numbers are whole."""
    arrays, others = eqx.partition((parameters, value, own), is_array)
    width, n_sets = batch.lanes(), batch.n_sets
    chunk = batch.as_chunk() if batch.one_chunk else next(iter(batch.chunks(parameters.n_free, width)))[1]
    resized = lambda leaf, n: jax.ShapeDtypeStruct((n, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
    shapes = jax.eval_shape(
        lambda it: _map_chunk(chunk, it, None, fn, batch.bound, others, width),
        jax.tree.map(lambda leaf: resized(leaf, chunk.n_sets), arrays),
    )
    found = jax.tree.map(lambda leaf: unknown(resized(leaf, n_sets)), shapes)
    kept = np.setdiff1d(np.arange(n_sets), places)
    if kept.size:
        mine, at, of = eqx.combine(jax.tree.map(lambda leaf: leaf[kept], arrays), others)
        here: Raised | None = None if lost is None else {}
        new = map_datasets(fn, batch.subset(kept), mine, at, of, here)
        if lost is not None and here is not None:
            lost.update({int(kept[i]): said for i, said in here.items()})
        found = jax.tree.map(functools.partial(replace_rows, kept), jax.tree.map(jnp.asarray, found), new)
    return jax.tree.map(jnp.asarray, found)


@Compiled
def _map_chunk(
    chunk: Chunk,
    arrays: PyTree,
    mesh: Any,
    fn: Callable[..., Any],
    bound: BoundModel,
    others: PyTree,
    width: int,
) -> Any:
    def on_device(chunk: Chunk, arrays: PyTree) -> Any:
        def of_set(i: Array) -> Any:
            parameters, value, own = eqx.combine(jax.tree.map(lambda leaf: leaf[i], arrays), others)
            mine = bound if own is None else BoundModel(*own)
            return fn(Objective(chunk.likelihood(mine, i), parameters), value)

        return for_each(of_set, chunk.n_sets, width, jnp.asarray(chunk.count))

    return devices.shard_mapped(on_device, mesh)(chunk, arrays)


@Compiled
def _map_traced(
    likelihoods: tuple[InMemoryLikelihood, InMemoryLikelihood],
    arrays: PyTree,
    others: PyTree,
    fn: Callable[..., Any],
    width: int,
) -> Any:
    """`map_datasets` under a trace, in a form that reverse mode can cross."""
    own, shared = likelihoods

    def of_set(values: tuple[InMemoryLikelihood, PyTree]) -> Any:
        likelihood = eqx.combine(values[0], shared)
        parameters, value, mine = eqx.combine(values[1], others)
        if mine is not None:
            likelihood = dataclasses.replace(likelihood, model=mine[0], args=mine[1])
        return fn(Objective(likelihood, parameters), value)

    return differentiable_loops.checkpointed_map(of_set, (own, arrays), width)
