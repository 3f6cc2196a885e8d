"""Regressions of every family beside those of statsmodels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.othermod.betareg import BetaModel

import mlekit as mle
from mlekit.models import families
from mlekit.models.regression import regression
from tests.helpers.regressions import linear, log_linear, synthetic


def of_statsmodels(name: str) -> dict[str, np.ndarray]:
    """A data set that comes with statsmodels, its columns in standard units."""
    data = getattr(sm.datasets, name).load_pandas()
    x = data.exog.to_numpy(float)[:1000]
    y = data.endog.to_numpy(float)[:1000]
    return {"x": np.column_stack([np.ones(len(x)), (x - x.mean(0)) / x.std(0)]), "y": y}


def check(fit: Any, reference: Any, *others: str) -> None:
    """Whether estimates are those of statsmodels: the coefficients first, then further parameters."""
    assert bool(fit.converged), fit.message
    coef = np.asarray(reference.params)[: len(fit.params["coef"])]
    np.testing.assert_allclose(fit.params["coef"], coef, rtol=1e-8, atol=1e-8 * np.min(reference.bse))
    for name, value in zip(others, np.asarray(reference.params)[len(coef) :]):
        assert fit.params[name] == pytest.approx(value, rel=1e-8)


def test_normal_regression_is_least_squares():
    data = of_statsmodels("stackloss")
    model = regression(lambda p, obs: (linear(p, obs), p["scale"]), families.normal)
    fit = mle.fit(model, {"coef": np.zeros(4), "scale": 10.0}, data, constraints={"scale": mle.positive})
    reference = sm.OLS(data["y"], data["x"]).fit()
    check(fit, reference)
    assert fit.params["scale"] == pytest.approx(np.sqrt(reference.ssr / 21), rel=1e-8)
    assert fit.log_likelihood == pytest.approx(reference.llf, rel=1e-10)


def test_bernoulli_regression_is_logit():
    data = of_statsmodels("spector")
    fit = mle.fit(regression(linear, families.bernoulli), {"coef": np.zeros(4)}, data)
    check(fit, sm.Logit(data["y"], data["x"]).fit(method="newton", tol=1e-12, disp=False))


def test_binomial_regression_is_a_glm():
    data = of_statsmodels("star98")
    table = {"x": data["x"][:, :6], "successes": data["y"][:, 0], "n": data["y"].sum(1)}
    model = regression(linear, families.binomial(trials="n"), response="successes")
    fit = mle.fit(model, {"coef": np.zeros(6)}, table)
    reference = sm.GLM(data["y"], table["x"], family=sm.families.Binomial()).fit(tol=1e-14)
    check(fit, reference)
    assert fit.log_likelihood == pytest.approx(reference.llf, rel=1e-10)


def test_count_regressions_are_those_of_statsmodels():
    data = of_statsmodels("randhie")
    data["x"], k = data["x"][:, :4], 4
    fit = mle.fit(regression(lambda *a: log_linear()(*a)[0], families.poisson), {"coef": np.zeros(k)}, data)
    reference = sm.Poisson(data["y"], data["x"]).fit(method="newton", tol=1e-13, disp=False)
    check(fit, reference)
    start = {"coef": reference.params, "dispersion": 1.0}
    model = regression(log_linear("dispersion"), families.negative_binomial)
    fit = mle.fit(model, start, data, constraints={"dispersion": mle.positive})
    reference = sm.NegativeBinomial(data["y"], data["x"]).fit(
        start_params=[*reference.params, 1.0], method="newton", tol=1e-13, maxiter=200, disp=False
    )
    check(fit, reference, "dispersion")
    assert fit.log_likelihood == pytest.approx(reference.llf, rel=1e-10)


def test_gamma_regression_is_a_glm():
    data = synthetic()
    model = regression(log_linear("shape"), families.gamma, response="size")
    fit = mle.fit(model, {"coef": np.zeros(3), "shape": 1.0}, data, constraints={"shape": mle.positive})
    check(fit, sm.GLM(data["size"], data["x"], family=sm.families.Gamma(sm.families.links.Log())).fit(tol=1e-14))


def gradient(model: mle.Model, params: dict[str, Any], data: dict[str, Any]) -> np.ndarray:
    score = jax.jit(jax.grad(lambda p: mle.log_likelihood(model, p, data)))(params)
    return np.concatenate([np.ravel(leaf) for leaf in score.values()])


def test_score_vanishes_at_the_maxima_of_statsmodels():
    data = synthetic()
    noise = sm.families.InverseGaussian(sm.families.links.Log())
    glm = sm.GLM(data["size"], data["x"], family=noise).fit(tol=1e-14)
    shape = 1 / np.mean((data["size"] - glm.mu) ** 2 / (data["size"] * glm.mu**2))
    model = regression(log_linear("shape"), families.inverse_gaussian, response="size")
    found = gradient(model, {"coef": glm.params, "shape": shape}, data)
    assert np.max(np.abs(found) * [*glm.bse, shape]) < 1e-8

    def predict(params, obs):
        return jax.nn.sigmoid(linear(params, obs)), jnp.exp(params["log_precision"])

    theirs = BetaModel(data["share"], data["x"]).fit(method="newton", tol=1e-13, disp=False)
    model = regression(predict, families.beta, response="share")
    params = {"coef": theirs.params[:3], "log_precision": theirs.params[3]}
    assert np.max(np.abs(gradient(model, params, data)) * theirs.bse) < 1e-8
    assert mle.log_likelihood(model, params, data) == pytest.approx(theirs.llf, rel=1e-10)
