"""Kinks: least absolute deviations and quantile regression, whose maxima linear programming finds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

import mlekit as mle

N_SETS, N_ROWS, K = 20, 51, 3
RULES = {"scale": mle.positive}


def asymmetric_laplace(quantile: float) -> Any:
    """The density whose location is a quantile regression."""

    def log_density(params: Any, row: Any) -> jax.Array:
        z = (row["y"] - row["x"] @ params["slope"]) / params["scale"]
        size = jnp.where(z > 0, quantile * z, (quantile - 1) * z)
        return jnp.log(quantile * (1 - quantile) / params["scale"]) - size

    return log_density


def greatest_log_likelihood(x: np.ndarray, y: np.ndarray, quantile: float) -> float:
    """By linear programming: residuals are differences of nonnegative numbers."""
    n, k = x.shape
    costs = np.concatenate([np.zeros(k), np.full(n, quantile), np.full(n, 1 - quantile)])
    bounds = [(None, None)] * k + [(0, None)] * (2 * n)
    least = linprog(costs, A_eq=np.hstack([x, np.eye(n), -np.eye(n)]), b_eq=y, bounds=bounds).fun
    return float(n * np.log(quantile * (1 - quantile) * n / least) - n)


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(N_SETS, N_ROWS, K))
    x[..., 0] = 1.0
    return {"x": x, "y": x @ np.arange(1.0, K + 1) + rng.laplace(size=(N_SETS, N_ROWS))}


@pytest.mark.parametrize("quantile", [pytest.param(0.5, marks=pytest.mark.slow), 0.25])
@pytest.mark.parametrize(("dtype", "nats"), [(np.float64, 1e-6), (np.float32, 2e-3)], ids=["float64", "float32"])
def test_quantile_regression(quantile: float, dtype: Any, nats: float, rows: dict[str, np.ndarray]) -> None:
    data = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), rows)
    init = {"slope": jnp.zeros(K, dtype), "scale": jnp.ones((), dtype)}
    fits = mle.fit_batch(asymmetric_laplace(quantile), init, data, constraints=RULES)
    best = [greatest_log_likelihood(x, y, quantile) for x, y in zip(rows["x"], rows["y"], strict=True)]
    np.testing.assert_allclose(fits.log_likelihood, best, atol=nats, rtol=0)
    assert fits.status.counts() == {"stalled": N_SETS}


def test_a_kink_between_parameters_is_named(rows: dict[str, np.ndarray]) -> None:
    init = {"slope": jnp.zeros(K), "scale": 1.0}
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), rows)
    fit = mle.fit(asymmetric_laplace(0.5), init, one, constraints=RULES)
    assert "has a kink in slope:" in fit.message
    assert fit.steps < 300


def test_one_parameter_alone() -> None:
    """The median, where nothing else is estimated."""
    x = np.random.default_rng(2).laplace(size=(N_SETS, 31))
    fits = mle.fit_batch(lambda m, x: -jnp.abs(x - m), 0.5, x)
    np.testing.assert_allclose(fits.params, np.median(x, axis=1), atol=1e-9)
    assert fits.status.counts() == {"stalled": N_SETS}


def test_a_kink_on_the_way_is_left_behind() -> None:
    """The maximum lies two below the mean where that is beyond the kink at one, and else on the kink."""
    x = 3 + np.random.default_rng(4).normal(size=(N_SETS, 40))

    def log_density(m: jax.Array, x: jax.Array) -> jax.Array:
        return -0.5 * (x - m) ** 2 - 2 * jnp.abs(m - 1)

    fits = mle.fit_batch(log_density, np.linspace(-4, 0.9, N_SETS), x, init_axis=0)
    maximum = np.maximum(x.mean(axis=1) - 2, 1)
    np.testing.assert_allclose(fits.params, maximum, atol=1e-9)
    np.testing.assert_array_equal(fits.status == "converged", maximum > 1)
    assert set(fits.status.counts()) == {"converged", "stalled"}
