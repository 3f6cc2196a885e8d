"""The information about the free vector, and its inverse with every digit that the data hold."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core.checks import check_choice
from ..core.linear_algebra import factorise, root_of_inverse, singular_below
from ..core.linear_algebra import inverse as inverse_matrix
from ..likelihood.objective import Objective
from ..likelihood.weights import weighted_rows, weighted_squares
from ..solvers.box import hold
from ..solvers.objective import Curvature
from .evaluate import evaluate
from .record import FitRecord


def information(objective: Objective, free: Float[Array, " n_free"], kind: str) -> Float[Array, "n_free n_free"]:
    r"""The information of the whole data set about the free vector.

    $$I_{\text{observed}} = -\nabla^2 \ell, \qquad I_{\text{opg}} = \sum_i w_i\, s_i s_i^T, \qquad
    I_{\text{expected}} = \sum_i w_i\, J_i^T W_i J_i$$

    with $s_i$ the score, $J_i$ the derivative of the predictions and $W_i$ the family's information.

    Args:
        objective: the data set's objective.
        free: the free vector.
        kind: `observed`, `opg`, or for a `mle.regression` `expected`.
    """
    if kind == "observed":
        matrix = objective.evaluate(free, Curvature.exact).curvature * objective.n_obs
    else:
        matrix = _squares(objective, free, kind, jnp.eye(free.shape[0], dtype=free.dtype))
    return _with_active_held(objective, matrix)


def _with_active_held(
    objective: Objective, matrix: Float[Array, "n_free n_free"]
) -> Float[Array, "n_free n_free"]:
    """The matrix of the other entries, where bounds are active; in the rows of these it is a unit matrix."""
    held = objective.parameters.active
    if held is None:
        return matrix
    return hold(matrix, jnp.zeros_like(matrix[0]), held, jnp.ones_like(matrix[0]))[0]


def information_of(fit: FitRecord, kind: str) -> Float[Array, "... n_free n_free"]:
    """`Fit.information`, which says what the arguments are."""
    check_choice(kind, ("observed", "expected", "opg"))
    if kind == "expected" and fit.model.regression is None:
        raise ValueError(
            "kind='expected' is exact for a mle.regression; for a model with simulate there is "
            "mle.expected_information(fit, key)"
        )
    return evaluate(fit, of_kind(kind), fit._solution.free)


@functools.cache
def of_kind(kind: str) -> Callable[[Objective, Array], Array]:
    """`information` of one kind."""
    return lambda objective, free: information(_all_free(objective), free, kind)


def _all_free(objective: Objective) -> Objective:
    """The objective of all parameters, those at active bounds included."""
    return dataclasses.replace(objective, parameters=dataclasses.replace(objective.parameters, active=None))


def inverse(objective: Objective, free: Float[Array, " n_free"], kind: str) -> Float[Array, "n_free n_free"]:
    """The inverse of the information; NaN where that is not positive definite.

    A sum of squares is summed twice, the second time in coordinates that make the first sum a unit matrix. So it
    loses no more digits than an orthogonal factorisation of all rows would, which is half of what the product of
    the rows loses. (Cholesky QR twice: Yamamoto, Nakatsukasa, Yanagisawa and Fukaya 2015.)
    """
    if not free.size:  # every parameter is fixed
        return jnp.zeros((0, 0), free.dtype)
    if kind == "observed":
        return inverse_matrix(information(objective, free, "observed"))
    still = jax.lax.stop_gradient(information(objective, free, kind))
    first = root_of_inverse(still)
    safe = jnp.where(jnp.isfinite(first), first, 0.0)
    # The result does not depend on these coordinates, so they are treated as constants in its derivatives.
    second = _with_active_held(objective, _squares(objective, free, kind, safe))
    both = safe @ inverse_matrix(second) @ safe.T
    known = jnp.all(jnp.isfinite(first))
    if kind == "opg":
        # Scores that are rounding errors alone show only in units of the curvature.
        unit = root_of_inverse(jax.lax.stop_gradient(information(objective, free, "observed")))
        pivots = factorise(unit.T @ still @ unit).pivots
        known &= ~(jnp.min(pivots) <= singular_below(free.shape[0], free.dtype))
    return jnp.where(known, both, jnp.nan)


@functools.cache
def inverse_of_kind(kind: str) -> Callable[[Objective, Array], Array]:
    """`inverse` of one kind."""
    return lambda objective, free: inverse(objective, free, kind)


def in_natural_units(objective: Objective, free: Array, matrix: Float[Array, "n n"]) -> Float[Array, "k k"]:
    """The covariance of the natural parameters from that of the free vector, by the exact delta method."""
    jacobian = objective.parameters.jacobian(free)
    return jacobian @ matrix @ jacobian.T


def _squares(objective: Objective, free: Array, kind: str, basis: Float[Array, "n_free m"]) -> Float[Array, "m m"]:
    """The `opg` or `expected` information in the coordinates whose axes are the columns of `basis`."""
    likelihood, parameters = objective.likelihood, objective.parameters
    regression = likelihood.model.regression
    extra = () if likelihood.args is None else (likelihood.args,)

    def of_scores(data: PyTree, weights: Array | None) -> Array:
        _, scores = likelihood.block_scores(free, parameters.natural, data)
        return weighted_squares(scores.astype(free.dtype) @ basis, weights)

    def of_predictions(data: PyTree, weights: Array | None) -> Array:
        assert regression is not None

        def predictions_twice(z: Array, obs: PyTree) -> tuple[Array, Array]:
            found = regression.predictions(parameters.natural(z), obs, *extra).astype(free.dtype)
            return found, found

        of_rows = jax.vmap(jax.jacfwd(predictions_twice, has_aux=True), in_axes=(None, 0))
        jacobian, predictions = of_rows(free, data)
        rows = jacobian @ basis
        weighted = jax.vmap(regression.information)(predictions, data) @ rows
        return jnp.einsum("ija,ijb->ab", weighted_rows(weighted, weights), rows)

    total = of_predictions if kind == "expected" else of_scores
    m = basis.shape[1]
    matrix: Any = likelihood.total(total, jnp.zeros((m, m), free.dtype))
    return 0.5 * (matrix + matrix.T)
