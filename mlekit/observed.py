"""What the data are: arrays in memory, or a table on disk; and the likelihood of each."""

from __future__ import annotations

import abc
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PyTree

from . import devices
from .compilation import Held
from .data import as_arrays, as_weights
from .groups import Groups
from .likelihood import Likelihood, block_rows
from .model import Model, as_model
from .sharded import sharded
from .shards import Shards, lies_on_many_devices, shard, together
from .streamed import streamed
from .table import Table
from .trees import default_float, is_array, n_rows, traced


class Observed(abc.ABC):
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
    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> Likelihood:
        """Their likelihood; the arguments are those of `Likelihood`, and how many parameters are free."""

    def checked(self, found: Any) -> Any:
        """What was computed of them; a `ValueError` where they could not be read."""
        return found

    def check(self) -> None:  # noqa: B027 - what is in memory was read
        """A `ValueError` where they could not be read."""

    @property
    def identity(self) -> str:
        """A digest of data and weights."""
        parts = self.parts()
        weights = parts.get("weight_column")
        if parts["weights"] is not None:
            weights = fingerprint(parts["weights"])
        return f"{fingerprint(parts['data'])} {weights}"

    @abc.abstractmethod
    def parts(self) -> dict[str, Any]:
        """The fields of a `Fit` that hold them."""


class InMemory(Observed):
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

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> Likelihood:
        """As `Observed.likelihood`."""
        block = block_rows(self.data, n_free, self.rows)
        return Likelihood(
            model, self.data, self.weights, args, length=self.length, block=block, reversible=reversible
        )

    def parts(self) -> dict[str, Any]:
        """As `Observed.parts`."""
        return {"data": self.data, "weights": self.weights}


class Apart(Observed):
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
        return {"data": Held(self.it), "weights": None, "weight_column": self.weights}


class OnDisk(Apart):
    """A table on disk.

    Args:
        it: the table.
        weights: its column of weights, or `None`.
    """

    it: Table

    def __init__(self, it: Table, weights: str | None) -> None:
        super().__init__(it, weights, it.layout(weights).block)

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> Likelihood:
        """As `Observed.likelihood`."""
        return streamed(self.it, model, args, self.weights, n_free, reversible)

    def checked(self, found: Any) -> Any:
        """As `Observed.checked`."""
        if not traced(found):
            jax.block_until_ready(found)
            self.check()
        return found


class SharedOut(Apart):
    """Rows on many devices.

    Args:
        it: the rows.
        weights: their column of weights, or `None`.
    """

    it: Shards

    def __init__(self, it: Shards, weights: str | None) -> None:
        super().__init__(it, weights, it.shapes(weights))

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> Likelihood:
        """As `Observed.likelihood`."""
        return sharded(self.it, model, args, self.weights, n_free, reversible)

    def checked(self, found: Any) -> Any:
        """As `Observed.checked`; every process has the same, each on a device of its own."""
        if traced(found):
            return found
        found = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)) if is_array(leaf) else leaf, found)
        self.check()
        return found

    def check(self) -> None:
        """As `Observed.check`: what goes wrong in one process is an error in all."""
        with together():
            super().check()


def observed(data: Any, weights: Any) -> Observed:
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
        return OnDisk(data, weights) if isinstance(data, Table) else SharedOut(data, weights)
    data = jax.tree.map(devices.placed, as_arrays(data))
    return InMemory(data, as_weights(weights, (n_rows(data),), default_float(data)))


def fingerprint(data: PyTree) -> str:
    """What tells data from others: a digest of their names, shapes and numbers."""
    if isinstance(data, Held) and not isinstance(data.it, Groups):
        return data.it.identity
    digest = hashlib.sha256()
    columns = data.it.columns | {"offsets": data.it.offsets} if isinstance(data, Held) else data
    for name, leaf in jtu.tree_flatten_with_path(columns)[0]:
        array = np.asarray(leaf)
        digest.update(f"{jtu.keystr(name)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data if array.dtype.kind != "V" else array.tobytes())
    return digest.hexdigest()


def log_likelihood(
    log_density: Any,
    params: PyTree,
    data: PyTree,
    *,
    args: PyTree = None,
    weights: Any = None,
) -> Float[Array, ""]:
    r"""The log-likelihood of a data set at given parameters.

    $$\ell(\theta) = \sum_i w_i \log p(x_i \mid \theta)$$

    An ordinary JAX function: it may be jitted, mapped and differentiated with respect to all its arrays. Second
    derivatives of that of a table on disk want forward mode outside, as `jax.hessian` has it.

    Args:
        log_density: `log_density(params, obs)`, the log-density of one observation; a `mle.Model` or the
            result of `mle.joint` as well.
        params: parameters in natural units.
        data: as in `mle.fit`.
        args: third argument of the model, if it has one.
        weights: as in `mle.fit`.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: leaves of `data` of different lengths, weights of another shape, or a log-density that
            returns no scalar.
        TypeError: a log-density that returns no real floating-point number.

    Example:
        Seven heads in ten flips:

        >>> import jax.numpy as jnp, mlekit as mle
        >>> flips = jnp.array([1, 1, 1, 0, 1, 1, 0, 1, 0, 1])
        >>> coin = lambda p, heads: jnp.where(heads, jnp.log(p), jnp.log1p(-p))
        >>> print(f"{mle.log_likelihood(coin, 0.7, flips):.4f}")
        -6.1086
    """
    given = observed(data, weights)
    likelihood = given.likelihood(as_model(log_density), args, len(jax.tree.leaves(params)))
    return given.checked(likelihood.log_likelihood(params))
