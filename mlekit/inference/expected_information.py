"""The expected information by simulation, for models that can draw observations, and how exact it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.checks import check_count
from ..core.linear_algebra import root_of_inverse
from ..core.random_keys import check_key, from_seed, seeds
from ..likelihood.objective import Objective
from ..likelihood.weights import weighted_squares
from .evaluate import evaluate
from .record import FitRecord, index
from .simulate import check_simulator, simulated

N_SIMULATIONS = 100  #: data sets simulated for each that there is


class ExpectedInformation(eqx.Module):
    """The expected information by simulation, made by `mle.expected_information`.

    Args:
        information: about the free vector, shape `(n_free, n_free)`.
        information_error: the Monte Carlo standard error of each of its entries.
        covariance: of the natural parameters, shape `(k, k)`.
        covariance_error: the Monte Carlo standard error of each of its entries.
        n_simulations: how many data sets were simulated.
    """

    information: Float[Array, "... n_free n_free"]
    information_error: Float[Array, "... n_free n_free"]
    covariance: Float[Array, "... k k"]
    covariance_error: Float[Array, "... k k"]
    n_simulations: int = eqx.field(static=True)

    def __repr__(self) -> str:
        if isinstance(self.covariance, jax.core.Tracer):
            return f"ExpectedInformation(<traced>, n_simulations={self.n_simulations})"
        spread = np.diagonal(np.asarray(self.covariance), axis1=-2, axis2=-1)
        error = np.diagonal(np.asarray(self.covariance_error), axis1=-2, axis2=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(spread > 0, 0.5 * error / spread, np.nan)
        worst = np.nanmax(share) if np.any(np.isfinite(share)) else np.nan
        k = self.information.shape[-1]
        return (
            f"ExpectedInformation: {k} x {k}, from {self.n_simulations:,} simulated data sets; "
            f"standard errors are known to within {100 * worst:.2g} % (one Monte Carlo standard error)"
        )


def by_simulation(fit: FitRecord, key: Any, n_simulations: int = N_SIMULATIONS) -> ExpectedInformation:
    r"""The expected information at the estimates, by simulation.

    $$\hat I = \frac1R \sum_{r=1}^R \sum_i w_i\, s(x_i^{(r)}) s(x_i^{(r)})^T, \qquad
    x_i^{(r)} \sim p(\cdot \mid \hat\theta)$$

    with $s$ the score; it takes first derivatives only, and every term is positive semi-definite. The Monte Carlo
    errors come from the spread of the $R$ terms, those of the covariance by the delta method. Of a joint model
    every term is the square of the whole data set's score.

    Args:
        fit: a fit, or a batch of fits, of a model that has `simulate`.
        key: random key, such as `jax.random.key(0)`.
        n_simulations: $R$, how many data sets are simulated.

    Returns:
        `ExpectedInformation`, of a batch with a leading axis of data sets on every array.

    Raises:
        ValueError: the model has no `simulate`, there is no key, or fewer than two simulations.

    Example:
        The information in ten waits about their rate $\lambda$ is $10 / \lambda^2$:

        >>> import jax, jax.numpy as jnp, mlekit as mle
        >>> def simulate(key, rate, wait):
        ...     return jax.random.exponential(key) / rate
        >>> model = mle.Model(lambda rate, wait: jnp.log(rate) - rate * wait, simulate=simulate)
        >>> fit = mle.fit(model, 1.0, jnp.full(10, 0.5))
        >>> found = mle.expected_information(fit, jax.random.key(0), n_simulations=10_000)
        >>> print(found.information.round(1), found.information_error.round(2))
        [[2.5]] [[0.02]]
    """
    check_simulator(fit.model, "the expected information")
    check_count(n_simulations, "n_simulations", least=2)
    check_key(key, "the expected information of a model that simulates")
    found = evaluate(fit, _simulated(int(n_simulations)), (fit._solution.free, seeds(key, index(fit))))
    found = jax.tree.map(lambda leaf: jnp.where(fit.converged[..., None, None], leaf, jnp.nan), found)
    return ExpectedInformation(found[0], found[1], found[2], found[3], int(n_simulations))


@functools.cache
def _simulated(n_simulations: int) -> Callable[[Objective, Any], tuple[Array, ...]]:
    def of_dataset(objective: Objective, value: Any) -> tuple[Array, ...]:
        free, seed = value
        likelihood, parameters = objective.likelihood, objective.parameters
        _, weights = likelihood.aligned()

        def of_simulation(key: Array) -> Array:
            data = simulated(objective, free, key)
            if likelihood.model.is_joint:
                total = jax.grad(lambda z: likelihood.block_sum(parameters.natural(z), data, weights))(free)
                return jnp.outer(total, total)
            _, scores = likelihood.block_scores(free, parameters.natural, data)
            return weighted_squares(scores, weights)

        terms = jax.lax.map(of_simulation, jax.random.split(from_seed(seed), n_simulations))
        mean = jnp.mean(terms, axis=0)
        root = root_of_inverse(mean)
        natural = parameters.jacobian(free) @ root
        error = lambda terms: jnp.std(terms, axis=0, ddof=1) / jnp.sqrt(n_simulations)  # noqa: E731
        # To first order, d(I^-1) = -I^-1 dI I^-1.
        covariance_terms = natural @ (root.T @ (terms - mean) @ root) @ natural.T
        return mean, error(terms), natural @ natural.T, error(covariance_terms)

    return of_dataset
