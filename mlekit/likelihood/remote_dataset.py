"""Data sets whose rows are not at hand: a table on disk, or rows on many devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..core import devices
from ..core.compilation import Static
from ..core.processes import raise_in_all
from ..core.trees import default_float, is_array, n_rows, traced
from ..data.arrays import as_arrays, as_weights
from ..data.groups import Groups
from ..data.shards import Shards, lies_on_many_devices, shard
from ..data.table import Table
from ..models.model import Model
from .base import AbstractLikelihood
from .dataset import AbstractDataset, InMemoryDataset
from .sharded import sharded_likelihood
from .streamed import streamed_likelihood


class AbstractRemoteDataset(AbstractDataset):
    """Rows that are not at hand; what knows where they are stays out of JAX's sight.

    A batch of fits to them is many fits of the same data set.
    """

    held: eqx.AbstractVar[Static]

    @property
    def source(self) -> Any:
        """The table, or the shards."""
        return self.held.value

    @property
    def arrays(self) -> None:
        """None: JAX does not see them."""
        return None

    @property
    def keys(self) -> None:
        """None: there are no groups."""
        return None

    @property
    def padded(self) -> bool:
        """False."""
        return False

    @property
    def at_hand(self) -> bool:
        """False."""
        return False

    @property
    def fingerprint(self) -> str:
        """As `AbstractDataset.fingerprint`."""
        return self.source.fingerprint

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.source.n_rows

    def seen_by_init(self) -> PyTree:
        """Rows from all over, the same in all processes."""
        return jax.tree.map(devices.placed, self.source.sample())

    def longest(self, batched: bool) -> int:
        """Number of rows."""
        return self.source.n_rows

    def ragged(self, model: Model, args: PyTree) -> None:
        """None: the rows are not at hand."""
        return None

    def flat_labels(self, labels: PyTree) -> PyTree:
        """As they are."""
        return labels


class DiskDataset(AbstractRemoteDataset):
    """A table on disk.

    Args:
        index: number of the data set in its batch, or of each.
        held: the table.
        weight_column: its column of weights, or `None`.
    """

    index: Array | None
    held: Static
    weight_column: str | None = eqx.field(static=True, default=None)

    @property
    def template(self) -> PyTree:
        """Shapes and dtypes of a row."""
        return self.source.row

    @property
    def shapes(self) -> PyTree:
        """Shapes and dtypes of a block of rows."""
        return self.source.layout(self.weight_column).block

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> AbstractLikelihood:
        """As `AbstractDataset.likelihood`."""
        return streamed_likelihood(self.source, model, args, self.weight_column, n_free, reversible)

    def checked(self, found: Any) -> Any:
        """As `AbstractDataset.checked`."""
        if not traced(found):
            jax.block_until_ready(found)
            self.check()
        return found

    def check(self) -> None:
        """As `AbstractDataset.check`."""
        self.source.check()

    def labelled(self, columns: Sequence[Any], batched: bool, argument: str) -> tuple[PyTree, tuple[int, ...]]:
        """As `AbstractDataset.labelled`: the columns that are asked for are read."""
        return self.source.labels(columns), (self.source.n_rows,)


class ShardedDataset(AbstractRemoteDataset):
    """Rows on many devices.

    Args:
        index: number of the data set in its batch, or of each.
        held: the shards.
        weight_column: their column of weights, or `None`.
    """

    index: Array | None
    held: Static
    weight_column: str | None = eqx.field(static=True, default=None)

    @property
    def template(self) -> PyTree:
        """Shapes and dtypes of the rows of one device."""
        return self.source.shapes(None)

    @property
    def shapes(self) -> PyTree:
        """Shapes and dtypes of the rows of one device, or of one of its blocks."""
        return self.source.shapes(self.weight_column)

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> AbstractLikelihood:
        """As `AbstractDataset.likelihood`."""
        return sharded_likelihood(self.source, model, args, self.weight_column, n_free, reversible)

    def checked(self, found: Any) -> Any:
        """As `AbstractDataset.checked`; every process has the same, each on a device of its own."""
        if traced(found):
            return found
        found = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)) if is_array(leaf) else leaf, found)
        self.check()
        return found

    def check(self) -> None:
        """As `AbstractDataset.check`: what goes wrong in one process is an error in all."""
        with raise_in_all():
            self.source.check()

    def labelled(self, columns: Sequence[Any], batched: bool, argument: str) -> tuple[PyTree, tuple[int, ...]]:
        """A `ValueError`: no device has all rows."""
        raise ValueError(
            f"{argument}: labels need all rows in one place, and the data are shared out among "
            f"{self.source.devices} devices: fit them without mle.shard"
        )


def as_dataset(data: Any, weights: Any) -> AbstractDataset:
    """The data set that a user passed as data and weights.

    Raises:
        ValueError: as `as_arrays` and `as_weights`; weights of a table that are no column of it.
        TypeError: the same, and groups.
    """
    if isinstance(data, Groups):
        raise TypeError(
            "data are groups, many data sets: use mle.fit_batch, or one of them: mle.fit(..., data[0])"
        )
    if lies_on_many_devices(data):
        data = shard(data)
    if isinstance(data, Table | Shards):
        if weights is not None and not isinstance(weights, str):
            what = "a table on disk" if isinstance(data, Table) else "shards"
            raise TypeError(f"weights of {what} are the name of a column, got {type(weights).__name__}")
        if data.n_rows > jnp.iinfo(jnp.zeros((), int).dtype).max:
            raise ValueError(
                f"data has {data.n_rows:,} rows, more than int32 can count: call "
                "jax.config.update('jax_enable_x64', True)"
            )
        return (DiskDataset if isinstance(data, Table) else ShardedDataset)(None, Static(data), weights)
    data = jax.tree.map(devices.placed, as_arrays(data))
    return InMemoryDataset(None, data, as_weights(weights, data, (n_rows(data),), default_float(data)))
