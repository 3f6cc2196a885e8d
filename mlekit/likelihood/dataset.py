"""The data of a fit or of a batch of fits: what may differ with where the rows lie, in one place."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ..core.compilation import Static
from ..core.trees import n_rows
from ..data.groups import Groups
from ..models.model import Model
from .base import AbstractLikelihood, block_rows
from .in_memory import InMemoryLikelihood
from .ragged import RaggedBatch, from_arrays, from_groups


class AbstractDataset(eqx.Module):
    """One data set with its weights, or those of a batch: a PyTree, so that a `Fit` that holds it can be indexed.

    Methods that speak of one data set are for a dataset that was not batched, or that was indexed out of a batch.
    """

    index: eqx.AbstractVar[Array | None]  # number of the data set in its batch, or of each

    # As the user gave it.

    @property
    @abc.abstractmethod
    def source(self) -> Any:
        """The data as the user passed them: arrays, groups, a table on disk or shards."""

    @property
    @abc.abstractmethod
    def arrays(self) -> tuple[PyTree, Array | None] | None:
        """Rows and weights as JAX sees them; `None` where the rows are out of its sight."""

    @property
    @abc.abstractmethod
    def weight_column(self) -> str | None:
        """The column of the source that holds the weights."""

    @property
    def weighted(self) -> bool:
        """True if the rows have weights."""
        return self.weight_column is not None or (self.arrays is not None and self.arrays[1] is not None)

    @property
    @abc.abstractmethod
    def padded(self) -> bool:
        """True if rows of padding stand behind those of a data set."""

    @property
    @abc.abstractmethod
    def at_hand(self) -> bool:
        """True if the rows are in the memory of this process."""

    @property
    @abc.abstractmethod
    def template(self) -> PyTree:
        """A tree with the structure that the rows have in memory."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A digest that tells the rows from others, without their weights."""

    @property
    @abc.abstractmethod
    def keys(self) -> Any:
        """The keys of the groups, a pyarrow Table of one row each; `None` where there are none."""

    # One data set.

    @property
    @abc.abstractmethod
    def rows(self) -> int:
        """Number of rows, padding included."""

    @property
    @abc.abstractmethod
    def shapes(self) -> PyTree:
        """Arrays with a leading axis of rows, or their shapes and dtypes."""

    @abc.abstractmethod
    def seen_by_init(self) -> PyTree:
        """The data that a function `init` computes a start from."""

    @abc.abstractmethod
    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> AbstractLikelihood:
        """The likelihood.

        Args:
            model: the log-density with its companions.
            args: its third argument, or `None`.
            n_free: number of free parameters.
            reversible: True if reverse mode must be able to cross its sums.
        """

    @abc.abstractmethod
    def checked(self, found: Any) -> Any:
        """`found`, computed from the rows; a `ValueError` where they could not be read."""

    @abc.abstractmethod
    def check(self) -> None:
        """A `ValueError` where rows could not be read."""

    @property
    def weighted_fingerprint(self) -> str:
        """A digest of rows and weights."""
        weights = None if self.arrays is None else self.arrays[1]
        return f"{self.fingerprint} {self.weight_column if weights is None else digest_of_arrays(weights)}"

    # One data set, or a batch.

    @abc.abstractmethod
    def longest(self, batched: bool) -> int:
        """Rows of the longest data set."""

    @abc.abstractmethod
    def labelled(self, columns: Sequence[Any], batched: bool, argument: str) -> tuple[PyTree, tuple[int, ...]]:
        """The columns that labels of rows may be named by, and the shape of an array of labels.

        Args:
            columns: names of columns, and arrays of labels.
            batched: True of a batch.
            argument: what messages call them.
        """

    # A batch.

    @abc.abstractmethod
    def ragged(self, model: Model, args: PyTree) -> RaggedBatch | None:
        """The likelihoods of a batch; `None` where the rows are not at hand, and all its data sets are one."""

    @abc.abstractmethod
    def flat_labels(self, labels: PyTree) -> PyTree:
        """Labels of all rows of a batch as its `RaggedBatch` has the rows, one behind the other."""


class AbstractLocalDataset(AbstractDataset):
    """Rows in the memory of this process."""

    @property
    def at_hand(self) -> bool:
        """True."""
        return True

    def checked(self, found: Any) -> Any:
        """As it is: the rows are at hand."""
        return found

    def check(self) -> None:
        """Nothing to check: the rows are at hand."""


class InMemoryDataset(AbstractLocalDataset):
    """Arrays.

    Args:
        index: number of the data set in its batch, or of each.
        data: PyTree of arrays with a leading axis of rows, in a batch behind one of data sets.
        weights: one for each row, or `None`.
        lengths: rows of each data set without those of padding; `None` where there is no padding.
    """

    index: Array | None
    data: PyTree
    weights: Array | None = None
    lengths: Any = None

    @property
    def source(self) -> PyTree:
        """The arrays."""
        return self.data

    @property
    def arrays(self) -> tuple[PyTree, Array | None]:
        """Rows and weights."""
        return self.data, self.weights

    @property
    def weight_column(self) -> None:
        """None: weights are an array of their own."""
        return None

    @property
    def keys(self) -> None:
        """None: there are no groups."""
        return None

    @property
    def padded(self) -> bool:
        """As `AbstractDataset.padded`."""
        return self.lengths is not None

    @property
    def template(self) -> PyTree:
        """The arrays."""
        return self.data

    @property
    def fingerprint(self) -> str:
        """A digest of names, shapes and numbers."""
        return digest_of_arrays(self.data)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return n_rows(self.data)

    @property
    def shapes(self) -> PyTree:
        """The arrays."""
        return self.data

    def seen_by_init(self) -> PyTree:
        """The arrays."""
        return self.data

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> InMemoryLikelihood:
        """As `AbstractDataset.likelihood`."""
        block = block_rows(self.data, n_free, self.rows)
        return InMemoryLikelihood(
            model, args, self.data, self.weights, length=self.lengths, block=block, reversible=reversible
        )

    def longest(self, batched: bool) -> int:
        """As `AbstractDataset.longest`."""
        return jnp.shape(jax.tree.leaves(self.data)[0])[1 if batched else 0]

    def labelled(self, columns: Sequence[Any], batched: bool, argument: str) -> tuple[PyTree, tuple[int, ...]]:
        """As `AbstractDataset.labelled`."""
        return self.data, jnp.shape(jax.tree.leaves(self.data)[0])[: 2 if batched else 1]

    def ragged(self, model: Model, args: PyTree) -> RaggedBatch:
        """As `AbstractDataset.ragged`."""
        return from_arrays(model, args, self.data, self.weights, self.lengths)

    def flat_labels(self, labels: PyTree) -> PyTree:
        """As `AbstractDataset.flat_labels`."""
        return jax.tree.map(lambda leaf: leaf.reshape(-1), labels)


class GroupsDataset(AbstractLocalDataset):
    """Groups of a table, out of JAX's sight.

    Args:
        index: number of the group, or of each; `None` for all of them.
        groups: the groups.
        weight_column: the column that holds the weights, or `None`.
    """

    index: Array | None
    groups: Static
    weight_column: str | None = eqx.field(static=True, default=None)

    @property
    def source(self) -> Groups:
        """The groups."""
        return self.groups.value

    @property
    def arrays(self) -> None:
        """None: JAX does not see them."""
        return None

    @property
    def padded(self) -> bool:
        """False."""
        return False

    @property
    def template(self) -> PyTree:
        """The columns of all groups."""
        return self.source.columns

    @property
    def fingerprint(self) -> str:
        """A digest of names, shapes and numbers."""
        return digest_of_arrays(self.source.columns | {"offsets": self.source.offsets})

    @property
    def keys(self) -> Any:
        """As `AbstractDataset.keys`."""
        import pyarrow

        return self.source.keys.take(pyarrow.array(np.atleast_1d(self._index)))

    @property
    def rows(self) -> int:
        """Number of rows of one group."""
        return int(self.source.lengths[int(self._index)])

    @property
    def shapes(self) -> PyTree:
        """The arrays of one group."""
        return self.source[int(self._index)]

    def seen_by_init(self) -> PyTree:
        """The arrays of one group."""
        return self.shapes

    def likelihood(self, model: Model, args: PyTree, n_free: int, reversible: bool = False) -> InMemoryLikelihood:
        """As `AbstractDataset.likelihood`, of one group."""
        data = jax.tree.map(jnp.asarray, self.shapes)
        weights = None if self.weight_column is None else data[self.weight_column]
        return InMemoryDataset(None, data, weights).likelihood(model, args, n_free, reversible)

    def longest(self, batched: bool) -> int:
        """As `AbstractDataset.longest`."""
        return int(np.max(self.source.lengths[self._index]))

    def labelled(self, columns: Sequence[Any], batched: bool, argument: str) -> tuple[PyTree, tuple[int, ...]]:
        """As `AbstractDataset.labelled`: of a batch the columns of all groups, one behind the other."""
        if batched and not all(isinstance(column, str) for column in columns):
            raise ValueError(
                f"{argument} of groups are names of columns, such as {argument}='firm'; put them into the table"
            )
        data = self.source.columns if batched else self.shapes
        return data, jax.tree.leaves(data)[0].shape[:1]

    def ragged(self, model: Model, args: PyTree) -> RaggedBatch:
        """As `AbstractDataset.ragged`."""
        return from_groups(model, args, self.source, self._index, self.weight_column)

    def flat_labels(self, labels: PyTree) -> PyTree:
        """As they are."""
        return labels

    @property
    def _index(self) -> np.ndarray:
        return np.arange(len(self.source)) if self.index is None else np.asarray(self.index)


def digest_of_arrays(tree: PyTree) -> str:
    """A digest of the names, shapes and numbers of a tree of arrays."""
    digest = hashlib.sha256()
    for name, leaf in jtu.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        digest.update(f"{jtu.keystr(name)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data if array.dtype.kind != "V" else array.tobytes())
    return digest.hexdigest()
