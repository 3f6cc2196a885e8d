"""The abstract likelihood: a model together with the rows of one data set, wherever these lie."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ..core import devices
from ..core.trees import is_inexact, n_rows
from ..models.model import Model
from . import density_call
from .weights import scaled_rows, weighted_rows


class AbstractLikelihood(eqx.Module):
    r"""A model together with one data set.

    $$\ell(\theta) = \sum_i w_i \log p(x_i \mid \theta)$$

    Sums run over the data set block by block, and every block yields its exact derivatives, which are added up: so
    a large data set needs the memory of one block. Final classes say where the rows lie.

    Args:
        model: the log-density with its companions.
        args: what the model gets as its third argument; `None` for a model with two.
    """

    model: eqx.AbstractVar[Model]
    args: eqx.AbstractVar[PyTree]

    @property
    @abc.abstractmethod
    def rows(self) -> int:
        """Rows that the data set may have, padding included."""

    @property
    @abc.abstractmethod
    def n_unpadded(self) -> Any:
        """Rows of the data set without those of padding."""

    @property
    @abc.abstractmethod
    def n_rows(self) -> Int[Array, ""]:
        """Number of rows that count: those with a positive weight."""

    @property
    @abc.abstractmethod
    def n_obs(self) -> Array:
        """Number of observations: the sum of the weights."""

    @property
    @abc.abstractmethod
    def n_blocks(self) -> int:
        """Blocks that the data set takes."""

    @property
    @abc.abstractmethod
    def has_sample(self) -> bool:
        """True where there are so many rows that a sample of them is worth a look."""

    @abc.abstractmethod
    def of_sample(self, yes: Any) -> AbstractLikelihood:
        """The likelihood of a sample of the rows where `yes`, and of all of them elsewhere."""

    @abc.abstractmethod
    def reversibly(self) -> AbstractLikelihood:
        """The same in a form that reverse mode can cross."""

    @abc.abstractmethod
    def differentiable_weights(self, params: PyTree) -> AbstractLikelihood:
        """The same for derivatives with respect to its weights, if these are in memory."""

    @abc.abstractmethod
    def total(self, fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        """The sum of `fn(data, weights)` over the blocks of the data set.

        Args:
            fn: `fn(data, weights)` of one block of rows; `weights` are zero for padding, or `None` where all
                count.
            zero: what the sum starts from: the shapes and dtypes of what `fn` returns.
        """

    @abc.abstractmethod
    def total_where(self, yes: Bool[Array, ""], fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        """As `total` where `yes`; elsewhere `zero`, without a pass over many rows."""

    @abc.abstractmethod
    def log_likelihood(self, params: PyTree) -> Float[Array, ""]:
        """The sum, differentiable in every way that the rows allow."""

    @abc.abstractmethod
    def contributions(self, params: PyTree) -> Float[Array, " rows"]:
        """Log-densities of the rows at `params`, unweighted; zero for the rows of padding."""

    @abc.abstractmethod
    def scores(
        self, free: Float[Array, " n_free"], natural: Callable[[Array], PyTree]
    ) -> Float[Array, "rows n_free"]:
        """Gradients of the contributions with respect to the free vector; zero for the rows of padding."""

    @abc.abstractmethod
    def aligned(self) -> tuple[PyTree, Array | None]:
        """All rows of the data set in their order, with their weights.

        Rows of padding repeat the first row of the data set.
        """

    @abc.abstractmethod
    def whole(self) -> tuple[PyTree, Array | None]:
        """All rows with their weights, and one that counts for each that does not; a series in its order."""

    @abc.abstractmethod
    def minibatches(
        self, key: PRNGKeyArray, steps: Int[Array, ""], size: int
    ) -> tuple[int, Callable[[Array], AbstractLikelihood]]:
        """The likelihoods of some rows at a time, in random order: how many come next, and number `j` of them.

        Args:
            key: random key.
            steps: how many there were before.
            size: how many rows each has.
        """

    # The same wherever the rows lie.

    def bad_numbers(self, asked: Bool[Array, ""]) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        """`asked`, and the data, weights included, hold NaN or an infinite value; the same, and they hold numbers
        whose powers are infinite or vanish.
        """

        def count(data: PyTree, weights: Array | None) -> Array:
            leaves = [leaf for leaf in jax.tree.leaves(data) if is_inexact(leaf)]
            bad = [jnp.sum(~jnp.isfinite(leaf)) for leaf in (*leaves, weights) if is_inexact(leaf)]
            beyond = [_beyond_powers(leaf) for leaf in leaves]
            none = jnp.asarray(0)
            return jnp.stack([sum(bad, none), sum(beyond, none)])

        found = self.total_where(asked, count, jnp.zeros(2, int)) > 0
        return found[0], found[1]

    def has_contributions(self, params: PyTree) -> bool:
        """True if the model gives one log-density a row; a joint one may give their sum alone."""
        if not self.model.is_joint:
            return True
        values = jax.eval_shape(self._values, params, self.aligned()[0])
        return values.ndim > 0

    def block_sum(self, params: PyTree, data: PyTree, weights: Array | None) -> Float[Array, ""]:
        """The log-likelihood of one block of rows."""
        values = self._values(params, data)
        if values.ndim == 0:
            if weights is not None:
                raise ValueError(
                    "weights and data sets of unequal length need a joint model that returns the vector of "
                    "contributions log p(x_t | x_<t), shape (n_obs,); it returned a scalar"
                )
            return values
        return jnp.sum((weighted_rows if self.model.is_joint else scaled_rows)(values, weights))

    def block_scores(self, vector: Array, natural: Callable[[Array], PyTree], data: PyTree) -> tuple[Array, Array]:
        """Log-densities of a block of rows, and their gradients with respect to `vector`."""
        return density_call.scores_of_rows(self.model, self.args, vector, natural, data)

    def _values(self, params: PyTree, data: PyTree) -> Array:
        return density_call.values_of_rows(self.model, self.args, params, data)


def largest_with_powers(dtype: Any) -> float:
    """The largest number that has a fourth power."""
    return float(jnp.finfo(dtype).max) ** 0.25


def _beyond_powers(numbers: Array) -> Int[Array, ""]:
    """How many finite numbers are too large for a fourth power, and one more if all but zeros are too small."""
    largest = largest_with_powers(numbers.dtype)
    sizes = jnp.where(jnp.isfinite(numbers), jnp.abs(numbers), 0)
    small = jnp.any(sizes > 0) & jnp.all(sizes < 1 / largest)
    return jnp.sum(sizes > largest) + small.astype(int)


def count_rows(data: PyTree, weights: Array | None) -> Array:
    """Rows of a block that count."""
    return jnp.asarray(n_rows(data)) if weights is None else jnp.sum(weights > 0)


def block_rows(data: PyTree, n_free: int, rows: int) -> int:
    """Rows of a large data set to evaluate at once; 0 means all."""
    width = n_free + sum(math.prod(jnp.shape(leaf)[1:]) for leaf in jax.tree.leaves(data))
    device = devices.profile()
    block = max(256, min(device.block_rows, device.block_numbers // width))
    return block if rows > 2 * block else 0
