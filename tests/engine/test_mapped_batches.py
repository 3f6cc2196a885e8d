"""Batches of every making: mapped, of networks, of joint models, of nothing."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import mlekit as mle
from tests.helpers.marks import mostly_slow
from tests.helpers.models import least_squares, line_data
from tests.helpers.normal_sets import PLAIN, POSITIVE, Y, normal


@pytest.mark.slow
def test_sets_of_a_mapped_fit_keep_their_own_args() -> None:
    def scaled(params: Any, x: Any, a: Any) -> Any:
        return norm.logpdf(x, params["mu"] * a, params["s"])

    factors = jnp.array([1.0, 2.0, 4.0])
    fits = jax.vmap(lambda a: mle.fit(scaled, PLAIN, Y[0], args=a, constraints=POSITIVE))(factors)
    one = mle.fit(normal, PLAIN, Y[0], constraints=POSITIVE)
    for kind in ("observed", "sandwich"):
        errors = fits.standard_errors(kind)["mu"]
        np.testing.assert_allclose(errors, one.standard_errors(kind)["mu"] / factors, rtol=1e-9)
        np.testing.assert_allclose(jnp.sqrt(fits.covariance(kind)[:, 0, 0]), errors, rtol=1e-9)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(fits[i] for i in range(3)))
    np.testing.assert_allclose(stacked.covariance("opg"), fits.covariance("opg"), rtol=1e-9)
    shared = mle.fit_batch(scaled, PLAIN, Y, args=2.0, constraints=POSITIVE)
    np.testing.assert_allclose(shared.params["mu"], Y.mean(1) / 2, rtol=1e-10)
    np.testing.assert_allclose(shared.covariance()[:, 0, 0], Y.var(1) / 80, rtol=1e-9)


def test_networks_in_a_batch() -> None:
    def density(net: Any, obs: Any) -> Any:
        return norm.logpdf(obs["y"], net(obs["x"][None])[0], 1.0)

    net = eqx.nn.MLP(1, 1, 1, 0, key=jax.random.key(0))
    data = line_data(n_sets=3)
    for init in (net, lambda data: net):
        fits = mle.fit_batch(density, init, data)
        assert fits.status.counts() == {"converged": 3}
        for i in range(3):
            best = least_squares({k: v[i] for k, v in data.items()})
            np.testing.assert_allclose(fits[i].params.layers[0].weight[0, 0], best["slope"], rtol=1e-9)
        assert fits[1].params.activation is net.activation
        assert fits.covariance().shape == (3, 2, 2)


@pytest.mark.parametrize("n_sets", mostly_slow([1, 3, 5], 3))
def test_scalar_joint_models_in_a_batch(n_sets: int) -> None:
    whole = mle.joint(lambda params, x: jnp.sum(norm.logpdf(x, params["mu"], params["s"])))
    fits = mle.fit_batch(whole, PLAIN, Y[:n_sets], constraints=POSITIVE)
    np.testing.assert_allclose(fits.params["mu"], Y[:n_sets].mean(1), rtol=1e-10)
    np.testing.assert_allclose(fits.covariance()[:, 0, 0], Y[:n_sets].var(1) / 20, rtol=1e-9)
    assert fits[np.arange(n_sets) % 2 == 0].covariance().shape[0] == (n_sets + 1) // 2


def test_nothing_to_estimate() -> None:
    fit = mle.fit(normal, PLAIN, Y[0], constraints=mle.fixed)
    for kind in ("observed", "opg", "sandwich"):
        np.testing.assert_array_equal(fit.covariance(kind), np.zeros((2, 2)))
    fits = mle.fit_batch(normal, PLAIN, Y, constraints=mle.fixed)
    np.testing.assert_allclose(fits.log_likelihood, [mle.log_likelihood(normal, PLAIN, y) for y in Y])
    np.testing.assert_array_equal(fits.covariance(), np.zeros((6, 2, 2)))
    np.testing.assert_array_equal(fits.standard_errors()["mu"], np.zeros(6))


@pytest.mark.slow
def test_selections() -> None:
    fits = mle.fit_batch(normal, PLAIN, Y, constraints=POSITIVE)
    assert len(fits[[]]) == len(fits[fits.status == "stalled"]) == 0
    with pytest.raises(ValueError, match="no data sets"):
        fits[[]].covariance()
    for index in (np.int64(3), -3, jnp.asarray(3)):
        np.testing.assert_array_equal(fits[index].params["mu"], fits.params["mu"][3])
    nested = jax.vmap(lambda y: mle.fit_batch(normal, PLAIN, y, constraints=POSITIVE))(
        jnp.asarray(Y).reshape(2, 3, 20)
    )
    with pytest.raises(ValueError, match=r"axes \(2, 3\)"):
        nested.covariance()
    np.testing.assert_allclose(nested[1].covariance(), fits[3:].covariance(), rtol=1e-9, atol=1e-14)
    groups = mle.group_by({"key": [1, 2], "x": [1.0, 2.0]}, "key")
    with pytest.raises(ValueError, match="no groups"):
        mle.fit_batch(lambda p, o: -((o["x"] - p) ** 2), 0.0, groups.take([]))
