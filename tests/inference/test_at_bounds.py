"""Errors, intervals, tests and derivatives of fits with estimates at bounds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import mlekit as mle
from mlekit.inference.hypothesis_tests.boundary import cone_weights, orthant
from tests.reference.test_at_bounds import line

N_OBS, K = 30, 4
#: Each one program, as where tests use them.
chance, shares = jax.jit(orthant), jax.jit(cone_weights)
DROP = scipy.stats.chi2.ppf(0.95, 1) / 2


def regression() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_OBS, K)) @ (np.eye(K) + 0.8 * np.ones((K, K)))
    return x, x @ np.array([1.0, -0.5, 0.1, 0.0]) + rng.standard_normal(N_OBS)


def as_data(y: Any) -> dict[str, Any]:
    return {"x": jnp.array(regression()[0]), "y": jnp.asarray(y)}


def fitted(y: Any, low: Any = 0.0) -> mle.Fit:
    return mle.fit(line, jnp.ones(K), as_data(y), constraints=mle.at_least(low))


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    """Only the first slope is off its bound."""
    return fitted(regression()[1])


def test_errors_are_those_with_the_others_fixed(fit: mle.Fit) -> None:
    x, y = regression()
    np.testing.assert_array_equal(fit.at_bound, [False, True, True, True])
    alone = mle.fit(lambda slope, obs: line(slope[None], obs), 1.0, {"x": jnp.array(x[:, :1]), "y": jnp.array(y)})
    for kind in ("observed", "opg", "sandwich"):
        covariance = np.asarray(fit.covariance(kind))
        np.testing.assert_allclose(covariance[0, 0], alone.covariance(kind)[0, 0], rtol=1e-10)
        assert np.all(covariance[1:] == 0)
        assert np.all(covariance[:, 1:] == 0)
        np.testing.assert_array_equal(np.isnan(fit.standard_errors(kind)), fit.at_bound)
    clusters = np.arange(N_OBS) // 3
    here, there = (one.covariance("sandwich", clusters=clusters)[0, 0] for one in (fit, alone))
    np.testing.assert_allclose(here, there, rtol=1e-10)
    np.testing.assert_allclose(fit.influence()[:, 0], alone.influence()[:, 0], rtol=1e-9)


def test_functions_and_draws_hold_the_bounds(fit: mle.Fit) -> None:
    total = fit.estimate(jnp.sum)
    np.testing.assert_allclose(total.standard_error, fit.standard_errors()[0], rtol=1e-10)
    draws = np.asarray(fit.draws(jax.random.key(0), 2000))
    assert np.all(draws[:, 1:] == 0)
    assert np.all(draws >= 0)
    np.testing.assert_allclose(draws[:, 0].std(), fit.standard_errors()[0], rtol=0.05)


def test_wald_intervals_are_unknown_at_bounds(fit: mle.Fit) -> None:
    for method in ("wald", "wald-transformed"):
        for end in fit.intervals(method=method):
            np.testing.assert_array_equal(np.isnan(end), fit.at_bound)


def test_wald_intervals_near_bounds() -> None:
    """They are those of a normal estimate, cut off at closed bounds where they are not to leave the range."""
    data = np.array([[-1.0, -2.0], [1.0, 2.0], [-2.0, 2.1]])
    fits = mle.fit_batch(lambda m, x: -0.5 * (x - m) ** 2, 1.0, jnp.array(data), constraints=mle.nonnegative)
    lower, upper = scipy.stats.norm.interval(0.95, data.mean(axis=1), np.sqrt(0.5))
    lower, upper = (np.where([True, False, False], np.nan, end) for end in (lower, upper))
    assert lower[2] < 0
    np.testing.assert_allclose(fits.intervals(), (lower, upper))
    inside = fits.intervals(method="wald-transformed")
    np.testing.assert_allclose(inside, (np.maximum(lower, 0.0), upper))
    np.testing.assert_allclose(fits[2].intervals(method="wald-transformed"), (0.0, upper[2]))
    test = mle.wald_test(fits, "params")
    np.testing.assert_allclose(test.statistic[1:], 2 * data[1:].mean(axis=1) ** 2)
    assert np.isnan(test.p_value[0])
    assert "at its bound" not in repr(fits.diagnose())
    assert "1 data set (33.3%): some estimates lie on their bounds; fits[i].diagnose()." in repr(fits.diagnose())


def test_diagnosis_says_which_lie_on_bounds(fit: mle.Fit) -> None:
    """The multipliers are the slopes of the sum of squares."""
    x, y = regression()
    slopes = (x @ scipy.optimize.nnls(x, y)[0] - y) @ x
    text = repr(fit.diagnose())
    for j in (1, 2, 3):
        assert f"params[{j}] = 0, {slopes[j]:#.3g} nats per unit beyond" in text
    assert "Errors of the others take them as fixed; their own intervals are those of method='profile'." in text


@pytest.mark.parametrize("seen", [1.0, 9.0])
def test_tests_without_a_verdict_say_why(seen: float) -> None:
    def counting(rule: Any) -> mle.Fit:
        return mle.fit(lambda s, n: n * jnp.log(s + 3.0) - s, 1.0, jnp.array([seen]), constraints=rule)

    inside, closed = counting(mle.positive), counting(mle.nonnegative)
    if seen > 3:
        np.testing.assert_allclose(inside.significance("params").p_value, closed.significance("params").p_value)
        return
    text = repr(inside.significance("params"))
    assert "no verdict; the fit did not converge: unbounded; params ran to the edge: mle.nonnegative lets" in text
    assert "mle.nonnegative lets the estimate lie on it, where" in repr(inside.diagnose())
    for test in (mle.wald_test(closed, "params"), mle.wald_test(closed, lambda signal: 2 * signal)):
        assert "no verdict; params lies on its bound, where Wald's test does not hold; there is " in repr(test)
    assert np.isfinite(closed.significance("params").p_value)
    scale = mle.fit(lambda s, x: -jnp.log(s) - x / s, 1.0, jnp.array([seen]), constraints=mle.positive)
    assert "the fit with params = 0.0 did not converge: nonfinite_start" in repr(scale.significance("params"))


def test_profile_intervals_are_one_sided(fit: mle.Fit) -> None:
    x, y = regression()
    least = scipy.optimize.nnls(x, y)[1] ** 2 / 2
    lower, upper = fit.intervals(method="profile")
    for j in range(K):
        others = [i for i in range(K) if i != j]

        def above(value: float) -> float:
            rest = y - x[:, j] * value  # noqa: B023
            return scipy.optimize.nnls(x[:, others], rest)[1] ** 2 / 2 - least - DROP  # noqa: B023

        best = float(fit.params[j])
        np.testing.assert_allclose(upper[j], scipy.optimize.brentq(above, best, best + 20), rtol=1e-6)
        known = 0.0 if above(0.0) < 0 else scipy.optimize.brentq(above, 0.0, best)
        np.testing.assert_allclose(lower[j], known, rtol=1e-6)
    curve = mle.profile(fit, "params[1]", points=5)
    assert curve.values[0][0] == 0
    assert np.all(np.diff(curve.drop) > 0)


@pytest.mark.parametrize("seen", [1.0, 5.0, 12.0])
def test_counting_experiment(seen: float) -> None:
    """Three events of background are expected."""

    def nats(signal: float) -> float:
        return seen * np.log(signal + 3) - signal

    best = max(seen - 3, 0.0)
    below = lambda signal: nats(best) - nats(signal) - DROP  # noqa: E731
    signal = mle.fit(lambda s, n: n * jnp.log(s + 3.0) - s, 1.0, jnp.array([seen]), constraints=mle.nonnegative)
    np.testing.assert_allclose(signal.params, best, atol=1e-8)
    lower, upper = signal.intervals(method="profile")
    np.testing.assert_allclose(upper, scipy.optimize.brentq(below, best, 50.0), rtol=1e-6)
    assert (lower == 0) if below(0.0) < 0 else (lower > 0)
    test = signal.significance("params")
    np.testing.assert_allclose(test.z, np.sqrt(2 * (nats(best) - nats(0.0))), rtol=1e-6)
    np.testing.assert_allclose(test.p_value, scipy.stats.norm.sf(test.z) * (1 if seen > 3 else 2), rtol=1e-6)
    assert test.distribution == "half chi-square(0) and half chi-square(1)"
    np.testing.assert_allclose(signal.significance("params", 1.0).degrees_of_freedom, 1.0)
    assert signal.significance("params", 1.0).distribution == "chi-square"


@pytest.mark.parametrize("m", [2, 3, 4])
def test_weights_of_cones(m: int) -> None:
    rng = np.random.default_rng(m)
    root = rng.standard_normal((m, m))
    covariance = root @ root.T + 0.3 * np.eye(m)
    normal = scipy.stats.multivariate_normal(np.zeros(m), covariance)
    np.testing.assert_allclose(chance(jnp.array(covariance)), normal.cdf(np.zeros(m)), rtol=2e-3)
    metric = np.linalg.cholesky(np.linalg.inv(covariance)).T
    draws = rng.multivariate_normal(np.zeros(m), covariance, 4000)
    positive = [np.sum(scipy.optimize.nnls(metric, metric @ z)[0] > 1e-12) for z in draws]
    wanted = np.bincount(positive, minlength=m + 1) / len(draws)
    np.testing.assert_allclose(shares(jnp.array(covariance)), wanted, atol=0.025)


def test_likelihood_ratio_knows_the_bounds(fit: mle.Fit) -> None:
    x, y = regression()
    none = mle.fit(line, jnp.zeros(K), as_data(y), constraints=mle.fixed)
    test = mle.likelihood_ratio_test(none, fit)
    metric = np.linalg.cholesky(x.T @ x).T
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(K), np.linalg.inv(x.T @ x), 4000)
    gains = [np.sum((metric @ z) ** 2) - scipy.optimize.nnls(metric, metric @ z)[1] ** 2 for z in draws]
    small = float(np.quantile(gains, 0.7))
    weights = shares(jnp.array(np.linalg.inv(x.T @ x)))
    tails = [np.mean(np.zeros(1)), *(scipy.stats.chi2.sf(small, i) for i in range(1, K + 1))]
    np.testing.assert_allclose(np.dot(weights, tails), 0.3, atol=0.03)
    known = np.dot(weights, [0.0, *(scipy.stats.chi2.sf(float(test.statistic), i) for i in range(1, K + 1))])
    np.testing.assert_allclose(test.p_value, known, rtol=1e-6)
    assert "chi-square(4)" in test.distribution
    plain = mle.likelihood_ratio_test(none, fit, boundary=False)
    assert plain.distribution == "chi-square"
    assert plain.p_value > test.p_value


def test_upper_bounds_turn_the_cone() -> None:
    x, y = regression()
    below = mle.fit(line, -jnp.ones(K), {"x": jnp.array(-x), "y": jnp.array(y)}, constraints=mle.at_most(0.0))
    none = mle.fit(line, jnp.zeros(K), as_data(y), constraints=mle.fixed)
    tests = [mle.likelihood_ratio_test(none, full) for full in (fitted(y), below)]
    np.testing.assert_allclose(tests[0].p_value, tests[1].p_value, rtol=1e-9)


def differences(fn: Any, at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    columns = [np.asarray(fn(at + step * e)) - np.asarray(fn(at - step * e)) for e in np.eye(at.size)]
    return np.stack(columns, axis=-1) / (2 * step)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_estimates_move_with_their_bounds(mode: Any) -> None:
    _, y = regression()
    low = np.zeros(K)
    derivative = mode(lambda low: fitted(y, low).params)(jnp.array(low))
    np.testing.assert_allclose(
        derivative, differences(lambda low: fitted(y, jnp.array(low)).params, low), atol=1e-9
    )
    np.testing.assert_allclose(np.diagonal(derivative)[1:], 1.0)
    gain = jax.grad(lambda low: fitted(y, low).log_likelihood)(jnp.array(low))
    multipliers = [fitted(y).certificate.multipliers.get(f"params[{i}]", 0.0) for i in range(K)]
    np.testing.assert_allclose(gain, -np.array(multipliers), atol=1e-9)


def test_derivatives_by_the_data() -> None:
    _, y = regression()
    rows = np.array([0, 7])
    for result in (lambda y: fitted(y).params, lambda y: fitted(y).intervals(method="profile")[1]):
        derivative = jax.jacrev(result)(jnp.array(y))
        moved = differences(lambda few: result(jnp.array(y).at[rows].set(few)), y[rows])  # noqa: B023
        np.testing.assert_allclose(derivative[:, rows], moved, atol=1e-6)


def test_no_derivative_where_a_multiplier_is_zero() -> None:
    """The least of two parabolas: the estimate leaves its bound one way alone."""
    best = lambda x: mle.argmax(lambda m, x: -0.5 * (x - m) ** 2, 1.0, x, constraints=mle.nonnegative)  # noqa: E731
    assert np.all(np.isnan(jax.grad(best)(jnp.array([-1.0, 1.0]))))
    np.testing.assert_allclose(jax.grad(best)(jnp.array([-1.0, 2.0])), 0.5)
    np.testing.assert_allclose(jax.grad(best)(jnp.array([-2.0, 1.0])), 0.0)


def test_derivatives_of_batches() -> None:
    _, y = regression()

    def slopes(ys: Any) -> Any:
        data = {"x": jnp.stack([jnp.array(regression()[0])] * 2), "y": ys}
        return mle.fit_batch(line, jnp.ones(K), data, constraints=mle.nonnegative).params

    derivative = jax.jacrev(slopes)(jnp.stack([jnp.array(y), -jnp.array(y)]))
    single = jax.jacrev(lambda y: fitted(y).params)(jnp.array(y))
    np.testing.assert_allclose(derivative[0, :, 0], single, atol=1e-12)
    assert np.all(derivative[0, :, 1] == 0)


def test_batches_whose_hypotheses_differ() -> None:
    def density(p: Any, x: Any) -> Any:
        return -0.5 * (x - p["a"]) ** 2

    data = jnp.array(np.random.default_rng(0).standard_normal((2, 20)) + 0.5)
    start = {"a": jnp.array([0.0, 0.7])}
    full = mle.fit_batch(density, {"a": 0.5}, data, constraints=mle.nonnegative)
    fixed = mle.fit_batch(density, start, data, init_axis=0, constraints=mle.fixed)
    with pytest.raises(ValueError, match="on a bound in some data sets alone"):
        mle.likelihood_ratio_test(fixed, full)
    test = full.significance("a", start["a"])
    tails = scipy.stats.chi2.sf(np.asarray(test.statistic), 1)
    np.testing.assert_allclose(test.p_value, tails * [0.5, 1.0], rtol=1e-9)


def test_one_maximum_at_a_bound_is_one_mode() -> None:
    def density(p: Any, x: Any) -> Any:
        return -0.5 * (x - p["m"]) ** 2 - 0.5 * (x - p["k"]) ** 2

    x, start = jnp.array([-1.0, 0.2, -0.5, 0.1]), {"m": 0.5, "k": 0.0}
    fit = mle.fit(density, start, x, constraints={"m": mle.nonnegative}, starts=4, key=jax.random.key(0))
    assert fit.modes is not None
    assert fit.modes.n_modes == 1
    assert fit.modes.count[0] == 4


def test_score_test_holds_nuisances_at_their_bounds() -> None:
    """As if the constant were known to be at its bound, which it would fall below."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 2))
    y = rng.poisson(np.exp(0.3 + 0.2 * x[:, 0])).astype(float)

    def counts(p: Any, obs: Any) -> Any:
        rate = p["constant"] + obs["x"] @ p["slopes"]
        return obs["y"] * rate - jnp.exp(rate)

    start, rule = {"constant": 1.0, "slopes": jnp.array([0.1, 0.0])}, {"constant": mle.at_least(1.0)}
    data = {"x": jnp.array(x), "y": jnp.array(y)}
    fit = mle.fit(counts, start, data, constraints=rule | {"slopes": mle.fixed})
    assert fit.at_bound["constant"]
    rates = np.exp(1.0 + 0.1 * x[:, 0])
    scores, information = x * (y - rates)[:, None], (x * rates[:, None]).T @ x
    total = scores.sum(axis=0)
    for kind, matrix in (("observed", information), ("opg", scores.T @ scores)):
        statistic = mle.score_test(fit, rule, kind=kind).statistic
        np.testing.assert_allclose(statistic, total @ np.linalg.solve(matrix, total), rtol=1e-9)
