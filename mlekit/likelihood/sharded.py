"""The likelihood of rows on many devices: each sums over its own, and the sums are added."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ..core.compilation import Compiled
from ..core.processes import raise_in_all
from ..core.trees import is_array, n_rows
from ..data.shards import AXIS, ArrayShards, Shards, TableShards
from ..models.model import Model
from .base import AbstractLikelihood, block_rows
from .in_memory import InMemoryLikelihood
from .streamed import StreamedLikelihood, stream


def _nothing(params: PyTree, obs: PyTree) -> float:
    return 0.0


#: In place of the model where there are only data.
BLANK = Model(_nothing)


class Counted(eqx.Module):
    """The totals of the weights of all devices.

    Args:
        n_rows: rows with a positive weight.
        n_obs: the sum of the weights.
    """

    n_rows: Int[Array, ""]
    n_obs: Array


class ShardedLikelihood(AbstractLikelihood):
    """A model together with rows on many devices.

    Args:
        model: the log-density with its companions.
        args: third argument of the model.
        data: the likelihoods of the devices, without the model: arrays with a leading axis, split over them.
        sampled: True to sum over a sample of the rows of each device alone; `None` means no.
        counted: what the weights add up to, once they are known.
        total_rows: number of rows of all devices together.
        reversible: True if reverse mode must be able to cross the sums over blocks.
        mesh: the devices.
    """

    model: Model
    args: PyTree
    data: InMemoryLikelihood | StreamedLikelihood
    sampled: Bool[Array, ""] | None = None
    counted: Counted | None = None
    reversible: bool = eqx.field(static=True, default=False)
    total_rows: int = eqx.field(static=True, default=0)
    mesh: Mesh = eqx.field(static=True, default=None)

    @property
    def rows(self) -> int:
        """Rows of all devices together."""
        return self.total_rows

    @property
    def n_unpadded(self) -> int:
        """Rows of all devices together."""
        return self.total_rows

    @property
    def n_rows(self) -> Int[Array, ""]:
        """Number of rows with a positive weight."""
        return self._counted().n_rows

    @property
    def n_obs(self) -> Array:
        """Number of observations: the sum of the weights."""
        return self._counted().n_obs

    @property
    def n_blocks(self) -> int:
        """Blocks of rows that one device takes."""
        return self.data.n_blocks

    @property
    def has_sample(self) -> bool:
        """True where one device has so many rows that a sample of them is worth a look."""
        return self.data.has_sample

    def of_sample(self, yes: Any) -> ShardedLikelihood:
        """As `AbstractLikelihood.of_sample`."""
        return dataclasses.replace(self, sampled=jnp.asarray(yes))

    def reversibly(self) -> ShardedLikelihood:
        """As `AbstractLikelihood.reversibly`."""
        return dataclasses.replace(self, reversible=True)

    def differentiable_weights(self, params: PyTree) -> ShardedLikelihood:
        """The same: weights that are shared out have no derivatives."""
        return self

    def log_likelihood(self, params: PyTree) -> Float[Array, ""]:
        """As `AbstractLikelihood.log_likelihood`."""
        return self._added(lambda own: own.log_likelihood(params))

    def total(self, fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        """As `AbstractLikelihood.total`."""
        return self._added(lambda own: own.total(fn, zero))

    def total_where(self, yes: Bool[Array, ""], fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        """As `AbstractLikelihood.total_where`."""
        return jax.lax.cond(yes, lambda: self.total(fn, zero), lambda: zero)

    def aligned(self) -> NoReturn:
        """A `ValueError`: no device has all rows."""
        raise ValueError(
            f"this needs all rows in one place, and the data are shared out among {self.mesh.size} devices: fit "
            "them without mle.shard"
        )

    def whole(self) -> NoReturn:
        """As `aligned`."""
        self.aligned()

    def contributions(self, params: PyTree) -> NoReturn:
        """As `aligned`."""
        self.aligned()

    def scores(self, free: Float[Array, " n_free"], natural: Callable[[Array], PyTree]) -> NoReturn:
        """As `aligned`."""
        self.aligned()

    def minibatches(self, key: PRNGKeyArray, steps: Int[Array, ""], size: int) -> NoReturn:
        """As `aligned`."""
        self.aligned()

    def _counted(self) -> Counted:
        if self.counted is not None and self.sampled is None:
            return self.counted
        return self._added(lambda own: Counted(own.n_rows, own.n_obs))

    def _added(self, fn: Callable[[AbstractLikelihood], Any]) -> Any:
        """`fn` of the likelihood of every device, added up."""
        arrays, rest = eqx.partition(self.data, is_array)

        def shard(arrays: PyTree) -> Any:
            own = eqx.combine(jax.tree.map(lambda leaf: leaf[0], arrays), rest)
            own = dataclasses.replace(
                own, model=self.model, args=self.args, sampled=self.sampled, reversible=self.reversible
            )
            return jax.lax.psum(fn(own), AXIS)

        split, same = PartitionSpec(AXIS), PartitionSpec()
        return jax.shard_map(shard, mesh=self.mesh, in_specs=split, out_specs=same, check_vma=False)(arrays)


def sharded_likelihood(
    shards: Shards, model: Model, args: PyTree, weights: str | None, n_free: int, reversible: bool = False
) -> ShardedLikelihood:
    """The likelihood of rows on many devices; all else is as in `streamed.streamed_likelihood`."""
    if model.is_joint:
        raise ValueError(
            "data are shared out among devices, and a joint model sees all rows at once: leave out mle.shard"
        )
    own: InMemoryLikelihood | StreamedLikelihood
    if isinstance(shards, ArrayShards):
        one = shards.shapes(weights)
        longest = n_rows(one)
        data, column = (shards.data, None) if weights is None else _alive(shards, weights)
        block = block_rows(one, n_free, longest)
        # The rows of one device are one slice of these.
        own = InMemoryLikelihood(
            BLANK,
            None,
            data,
            column,
            length=shards.lengths,
            longest=longest,
            block=block,
        )
    else:
        assert isinstance(shards, TableShards)
        layout = shards.table.layout(weights, shards.devices)
        parts = {i: stream(part, layout) for i, part in shards.parts.items()}
        place = NamedSharding(shards.mesh, PartitionSpec(AXIS))

        def put(*leaves: Any) -> Array:
            each = dict(zip(parts, leaves))
            at = lambda index: np.asarray(each[index[0].start or 0])[None]  # noqa: E731
            return jax.make_array_from_callback((shards.devices, *np.shape(leaves[0])), place, at)

        block = block_rows(layout.block, n_free, layout.size)
        own = StreamedLikelihood(BLANK, None, jax.tree.map(put, *parts.values()), block=block)
    found = ShardedLikelihood(model, args, own, reversible=reversible, total_rows=shards.n_rows, mesh=shards.mesh)
    if weights not in shards.counted:
        shards.counted[weights] = _count(dataclasses.replace(found, model=BLANK, args=None))
    return dataclasses.replace(found, counted=shards.counted[weights])


def _alive(shards: ArrayShards, name: str) -> tuple[PyTree, Array]:
    """Rows and weights; on a device where no row counts, one that does elsewhere stands for all of them.

    Raises:
        ValueError: no such column, or negative weights.
    """
    names = list(shards.data) if isinstance(shards.data, dict) else []
    if name not in names:
        raise ValueError(f"weights: there is no column {name!r}; there are {', '.join(names) or 'none'}")
    weights = shards.data[name]
    mine = [np.asarray(part.data) for part in weights.addressable_shards]
    with raise_in_all():
        if any(np.any(part < 0) for part in mine):
            raise ValueError(f"weights: column {name!r} has negative entries")
    dead = [i for i, part in enumerate(mine) if not np.any(part > 0)]
    if not dead:
        return shards.data, weights
    sample = shards.sample()
    anchor = int(np.argmax(sample[name] > 0))

    def put(leaf: Array, some: np.ndarray) -> Array:
        parts = [part.data for part in leaf.addressable_shards]
        for i in dead:
            device = next(iter(parts[i].devices()))
            parts[i] = jax.device_put(np.broadcast_to(some[anchor], parts[i].shape), device)
        return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts)

    return jax.tree.map(put, shards.data, sample), weights


@Compiled
def _count(likelihood: ShardedLikelihood) -> Counted:
    return likelihood._counted()
