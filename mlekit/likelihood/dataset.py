"""What the data are: arrays in memory, or a table on disk; and the likelihood of each."""

from __future__ import annotations

import abc
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
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
from .in_memory import InMemoryLikelihood, block_rows
from .sharded import sharded_likelihood
from .streamed import streamed_likelihood


class AbstractDataset(abc.ABC):
    """The data of one fit, with their weights.

    Args:
        rows: number of rows.
        shapes: arrays with a leading axis of rows, or their shapes and dtypes.
    """

    rows: int
    shapes: PyTree

    @abc.abstractmethod
    def seen_by_init(self) -> PyTree:
        """The data that a function `init` computes a start from."""

    @abc.abstractmethod
    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> InMemoryLikelihood:
        """Their likelihood; the arguments are those of `Likelihood`, and how many parameters are free."""

    def checked(self, found: Any) -> Any:
        """What was computed of them; a `ValueError` where they could not be read."""
        return found

    def check(self) -> None:  # noqa: B027 - what is in memory was read
        """A `ValueError` where they could not be read."""

    @property
    def fingerprint(self) -> str:
        """A digest of data and weights."""
        parts = self.parts()
        weights = parts.get("weight_column")
        if parts["weights"] is not None:
            weights = fingerprint(parts["weights"])
        return f"{fingerprint(parts['data'])} {weights}"

    @abc.abstractmethod
    def parts(self) -> dict[str, Any]:
        """The fields of a `Fit` that hold them."""


class InMemoryDataset(AbstractDataset):
    """Arrays.

    Args:
        data: PyTree of arrays with a leading axis of rows.
        weights: one for each row, or `None`.
        length: number of rows; all if `None`.
    """

    def __init__(self, data: PyTree, weights: Array | None, length: Array | None = None) -> None:
        self.data, self.weights, self.length = data, weights, length
        self.rows, self.shapes = n_rows(data), data

    def seen_by_init(self) -> PyTree:
        """As `Observed.seen_by_init`."""
        return self.data

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> InMemoryLikelihood:
        """As `Observed.likelihood`."""
        block = block_rows(self.data, n_free, self.rows)
        return InMemoryLikelihood(
            model, self.data, self.weights, args, length=self.length, block=block, reversible=reversible
        )

    def parts(self) -> dict[str, Any]:
        """As `Observed.parts`."""
        return {"data": self.data, "weights": self.weights}


class AbstractRemoteDataset(AbstractDataset):
    """Rows that are not at hand; a `Fit` holds what knows where they are, out of JAX's sight.

    Args:
        it: that, a table or shards.
        weights: their column of weights, or `None`.
        shapes: as in `Observed`.
    """

    def __init__(self, it: Table | Shards, weights: str | None, shapes: PyTree) -> None:
        self.it, self.weights = it, weights
        self.rows, self.shapes = it.n_rows, shapes

    def seen_by_init(self) -> PyTree:
        """As `Observed.seen_by_init`: rows from all over, the same in all processes."""
        return jax.tree.map(devices.placed, self.it.sample())

    def check(self) -> None:
        """As `Observed.check`."""
        self.it.check()

    def parts(self) -> dict[str, Any]:
        """As `Observed.parts`."""
        return {"data": Static(self.it), "weights": None, "weight_column": self.weights}


class DiskDataset(AbstractRemoteDataset):
    """A table on disk.

    Args:
        it: the table.
        weights: its column of weights, or `None`.
    """

    it: Table

    def __init__(self, it: Table, weights: str | None) -> None:
        super().__init__(it, weights, it.layout(weights).block)

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> InMemoryLikelihood:
        """As `Observed.likelihood`."""
        return streamed_likelihood(self.it, model, args, self.weights, n_free, reversible)

    def checked(self, found: Any) -> Any:
        """As `Observed.checked`."""
        if not traced(found):
            jax.block_until_ready(found)
            self.check()
        return found


class ShardedDataset(AbstractRemoteDataset):
    """Rows on many devices.

    Args:
        it: the rows.
        weights: their column of weights, or `None`.
    """

    it: Shards

    def __init__(self, it: Shards, weights: str | None) -> None:
        super().__init__(it, weights, it.shapes(weights))

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> InMemoryLikelihood:
        """As `Observed.likelihood`."""
        return sharded_likelihood(self.it, model, args, self.weights, n_free, reversible)

    def checked(self, found: Any) -> Any:
        """As `Observed.checked`; every process has the same, each on a device of its own."""
        if traced(found):
            return found
        found = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)) if is_array(leaf) else leaf, found)
        self.check()
        return found

    def check(self) -> None:
        """As `Observed.check`: what goes wrong in one process is an error in all."""
        with raise_in_all():
            super().check()


def as_dataset(data: Any, weights: Any) -> AbstractDataset:
    """What a user passed as data and weights.

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
        return DiskDataset(data, weights) if isinstance(data, Table) else ShardedDataset(data, weights)
    data = jax.tree.map(devices.placed, as_arrays(data))
    return InMemoryDataset(data, as_weights(weights, (n_rows(data),), default_float(data)))


def fingerprint(data: PyTree) -> str:
    """What tells data from others: a digest of their names, shapes and numbers."""
    if isinstance(data, Static) and not isinstance(data.it, Groups):
        return data.it.fingerprint
    digest = hashlib.sha256()
    columns = data.it.columns | {"offsets": data.it.offsets} if isinstance(data, Static) else data
    for name, leaf in jtu.tree_flatten_with_path(columns)[0]:
        array = np.asarray(leaf)
        digest.update(f"{jtu.keystr(name)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data if array.dtype.kind != "V" else array.tobytes())
    return digest.hexdigest()
