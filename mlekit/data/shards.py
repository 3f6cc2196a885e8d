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

from ..core.processes import check_same_in_all, gather_bytes, raise_in_all
from ..core.trees import n_rows
from .arrays import as_arrays
from .table import SAMPLE_ROWS, Table

AXIS = "shards"


class Shards(abc.ABC):
    """Rows shared out among devices by `mle.shard`; each device sums over its own, and the sums are added.

    Attributes:
        mesh: all devices in a row.
        n_rows: number of rows, of all devices together.
        counted: totals of columns of weights, once known.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> mle.shard({"wait": jnp.array([0.5, 1.5, 1.0, 3.0])}).n_rows
        4
    """

    mesh: Mesh
    n_rows: int
    counted: dict[str | None, Any]

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.mesh.size

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A digest of the rows; all processes must ask for it together."""

    @abc.abstractmethod
    def shapes(self, weights: str | None) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the arrays of one device, or of one of its blocks.

        Args:
            weights: the column of weights, or `None`.
        """

    @abc.abstractmethod
    def sample(self) -> PyTree:
        """Some of the rows, the same in all processes."""

    @abc.abstractmethod
    def check(self) -> None:
        """A `ValueError` if rows could not be read."""

    def __repr__(self) -> str:
        there = f"{self.devices} device{'s' * (self.devices != 1)}"
        if jax.process_count() > 1:
            there += f", {jax.process_count()} processes"
        return f"{type(self).__name__}({self.n_rows:,} rows on {there})"


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
        self.mesh, self.n_rows, self.counted = mesh, rows, {}
        self.data, self.lengths, self._sample = data, lengths, sample

    @property
    def fingerprint(self) -> str:
        """As `Shards.fingerprint`."""
        digest = hashlib.sha256(str(self.n_rows).encode())
        for leaf in jax.tree.leaves((self.data, self.lengths)):
            for part in leaf.addressable_shards:
                digest.update(np.ascontiguousarray(part.data).data)
        return hashlib.sha256(gather_bytes(digest.digest()).tobytes()).hexdigest()

    def shapes(self, weights: str | None) -> PyTree[jax.ShapeDtypeStruct]:
        """As `Shards.shapes`."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.data)

    def sample(self) -> PyTree:
        """As `Shards.sample`."""
        return self._sample

    def check(self) -> None:
        """As `Shards.check`: rows in memory have been read."""


class TableShards(Shards):
    """A table on disk, of which each device streams a part.

    Args:
        table: the whole table.
        mesh: all devices in a row.
    """

    def __init__(self, table: Table, mesh: Mesh) -> None:
        self.mesh, self.n_rows, self.counted = mesh, table.n_rows, {}
        self.table = table
        mine = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
        self.parts = {i: table.part(i, mesh.size) for i in mine}

    @property
    def fingerprint(self) -> str:
        """As `Shards.fingerprint`."""
        return self.table.fingerprint

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
            every process: then each device streams its part of the files. Arrays that JAX has split over devices
            along their first axis stay where they are; `mle.fit` takes them as they are, too.

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
        >>> print(f"{fit.params:.4f}")
        0.6667
    """
    if isinstance(data, Table):
        mesh = Mesh(np.array(jax.devices()), (AXIS,))
        check_same_in_all(data.fingerprint, "data: the files are")
        if data.n_rows < mesh.size:
            raise ValueError(f"data: {data!r} for {mesh.size} devices, want one row for each at least")
        return TableShards(data, mesh)
    if lies_on_many_devices(data):
        return _in_place(data)
    with raise_in_all():
        data = jax.tree.map(np.asarray, as_arrays(data))
    kinds = str(jax.tree.map(lambda leaf: (leaf.shape[1:], str(leaf.dtype)), data))
    check_same_in_all(kinds, "data: the arrays and their dtypes are")
    return _share_out(data)


def lies_on_many_devices(data: Any) -> bool:
    """True if these are arrays that JAX has split over devices already."""
    leaves = jax.tree.leaves(data)
    known = [isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) for leaf in leaves]
    return bool(known) and all(known) and any(len(leaf.sharding.device_set) > 1 for leaf in leaves)


def _share_out(data: PyTree) -> ArrayShards:
    """The rows of every process, shared out among its devices."""
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    mine, own = n_rows(data), mesh.local_devices
    counts = np.asarray(multihost_utils.process_allgather(np.array([mine, len(own)]))).reshape(-1, 2)
    longest = max(-(-int(rows) // int(devices)) for rows, devices in counts)
    begin = [mine * i // len(own) for i in range(len(own) + 1)]

    def part(leaf: np.ndarray, i: int) -> Array:
        found = leaf[begin[i] : begin[i + 1]]
        if len(found) < longest:
            found = np.concatenate([found, np.repeat(leaf[:1], longest - len(found), axis=0)])
        return jax.device_put(jnp.asarray(found)[None], own[i])

    rows = int(counts[:, 0].sum())
    lengths = None
    if rows != longest * mesh.size:
        sizes = np.diff(begin).astype(np.int32)
        lengths = _join([jax.device_put(sizes[i : i + 1], device) for i, device in enumerate(own)], mesh)
    parts = jax.tree.map(lambda leaf: _join([part(leaf, i) for i in range(len(own))], mesh), data)
    return ArrayShards(parts, lengths, rows, mesh, _sample(data))


def _in_place(data: PyTree) -> ArrayShards:
    """Arrays that JAX has split over devices, without moving them."""
    leaves = jax.tree.leaves(as_arrays(data))
    places = [_places(leaf) for leaf in leaves]
    if any(place is None or place != places[0] for place in places):
        raise ValueError(
            "data: arrays on many devices must all be split along their first axis alone, so that each device has "
            "rows of its own, as jax.device_put(data, NamedSharding(mesh, PartitionSpec('rows'))) makes them; or "
            "pass arrays of one device to mle.shard"
        )
    begin: Any = places[0]
    mesh = Mesh(np.array(sorted(begin, key=begin.get)), (AXIS,))
    parts = jax.tree.map(lambda leaf: _join([one.data[None] for one in leaf.addressable_shards], mesh), data)
    mine = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data), data)
    return ArrayShards(parts, None, leaves[0].shape[0], mesh, _sample(mine))


def _places(leaf: Array) -> dict[Any, int] | None:
    """The first row on each device; `None` where a row is on several devices, whole or in part."""
    index = leaf.sharding.devices_indices_map(leaf.shape)
    begin = {device: rows.start or 0 for device, (rows, *_) in index.items()}
    sizes = {leaf.sharding.shard_shape(leaf.shape)[1:], leaf.shape[1:]}
    return begin if len(set(begin.values())) == len(begin) and len(sizes) == 1 else None


def _join(parts: list[Array], mesh: Mesh) -> Array:
    """The array of which each device holds one entry of the leading axis."""
    place = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.make_array_from_single_device_arrays((mesh.size, *parts[0].shape[1:]), place, parts)


def _sample(data: PyTree) -> PyTree:
    """Some of the rows of every process, the same in all of them."""
    count = jax.process_count()
    most = max(1, min(n_rows(data), SAMPLE_ROWS // count))
    if count == 1:
        return _spaced(data, most)
    most = int(np.min(multihost_utils.process_allgather(np.array(most))))
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(_spaced(data, most), tiled=True))


def _spaced(data: PyTree, most: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[np.arange(most) * n_rows(data) // most], data)
