"""The Hessian comes in several ways, and they agree with `jax.hessian` of the log-likelihood."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from mlekit.core import linear_algebra
from mlekit.likelihood import curvature
from mlekit.likelihood.in_memory import InMemoryLikelihood
from mlekit.likelihood.objective import Objective
from mlekit.models.initial_parameters import build_parameters
from mlekit.models.model import as_model
from mlekit.solvers.objective import Curvature

RNG = np.random.default_rng(4)
X = RNG.normal(size=(50, 2))
DATA = {"x": jnp.asarray(X), "y": jnp.asarray(RNG.poisson(np.exp(0.4 + 0.5 * X[:, 0] - X[:, 1])).astype(float))}
WEIGHTS = jnp.asarray(RNG.integers(0, 3, size=50).astype(float))


def rate_of_numbers(params: Any, obs: Any) -> Any:
    return params["a"] * jnp.exp(params["b"] * obs["x"][0] + params["c"] * obs["x"][1])


def rate_of_an_array(params: Any, obs: Any) -> Any:
    return params["a"] * jnp.exp(jnp.dot(params["slopes"], obs["x"]))


NUMBERS = {"a": 1.3, "b": 0.2, "c": -0.7}
ARRAY = {"a": 1.3, "slopes": jnp.array([0.2, -0.7])}


def density(rate: Any) -> Any:
    return lambda params, obs: obs["y"] * jnp.log(rate(params, obs)) - rate(params, obs)


@pytest.mark.parametrize(
    "weights", [pytest.param(None, marks=pytest.mark.slow), WEIGHTS], ids=["plain", "weighted"]
)
@pytest.mark.parametrize(
    ("model", "start", "few"),
    [
        (density(rate_of_numbers), NUMBERS, True),
        (density(rate_of_an_array), ARRAY, False),
        pytest.param(mle.regression(rate_of_numbers, mle.families.poisson), NUMBERS, True, marks=pytest.mark.slow),
        (mle.regression(rate_of_an_array, mle.families.poisson), ARRAY, False),
    ],
    ids=["numbers", "array", "regression of numbers", "regression of an array"],
)
def test_all_ways_agree_with_jax(model: Any, start: Any, few: bool, weights: Any) -> None:
    parameters, start = build_parameters(start, {"a": mle.positive}, dtype=jnp.float64)
    assert curvature.are_few_numbers(parameters) == few
    objective = Objective(InMemoryLikelihood(as_model(model), None, DATA, weights), parameters)
    free = parameters.free(start)

    def loss(z: Any) -> Any:
        return -mle.log_likelihood(model, parameters.natural(z), DATA, weights=weights) / objective.n_obs

    found = jax.jit(lambda z: objective.evaluate(z, Curvature.exact))(free)
    value, gradient, hessian = found.loss, found.gradient, found.curvature
    np.testing.assert_allclose(value, loss(free), rtol=1e-13)
    np.testing.assert_allclose(gradient, jax.grad(loss)(free), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(hessian, jax.jit(jax.hessian(loss))(free), rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(hessian, hessian.T)
    # It may itself be differentiated: nothing is hidden from JAX.
    third = jax.jit(jax.jacfwd(lambda z: objective.evaluate(z, Curvature.exact).curvature))(free)
    np.testing.assert_allclose(third, jax.jit(jax.jacfwd(jax.hessian(loss)))(free), rtol=1e-10, atol=1e-12)


def test_many_numbers_are_taken_together() -> None:
    """So many directions one by one would take long to compile."""
    many = {f"p{i}": 0.0 for i in range(linear_algebra.WRITTEN_OUT + 1)}
    parameters, _ = build_parameters(many, None, dtype=jnp.float64)
    assert parameters.all_numbers
    assert not curvature.are_few_numbers(parameters)


def test_fixed_and_tied_numbers() -> None:
    rules = {"a": mle.positive, "c": mle.tied(to="b")}
    fit = mle.fit(density(rate_of_numbers), NUMBERS, DATA, constraints=rules)
    one = lambda params, obs: density(rate_of_numbers)({**params, "c": params["b"]}, obs)  # noqa: E731
    plain = mle.fit(one, {"a": 1.3, "b": 0.2}, DATA, constraints={"a": mle.positive})
    np.testing.assert_allclose(fit.params["b"], plain.params["b"], rtol=1e-10)
    np.testing.assert_allclose(fit.standard_errors()["b"], plain.standard_errors()["b"], rtol=1e-9)
    held = mle.fit(density(rate_of_numbers), NUMBERS, DATA, constraints={"a": mle.fixed, "c": mle.fixed})
    assert np.isfinite(held.standard_errors()["b"])
    np.testing.assert_allclose(held.params["a"], 1.3)
