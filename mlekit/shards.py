"""Rows of one data set shared out among devices, of this process and of others."""

from __future__ import annotations

import abc
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

from .data import as_arrays
from .table import SAMPLE_ROWS, Table
from .trees import n_rows

AXIS = "shards"


class Shards(abc.ABC):
    """Rows shared out among devices, as `mle.shard` does; each device sums over its own, and the sums are added.

    Args:
        mesh: all devices in a row.
        n_rows: number of rows, of all devices together.
    """

    def __init__(self, mesh: Mesh, n_rows: int) -> None:
        self.mesh, self.n_rows = mesh, n_rows

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return self.mesh.size

    @abc.abstractmethod
    def shapes(self, weights: str | None) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the arrays of one device, or of one of its blocks."""

    @abc.abstractmethod
    def sample(self) -> PyTree:
        """Some of the rows, the same in all processes."""

    def check(self) -> None:  # noqa: B027 - what is in memory was read
        """A `ValueError` if something could not be read."""

    def __repr__(self) -> str:
        there = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
        return f"{type(self).__name__}({self.n_rows:,} rows on {self.devices} devices{there})"


class ArrayShards(Shards):
    """Arrays in the memory of devices.

    Args:
        data: PyTree of arrays `(n_devices, n, ...)`, split over the devices; rows of padding repeat others.
        lengths: number of rows of each device, split likewise; `None` if there is no padding.
        rows: number of rows.
        mesh: all devices in a row.
        sample: some of the rows, the same in all processes.
    """

    def __init__(
        self,
        data: PyTree,
        lengths: Int[Array, " n_devices"] | None,
        rows: int,
        mesh: Mesh,
        sample: PyTree,
    ) -> None:
        super().__init__(mesh, rows)
        self.data, self.lengths, self._sample = data, lengths, sample

    def shapes(self, weights: str | None) -> PyTree[jax.ShapeDtypeStruct]:
        """As `Shards.shapes`."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.data)

    def sample(self) -> PyTree:
        """As `Shards.sample`."""
        return self._sample


class TableShards(Shards):
    """A table on disk, of which each device streams a part.

    Args:
        table: the whole table.
        mesh: all devices in a row.
    """

    def __init__(self, table: Table, mesh: Mesh) -> None:
        super().__init__(mesh, table.n_rows)
        self.table = table
        mine = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
        self.parts = {i: table.part(i, mesh.size) for i in mine}

    def shapes(self, weights: str | None) -> PyTree[jax.ShapeDtypeStruct]:
        """As `Shards.shapes`."""
        return self.table.layout(weights, self.devices).block

    def sample(self) -> PyTree:
        """As `Shards.sample`: every process reads the same."""
        return self.table.sample()

    def check(self) -> None:
        """As `Shards.check`."""
        for part in self.parts.values():
            part.check()


def shard(data: Any) -> Shards:
    r"""Share out the rows of one data set among all devices, for `mle.fit`.

    $$\ell(\theta) = \sum_d \ell_d(\theta)$$

    Each device sums the log-likelihood and its derivatives over its own rows, and only these sums travel. The
    numbers are those of one device, to rounding. Where several processes were started
    (`mlekit.distributed.initialize`), all of their devices take part, and every process must call the same
    functions in the same order.

    Args:
        data: PyTree of arrays with a leading axis `n_obs`, or a table in memory: with several processes the rows
            that this process holds, which are its own. Or a table on disk, `mle.open_table(...)`, the same in
            every process: then each device streams its part of the files.

    Returns:
        `Shards`, to be passed to `mle.fit` as `data`. Its weights are the name of a column.

    Raises:
        ValueError: as `mle.fit`; or processes that hold data of different kinds.
        TypeError: as `mle.fit`.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> waits = mle.shard({"wait": jnp.array([0.5, 1.5, 1.0, 3.0])})
        >>> density = lambda rate, obs: jnp.log(rate) - rate * obs["wait"]
        >>> fit = mle.fit(density, 1.0, waits, constraints=mle.positive)
        >>> print(fit.params.round(4))
        0.6667
    """
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    if isinstance(data, Table):
        _need_alike(data.identity, "the files")
        if data.n_rows < mesh.size:
            raise ValueError(
                f"data: {data.name} has {data.n_rows} rows, fewer than there are devices, {mesh.size}"
            )
        return TableShards(data, mesh)
    data = jax.tree.map(np.asarray, as_arrays(data))
    kinds = jax.tree.map(lambda leaf: (leaf.shape[1:], str(leaf.dtype)), data)
    _need_alike(str(kinds), "the arrays and their dtypes")
    mine, own = n_rows(data), len(mesh.local_devices)
    counts = np.asarray(multihost_utils.process_allgather(np.array([mine, own]))).reshape(-1, 2)
    longest = max(-(-int(rows) // int(devices)) for rows, devices in counts)
    begin = [mine * i // own for i in range(own + 1)]
    place = NamedSharding(mesh, PartitionSpec(AXIS))

    def put(leaf: np.ndarray) -> Array:
        parts = []
        for i, device in enumerate(mesh.local_devices):
            part = leaf[begin[i] : begin[i + 1]]
            if len(part) < longest:
                part = np.concatenate([part, np.repeat(leaf[:1], longest - len(part), axis=0)])
            parts.append(jax.device_put(jnp.asarray(part)[None], device))
        return jax.make_array_from_single_device_arrays((mesh.size, *parts[0].shape[1:]), place, parts)

    rows = int(counts[:, 0].sum())
    lengths = None
    if rows != longest * mesh.size:
        sizes = np.diff(begin).astype(np.int32)
        parts = [jax.device_put(sizes[i : i + 1], device) for i, device in enumerate(mesh.local_devices)]
        lengths = jax.make_array_from_single_device_arrays((mesh.size,), place, parts)
    some = np.arange(min(mine, SAMPLE_ROWS)) * mine // min(mine, SAMPLE_ROWS)
    sample = jax.tree.map(lambda leaf: leaf[some], data)
    if jax.process_count() > 1:
        least = min(int(counts[:, 0].min()), SAMPLE_ROWS)
        sample = multihost_utils.broadcast_one_to_all(jax.tree.map(lambda leaf: leaf[:least], sample))
    return ArrayShards(jax.tree.map(put, data), lengths, rows, mesh, sample)


def _need_alike(text: str, what: str) -> None:
    """A `ValueError` where processes do not have the same."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:7] + b"\0", np.int32)
    every = np.asarray(multihost_utils.process_allgather(digest)).reshape(-1, 2)
    if np.any(every != every[0]):
        raise ValueError(f"data: {what} are not the same in all {jax.process_count()} processes")
