"""A function of the objective of every data set of a batch, with memory bounded by a chunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ..core import devices, differentiable_loops
from ..core.compilation import Compiled
from ..core.trees import is_array, tracing
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..likelihood.ragged import BoundModel, Chunk, RaggedBatch
from ..models.parameters import Parameters
from .chunks import run_chunks
from .lanes import for_each
from .repeated import RepeatedLikelihood, map_repeated


def map_datasets(
    fn: Callable[[Objective, Any], Any],
    batch: RaggedBatch | RepeatedLikelihood,
    parameters: Parameters,
    value: PyTree,
    own: PyTree = None,
) -> Any:
    """`fn(objective, value)` for every data set, in their order, with memory bounded by a chunk.

    Args:
        fn: a function of one data set; compiled once for as long as it is the same function.
        batch: the likelihoods.
        parameters: how the parameters map to the free vector; its arrays have a leading axis of sets.
        value: what `fn` needs, arrays with a leading axis of sets.
        own: `(model, args)` where each set has its own, arrays with a leading axis of sets.
    """
    if isinstance(batch, RepeatedLikelihood):
        return map_repeated(fn, batch, parameters, value)
    width = batch.lanes()
    arrays, others = eqx.partition((parameters, value, own), is_array)
    if batch.traced or tracing(arrays):
        return _map_traced(batch.per_set(), arrays, others, fn, width)

    def finish(out: Any, count: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[:count], out)

    shared = (fn, batch.bound, others, width)
    return run_chunks(_map_chunk, batch, parameters.n_free, width, arrays, shared, finish)


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

        return for_each(of_set, chunk.n_sets, width)

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
