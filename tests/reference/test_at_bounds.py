"""Estimates at bounds, against non-negative least squares of SciPy and against closed forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from jax.scipy.special import logsumexp

import mlekit as mle

N_SETS, N_OBS, K = 60, 30, 6


def line(slopes: Any, obs: Any) -> Any:
    return -0.5 * (obs["y"] - obs["x"] @ slopes) ** 2


def regressions() -> tuple[dict[str, jax.Array], np.ndarray, np.ndarray]:
    """Data sets with correlated columns, their solutions and the multipliers of zeros."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_SETS, N_OBS, K)) @ (np.eye(K) + 0.8 * np.ones((K, K)))
    y = np.einsum("snk,sk->sn", x, rng.standard_normal((N_SETS, K))) + rng.standard_normal((N_SETS, N_OBS))
    best = np.array([scipy.optimize.nnls(x[i], y[i])[0] for i in range(N_SETS)])
    score = np.einsum("snk,sn->sk", x, y - np.einsum("snk,sk->sn", x, best))
    return {"x": jnp.array(x), "y": jnp.array(y)}, best, -score


@pytest.mark.parametrize("start", [1.0, 0.0, pytest.param(100.0, marks=pytest.mark.slow)])
def test_non_negative_least_squares(start: float) -> None:
    data, best, multipliers = regressions()
    fits = mle.fit_batch(line, np.full(K, start), data, constraints=mle.nonnegative)
    assert np.all(fits.converged)
    np.testing.assert_allclose(fits.params, best, atol=1e-13)
    np.testing.assert_array_equal(fits.at_bound, best == 0)
    found = np.stack([fits.certificate.multipliers[f"params[{i}]"] for i in range(K)], axis=1)
    np.testing.assert_allclose(found[best == 0], multipliers[best == 0], rtol=1e-9)
    assert np.all(np.isnan(found[best > 0]))
    assert np.max(fits.steps) < 60


def test_one_by_one_as_in_a_batch() -> None:
    data, _, _ = regressions()
    fits = mle.fit_batch(line, np.ones(K), data, constraints=mle.nonnegative)
    for i in range(3):
        one = mle.fit(line, np.ones(K), jax.tree.map(lambda leaf: leaf[i], data), constraints=mle.nonnegative)  # noqa: B023
        np.testing.assert_allclose(one.params, fits.params[i], atol=1e-13)
        np.testing.assert_array_equal(one.at_bound, fits.at_bound[i])
        np.testing.assert_allclose(one.standard_errors(), fits.standard_errors()[i], rtol=1e-10)


@pytest.mark.parametrize(
    "solver",
    [pytest.param(mle.BFGS(), marks=pytest.mark.slow), mle.LBFGS(), optax.adam(0.1), optax.lbfgs()],
    ids=["bfgs", "lbfgs", "adam", "optax-lbfgs"],
)
def test_other_solvers_reach_bounds(solver: Any) -> None:
    data, best, _ = regressions()
    some = jax.tree.map(lambda leaf: leaf[:10], data)
    fits = mle.fit_batch(line, np.ones(K), some, constraints=mle.nonnegative, solver=solver)
    assert np.all(fits.converged)
    np.testing.assert_allclose(fits.params, best[:10], atol=1e-13)


@pytest.mark.parametrize("start", [400.0, 500.0, -1e5])
def test_shifted_exponential(start: float) -> None:
    def density(p: Any, t: Any) -> Any:
        return -jnp.log(p["scale"]) - (t - p["shift"]) / p["scale"]

    rules = {"shift": mle.at_most(500.0), "scale": mle.positive}
    fit = mle.fit(
        density, {"shift": start, "scale": 100.0}, jnp.array([500.0, 600.0, 700.0, 800.0]), constraints=rules
    )
    assert fit.converged
    assert fit.params["shift"] == 500.0
    np.testing.assert_allclose(fit.params["scale"], 150.0, rtol=1e-10)
    np.testing.assert_allclose(fit.standard_errors()["scale"], 75.0, rtol=1e-10)
    np.testing.assert_allclose(fit.certificate.multipliers["shift"], 4 / 150, rtol=1e-10)


@pytest.mark.parametrize("dispersion", [0.5, 0.0, 5.0])
def test_underdispersed_counts_are_poisson(dispersion: float) -> None:
    rng = np.random.default_rng(1)
    data = {"y": jnp.array(rng.binomial(6, 0.5, 200)), "x": jnp.array(rng.standard_normal(200))}
    families = mle.families

    def mean(p: Any, o: Any) -> Any:
        return jnp.exp(p["b"] + p["c"] * o["x"])

    def negative_binomial(p: Any, o: Any) -> Any:
        return families.negative_binomial.log_density(o["y"], mean(p, o), p["dispersion"])

    start = {"b": 0.0, "c": 0.0}
    poisson = mle.fit(mle.regression(mean, families.poisson), start, data)
    fit = mle.fit(
        negative_binomial, start | {"dispersion": dispersion}, data, constraints={"dispersion": mle.nonnegative}
    )
    assert fit.converged
    assert fit.params["dispersion"] == 0
    np.testing.assert_allclose(fit.log_likelihood, poisson.log_likelihood, rtol=1e-12)
    for name in start:
        np.testing.assert_allclose(fit.params[name], poisson.params[name], rtol=1e-8)
        np.testing.assert_allclose(fit.standard_errors()[name], poisson.standard_errors()[name], rtol=1e-8)


def test_a_density_that_is_mended_at_zero_alone() -> None:
    """Beside zero the branch that is not taken divides by powers of the dispersion."""
    y = jnp.array(np.random.default_rng(1).binomial(6, 0.5, 200) + 0.0)

    def density(p: Any, y: Any) -> Any:
        a, m, j = p["a"], p["m"], jnp.arange(8.0)
        start = jnp.sum(jnp.where(j < y, jnp.log1p(a * j), 0.0)) + y * (jnp.log(m) - jnp.log1p(a * m))
        return start - jnp.where(a * m < 1e-6, m - 0.5 * a * m * m, jnp.log1p(a * m) / jnp.where(a == 0, 1.0, a))

    fit = mle.fit(density, {"a": 1.0, "m": 1.0}, y, constraints={"a": mle.nonnegative, "m": mle.positive})
    assert fit.converged
    assert fit.params["a"] == 0
    np.testing.assert_allclose(fit.params["m"], np.mean(y), rtol=1e-9)


def test_chain_that_never_goes_back() -> None:
    """A hidden Markov chain in logarithms, whose derivatives do not exist where a chance is zero."""
    rng = np.random.default_rng(2)
    state = np.repeat([0, 1], [25, 35])
    observed = jnp.array(3.0 * state + 0.3 * rng.standard_normal(60))

    def density(p: Any, y: Any) -> Any:
        chances = jnp.array([[1 - p["there"], p["there"]], [p["back"], 1 - p["back"]]])
        emission = -0.5 * ((y[:, None] - jnp.array([[0.0, 3.0]])) / p["sd"]) ** 2 - jnp.log(p["sd"])

        def step(forward: Any, of_row: Any) -> tuple[Any, None]:
            return logsumexp(forward[:, None] + jnp.log(chances), axis=0) + of_row, None

        last, _ = jax.lax.scan(step, jnp.log(jnp.array([0.5, 0.5])) + emission[0], emission[1:])
        return logsumexp(last)

    chance = mle.between(0.0, 1.0)
    rules = {"there": chance, "back": chance, "sd": mle.positive}
    fit = mle.fit(mle.joint(density), {"there": 0.3, "back": 0.3, "sd": 1.0}, observed, constraints=rules)
    assert fit.converged
    assert fit.params["back"] == 0
    # One of 25 steps from the first state leads to the second, to the overlap of the two.
    np.testing.assert_allclose(fit.params["there"], 1 / 25, rtol=1e-3)
    np.testing.assert_allclose(fit.standard_errors()["there"], np.sqrt(24 / 25**3), rtol=1e-3)
    np.testing.assert_allclose(fit.params["sd"], np.std(np.asarray(observed) - 3.0 * state), rtol=0.02)


def test_category_that_nobody_chose() -> None:
    chosen = np.repeat([0, 1, 3], [68, 63, 69])

    def density(p: Any, y: Any) -> Any:
        cuts = p["first"] + jnp.concatenate([jnp.zeros(1), jnp.cumsum(p["gaps"])])
        below = jnp.concatenate([jnp.zeros(1), jax.nn.sigmoid(cuts), jnp.ones(1)])
        return jnp.log(jnp.diff(below)[y])

    start = {"first": -1.0, "gaps": jnp.ones(2)}
    fit = mle.fit(density, start, jnp.array(chosen), constraints={"gaps": mle.nonnegative})
    assert fit.converged
    np.testing.assert_array_equal(fit.at_bound["gaps"], [False, True])
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    np.testing.assert_allclose(fit.params["first"], logit(68 / 200), rtol=1e-9)
    np.testing.assert_allclose(fit.params["gaps"][0], logit(131 / 200) - logit(68 / 200), rtol=1e-9)
    np.testing.assert_allclose(fit.standard_errors()["first"], (200 * 0.34 * 0.66) ** -0.5, rtol=1e-9)


@pytest.mark.parametrize("as_root", [False, True], ids=["variance", "standard-deviation"])
def test_groups_that_differ_less_than_by_chance(as_root: bool) -> None:
    """A random intercept with variance zero; as a standard deviation its multiplier is zero by symmetry."""
    noise = np.random.default_rng(3).standard_normal((20, 5))
    y = jnp.array(noise - 0.9 * noise.mean(axis=1, keepdims=True))
    power = 2 if as_root else 1

    def density(p: Any, of_group: Any) -> Any:
        spread = p["within"] * jnp.eye(5) + p["between"] ** power * jnp.ones((5, 5))
        return jax.scipy.stats.multivariate_normal.logpdf(of_group, jnp.full(5, p["mean"]), spread)

    start = {"mean": 0.0, "within": 1.0, "between": 0.5}
    rules = {"within": mle.positive, "between": mle.nonnegative}
    fit = mle.fit(density, start, y, constraints=rules)
    assert fit.converged
    assert fit.params["between"] == 0
    assert (fit.certificate.multipliers["between"] == 0) == as_root
    np.testing.assert_allclose(fit.params["within"], np.var(y), rtol=1e-9)
    np.testing.assert_allclose(fit.standard_errors()["mean"], np.std(y) / 10, rtol=1e-9)
    np.testing.assert_allclose(fit.standard_errors()["within"], np.var(y) * np.sqrt(2 / 100), rtol=1e-9)


def frontier(p: Any, y: Any) -> Any:
    """Normal noise less half-normal inefficiency, which has a point of inflection at su = 0 whatever the data."""
    e, s = y - p["a"], jnp.sqrt(p["su"] ** 2 + p["sv"] ** 2)
    return jnp.log(2 / s) - 0.5 * (e / s) ** 2 + mle.special.log_ndtr(-e * p["su"] / p["sv"] / s)


@pytest.mark.parametrize("su", [0.5, 0.0])
def test_stochastic_frontier_of_the_wrong_skew(su: float) -> None:
    """The wrong skew puts the maximum at zero, where the slope vanishes for any data (Waldman 1982)."""
    rng = np.random.default_rng(3)
    y = -0.3 * abs(rng.standard_normal((40, 60))) + 0.5 * rng.standard_normal((40, 60))
    skewness = np.mean((y - y.mean(axis=1, keepdims=True)) ** 3, axis=1)
    wrong = skewness > 0
    rules = {"su": mle.nonnegative, "sv": mle.positive}
    fits = mle.fit_batch(frontier, {"a": 0.0, "su": su, "sv": 0.5}, jnp.array(y), constraints=rules)
    assert np.all(fits.converged)
    np.testing.assert_array_equal(fits.at_bound["su"], wrong)
    np.testing.assert_array_equal(fits.params["su"] == 0, wrong)
    np.testing.assert_allclose(fits.params["a"][wrong], y.mean(axis=1)[wrong], atol=1e-9)
    np.testing.assert_allclose(fits.params["sv"][wrong], y.std(axis=1)[wrong], rtol=1e-9)
    assert set(wrong) == {True, False}


@pytest.mark.parametrize("start", [0.0, 0.5, 2.0])
def test_standard_deviations_of_either_kind(start: float) -> None:
    """Even in every parameter, so that all slopes vanish at zero: some are maxima there, others minima."""
    rng = np.random.default_rng(3)
    kind = (rng.integers(0, 3, (60, 120))[:, :, None] == np.arange(3)).astype(float)
    variance = np.maximum(1 + rng.choice([-0.6, 0.0, 0.6], (60, 3)), 0.1)
    y = rng.standard_normal((60, 120)) * np.sqrt(np.einsum("snk,sk->sn", kind, variance))

    def density(p: Any, o: Any) -> Any:
        spread = 1 + jnp.dot(p**2, o["kind"])
        return -0.5 * jnp.log(spread) - 0.5 * o["y"] ** 2 / spread

    data = {"kind": jnp.array(kind), "y": jnp.array(y)}
    fits = mle.fit_batch(density, jnp.full(3, start), data, constraints=mle.nonnegative)
    squares = np.einsum("sn,snk->sk", y**2, kind) / kind.sum(axis=1)
    assert np.all(fits.converged)
    np.testing.assert_allclose(np.asarray(fits.params) ** 2, np.maximum(squares - 1, 0.0), atol=1e-6)
    assert np.all(~np.asarray(fits.at_bound) | (squares < 1))


def test_two_minima_that_rise_together_only() -> None:
    """Each alone falls from the bound, and both at once rise."""

    def density(p: Any, x: Any) -> Any:
        a, b = p["a"], p["b"]
        return 3 * a * b - a**2 - b**2 - a**4 - b**4 + 0 * x

    fit = mle.fit(density, {"a": 0.0, "b": 0.0}, jnp.zeros(50), constraints=mle.nonnegative)
    assert fit.converged
    np.testing.assert_allclose([fit.params["a"], fit.params["b"]], 0.5, rtol=1e-9)


def three_parameter_weibull(params: Any, x: Any) -> Any:
    z = (x - params["loc"]) / params["scale"]
    return jnp.log(params["shape"] / params["scale"]) + (params["shape"] - 1) * jnp.log(z) - z ** params["shape"]


@pytest.mark.parametrize("solver", [mle.Newton(), mle.BFGS()], ids=lambda solver: solver.name)
def test_an_infinite_likelihood_on_a_bound_is_no_maximum(solver: mle.AbstractSolver) -> None:
    """With a shape below one the Weibull density is infinite at its least value."""
    rules = {"shape": mle.positive, "scale": mle.positive, "loc": mle.at_most(500.0)}
    start = {"shape": 2.0, "loc": 400.0, "scale": 200.0}
    data = jnp.array([500.0, 600.0, 700.0, 800.0])
    fit = mle.fit(three_parameter_weibull, start, data, constraints=rules, solver=solver)
    assert str(fit.status) == "unbounded"
    assert fit.message.endswith("The log-likelihood is infinite where loc lies on its bound.")
    assert np.isnan(fit.standard_errors()["scale"])
    equal = mle.fit(lambda s, y: -jnp.log(s) - y / s, 1.0, jnp.zeros(5), constraints=mle.nonnegative)
    assert str(equal.status) == "unbounded"
    # 0 log 0 is no such case: here the likelihood is finite, and its slope is not.
    finite = mle.fit(lambda p, y: y * jnp.log(p) - p, 1.0, jnp.zeros(5), constraints=mle.nonnegative)
    assert finite.converged


@pytest.mark.parametrize("weight", [0.0, 0.4, 0.9, 1.0])
def test_a_component_of_no_weight_has_no_mean(weight: float) -> None:
    """Under-dispersed counts: a mixture of two Poissons is one, and nothing is known of the other's mean."""
    y = jnp.array([3.0, 4, 4, 5, 4, 3, 5, 4, 4, 4, 3, 5])

    def density(p: Any, y: Any) -> Any:
        first, second = (y * jnp.log(p[name]) - p[name] for name in "ab")
        return jnp.logaddexp(jnp.log(p["w"]) + first, jnp.log1p(-p["w"]) + second)

    rules = {"w": mle.between(0.0, 1.0), "a": mle.positive, "b": mle.positive}
    fit = mle.fit(density, {"w": weight, "a": 2.0, "b": 6.0}, y, constraints=rules)
    assert str(fit.status) == "not_identified"
    of_none = "b" if fit.params["w"] == 1 else "a"
    assert fit.certificate.weak_parameters == (of_none,)
    np.testing.assert_allclose(fit.params["a" if of_none == "b" else "b"], y.mean(), rtol=1e-8)
