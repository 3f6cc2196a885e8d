"""Searches that begin at saddles, on plateaus and in the wrong units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from jax.scipy.stats import norm

import mlekit as mle
from tests.solvers.sick_data import N, S, constraints_of, healthy, student


def mixture(params, obs):
    """Two normals of equal weight and unit variance."""
    return jax.nn.logsumexp(norm.logpdf(obs["y"], params["means"], 1.0)) - jnp.log(2.0)


def lumps() -> dict[str, np.ndarray]:
    """Two symmetric lumps, with the symmetric saddle at zero."""
    half = 2 + scipy.stats.norm.ppf((np.arange(30) + 0.5) / 30)
    return {"y": np.concatenate([half, -half])}


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-6, 1e-9, 0.0])
def test_from_beside_a_saddle_to_a_maximum(gap):
    fit = mle.fit(mixture, {"means": jnp.array([gap, -gap])}, lumps())
    saddle = mle.log_likelihood(mixture, {"means": jnp.zeros(2)}, lumps())
    best = mle.fit(mixture, {"means": jnp.array([2.0, -2.0])}, lumps())
    assert best.converged
    assert fit.status == S.converged, fit.message
    assert float(fit.log_likelihood) > float(saddle) + 10
    np.testing.assert_allclose(np.sort(fit.params["means"]), np.sort(best.params["means"]), rtol=1e-10)
    np.testing.assert_allclose(fit.log_likelihood, best.log_likelihood, rtol=1e-13)


def test_starts_with_indefinite_information():
    """A Cauchy centre far off, where the likelihood is convex, and wrong scales over ten decades."""
    data = {"y": np.concatenate([healthy("student", 0)["y"], [30.0, -25.0]])}
    starts = {
        "centre": jnp.array([0.0, 20.0, -40.0, 5.0, 0.0, 0.0, 100.0, 1.0]),
        "sigma": jnp.array([1.0, 1.0, 2.0, 0.1, 1e-3, 1e5, 1.0, 1.0]),
        "df": jnp.array([1.0, 1.0, 1.0, 3.0, 2.0, 2.0, 1.0, 50.0]),
    }
    sets = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (8, *leaf.shape)), data)
    fits = mle.fit_batch(student, starts, sets, init_axis=0, constraints=constraints_of(starts))
    assert np.all(np.asarray(fits.status) == S.converged), fits.status
    for leaf in jax.tree.leaves((fits.params, fits.log_likelihood)):
        np.testing.assert_allclose(leaf, np.broadcast_to(leaf[0], leaf.shape), rtol=1e-9)

    def negative(v):
        return -np.sum(scipy.stats.t.logpdf(data["y"], np.exp(v[0]), v[1], np.exp(v[2])))

    known = scipy.optimize.minimize(
        negative, [0.5, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
    )
    assert float(fits.log_likelihood[0]) == pytest.approx(-known.fun, abs=1e-9)
    np.testing.assert_allclose(np.exp(known.x[2]), fits.params["sigma"][0], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e2, 1e4, 1e5, 1e6, 1e8])
def test_from_a_start_in_the_wrong_units(scale):
    """A sigma of 2 to begin with, whatever the data are measured in."""
    y = scale * np.array([0.0, 1, 0, 1, 1]) + 1

    def model(params, obs):
        return norm.logpdf(obs["y"], params["centre"], params["sigma"])

    fit = mle.fit(model, {"centre": 0.0, "sigma": 2.0}, {"y": y}, constraints={"sigma": mle.positive})
    assert fit.status == S.converged, (fit.message, fit.params)
    np.testing.assert_allclose([fit.params["centre"], fit.params["sigma"]], [y.mean(), y.std()], rtol=1e-8)


@pytest.mark.parametrize("start", [-4.0, 6.0, 9.0])
def test_from_a_plateau_to_the_maximum(start):
    """A dose response whose half-way point starts far outside the doses, where all means are alike."""
    x = np.linspace(0, 4, N)
    y = 1 / (1 + np.exp(-3 * (x - 1.7))) + 0.05 * np.sin(37 * x)

    def response(params, obs):
        mean = jax.nn.sigmoid(params["slope"] * (obs["x"] - params["half"]))
        return norm.logpdf(obs["y"], mean, params["sigma"])

    init = {"half": start, "slope": 1.0, "sigma": 0.5}
    constraints = {"sigma": mle.positive, "slope": mle.positive}
    fit = mle.fit(response, init, {"x": x, "y": y}, constraints=constraints)
    assert fit.status == S.converged, fit.message
    known = scipy.optimize.curve_fit(
        lambda x, half, slope: 1 / (1 + np.exp(-slope * (x - half))), x, y, [1.7, 3.0], ftol=1e-15, xtol=1e-15
    )[0]
    np.testing.assert_allclose([fit.params["half"], fit.params["slope"]], known, rtol=1e-6)
