"""White's information-matrix test, of the model itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...core.eigen import eigh
from ...core.linear_algebra import root_of_inverse
from ...likelihood.base import AbstractLikelihood
from ...likelihood.objective import Objective
from ...likelihood.weights import weighted_rows, weighted_squares
from ..evaluate import evaluate
from ..information import information
from ..record import FitRecord
from .result import HypothesisTest, chi_square

#: Share of an indicator's variance that the scores do not explain; below it the indicator is left out.
LEFT_OVER = 1e-7


def information_matrix_test(fit: FitRecord) -> HypothesisTest:
    r"""White's test: do the negative Hessian and the outer product of the scores estimate the same information?

    $$T = n\, \bar d^T V^{-1} \bar d \sim \chi^2_q, \qquad d_i = \operatorname{vech}(H_i + s_i s_i^T), \quad
    v_i = d_i - \nabla \bar d\, \bar H^{-1} s_i, \quad V = \tfrac1n \sum_i v_i v_i^T$$

    They do so if the model is right; otherwise the usual standard errors are wrong, and `sandwich` serves. The
    derivative $\nabla \bar d$ holds third derivatives of the log-density, which are exact here. Indicators that
    are combinations of the scores say nothing and are left out of the degrees of freedom $q$. The statistic
    depends on the scale of the parameters, and is that of the free scale.

    Args:
        fit: a fit, or a batch of fits, of a model with contributions.

    Returns:
        `HypothesisTest`. It needs hundreds of observations: with few it rejects too often.

    Raises:
        ValueError: a joint model that returns a scalar.

    Example:
        >>> import jax, jax.numpy as jnp, mlekit as mle
        >>> density = lambda rate, count: count * jnp.log(rate) - rate - jax.lax.lgamma(count + 1.0)
        >>> counts = jnp.repeat(jnp.array([0.0, 1.0, 2.0, 12.0]), jnp.array([60, 25, 10, 5]))
        >>> fit = mle.fit(density, 1.0, counts, constraints=mle.positive)
        >>> print(mle.information_matrix_test(fit))
        Information-matrix test: the hypothesis that the model is right is ...rejected at 5 %: ...

    Source: White 1982, with the covariance of his equation (4.1).
    """
    statistic, df = evaluate(fit, _white, fit._solution.free)
    statistic = jnp.where(fit.converged & (df > 0), statistic, jnp.nan)
    return chi_square(statistic, df, "Information-matrix test", "the model is right")


def _white(objective: Objective, free: Array) -> tuple[Array, Array]:
    likelihood, parameters = objective.likelihood, objective.parameters
    k, n_obs = free.shape[0], objective.n_obs
    data, weights = likelihood.whole()
    upper = np.triu_indices(k)
    counts = jnp.ones(likelihood.rows, free.dtype) if weights is None else weights.astype(free.dtype)

    def derivatives(z: Array) -> tuple[Array, Array]:
        scores, hessians = _rows(likelihood, parameters, z, data)
        both = hessians + scores[:, :, None] * scores[:, None, :]
        return scores, both[:, upper[0], upper[1]]

    def mean(z: Array) -> tuple[Array, tuple[Array, Array]]:
        scores, indicators = derivatives(z)
        return jnp.sum(weighted_rows(indicators, counts), axis=0) / n_obs, (scores, indicators)

    slope, (scores, indicators) = jax.jacfwd(mean, has_aux=True)(free)
    root = root_of_inverse(information(objective, free, "observed"))
    # The mean Hessian is minus the information over n.
    residuals = indicators + n_obs * scores @ (root @ root.T) @ slope.T
    mean_squares = lambda rows: weighted_squares(rows, counts) / n_obs  # noqa: E731
    middle = jnp.sum(weighted_rows(indicators, counts), axis=0) / n_obs
    scale = jnp.sqrt(jnp.diagonal(mean_squares(indicators)))
    scale = jnp.where(scale > 0, scale, 1.0)
    values, vectors = eigh(mean_squares(residuals) / scale[:, None] / scale[None, :])
    there = values > LEFT_OVER
    along = vectors.T @ (middle / scale)
    return n_obs * jnp.sum(jnp.where(there, along**2 / jnp.where(there, values, 1.0), 0.0)), jnp.sum(there)


def _rows(likelihood: AbstractLikelihood, parameters: Any, z: Array, data: Any) -> tuple[Array, Array]:
    """Gradients and Hessians of the contributions."""

    def scores(z: Array) -> tuple[Array, Array]:
        found = likelihood.block_scores(z, parameters.natural, data)[1]
        return found, found

    hessians, found = jax.jacfwd(scores, has_aux=True)(z)
    return found, hessians
