"""Where a fit has no derivative, it is NaN, and no neighbour notices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import mlekit as mle
from tests.engine.bent_lines import LINE, RULES, X, Y, line
from tests.helpers.derivatives import difference
from tests.helpers.marks import mostly_slow
from tests.helpers.models import logistic, logistic_data


# Where nothing is known.
def separated(x: Any) -> Any:
    return mle.fit(logistic, np.zeros(2), {"x": x, "y": (jnp.arange(20) > 9).astype(float)})


def flat(scale: Any) -> Any:
    density = lambda p, obs, scale: norm.logpdf(obs, scale * (p["a"] + p["b"]))  # noqa: E731
    return mle.fit(density, {"a": 0.0, "b": 0.0}, jnp.arange(5.0), args=scale)


def at_an_edge(scale: Any) -> Any:
    density = lambda p, obs, scale: norm.logpdf(obs, scale * p)  # noqa: E731
    return mle.fit(density, 0.5, jnp.arange(3.0) - 5, args=scale, constraints=mle.interval(0.0, 1.0))


def out_of_steps(scale: Any) -> Any:
    data = logistic_data(50)
    return mle.fit(logistic, np.zeros(3), {"x": data["x"] * scale, "y": data["y"]}, max_steps=1)


def nonfinite(scale: Any) -> Any:
    return mle.fit(lambda p, obs: norm.logpdf(obs, p), 0.0, scale * jnp.array([1.0, jnp.nan]))


DESIGN = jnp.column_stack([jnp.ones(20), jnp.linspace(-1, 1, 20)])
NOWHERE = {
    "unbounded": (separated, DESIGN),
    "not_identified": (flat, 1.0),
    "edge": (at_an_edge, 1.0),
    "max_steps": (out_of_steps, 1.0),
    "nonfinite_data": (nonfinite, 1.0),
}


@pytest.mark.parametrize("name", mostly_slow(NOWHERE, "nonfinite_data"))
def test_no_derivative_where_no_maximum_is_proven(name: str) -> None:
    """NaN in both modes, of estimates, log-likelihood and errors, and a status that says why."""
    fn, at = NOWHERE[name]
    at = jnp.asarray(at)
    assert fn(at).status == ("unbounded" if name == "edge" else name)

    def found(at: Any) -> Any:
        fit = fn(at)
        leaves = jax.tree.leaves((fit.params, fit.log_likelihood, fit.standard_errors()))
        return jnp.stack([jnp.sum(leaf) for leaf in leaves])

    assert np.all(np.isnan(jax.jacrev(found)(at)))
    assert np.all(np.isnan(jax.jvp(found, (at,), (jnp.ones_like(at),))[1]))


def test_one_failure_spoils_no_other() -> None:
    """Of a batch with a data set that has no maximum, whatever leaves that out has derivatives."""
    y = jnp.stack([(jnp.sin(7.0 * DESIGN[:, 1]) > 0), DESIGN[:, 1] > 0, (jnp.cos(5.0 * DESIGN[:, 1]) > 0)]).astype(
        float
    )
    x = jnp.broadcast_to(DESIGN, (3, 20, 2))
    density = lambda c, obs, ridge: logistic(c, obs) - 0.0 * ridge + ridge * obs["x"][1] * c[0]  # noqa: E731

    def totals(ridge: Any, keep: Any) -> Any:
        fits = mle.fit_batch(density, np.zeros(2), {"x": x, "y": y}, args=ridge)
        said = (fits.params, fits.standard_errors(), fits.log_likelihood)
        return jnp.stack([jnp.sum(jnp.where(keep, leaf.T, 0.0)) for leaf in said])

    alone = mle.fit_batch(density, np.zeros(2), {"x": x, "y": y}, args=0.3)
    assert alone.status.names() == ["converged", "unbounded", "converged"]
    gradient = jax.jit(jax.jacrev(totals))
    assert np.all(np.isnan(gradient(0.3, jnp.ones(3, bool))))
    wanted = difference(jax.jit(lambda ridge: totals(ridge, alone.converged)), (0.3,), (1.0,))
    np.testing.assert_allclose(gradient(0.3, alone.converged), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_weights_of_zero() -> None:
    """A row that does not count may begin to; one whose log-density is not known there has no derivative."""
    data = logistic_data(40)
    x, weights = jnp.asarray(data["x"]), jnp.ones(40).at[3].set(0.0)
    best = jax.jit(lambda w, x: mle.argmax(logistic, np.zeros(3), {"x": x, "y": data["y"]}, weights=w)[1])
    found = jax.grad(best)(weights, x)
    more, most = (best(weights.at[3].set(h), x) for h in (1e-4, 2e-4))
    one_sided = (4 * more - most - 3 * best(weights, x)) / 2e-4
    np.testing.assert_allclose(found[3], one_sided, rtol=1e-6)

    coef = jnp.ones(3)
    heights = jax.grad(lambda w: mle.log_likelihood(logistic, coef, {"x": x, "y": data["y"]}, weights=w))(weights)
    contributions = jax.vmap(logistic, (None, 0))(coef, {"x": x, "y": jnp.asarray(data["y"])})
    np.testing.assert_allclose(heights, contributions, rtol=1e-12)

    unknown = x.at[3, 2].set(jnp.nan)
    spoilt = jax.grad(best)(weights, unknown)
    assert np.isnan(spoilt[3])
    np.testing.assert_allclose(jnp.delete(spoilt, 3), jnp.delete(found, 3), rtol=1e-9)
    assert np.all(np.isfinite(jnp.delete(jax.grad(best, 1)(weights, unknown), 3, axis=0)))


@pytest.mark.slow
def test_certificates_and_modes_have_no_derivatives() -> None:
    def fit(bend: Any) -> Any:
        data = {"x": X[0], "y": Y[0]}
        return mle.fit(line, LINE, data, args=bend, constraints=RULES, starts=2, key=jax.random.key(0))

    assert np.isnan(jax.grad(lambda bend: fit(bend).certificate.min_eigenvalue)(0.1))
    assert np.isnan(jax.grad(lambda bend: fit(bend).modes.log_likelihood[0])(0.1))
