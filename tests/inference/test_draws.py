"""Draws of a fit, and what ArviZ reads of them."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats

import mlekit as mle
from tests.helpers.interop import DATA, line_fit, same, with_own
from tests.helpers.marks import mostly_slow
from tests.helpers.models import RULES, START, line, line_data

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of a version to come where it is imported
    import arviz as az

KEY = jax.random.key(0)


def wide_line(params: Any, obs: Any) -> Any:
    """A straight line whose spread is made of three parameters, of which one moves."""
    sigma = jnp.sqrt(params["sigma"] * params["twin"]) * params["unit"]
    return stats.norm.logpdf(obs["y"], params["intercept"] + params["slope"] * obs["x"], sigma)


@functools.cache
def wide_fit() -> mle.Fit:
    rules = {"sigma": mle.positive, "twin": mle.tied(to="sigma"), "unit": mle.fixed}
    return mle.fit(wide_line, {**START, "twin": 1.0, "unit": 1.0}, DATA, constraints=rules)


@pytest.mark.parametrize("model", mostly_slow(["wide line", "simplex"], "simplex"))
def test_draws_have_the_covariance_of_the_free_vector(model: str) -> None:
    fit = wide_fit() if model == "wide line" else with_own("simplex")[0]
    n = 20_000
    found = fit.draws(KEY, n)
    free = np.asarray(jax.vmap(fit.parameters.free)(found))
    wanted = np.linalg.inv(np.asarray(fit.information()))
    variance = np.diag(wanted)
    error = np.sqrt((np.outer(variance, variance) + wanted**2) / n)
    assert np.all(np.abs(np.cov(free.T) - wanted) < 5 * error)
    assert np.all(np.abs(free.mean(0) - np.asarray(fit._solution.free)) < 5 * np.sqrt(variance / n))
    if model == "simplex":
        np.testing.assert_allclose(found.sum(1), 1.0)
    else:
        assert np.all(found["sigma"] > 0)
        assert np.all(found["unit"] == 1)
        np.testing.assert_array_equal(found["sigma"], found["twin"])


def test_draws_of_other_kinds_and_of_nothing() -> None:
    robust = wide_fit().draws(KEY, 20_000, "sandwich")
    np.testing.assert_allclose(robust["slope"].std(), wide_fit().standard_errors("sandwich")["slope"], rtol=0.03)
    short = mle.fit(line, START, DATA, constraints=RULES, max_steps=1)
    assert all(bool(jnp.all(jnp.isnan(leaf))) for leaf in jax.tree.leaves(short.draws(KEY, 10)))
    with pytest.raises(ValueError, match="needs a key"):
        short.draws(None)


def test_draws_of_a_batch_are_those_of_its_fits() -> None:
    fits = mle.fit_batch(line, START, line_data(n_sets=3), constraints=RULES)
    found = fits.draws(KEY, 7)
    assert found["slope"].shape == (3, 7)
    same(fits[2].draws(KEY, 7), jax.tree.map(lambda leaf: leaf[2], found))
    assert len(np.unique(found["slope"])) == 21


@functools.cache
def tree() -> Any:
    data = line_data(n_obs=1500)
    fit = mle.fit(
        wide_line,
        {**START, "twin": 1.0, "unit": 1.0},
        data,
        constraints={**RULES, "unit": mle.fixed, "twin": mle.tied(to="sigma")},
    )
    return fit, fit.to_arviz(KEY, 2000)


@pytest.mark.filterwarnings("ignore")  # what ArviZ says of itself
def test_arviz_reads_the_draws() -> None:
    fit, found = tree()
    posterior = found["posterior"]
    assert posterior["slope"].dims == ("chain", "draw")
    assert "no posterior" in posterior.attrs["sampling"]
    assert posterior.attrs["covariance"] == "observed"
    np.testing.assert_array_equal(found["observed_data"]["y"], fit.data["y"])
    table: Any = az.summary(found, var_names=["intercept", "slope"], kind="stats", round_to="none")
    for name in ("intercept", "slope"):
        error = float(fit.standard_errors()[name])
        assert abs(table.loc[name, "mean"] - float(fit.params[name])) < 5 * error / np.sqrt(2000)
        np.testing.assert_allclose(table.loc[name, "sd"], error, rtol=0.06)
    # Leaving one out costs about as many nats as there are parameters: half as that says, and half by the scores.
    loo: Any = az.loo(found)
    elpd = float(loo.elpd if hasattr(loo, "elpd") else loo["elpd_loo"])
    by_scores = np.trace(np.linalg.solve(fit.information(), fit.information("opg")))
    np.testing.assert_allclose(elpd, float(fit.log_likelihood) - 0.5 * (fit.n_free + by_scores), atol=0.15)


@pytest.mark.slow
def test_arviz_leaves_out_what_is_no_observation() -> None:
    weights = np.ones((3, 40))
    weights[0], weights[1, :2] = 0.5, [2.0, 0.0]
    sets = line_data(n_sets=3)
    fits = mle.fit_batch(line, START, sets, constraints=RULES, weights=weights, lengths=[40, 30, 40])
    found = fits[1].to_arviz(KEY, 5)
    np.testing.assert_array_equal(found["observed_data"]["y"], sets["y"][1, [0, 0, *range(2, 30)]])
    params = jax.tree.map(lambda leaf: leaf[3], fits[1].draws(KEY, 5))
    rows = {name: column[1, :30] for name, column in sets.items()}
    total = float(found["log_likelihood"]["log_density"][0, 3].sum())
    same(total, mle.log_likelihood(line, params, rows, weights=weights[1, :30]))
    assert "log_likelihood" not in fits[0].to_arviz(KEY, 5)
    with pytest.raises(ValueError, match="whole numbers for weights"):
        fits[0].to_arviz(KEY, 5, log_likelihood=True)
    with pytest.raises(ValueError, match=r"fits\[i\]"):
        fits.to_arviz(KEY)


def test_arviz_has_names_of_its_own() -> None:
    density = lambda params, obs: -0.5 * (obs["obs_id"] - params["draw"]) ** 2  # noqa: E731
    data = {"obs_id": np.array([3.0, 1.0, 5.0])}
    with pytest.raises(ValueError, match="another name to the parameter 'draw'"):
        mle.fit(density, {"draw": 0.0}, data).to_arviz(KEY, 5)
    renamed = mle.fit(lambda params, obs: density({"draw": params["mean"]}, obs), {"mean": 0.0}, data)
    found = renamed.to_arviz(KEY, 5)
    np.testing.assert_array_equal(found["observed_data"]["obs_id"], data["obs_id"])
    assert found["log_likelihood"].sizes["obs_id_"] == 3


def test_arviz_of_a_joint_model() -> None:
    fit = mle.fit(mle.joint(lambda mean, x: -0.5 * jnp.sum((x - mean) ** 2)), 0.0, DATA["y"])
    assert list(fit.to_arviz(KEY, 5)["observed_data"].data_vars) == ["data"]
    with pytest.raises(ValueError, match="wants contributions"):
        fit.to_arviz(KEY, 5, log_likelihood=True)


def test_arviz_of_a_bootstrap() -> None:
    boot = mle.bootstrap(line_fit(), KEY, 50)
    found = boot.to_arviz()
    np.testing.assert_array_equal(found["posterior"]["sigma"][0], boot.params["sigma"])
    assert "bootstrap" in found["posterior"].attrs["sampling"]
    assert found["log_likelihood"]["log_density"].shape == (1, 50, 40)
