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
from ..likelihood.ragged import Chunk, RaggedBatch
from ..models.model import Model
from ..models.parameters import Parameters
from .chunks import run_chunks
from .lanes import for_each
from .repeated import RepeatedDataset


def map_datasets(
    fn: Callable[[Objective, Any], Any],
    collection: RaggedBatch | RepeatedDataset,
    model: Model,
    parameters: Parameters,
    value: PyTree,
    own: PyTree = None,
) -> Any:
    """`fn(objective, value)` for every data set, in their order, with memory bounded by a piece.

    Args:
        fn: what is wanted of one data set; compiled once for as long as it is the same function.
        collection: the data sets.
        model: the model.
        parameters: how its parameters map to the free vector; its arrays have a leading axis of sets.
        value: what `fn` needs, arrays with a leading axis of sets.
        own: `(model, args)` where each set has its own, arrays with a leading axis of sets.
    """
    if isinstance(collection, RepeatedDataset):
        return collection.map(fn, model, parameters, value)
    width = collection.lanes(model)
    arrays, others = eqx.partition((parameters, value, own), is_array)
    rest = (fn, model, collection.args, others, width)
    if collection.traced or tracing(arrays):
        return _map_traced(collection.apart(model), arrays, others, fn, width)

    def finish(out: Any, count: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[:count], out)

    return run_chunks(_map_chunk, collection, model, parameters.n_free, width, arrays, rest, finish)


@Compiled
def _map_chunk(
    sets: Chunk,
    arrays: PyTree,
    mesh: Any,
    fn: Callable[..., Any],
    model: Model,
    args: PyTree,
    others: PyTree,
    width: int,
) -> Any:
    def piece(sets: Chunk, arrays: PyTree) -> Any:
        def one(i: Array) -> Any:
            parameters, value, own = eqx.combine(jax.tree.map(lambda leaf: leaf[i], arrays), others)
            mine, extra = (model, args) if own is None else own
            likelihood = sets.likelihood(mine, extra, i)
            return fn(Objective(likelihood, parameters), value)

        return for_each(one, sets.n_sets, width)

    return devices.shard_mapped(piece, mesh)(sets, arrays)


@Compiled
def _map_traced(
    likelihoods: tuple[InMemoryLikelihood, InMemoryLikelihood],
    arrays: PyTree,
    others: PyTree,
    fn: Callable[..., Any],
    width: int,
) -> Any:
    """`map_sets` under a trace, in a form that reverse mode can cross."""
    own, shared = likelihoods

    def one(values: tuple[InMemoryLikelihood, PyTree]) -> Any:
        likelihood = eqx.combine(values[0], shared)
        parameters, value, mine = eqx.combine(values[1], others)
        if mine is not None:
            likelihood = dataclasses.replace(likelihood, model=mine[0], args=mine[1])
        return fn(Objective(likelihood, parameters), value)

    return differentiable_loops.checkpointed_map(one, (own, arrays), width)
