"""Certified numbers: real data, and the same maxima as statsmodels, NIST or an independent NumPy likelihood.

Each model is one pure JAX log-density of one observation. Reference maxima come from statsmodels at tight
tolerances, from closed forms, or from `maximum`: a NumPy log-likelihood, its gradient by complex steps (exact
to rounding), and Newton's method; no JAX is involved.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

import mlekit as mle
from tests.reference.cases import CASES, DIGITS, reference, same_tree


@functools.cache
def fitted(name: str) -> mle.Fit:
    log_density, init, data, _, constraints = CASES[name]
    return mle.fit(log_density, init, data(), constraints=constraints)


@pytest.mark.parametrize("name", CASES)
def test_estimates_errors_and_log_likelihood(name):
    fit, wanted = fitted(name), reference(name)
    assert fit.status == mle.Status.converged, fit.message
    same_tree(fit.params, wanted.params, wanted.errors, what="estimate")
    # The information itself is known to rounding only: Longley's, of condition 2e9, to 4e-7 of its inverse.
    rtol = max(DIGITS, np.finfo(float).eps * float(fit.certificate.condition_number))
    same_tree(fit.standard_errors(), wanted.errors, wanted.errors, rtol, "error")
    assert rtol == DIGITS or name == "longley"
    np.testing.assert_allclose(fit.log_likelihood, wanted.log_likelihood, rtol=1e-11)
    k = sum(np.size(value) for value in wanted.params.values())
    n = len(CASES[name][2]()["x"])
    assert (fit.n_free, int(fit.n_obs)) == (k, n)
    np.testing.assert_allclose(fit.aic, 2 * k - 2 * wanted.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(fit.bic, k * np.log(n) - 2 * wanted.log_likelihood, rtol=1e-10)


def test_the_covariance_agrees_with_the_errors():
    """Two routes to one thing, through two constraints."""
    fit = fitted("student")
    errors = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(fit.standard_errors())])
    np.testing.assert_allclose(np.sqrt(np.diagonal(fit.covariance())), errors, rtol=1e-9)


@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("gamma", "weibull", "student", "longley")]
)
def test_aic_and_bic_of_statsmodels(name):
    """As they come; for OLS with one more parameter, because statsmodels does not count sigma."""
    fit, wanted = fitted(name), reference(name)
    assert wanted.aic is not None
    assert wanted.bic is not None
    np.testing.assert_allclose(fit.aic, wanted.aic, rtol=1e-10)
    np.testing.assert_allclose(fit.bic, wanted.bic, rtol=1e-10)
