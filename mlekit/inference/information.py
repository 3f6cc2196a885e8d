"""The information, on the free scale, and the covariances that follow from it, in natural units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..linear_algebra import curvature_scale, spectrum
from ..objective import Objective

KINDS = ("observed", "opg", "sandwich")  #: kinds of covariance


def information(objective: Objective, free: Float[Array, " n_free"], kind: str) -> Float[Array, "n_free n_free"]:
    r"""The information of the whole data set about the free vector.

    $$I_{\text{observed}} = -\nabla^2 \ell, \qquad I_{\text{opg}} = \sum_i w_i\, s_i s_i^T$$

    Args:
        objective: the data set's objective.
        free: the free vector.
        kind: `observed` or `opg`.
    """
    curvature = "hessian" if kind == "observed" else "outer_product"
    return objective.derivatives(curvature, free)[2] * objective.n_obs


def covariance(
    objective: Objective,
    free: Float[Array, " n_free"],
    kind: str,
    clusters: Int[Array, " n_obs"] | None = None,
) -> Float[Array, "k k"]:
    r"""The covariance of the estimates in natural units, by the exact delta method.

    $$V = J\, V_z J^T, \quad V_z = I^{-1}_{\text{observed}},\; I^{-1}_{\text{opg}} \text{ or }
    I^{-1} \big(\textstyle\sum_c s_c s_c^T\big) I^{-1}$$

    with $J$ the derivative of the natural parameters with respect to the free vector, and $s_c$ the sum of
    the weighted scores of a cluster (of one observation, weighted by its root, where there are none).
    NaN where the information is not positive definite. (White 1982 for the sandwich.)

    Args:
        objective: the data set's objective.
        free: the free vector at the maximum.
        kind: one of `KINDS`.
        clusters: number of the cluster of each row; only with the sandwich.
    """
    jacobian = objective.parameters.jacobian(free)
    inverse = _inverse(information(objective, free, "opg" if kind == "opg" else "observed"))
    if kind == "sandwich":
        if clusters is None:
            middle = information(objective, free, "opg")
        else:
            sums = jax.ops.segment_sum(weighted_scores(objective, free), clusters, clusters.shape[0])
            middle = sums.T @ sums
        inverse = inverse @ middle @ inverse
    return jacobian @ inverse @ jacobian.T


def weighted_scores(objective: Objective, free: Float[Array, " n_free"]) -> Float[Array, "n_obs n_free"]:
    """Gradients of the weighted contributions with respect to the free vector."""
    likelihood = objective.likelihood
    scores = likelihood.scores(free, objective.parameters.natural)
    if likelihood.weights is None:
        return scores
    return jnp.where(likelihood.weights[:, None] > 0, likelihood.weights[:, None] * scores, 0)


def _inverse(matrix: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """The inverse of a positive-definite matrix; NaN for any other."""
    known = jnp.all(jnp.isfinite(matrix))
    safe = jnp.where(known, matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype))
    eigen = spectrum(safe, curvature_scale(safe, jnp.zeros(matrix.shape[0], matrix.dtype)))
    return jnp.where(known & (eigen.values[0] > 0), eigen.inverse(), jnp.nan)
