"""Walls, where the support of a density ends, and kinks, where its slope jumps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from mlekit.core.status import OBSTRUCTED
from mlekit.solvers.newton import PlainNewton

N_SETS = 40


def pareto(params: Any, x: jax.Array) -> jax.Array:
    inside = jnp.log(params["a"]) + params["a"] * jnp.log(params["m"]) - (params["a"] + 1) * jnp.log(x)
    return jnp.where(x >= params["m"], inside, -jnp.inf)


def uniform(params: Any, x: jax.Array) -> jax.Array:
    inside = (x >= params["low"]) & (x <= params["high"])
    return jnp.where(inside, -jnp.log(params["high"] - params["low"]), -jnp.inf)


def laplace(params: Any, x: jax.Array) -> jax.Array:
    return -jnp.log(2 * params["scale"]) - jnp.abs(x - params["place"]) / params["scale"]


def weibull(params: Any, x: jax.Array) -> jax.Array:
    z = (x - params["place"]) / params["scale"]
    safe = jnp.where(z > 0, z, 1.0)
    inside = jnp.log(params["shape"] / params["scale"]) + (params["shape"] - 1) * jnp.log(safe)
    return jnp.where(z > 0, inside - safe ** params["shape"], -jnp.inf)


def generalised_pareto(params: Any, x: jax.Array) -> jax.Array:
    z = params["shape"] * x / params["scale"]
    inside = -jnp.log(params["scale"]) - (1 + 1 / params["shape"]) * jnp.log1p(jnp.where(z > -1, z, 0.0))
    return jnp.where(z > -1, inside, -jnp.inf)


@pytest.fixture(scope="module")
def pareto_sets() -> np.ndarray:
    return 3 * (1 + np.random.default_rng(0).pareto(2.5, (N_SETS, 200)))


@pytest.mark.parametrize("start", [{"m": 1.0, "a": 1.0}, {"m": 2.9, "a": 0.5}, {"m": 0.1, "a": 5.0}], ids=str)
def test_the_wall_of_a_pareto_sample(start: dict[str, float], pareto_sets: np.ndarray) -> None:
    """The estimates in closed form: the least observation, and the inverse of the mean logarithm over it."""
    rules = {"m": mle.positive, "a": mle.positive}
    fits = mle.fit_batch(pareto, start, pareto_sets, constraints=rules)
    least = pareto_sets.min(axis=1)
    np.testing.assert_allclose(fits.params["m"], least, rtol=1e-12)
    np.testing.assert_allclose(fits.params["a"], 1 / np.log(pareto_sets / least[:, None]).mean(axis=1), rtol=1e-8)
    assert fits.status.counts() == {"unbounded": N_SETS}


def test_what_ends_at_a_wall_says_so(pareto_sets: np.ndarray) -> None:
    start, rules = {"m": 1.0, "a": 1.0}, {"m": mle.positive, "a": mle.positive}
    fit = mle.fit(pareto, start, pareto_sets[0], constraints=rules)
    assert "m ended at the edge of the support: above the estimate some observation has no" in fit.message
    assert "mle.at_most" in fit.diagnose().remarks[0]
    closed = mle.fit(
        pareto, start, pareto_sets[0], constraints=rules | {"m": mle.between(0, pareto_sets[0].min())}
    )
    assert closed.converged
    assert "edge of the support" not in closed.message
    np.testing.assert_allclose(fit.params["a"], closed.params["a"], rtol=1e-9)


def test_two_walls() -> None:
    """A uniform sample: the least and the greatest observation."""
    x = np.random.default_rng(1).uniform(2, 5, (N_SETS, 50))
    fits = mle.fit_batch(uniform, {"low": 0.0, "high": 10.0}, x)
    np.testing.assert_allclose(fits.params["low"], x.min(axis=1), rtol=1e-9)
    np.testing.assert_allclose(fits.params["high"], x.max(axis=1), rtol=1e-9)
    assert fits.status.counts() == {"unbounded": N_SETS}


@pytest.mark.parametrize("n", [11, 101])
def test_the_kink_of_a_laplace_sample(n: int) -> None:
    """The median and the mean absolute deviation from it."""
    x = 2 + 1.5 * np.random.default_rng(n).laplace(size=(N_SETS, n))
    median = np.median(x, axis=1)
    starts = {"place": np.append(x[1:].mean(axis=1), 0.0), "scale": np.append(x[1:].std(axis=1), 1.0)}
    fits = mle.fit_batch(laplace, starts, x, init_axis=0, constraints={"scale": mle.positive})
    np.testing.assert_allclose(fits.params["place"], median, atol=1e-11)
    np.testing.assert_allclose(fits.params["scale"], np.abs(x - median[:, None]).mean(axis=1), rtol=1e-7)
    assert fits.status.counts() == {"stalled": N_SETS}


def test_a_kink_is_named() -> None:
    x = np.random.default_rng(3).laplace(size=51)
    fit = mle.fit(laplace, {"place": 0.0, "scale": 1.0}, x, constraints={"scale": mle.positive})
    np.testing.assert_allclose(fit.params["place"], np.median(x), atol=1e-12)
    assert "has a kink in place:" in fit.message
    assert "scale:" not in fit.message


@pytest.mark.parametrize("seed", range(3))
def test_an_infinite_likelihood_is_unbounded(seed: int) -> None:
    """Towards the least observation, where the shape is less than one; and of a uniform sample beyond shape -1."""
    rng = np.random.default_rng(seed)
    x = 100 + 50 * rng.weibull(0.7, 40)
    start = {"place": 90.0, "scale": 50.0, "shape": 1.0}
    fit = mle.fit(weibull, start, x, constraints={"shape": mle.positive, "scale": mle.positive})
    assert fit.status == "unbounded"
    np.testing.assert_allclose(fit.params["place"], x.min(), rtol=1e-9)


def test_a_uniform_sample_has_no_generalised_pareto_maximum() -> None:
    x = np.random.default_rng(3).uniform(0, 1, (N_SETS, 20))
    start = {"shape": 0.1, "scale": 0.5}
    fits = mle.fit_batch(generalised_pareto, start, x, constraints={"scale": mle.positive})
    # Beyond -1 the likelihood is infinite at the wall. A few samples have a local maximum before.
    assert set(fits.status.counts()) <= {"unbounded", "converged"}
    assert np.all(np.asarray(fits.params["shape"])[np.asarray(fits.converged)] > -1)
    assert fits.status.counts()["unbounded"] > N_SETS / 2


def test_walls_are_passed_by_the_searches_that_meet_them(pareto_sets: np.ndarray) -> None:
    """Outside of a trace a shorter program runs first, and ends at walls; under one there is but the longer."""
    start, rules = {"a": 1.0, "m": 0.5}, {"a": mle.positive, "m": mle.positive}

    def fitted(x: Any, solver: Any, backend: str | None = None) -> Any:
        fits = mle.fit_batch(pareto, start, x, constraints=rules, solver=solver, backend=backend)
        return fits.params, fits.status.codes, fits.steps

    sets = jnp.asarray(pareto_sets)
    apart, traced = fitted(sets, mle.Newton(), "xla"), jax.jit(lambda x: fitted(x, mle.Newton()))(sets)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), apart, traced)
    natively = fitted(sets, mle.Newton(), "native")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), natively[:2], traced[:2])
    np.testing.assert_array_equal(jax.jit(lambda x: fitted(x, PlainNewton()))(sets)[1], OBSTRUCTED)
