"""What a fit says of its uncertainty, against closed forms, other packages and finite differences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import mlekit as mle
from mlekit.inference.wald import wald_transformed
from tests.helpers.models import RULES, START, least_squares, line, line_data, logistic, logistic_data

DATA = line_data()
BEST = least_squares(DATA)


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return mle.fit(line, START, DATA, constraints=RULES)


def test_errors_of_the_normal_line(fit: mle.Fit) -> None:
    design = np.column_stack([np.ones(40), DATA["x"]])
    cov = BEST["sigma"] ** 2 * np.linalg.inv(design.T @ design)
    errors = fit.standard_errors()
    np.testing.assert_allclose(errors["intercept"], np.sqrt(cov[0, 0]), rtol=1e-10)
    np.testing.assert_allclose(errors["slope"], np.sqrt(cov[1, 1]), rtol=1e-10)
    # At the maximum the information about sigma is 2 n / sigma^2.
    np.testing.assert_allclose(errors["sigma"], BEST["sigma"] / np.sqrt(80), rtol=1e-10)
    names = fit.parameter_names
    assert names == ("intercept", "sigma", "slope")
    np.testing.assert_allclose(
        fit.covariance()[names.index("intercept"), names.index("slope")], cov[0, 1], rtol=1e-9
    )


def test_information_is_the_curvature(fit: mle.Fit) -> None:
    """In natural units the inverse covariance is the Hessian of the log-likelihood, by finite differences."""
    vector = np.array([BEST[k] for k in fit.parameter_names])
    h = 1e-4 * np.eye(3)

    def log_likelihood(v: np.ndarray) -> float:
        return float(mle.log_likelihood(line, dict(zip(fit.parameter_names, v)), DATA))

    hessian = [
        [
            (
                log_likelihood(vector + h[i] + h[j]) - log_likelihood(vector + h[i] - h[j])
                - log_likelihood(vector - h[i] + h[j]) + log_likelihood(vector - h[i] - h[j])
            ) / 4e-8
            for j in range(3)
        ]
        for i in range(3)
    ]  # fmt: skip
    np.testing.assert_allclose(np.linalg.inv(fit.covariance()), -np.array(hessian), rtol=1e-5, atol=1e-3)
    free_information = fit.information()
    jacobian = fit.parameters.jacobian(fit._solution.free)
    np.testing.assert_allclose(
        jacobian @ np.linalg.inv(free_information) @ jacobian.T, fit.covariance(), rtol=1e-9, atol=1e-15
    )


def test_scores_contributions_and_their_products(fit: mle.Fit) -> None:
    contributions, scores = fit.contributions(), fit.scores()
    np.testing.assert_allclose(np.sum(contributions), fit.log_likelihood, rtol=1e-13)
    residual = DATA["y"] - BEST["intercept"] - BEST["slope"] * DATA["x"]
    s2 = BEST["sigma"] ** 2
    expected = np.column_stack([residual / s2, residual**2 / s2 - 1, DATA["x"] * residual / s2])
    np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fit.information("opg"), scores.T @ scores, rtol=1e-10)
    bread = np.linalg.inv(fit.information())
    jacobian = fit.parameters.jacobian(fit._solution.free)
    sandwich = jacobian @ bread @ (scores.T @ scores) @ bread @ jacobian.T
    np.testing.assert_allclose(fit.covariance("sandwich"), sandwich, rtol=1e-8, atol=1e-15)
    clusters = np.arange(40) // 4
    sums = np.add.reduceat(scores, np.arange(0, 40, 4))
    clustered = jacobian @ bread @ (sums.T @ sums) @ bread @ jacobian.T
    np.testing.assert_allclose(fit.covariance("sandwich", clusters), clustered, rtol=1e-8, atol=1e-15)
    labels = np.array([f"firm {c}" for c in clusters])
    np.testing.assert_allclose(fit.covariance("sandwich", labels), clustered, rtol=1e-8, atol=1e-15)
    np.testing.assert_allclose(
        [fit.standard_errors("opg")[k] for k in fit.parameter_names], np.sqrt(np.diag(fit.covariance("opg")))
    )


def test_wald_intervals(fit: mle.Fit) -> None:
    z = scipy.stats.norm.ppf(0.95)
    for name, (low, high) in fit.intervals(level=0.9).items():
        error = float(fit.standard_errors()[name])
        np.testing.assert_allclose([low, high], [BEST[name] - z * error, BEST[name] + z * error], rtol=1e-9)
    free = fit.intervals(level=0.9, method="wald-transformed")
    np.testing.assert_allclose(free["slope"], fit.intervals(level=0.9)["slope"], rtol=1e-12)
    spread = np.exp(z / np.sqrt(80))  # log sigma has error 1 / sqrt(2 n)
    np.testing.assert_allclose(free["sigma"], [BEST["sigma"] / spread, BEST["sigma"] * spread], rtol=1e-9)


def test_free_intervals_stay_inside() -> None:
    estimate = jnp.array([0.01, 0.5, 3.0, -2.0, 1.0])
    low = jnp.array([0.0, 0.0, 2.9, -jnp.inf, -jnp.inf])
    high = jnp.array([1.0, 1.0, jnp.inf, -1.99, jnp.inf])
    lower, upper = wald_transformed(estimate, jnp.array([0.01, 0.4, 0.1, 0.01, 0.4]), low, high, 0.95)
    assert np.all((low < lower) & (lower < estimate) & (estimate < upper) & (upper < high))
    logit = scipy.special.logit(0.5) + np.array([-1, 1]) * scipy.stats.norm.ppf(0.975) * 0.4 / 0.25
    np.testing.assert_allclose([lower[1], upper[1]], scipy.special.expit(logit), rtol=1e-12)


def test_criteria(fit: mle.Fit) -> None:
    ll = float(fit.log_likelihood)
    np.testing.assert_allclose(
        ll,
        scipy.stats.norm.logpdf(
            DATA["y"] - BEST["intercept"] - BEST["slope"] * DATA["x"], scale=BEST["sigma"]
        ).sum(),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        [fit.aic, fit.bic, fit.aicc], [-2 * ll + 6, -2 * ll + 3 * np.log(40), -2 * ll + 6 + 24 / 36]
    )
    assert np.isinf(mle.fit(line, START, {k: v[:4] for k, v in DATA.items()}, constraints=RULES).aicc)


def test_delta_method(fit: mle.Fit) -> None:
    def functions(params: Any) -> Any:
        return {
            "ratio": params["slope"] / params["sigma"],
            "line": params["intercept"] + params["slope"] * jnp.arange(3.0),
        }

    found = fit.estimate(functions)
    cov = np.asarray(fit.covariance())
    names = fit.parameter_names
    i, k, s = (names.index(n) for n in ("intercept", "slope", "sigma"))
    gradient = np.zeros(3)
    gradient[k], gradient[s] = 1 / BEST["sigma"], -BEST["slope"] / BEST["sigma"] ** 2
    np.testing.assert_allclose(found.value["ratio"], BEST["slope"] / BEST["sigma"], rtol=1e-9)
    np.testing.assert_allclose(found.standard_error["ratio"], np.sqrt(gradient @ cov @ gradient), rtol=1e-9)
    at_two = cov[i, i] + 4 * cov[i, k] + 4 * cov[k, k]
    np.testing.assert_allclose(found.standard_error["line"][2], np.sqrt(at_two), rtol=1e-9)
    assert found.covariance.shape == (4, 4)
    fits = mle.fit_batch(line, START, {key: v[None].repeat(3, 0) for key, v in DATA.items()}, constraints=RULES)
    many = fits.estimate(functions)
    np.testing.assert_allclose(
        many.standard_error["line"], np.tile(found.standard_error["line"], (3, 1)), rtol=1e-9
    )
    assert many.covariance.shape == (3, 4, 4)


def test_everything_is_nan_where_nothing_converged() -> None:
    x = np.linspace(-1, 1, 20)
    fit = mle.fit(logistic, np.zeros(2), {"x": np.column_stack([np.ones(20), x]), "y": (x > 0).astype(float)})
    assert str(fit.status) == "unbounded"
    assert np.all(np.isnan(fit.covariance()))
    assert np.all(np.isnan(fit.covariance("sandwich")))
    assert np.all(np.isnan(fit.standard_errors()))
    assert all(np.all(np.isnan(end)) for end in fit.intervals())
    assert np.isnan(fit.estimate(lambda p: p[1]).standard_error)
    assert "params[1]" in fit.message
    # The slope runs away, the intercept stays.
    assert abs(float(fit.certificate.weak_direction["params[1]"])) > 0.99


def test_wald_errors_cover() -> None:
    """A thousand logistic regressions in one batch: 95 % intervals cover about 95 %."""
    rng = np.random.default_rng(11)
    truth = np.array([-0.5, 0.25, 1.0])
    x = np.concatenate([np.ones((1000, 300, 1)), rng.normal(size=(1000, 300, 2))], axis=2)
    y = (rng.random((1000, 300)) < 1 / (1 + np.exp(-x @ truth))).astype(float)
    fits = mle.fit_batch(logistic, np.zeros(3), {"x": x, "y": y})
    assert fits.status.counts() == {"converged": 1000}
    low, high = fits.intervals()
    covered = np.mean((low < truth[None]) & (truth[None] < high), axis=0)
    # Three standard errors of a share of 0.95 among 1,000 are 0.021.
    assert np.all(np.abs(covered - 0.95) < 0.021), covered


def test_log_likelihood_of_the_seeds() -> None:
    """Sums of logs where products underflow; a likelihood is a function of the parameter."""
    density = lambda p, heads: jnp.where(heads, jnp.log(p), jnp.log1p(-p))  # noqa: E731
    flips = np.arange(10) < 7
    fit = mle.fit(density, 0.5, flips, constraints=mle.unit_interval)
    np.testing.assert_allclose(fit.params, 0.7, rtol=1e-12)
    np.testing.assert_allclose(fit.standard_errors(), np.sqrt(0.7 * 0.3 / 10), rtol=1e-10)
    many = np.tile(flips, 100_000)
    assert 0.7**700_000 == 0.0
    ll = mle.log_likelihood(density, 0.7, many)
    np.testing.assert_allclose(ll, 700_000 * np.log(0.7) + 300_000 * np.log(0.3), rtol=1e-12)
    gradient = jax.grad(lambda p: mle.log_likelihood(density, p, flips))(0.5)
    np.testing.assert_allclose(gradient, 7 / 0.5 - 3 / 0.5)
    data = logistic_data()
    np.testing.assert_allclose(
        mle.log_likelihood(logistic, np.ones(3), data, weights=np.full(200, 2.0)),
        2 * mle.log_likelihood(logistic, np.ones(3), data),
        rtol=1e-12,
    )
