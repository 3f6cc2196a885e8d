"""No false proof: where rounding forges a maximum, a look at a finite distance decides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats as st

import mlekit as mle

FRONTIER_RULES = {"sv": mle.positive}


def frontier(params: Any, y: jax.Array) -> jax.Array:
    """Normal noise less a half-normal inefficiency; at `su` = 0 it is stationary whatever the data."""
    e, s = y - params["a"], jnp.sqrt(params["su"] ** 2 + params["sv"] ** 2)
    return jnp.log(2 / s) - 0.5 * (e / s) ** 2 + mle.special.log_ndtr(-e * params["su"] / params["sv"] / s)


def frontier_sets(n_sets: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    normal, half = rng.standard_normal((2, n_sets, 60))
    return 1 + 0.5 * normal - 0.3 * np.abs(half)


def best_of_scipy(y: np.ndarray) -> float:
    """The highest of four searches by SciPy, which knows nothing of derivatives at su = 0."""

    def loss(p: np.ndarray) -> float:
        a, su, sv = p[0], p[1], np.exp(p[2])
        e, s = y - a, np.hypot(su, sv)
        return -np.sum(np.log(2 / s) - 0.5 * (e / s) ** 2 + scipy.special.log_ndtr(-e * su / sv / s))

    starts = [(1.0, su, np.log(0.5)) for su in (0.5, -0.5, 1.5, -1.5)]
    return max(-scipy.optimize.minimize(loss, start, method="BFGS").fun for start in starts)


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Sixty samples, and the highest log-likelihood of each."""
    y = frontier_sets(60, 7)
    return y, np.array([best_of_scipy(one) for one in y])


@pytest.mark.parametrize("su", [0.5, 0.0, 1.5, -1.5])
def test_a_stationary_point_that_is_no_maximum_is_left(su: float, sets: tuple[np.ndarray, np.ndarray]) -> None:
    y, best = sets
    fits = mle.fit_batch(frontier, {"a": 1.0, "su": su, "sv": 0.5}, y, constraints=FRONTIER_RULES)
    assert np.mean(fits.converged) > 0.95
    # Nor does what is not proven end where the likelihood still rises.
    np.testing.assert_array_less(best - np.asarray(fits.log_likelihood), 1e-4)


def test_alone_as_in_a_batch(sets: tuple[np.ndarray, np.ndarray]) -> None:
    y, best = sets
    fits = mle.fit_batch(frontier, {"a": 1.0, "su": 0.5, "sv": 0.5}, y[:3], constraints=FRONTIER_RULES)
    for i in range(3):
        fit = mle.fit(frontier, {"a": 1.0, "su": 0.5, "sv": 0.5}, y[i], constraints=FRONTIER_RULES)
        assert int(fit.status) == int(fits.status[i])
        np.testing.assert_allclose(fit.log_likelihood, best[i], atol=1e-4)


def skew_normal(params: Any, x: jax.Array) -> jax.Array:
    z = (x - params["m"]) / params["s"]
    return jax.scipy.stats.norm.logpdf(z) + jnp.log(2 / params["s"]) + mle.special.log_ndtr(params["a"] * z)


@pytest.mark.parametrize("solver", [mle.Newton(), mle.BFGS()], ids=lambda solver: solver.name)
def test_skew_normal_from_shape_zero(solver: mle.AbstractSolver) -> None:
    """Where every sample has a saddle; SciPy's fit begins elsewhere."""
    x = np.stack([st.skewnorm.rvs(3.0, size=200, random_state=np.random.default_rng(i)) for i in range(10)])
    best = [st.skewnorm.logpdf(one, *st.skewnorm.fit(one)).sum() for one in x]
    start = {"m": 0.5, "s": 1.0, "a": 0.0}
    fits = mle.fit_batch(skew_normal, start, x, constraints={"s": mle.positive}, solver=solver)
    assert np.all(fits.converged)
    np.testing.assert_allclose(fits.log_likelihood, best, atol=1e-4)


@pytest.mark.parametrize("concentration", [1e3, 1e7, 1e9])
def test_errors_that_cancellation_made_are_not_reported(concentration: float) -> None:
    """The logarithm of a Bessel function by SciPy's digits has second derivatives that are rounding, far out."""

    def density(params: Any, angle: jax.Array, log_i0e: Any) -> jax.Array:
        far = -2 * params["k"] * jnp.sin((angle - params["m"]) / 2) ** 2
        return far - log_i0e(params["k"]) - jnp.log(2 * jnp.pi)

    angle = 0.3 + np.random.default_rng(1).standard_normal(200) / np.sqrt(concentration)
    start, rules = {"m": 0.3, "k": 0.7 * concentration}, {"k": mle.positive}
    exact, forged = (
        mle.fit(lambda p, x: density(p, x, of), start, angle, constraints=rules)  # noqa: B023
        for of in (mle.special.log_i0e, lambda k: jnp.log(jax.scipy.special.i0e(k)))
    )
    # Far out the angle is normal with variance 1/k, so that log k has the variance 2/n.
    assert exact.converged
    relative = float(exact.standard_errors()["k"] / exact.params["k"])
    assert relative == pytest.approx(0.1, rel=2e-3)
    if forged.converged:
        assert float(forged.standard_errors()["k"] / forged.params["k"]) == pytest.approx(relative, rel=0.05)
    else:
        assert np.isnan(forged.standard_errors()["k"])


def logistic(params: Any, obs: Any) -> jax.Array:
    eta = params["a"] + params["b"] * obs["x"]
    return obs["y"] * eta - jnp.logaddexp(jnp.zeros_like(eta), eta)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_separated_data_are_unbounded_in_both_precisions(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    x = np.sort(rng.normal(size=(20_000, 12)), axis=1).astype(dtype)
    y = (np.arange(12) >= rng.integers(1, 11, 20_000)[:, None]).astype(dtype)
    start = {"a": dtype(0), "b": dtype(0)}
    fits = mle.fit_batch(logistic, start, {"x": x, "y": y})
    assert not np.any(fits.converged)
    assert np.mean(fits.status == mle.Status.unbounded) > (0.99 if dtype is np.float32 else 0.9999)


def test_a_far_covariate_of_one_row_is_no_drift() -> None:
    """Its curvature fades while the slope grows, and what is left must not pass for a maximum at infinity."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(40, 40))
    y = (rng.uniform(size=x.shape) < scipy.special.expit(0.3 + 0.8 * x)).astype(float)
    x[:, 7] = 1e5
    fits = mle.fit_batch(logistic, {"a": 0.0, "b": 0.0}, {"x": x, "y": y})

    def best(x: np.ndarray, y: np.ndarray) -> float:
        """The highest of what SciPy finds on either side of zero, and close to it."""

        def lowest(b: float) -> float:
            def loss(a: float) -> float:
                return np.sum(np.logaddexp(0, a + b * x) - y * (a + b * x))

            return scipy.optimize.minimize_scalar(loss).fun

        sides = ((-5.0, 0.0), (0.0, 5.0), (-1e-3, 1e-3))
        options = {"xatol": 1e-12}
        ends = [scipy.optimize.minimize_scalar(lowest, bounds=side, options=options) for side in sides]
        return -min(end.fun for end in ends)

    converged = np.asarray(fits.converged)
    assert converged.mean() > 0.85
    wanted = np.array([best(*one) for one in zip(x, y)])
    np.testing.assert_allclose(np.asarray(fits.log_likelihood)[converged], wanted[converged], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("df", [5.0, 1000.0])
def test_rounding_makes_no_degrees_of_freedom(df: float, dtype: Any) -> None:
    """Normal samples under a Student-t: far out its constant is rounding, which has hills of its own."""
    x = np.random.default_rng(17).standard_normal((500, 25)).astype(dtype)
    start = {"m": dtype(0), "s": dtype(1), "df": dtype(df)}
    fits = mle.fit_batch(student_t, start, x, constraints={"s": mle.positive, "df": mle.positive})
    proven = np.asarray(fits.converged)
    assert proven.mean() > 0.15
    params = {name: np.asarray(value, float)[proven] for name, value in fits.params.items()}
    exact = st.t.logpdf(x[proven].T.astype(float), params["df"], params["m"], params["s"]).sum(axis=0)
    # A proven maximum lies above the normal limit, which is the supremum of a likelihood that rises for ever.
    normal = st.norm.logpdf(x[proven], x[proven].mean(axis=1, keepdims=True), x[proven].std(axis=1, keepdims=True))
    below = normal.sum(axis=1) - exact > (1e-9 if dtype is np.float64 else 1e-3)
    assert np.mean(below) <= (0.0 if dtype is np.float64 else 0.05)


def student_t(params: Any, x: jax.Array) -> jax.Array:
    return jax.scipy.stats.t.logpdf(x, params["df"], params["m"], params["s"])


def test_a_likelihood_that_rises_for_ever_by_next_to_nothing() -> None:
    """Samples with tails shorter than the normal's are most likely at infinitely many degrees of freedom."""
    x = np.random.default_rng(0).normal(size=(20, 200))
    start, rules = {"m": 0.0, "s": 1.0, "df": 5.0}, {"s": mle.positive, "df": mle.positive}
    fits = mle.fit_batch(student_t, start, x, constraints=rules)
    normal = np.array([st.norm.logpdf(one, one.mean(), one.std()).sum() for one in x])
    kurtosis = st.kurtosis(x, axis=1)
    assert 5 <= np.sum(kurtosis < 0) <= 18
    for i in range(20):
        gain = float(fits.log_likelihood[i]) - normal[i]
        if fits.converged[i]:
            assert gain > 1e-6
        else:
            assert fits.status[i] == mle.Status.unbounded
            assert abs(gain) < 1e-2
