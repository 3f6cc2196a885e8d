"""Value, gradient and curvature, the same numbers in the way that costs least.

Where every parameter is a number of its own and there are few, each direction is differentiated by itself: so
the compiler sees plain arrays of rows, and half of the symmetric matrix is enough. Otherwise all directions go
together, and products of matrices do the work; those of a regression by way of its predictions, which are few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core.linear_algebra import WRITTEN_OUT
from ..models.parameters import Parameters
from ..solvers.objective import Curvature, Evaluation
from .base import AbstractLikelihood
from .weights import scaled_rows

FORWARD = 12  #: up to so many parameters the Jacobian of predictions costs least in forward mode

#: `terms(data, weights)` of one block of rows.
BlockTerms = Callable[[PyTree, Array | None], Evaluation]


def block_loss(
    likelihood: AbstractLikelihood,
    parameters: Parameters,
    free: Array | tuple[Array, ...],
    data: PyTree,
    weights: Array | None,
) -> Array:
    """Minus the log-likelihood of one block of rows."""
    value = likelihood.block_sum(parameters.natural(free), data, weights)
    return -value.astype(parameters.dtype)


def gradient(likelihood: AbstractLikelihood, parameters: Parameters, free: Array) -> BlockTerms:
    """Terms of a block of rows: loss and gradient."""

    def terms(data: PyTree, weights: Array | None) -> Evaluation:
        loss = lambda z: block_loss(likelihood, parameters, z, data, weights)  # noqa: E731
        return Evaluation(*jax.value_and_grad(loss)(free))

    return terms


def exact(likelihood: AbstractLikelihood, parameters: Parameters, free: Array) -> BlockTerms:
    """Terms of a block of rows: loss, gradient and Hessian, in the way that costs least."""
    if not are_few_numbers(parameters) and likelihood.model.regression is not None:
        return lambda data, weights: information(likelihood, parameters, free, data, weights, exact=True)
    second = hessian_of_numbers if are_few_numbers(parameters) else hessian

    def terms(data: PyTree, weights: Array | None) -> Evaluation:
        return second(lambda z: block_loss(likelihood, parameters, z, data, weights), free)

    return terms


def outer_product(likelihood: AbstractLikelihood, parameters: Parameters, free: Array) -> BlockTerms:
    """Terms of a block of rows: loss, gradient and the outer product of the scores."""

    def terms(data: PyTree, weights: Array | None) -> Evaluation:
        values, scores = likelihood.block_scores(free, parameters.natural, data)
        weighted = scaled_rows(scores, weights)
        return Evaluation(-jnp.sum(scaled_rows(values, weights)), -jnp.sum(weighted, axis=0), weighted.T @ scores)

    return terms


def expected(likelihood: AbstractLikelihood, parameters: Parameters, free: Array) -> BlockTerms:
    """Terms of a block of rows of a regression: loss, gradient and expected information."""
    return lambda data, weights: information(likelihood, parameters, free, data, weights, exact=False)


#: The terms of a block of rows for each curvature that may be asked for.
BLOCK_TERMS: dict[Curvature, Callable[[AbstractLikelihood, Parameters, Array], BlockTerms]] = {
    Curvature.none: gradient,
    Curvature.exact: exact,
    Curvature.outer_product: outer_product,
    Curvature.expected: expected,
}


def are_few_numbers(parameters: Parameters) -> bool:
    """True if directions are differentiated one by one."""
    return parameters.all_numbers and parameters.n_free <= WRITTEN_OUT


def hessian(loss: Callable[[Array], Array], free: Float[Array, " k"]) -> Evaluation:
    """Value, gradient and Hessian of a function of a vector."""

    def both(z: Array) -> tuple[Array, tuple[Array, Array]]:
        value, gradient = jax.value_and_grad(loss)(z)
        return gradient, (value, gradient)

    matrix, (value, gradient) = jax.jacfwd(both, has_aux=True)(free)
    return Evaluation(value, gradient, 0.5 * (matrix + matrix.T))


def hessian_of_numbers(loss: Callable[[Any], Array], free: Float[Array, " k"]) -> Evaluation:
    """`hessian` of a function of a tuple of numbers, one direction after the other."""
    k = len(free)
    both = jax.value_and_grad(lambda *z: loss(z), argnums=tuple(range(k)))
    (value, gradient), change = jax.linearize(both, *free)
    one, zero = jnp.ones((), free.dtype), jnp.zeros((), free.dtype)
    rows = [change(*(one if j == i else zero for j in range(k)))[1] for i in range(k)]
    # The compiler leaves out what nobody asks for: half of them.
    matrix = [jnp.stack([rows[min(i, j)][max(i, j)] for j in range(k)]) for i in range(k)]
    return Evaluation(value, jnp.stack(gradient), jnp.stack(matrix))


def information(
    likelihood: AbstractLikelihood,
    parameters: Parameters,
    free: Float[Array, " k"],
    data: PyTree,
    weights: Array | None,
    exact: bool,
) -> Evaluation:
    r"""Loss and gradient of a block of rows of a regression, and its information.

    $$I = J^T W J - \sum_j \frac{\partial \log p}{\partial \eta_j} \nabla^2 \eta_j, \qquad
        W = -\frac{\partial^2 \log p}{\partial \eta\, \partial \eta^T}, \quad
        J = \frac{\partial \eta}{\partial \theta}$$

    Args:
        likelihood: of the regression.
        parameters: how its parameters map to the free vector.
        free: where.
        data: the rows.
        weights: of the rows, or `None` for ones.
        exact: the observed information, as above; otherwise the expected one, where the sum is zero and $W$ is the
            family's information, unless that has no closed form.
    """
    regression = likelihood.model.regression
    assert regression is not None
    observed = exact or not regression.family.cheap_information
    extra = () if likelihood.args is None else (likelihood.args,)

    def predict(z: Any, obs: PyTree) -> Array:
        return regression.predictions(parameters.natural(z), obs, *extra).astype(free.dtype)

    def densities(predictions: Array) -> tuple[Array, Array, Array]:
        """Log-densities, and their slopes and curvature in the predictions, with their weights."""
        one = regression.from_predictions
        values, slopes = jax.vmap(jax.value_and_grad(one))(predictions, data)
        curvature = jax.vmap(jax.hessian(one) if observed else regression.information)(predictions, data)
        if weights is not None:
            slopes, curvature = (scaled_rows(rows, weights) for rows in (slopes, curvature))
        return jnp.sum(scaled_rows(values, weights)), slopes, -curvature if observed else curvature

    whole = lambda z: jax.vmap(predict, in_axes=(None, 0))(z, data)  # noqa: E731
    second: Any = 0
    if exact:
        value, slopes, curvature = densities(whole(free))

        def pulled_back(z: Array) -> tuple[Array, Array]:
            predictions, pull_back = jax.vjp(whole, z)
            return pull_back(slopes)[0], predictions

        second, jacobian = jax.jacfwd(pulled_back)(free)
    else:
        twice = lambda *z: (predict(*z),) * 2  # noqa: E731
        if free.shape[0] <= FORWARD:
            both = lambda z: jax.vmap(twice, in_axes=(None, 0))(z, data)  # noqa: E731
            jacobian, predictions = jax.jacfwd(both, has_aux=True)(free)
        else:
            jacobian, predictions = jax.vmap(jax.jacrev(twice, has_aux=True), in_axes=(None, 0))(free, data)
        value, slopes, curvature = densities(predictions)
    flat = jacobian.reshape(-1, free.shape[0])
    bent = jnp.sum(curvature[..., None] * jacobian[:, None], axis=2).reshape(flat.shape)
    matrix = bent.T @ flat - second
    return Evaluation(-value, -(slopes.ravel() @ flat), 0.5 * (matrix + matrix.T))
