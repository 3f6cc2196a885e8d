"""From a log-density to a log-likelihood: summed over a data set, weighted, padded, and in blocks of rows.

A data set is a stretch of rows, `offset` to `offset + length`, of flat arrays that it may share with
others. Sums run over it block by block, and every block yields its exact derivatives, which are added up:
so a large data set needs the memory of one block, and data sets of every length share one compiled shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .data import as_arrays, as_weights
from .model import Model, as_model
from .parameters import Parameters

BLOCK_ROWS = 1 << 16  #: rows of a single data set that are evaluated at once


class Likelihood(eqx.Module):
    r"""A model together with one data set.

    $$\ell(\theta) = \sum_i w_i \log p(x_i \mid \theta)$$

    Args:
        model: the log-density with its companions.
        data: PyTree of arrays with a leading axis of rows.
        weights: frequency weights, shape `(rows,)`; `None` means ones.
        args: what the model gets as its third argument; `None` for a model with two.
        offset: first row of the data set; `None` means the first.
        length: number of its rows; `None` means all.
        anchor: position in the data set of a row with a positive weight; `None` means it is looked up.
        longest: rows of the longest data set that shares the arrays; 0 means all rows.
        block: rows evaluated at once; 0 means all of a data set.
    """

    model: Model
    data: PyTree
    weights: Float[Array, " rows"] | None = None
    args: PyTree = None
    offset: Int[Array, ""] | None = None
    length: Int[Array, ""] | None = None
    anchor: Int[Array, ""] | None = None
    longest: int = eqx.field(static=True, default=0)
    block: int = eqx.field(static=True, default=0)

    @property
    def rows(self) -> int:
        """Rows that a data set may have, padding included."""
        return self.longest or n_rows(self.data)

    @property
    def n_rows(self) -> Int[Array, ""]:
        """Number of rows that count: those of the data set with a positive weight."""
        if self.weights is None:
            return jnp.asarray(self.rows if self.length is None else self.length)
        return self.total(lambda _, weights: jnp.sum(jnp.asarray(weights) > 0), jnp.asarray(0))

    @property
    def n_obs(self) -> Array:
        """Number of observations: the sum of the weights."""
        if self.weights is None:
            return self.n_rows
        return self.total(lambda _, weights: jnp.sum(jnp.asarray(weights)), jnp.zeros((), self.weights.dtype))

    @property
    def finite_data(self) -> Array:
        """Whether the data set, weights included, is free of NaN and infinite values."""

        def count(data: PyTree, weights: Array | None) -> Array:
            bad = [jnp.sum(~jnp.isfinite(leaf)) for leaf in (*jax.tree.leaves(data), weights) if is_inexact(leaf)]
            return sum(bad, jnp.asarray(0))

        return self.total(count, jnp.asarray(0)) == 0

    def contributions(self, params: PyTree) -> Float[Array, " rows"]:
        """Log-densities of the rows at `params`, unweighted; zero for the rows of padding."""
        data, _ = self._block(0, self.rows, silence=False)
        values = self._values(params, data)
        if values.ndim == 0:
            raise ValueError(
                "contributions are wanted, but the joint model returns a scalar; return the vector of "
                "log p(x_t | x_<t), shape (n_obs,), instead"
            )
        return values if self.length is None else jnp.where(jnp.arange(self.rows) < self.length, values, 0)

    def scores(
        self, free: Float[Array, " n_free"], natural: Callable[[Array], PyTree]
    ) -> Float[Array, "rows n_free"]:
        """Gradients of the contributions with respect to the free vector; zero for the rows of padding."""
        _, scores = self.block_scores(free, natural, self._block(0, self.rows, silence=False)[0])
        return (
            scores if self.length is None else jnp.where(jnp.arange(self.rows)[:, None] < self.length, scores, 0)
        )

    def log_likelihood(self, params: PyTree) -> Float[Array, ""]:
        """The sum, over all rows at once: differentiable in every way."""
        return self.block_sum(params, *self._block(0, self.rows))

    def block_sum(self, params: PyTree, data: PyTree, weights: Array | None) -> Float[Array, ""]:
        """The log-likelihood of one block of rows."""
        return weighted_sum(self._values(params, data), weights)

    def block_scores(self, vector: Array, natural: Callable[[Array], PyTree], data: PyTree) -> tuple[Array, Array]:
        """Log-densities of a block of rows, and their gradients with respect to `vector`."""
        if self.model.is_joint:

            def twice(z: Array) -> tuple[Array, Array]:
                values = self._values(natural(z), data)
                if values.ndim == 0:
                    raise ValueError(
                        "scores are wanted, but the joint model returns a scalar; return the vector of "
                        "log p(x_t | x_<t), shape (n_obs,), instead"
                    )
                return values, values

            scores, values = jax.jacfwd(twice, has_aux=True)(vector)
            return values, scores

        def one(z: Array, obs: PyTree) -> Array:
            return self._density(natural(z), obs)

        return jax.vmap(jax.value_and_grad(one), in_axes=(None, 0))(vector, data)

    def total(self, fn: Callable[[PyTree, Array | None], Any], zero: Any) -> Any:
        """The sum of `fn(data, weights)` over the blocks of the data set.

        Args:
            fn: what one block of rows adds; `weights` are zero for padding, or `None` where all count.
            zero: what the sum starts from: the shapes and dtypes of what `fn` returns.
        """
        if self.model.is_joint or self.block == 0 or self.block >= self.rows:
            return fn(*self._block(0, self.rows))
        length = jnp.asarray(self.rows if self.length is None else self.length)

        def add(b: Array, sums: Any) -> Any:
            part = fn(*self._block(b * self.block, self.block))
            return jax.tree.map(lambda s, p: s + p.astype(s.dtype), sums, part)

        return jax.lax.fori_loop(0, (length + self.block - 1) // self.block, add, zero)

    def sample(self, position: Int[Array, " size"]) -> Likelihood:
        """The likelihood of the rows at `position` in the data set alone: a mini-batch."""
        if self.model.is_joint:
            raise ValueError(
                "mini-batches need independent observations; a joint model has none: leave out batch_size"
            )
        index = position if self.offset is None else self.offset + position
        weights = None if self.weights is None else self.weights[index]
        return Likelihood(self.model, jax.tree.map(lambda leaf: leaf[index], self.data), weights, self.args)

    def _block(self, first: Any, size: int, silence: bool = True) -> tuple[PyTree, Array | None]:
        """Rows `first` to `first + size` of the data set, with their weights.

        Rows that do not count, padding and, if `silence`, those of weight zero, are replaced by one that does,
        so that they cannot bring in a NaN that the data set itself doesn't have.
        """
        whole = self.offset is None and size == n_rows(self.data)
        silence &= self.weights is not None and not self.model.is_joint  # rows of a series cannot be replaced
        if whole and self.length is None and not silence:
            return self.data, self.weights
        position = first + jnp.arange(size)
        counts = position < (self.rows if self.length is None else self.length)
        base = 0 if self.offset is None else self.offset
        index = base + jnp.where(counts, position, 0)
        if self.weights is None:
            all_count = self.length is None and size == self.rows
            weights = None if all_count else counts.astype(default_float(self.data))
        else:
            weights = jnp.where(counts, self.weights[index], 0)
            if silence:
                anchor = jnp.argmax(self.weights > 0) if self.anchor is None else self.anchor
                index = jnp.where(weights > 0, index, base + anchor)
        return jax.tree.map(lambda leaf: leaf[index], self.data), weights

    def _values(self, params: PyTree, data: PyTree) -> Array:
        if not self.model.is_joint:
            return jax.vmap(self._density, in_axes=(None, 0))(params, data)
        out = self._call(params, data)
        rows = n_rows(data)
        if jnp.shape(out) not in ((), (rows,)):
            raise ValueError(
                f"a joint model must return a scalar or one value an observation, shape ({rows},); "
                f"it returned shape {jnp.shape(out)}"
            )
        if jnp.shape(out) == () and (self.weights is not None or self.length is not None):
            raise ValueError(
                "weights and data sets of unequal length need a joint model that returns the vector of "
                "contributions log p(x_t | x_<t), shape (n_obs,); it returned a scalar"
            )
        return _real(out, "a joint model")

    def _density(self, params: PyTree, obs: PyTree) -> Array:
        out = self._call(params, obs)
        if jnp.shape(out) != ():
            raise ValueError(
                "log_density must return one number, the log-density of ONE observation; it returned shape "
                f"{jnp.shape(out)}. obs is one slice of data, of shapes "
                f"{jax.tree.map(jnp.shape, obs)}: mlekit does the summing over observations; sum over the "
                "parts of one observation with jnp.sum"
            )
        return _real(out, "log_density")

    def _call(self, params: PyTree, obs: PyTree) -> Any:
        extra = () if self.args is None else (self.args,)
        try:
            return self.model(params, obs, *extra)
        except KeyError as error:
            known = [
                f"{name} has {sorted(map(str, tree))}"
                for name, tree in (("obs", obs), ("params", params))
                if isinstance(tree, dict)
            ]
            raise ValueError(
                f"log_density looks up {error} and there is no such name: {'; '.join(known)}"
            ) from error


class Objective(eqx.Module):
    r"""What a solver minimises: minus the mean log-likelihood, as a function of the free vector.

    $$f(z) = -\frac{1}{n} \ell(\theta(z)), \qquad n = \sum_i w_i$$

    The mean, so that steps do not depend on `n_obs`. One call yields the loss and all derivatives that are
    wanted, and calls the user's function at one place.
    """

    likelihood: Likelihood
    parameters: Parameters

    @property
    def n_obs(self) -> Float[Array, ""]:
        """Number of observations, the sum of the weights, in the precision of the free vector."""
        return self.likelihood.n_obs.astype(self.parameters.dtype)

    def __call__(self, free: Float[Array, " n_free"]) -> Float[Array, ""]:
        """The loss; its derivative comes from `gradient`, in forward and in reverse mode."""
        # Line searches of optax hand over a wider type than they were given.
        return _loss(free.astype(self.parameters.dtype), self)

    def gradient(self, free: Float[Array, " n_free"]) -> tuple[Array, Array]:
        """Loss and gradient."""
        return self._mean(lambda *block: jax.value_and_grad(self._block_loss)(free, *block), order=1)

    def hessian(self, free: Float[Array, " n_free"]) -> tuple[Array, Array, Array]:
        """Loss, gradient and exact Hessian."""

        def block(data: PyTree, weights: Array | None) -> tuple[Array, Array, Array]:
            def both(z: Array) -> tuple[Array, tuple[Array, Array]]:
                value, gradient = jax.value_and_grad(self._block_loss)(z, data, weights)
                return gradient, (value, gradient)

            hessian, (value, gradient) = jax.jacfwd(both, has_aux=True)(free)
            return value, gradient, 0.5 * (hessian + hessian.T)

        return self._mean(block, order=2)

    def outer_product(self, free: Float[Array, " n_free"]) -> tuple[Array, Array, Array]:
        """Loss, gradient and the mean outer product of the scores."""

        def block(data: PyTree, weights: Array | None) -> tuple[Array, Array, Array]:
            values, scores = self.likelihood.block_scores(free, self.parameters.natural, data)
            weighted = scores if weights is None else jnp.where(weights[:, None] > 0, weights[:, None] * scores, 0)
            return -weighted_sum(values, weights), -jnp.sum(weighted, axis=0), weighted.T @ scores

        return self._mean(block, order=2)

    def _block_loss(self, free: Array, data: PyTree, weights: Array | None) -> Array:
        value = self.likelihood.block_sum(self.parameters.natural(free), data, weights)
        return -value.astype(free.dtype)

    def _mean(self, block: Callable[..., Any], order: int) -> Any:
        k, dtype = self.parameters.n_free, self.parameters.dtype
        zero = tuple(jnp.zeros((k,) * axes, dtype) for axes in range(order + 1))
        n_obs = self.n_obs
        return jax.tree.map(lambda total: total.astype(dtype) / n_obs, self.likelihood.total(block, zero))


@eqx.filter_custom_jvp
def _loss(free: Array, objective: Objective) -> Array:
    zero = jnp.zeros((), objective.parameters.dtype)
    return objective.likelihood.total(lambda *b: objective._block_loss(free, *b), zero) / objective.n_obs


@_loss.def_jvp
def _loss_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # Blocks are summed in a loop that reverse mode cannot cross; the gradient is summed in one of its own.
    value, gradient = primals[1].gradient(primals[0])
    return value, gradient @ tangents[0]


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

    An ordinary JAX function: it may be jitted, mapped and differentiated with respect to all its arrays.

    Args:
        log_density: `log_density(params, obs)`, the log-density of one observation; a `mle.Model` or the
            result of `mle.joint` as well.
        params: parameters in natural units.
        data: PyTree of arrays with leading axis `n_obs`, or a table.
        args: third argument of the model, if it has one.
        weights: frequency weights, shape `(n_obs,)`.

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
    data = jax.tree.map(jnp.asarray, as_arrays(data))
    weights = as_weights(weights, (n_rows(data),), default_float(data))
    return Likelihood(as_model(log_density), data, weights, args).log_likelihood(params)


def weighted_sum(values: Array, weights: Array | None) -> Array:
    """Sum of weighted values, where a weight of zero silences any value."""
    if weights is None or values.ndim == 0:
        return jnp.sum(values)
    return jnp.sum(jnp.where(weights > 0, weights.astype(values.dtype) * values, 0))


def n_rows(data: PyTree) -> int:
    """The leading axis that the arrays of `data` share."""
    return jnp.shape(jax.tree.leaves(data)[0])[0]


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is an array of floating-point numbers."""
    return leaf is not None and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def default_float(data: PyTree) -> Any:
    """The widest floating-point dtype among the leaves, or JAX's default where there is none."""
    kinds = [jnp.result_type(leaf) for leaf in jax.tree.leaves(data) if is_inexact(leaf)]
    return jnp.result_type(*kinds) if kinds else jnp.result_type(float)


def _real(out: Any, who: str) -> Array:
    kind = jnp.result_type(out)
    if not jnp.issubdtype(kind, jnp.floating):
        raise TypeError(f"{who} must return a real floating-point number, a log-density; it returned dtype {kind}")
    return jnp.asarray(out)
