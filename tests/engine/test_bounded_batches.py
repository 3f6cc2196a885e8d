"""Closed bounds in ragged batches, beside poisoned neighbours, inside transformations, and with other solvers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
import scipy.optimize

import mlekit as mle

LENGTHS = np.array([5, 37, 20, 11, 2, 30])
POISON = (np.nan, np.inf, 1e300, 0.7, 0.0, 1e-300)
LEAST = 0.3


def density(p: Any, obs: Any) -> Any:
    return -0.5 * ((obs["x"] - p["mean"]) / p["sd"]) ** 2 - jnp.log(p["sd"])


def fitted(rows: list[np.ndarray]) -> mle.Fit:
    key = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    groups = mle.group_by({"key": key, "x": np.concatenate(rows)}, "key", columns=["x"])
    rules = {"mean": mle.nonnegative, "sd": mle.at_least(LEAST)}
    return mle.fit_batch(density, {"mean": 0.5, "sd": 1.0}, groups, constraints=rules)


def beside(others: Any) -> mle.Fit:
    """Six data sets, each with a neighbour of the same length."""
    rng, rows = np.random.default_rng(0), []
    for n, other in zip(LENGTHS, others):
        rows += [0.6 * rng.standard_normal(n), np.full(n, other)]
    return fitted(rows)


def test_poisoned_neighbours_change_no_bit() -> None:
    fits, poisoned = beside(np.ones(6)), beside(POISON)
    assert poisoned.status[1] == mle.Status.nonfinite_data
    x = [fits.data[2 * i]["x"] for i in range(6)]
    mean = np.maximum([np.mean(one) for one in x], 0.0)
    spread = [np.sqrt(np.mean((one - m) ** 2)) for one, m in zip(x, mean)]
    np.testing.assert_allclose(fits.params["mean"][::2], mean, atol=1e-8)
    np.testing.assert_allclose(fits.params["sd"][::2], np.maximum(spread, LEAST), rtol=1e-8)
    assert 0 < np.sum(fits.at_bound["mean"][::2]) < 6
    for a, b in zip(jax.tree.leaves(fits[::2]._solution), jax.tree.leaves(poisoned[::2]._solution)):
        np.testing.assert_array_equal(a, b)
    inside = (fit.intervals(method="profile") for fit in (fits, poisoned))
    for a, b in zip(*map(jax.tree.leaves, inside)):
        np.testing.assert_array_equal(a[::2], b[::2])


def test_inside_transformations() -> None:
    """Means of unit variance with bounds of their own."""
    x = jnp.array(np.random.default_rng(1).standard_normal((5, 20)))

    def found(x: Any) -> Any:
        parabolas = lambda p, x: -0.5 * (x - p["a"]) ** 2 - 0.5 * (x + 0.5 - p["b"]) ** 2  # noqa: E731
        rules = {"a": mle.nonnegative, "b": mle.at_least(0.4)}
        fit = mle.fit(parabolas, {"a": 1.0, "b": 1.0}, x, constraints=rules)
        return fit.params, fit.at_bound, fit.certificate.multiplier, fit.standard_errors(), fit.intervals()

    params, at_bound, multiplier, errors, intervals = jax.jit(jax.vmap(found))(x)
    means = {"a": np.mean(x, axis=1), "b": np.mean(x, axis=1) + 0.5}
    for i, (name, low) in enumerate((("a", 0.0), ("b", 0.4))):
        held = means[name] < low
        assert 0 < held.sum() < 5
        np.testing.assert_array_equal(at_bound[name], held)
        np.testing.assert_allclose(params[name], np.maximum(means[name], low), atol=1e-12)
        np.testing.assert_allclose(multiplier[:, i], np.where(held, 20 * (low - means[name]), np.nan))
        np.testing.assert_allclose(errors[name], np.where(held, np.nan, 20**-0.5))
        np.testing.assert_array_equal(np.isnan(intervals[name][0]), held)


@pytest.fixture(scope="module")
def regression() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 3))
    return x, x @ np.array([1.0, -0.4, 0.2]) + 0.5 * rng.standard_normal(80)


@pytest.mark.parametrize("solver", [mle.Scoring(), optimistix.BFGS(rtol=1e-8, atol=1e-8)])
def test_regression_with_bounds(regression: tuple[np.ndarray, np.ndarray], solver: Any) -> None:
    x, y = regression
    model = mle.regression(lambda p, obs: (obs["x"] @ p["slopes"], p["sd"]), mle.families.normal)
    start, rules = {"slopes": jnp.ones(3), "sd": 1.0}, {"slopes": mle.nonnegative, "sd": mle.positive}
    fit = mle.fit(model, start, {"x": jnp.array(x), "y": jnp.array(y)}, constraints=rules, solver=solver)
    assert fit.converged
    slopes, distance = scipy.optimize.nnls(x, y)
    np.testing.assert_allclose(fit.params["slopes"], slopes, atol=1e-9)
    np.testing.assert_allclose(fit.params["sd"], distance / np.sqrt(80), rtol=1e-9)
    inner = slopes > 0
    known = distance**2 / 80 * np.linalg.inv(x[:, inner].T @ x[:, inner])
    found = np.asarray(fit.covariance("expected"))
    place = np.array([fit.parameter_names.index(f"slopes[{j}]") for j in np.flatnonzero(inner)])
    np.testing.assert_allclose(found[np.ix_(place, place)], known, rtol=1e-8)
