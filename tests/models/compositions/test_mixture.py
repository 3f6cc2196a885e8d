"""Densities that are sums of others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats as st

import mlekit as mle
from mlekit.models.compositions.log_probability import log_mixture, shares
from tests.helpers.intervals import INF
from tests.models.compositions.parts import TWO


@pytest.mark.slow
def test_derivatives_of_mixtures() -> None:
    """Weights of zero, and components that do not allow an observation."""
    weights = np.array([[0.3, 0.7], [0.0, 1.0], [1e-300, 1.0], [0.3, 0.7], [0.0, 1.0], [0.5, 0.5]])
    logs = np.array([[-1.0, -2.0], [0.0, -5.0], [600.0, -5.0], [-INF, -2.0], [800.0, -5.0], [-900.0, -1.0]])
    value, (by_weight, by_log) = jax.vmap(jax.value_and_grad(log_mixture, (0, 1)))(weights, logs)
    with np.errstate(divide="ignore"):
        terms = np.where(weights > 0, np.log(weights) + logs, -INF)
    np.testing.assert_allclose(value, scipy.special.logsumexp(terms, axis=1), rtol=1e-14)
    with np.errstate(over="ignore"):
        exact = np.exp(logs - np.asarray(value)[:, None])
    known = np.isfinite(exact)
    assert not known[4, 0]
    np.testing.assert_allclose(np.asarray(by_weight)[known], exact[known], rtol=1e-12)
    np.testing.assert_allclose(by_log, np.exp(terms - np.asarray(value)[:, None]), rtol=1e-12)
    bends = jax.vmap(jax.hessian(log_mixture, (0, 1)))(weights, logs)
    safe = np.array([0, 1, 3, 5])  # elsewhere the square of 1 / w is beyond floats
    outer = -by_weight[:, :, None] * by_weight[:, None]
    np.testing.assert_allclose(bends[0][0][safe], outer[safe], rtol=1e-12)
    assert all(np.isfinite(np.asarray(block)[[*safe, 4]]).all() for row in bends for block in row)
    assert np.isfinite(jax.hessian(log_mixture)(np.array([0.0, 0.0, 1.0]), np.array([690.0, 690.0, -5.0]))).all()
    nothing = jax.value_and_grad(log_mixture, (0, 1))(np.array([0.3, 0.7]), np.array([-INF, -INF]))
    assert nothing[0] == -INF
    assert np.all(np.concatenate(nothing[1]) == 0)
    assert np.isnan(shares(jnp.array([0.3, 0.7]), jnp.array([-INF, -INF]))).all()
    assert np.isnan(log_mixture(jnp.array([-0.1, 1.1]), jnp.zeros(2)))


def test_predicted_weights() -> None:
    """A mixture of experts; components as rows, in a list and in a dict say the same."""

    def gate(params: Any, obs: Any, unit: Any) -> Any:
        return jax.nn.softmax(jnp.array([0.0, params["gate"] * obs["x"] * unit]))

    line = mle.regression(lambda params, obs, unit: (params["mean"] * unit, params["scale"]), mle.families.normal)
    x, y, gates = np.array([-1.0, 0.5, 2.0]), np.array([0.0, 3.0, -2.0]), 0.8 * 3.0 * np.array([-1.0, 0.5, 2.0])
    terms = [st.norm.logpdf(y, 3.0 * TWO["mean"][k], TWO["scale"][k]) for k in (0, 1)]
    wanted = np.logaddexp(terms[0] - np.logaddexp(0, gates), terms[1] - np.logaddexp(0, -gates))
    each = [{name: row[k] for name, row in TWO.items()} for k in (0, 1)]
    for components, parts in (
        (line, TWO),
        ([line, line], each),
        ({"z": line, "a": line}, {"a": each[1], "z": each[0]}),
    ):
        model = mle.mixture(components, weights=gate)
        params = {"gate": 0.8, "components": parts}
        found = jax.jit(jax.vmap(model, in_axes=(None, 0, None)))(params, {"x": x, "y": y}, 3.0)
        np.testing.assert_allclose(found, wanted, rtol=1e-13)
