"""Pictures of fits with estimates at bounds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import mlekit as mle
from mlekit.plot.regions import contours

TOGETHER = 0.5
RULES = {"a": mle.nonnegative, "b": mle.nonnegative}


def density(p: Any, x: Any) -> Any:
    first, second = x[0] - p["a"], x[1] - p["b"]
    return -0.5 * first**2 - 0.5 * second**2 - TOGETHER * first * second - 0.5 * (x[2] - p["c"]) ** 2


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((30, 3)) + np.array([-0.9, 0.8, 1.0])


@pytest.fixture(scope="module")
def fit(x: np.ndarray) -> mle.Fit:
    """The first mean lies on its bound."""
    fit = mle.fit(density, {"a": 1.0, "b": 1.0, "c": 1.0}, jnp.array(x), constraints=RULES)
    assert fit.at_bound == {"a": True, "b": False, "c": False}
    return fit


def labels(ax: Any) -> list[str]:
    return ax.get_legend_handles_labels()[1]


@pytest.mark.parametrize("name", ["a", "b"])
def test_likelihoods_begin_at_the_bound(fit: mle.Fit, x: np.ndarray, name: str) -> None:
    ax = mle.plot.likelihood(fit, name, ax=Figure().subplots())
    line = next(line for line in ax.get_lines() if line.get_label() == "likelihood")
    value, drop = (np.asarray(one, float) for one in line.get_data())
    other = float(fit.params["b" if name == "a" else "a"])
    mine, its = x.T[:2] if name == "a" else x.T[1::-1]
    best = float(fit.params[name])
    falls = [
        np.sum(0.5 * (mine - v) ** 2 - 0.5 * (mine - best) ** 2 + TOGETHER * (best - v) * (its - other))
        for v in value
    ]
    np.testing.assert_allclose(drop, falls, atol=1e-9)
    assert value[0] == 0
    assert 5 < drop[-1] < 8
    given = mle.plot.likelihood(fit, name, values=[0.0, 0.1], ax=Figure().subplots())
    assert given.get_xlim()[0] == 0
    with pytest.raises(ValueError, match="must lie between 0 and inf"):
        mle.plot.likelihood(fit, name, values=[-0.1, 0.1])


def test_no_wald_beside_an_estimate_at_its_bound(fit: mle.Fit) -> None:
    draws = mle.bootstrap(fit, jax.random.key(0), 20)
    assert np.all(draws.vector[:, 0] == 0)
    assert labels(mle.plot.pairs(draws, ["a", "c"], ax=Figure().subplots())) == ["replicate", "estimate"]
    table = mle.plot.pairs(draws, ax=Figure().subplots(3, 3))
    assert len(table[0, 0].get_lines()) == 0
    assert len(table[1, 1].get_lines()) == 1
    assert [text.get_text() for text in table[0, 2].get_legend().get_texts()] == [
        "replicate",
        "Wald 95%",
        "estimate",
    ]
    curve = mle.profile(fit, "a", jnp.array([0.0, 0.1, 0.2]))
    assert "Wald" not in labels(mle.plot.profile(curve, ax=Figure().subplots()))
    ax, best, axis = Figure().subplots(), np.zeros(2), np.linspace(0.0, 3.0, 5)
    contours(ax, [axis, axis], axis[:, None] + axis[None, :] ** 2, best, 0.95, np.diag([0.0, 1.0]))
    assert labels(ax) == ["50% region", "95% region", "estimate"]


def test_batches_count_those_at_the_bound() -> None:
    data = jnp.array([[-1.0, -2.0], [1.0, 2.0], [-2.0, 1.0]])
    fits = mle.fit_batch(lambda m, x: -0.5 * (x - m) ** 2, 1.0, data, constraints=mle.nonnegative)
    ax = mle.plot.batch(fits, "params", ax=Figure().subplots())
    assert ax.get_title("right").replace("\n", " ") == "3 converged; 2 at the bound, without an interval"
