"""Large data sets: a sample shows the way, and all rows decide."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

import mlekit as mle
from mlekit.inference.record import objective
from mlekit.likelihood import in_memory as likelihood_
from tests.helpers.marks import mostly_slow
from tests.helpers.models import RULES, START, least_squares, line, line_data


def test_a_large_data_set_in_blocks() -> None:
    """More rows than a block: the same numbers as all at once."""
    data = line_data(150_000)
    fit = mle.fit(line, START, data, constraints=RULES)
    best = least_squares(data)
    assert objective(fit).likelihood.rows == 150_000
    np.testing.assert_allclose([fit.params[k] for k in best], list(best.values()), rtol=1e-9)
    weights = np.ones(150_000)
    weights[::7] = 0
    data["y"][::7] = np.nan
    weighted = mle.fit(line, START, data, weights=weights, constraints=RULES, solver=optax.lbfgs())
    best = least_squares({k: np.delete(v, np.s_[::7]) for k, v in data.items()})
    np.testing.assert_allclose([weighted.params[k] for k in best], list(best.values()), rtol=1e-9)


def test_a_sample_may_mislead_but_never_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its blocks are like the others, of one kind, or without a maximum: the answer is the same."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(120_000, 3))
    y = (rng.random(120_000) < 1 / (1 + np.exp(-(x @ [0.5, -1.0, 0.0] - 0.5)))).astype(float)

    def density(params: Any, obs: Any) -> Any:
        logit = params[0] + jnp.dot(obs["x"], params[1:])
        return obs["y"] * logit - jax.nn.softplus(logit)

    def fit(order: np.ndarray, **options: Any) -> mle.Fit:
        return mle.fit(density, np.zeros(4), {"x": x[order], "y": y[order]}, backend="xla", **options)

    orders = [np.arange(120_000), np.argsort(y), np.argsort(x @ [0.5, -1.0, 0.0] + 4 * y)]
    sampled = [fit(order) for order in orders]
    counted = fit(orders[0], weights=np.ones(120_000))
    monkeypatch.setattr(likelihood_, "SAMPLE_BLOCKS", 10**9)
    jax.clear_caches()
    alone = fit(orders[0])
    assert int(sampled[0].steps) != int(alone.steps)
    for one in [*sampled, counted]:
        assert str(one.status) == "converged"
        np.testing.assert_allclose(
            one.params, alone.params, rtol=0, atol=1e-9 * float(alone.standard_errors().min())
        )
        np.testing.assert_allclose(one.standard_errors(), alone.standard_errors(), rtol=1e-8)
        assert float(one.certificate.decrement) < 1e-9


@pytest.mark.slow
def test_a_large_data_set_without_a_maximum() -> None:
    rows = np.linspace(-1, 1, 120_000)
    separated = mle.fit(
        lambda p, obs: -jax.nn.softplus((1 - 2 * obs["y"]) * (p[0] + p[1] * obs["x"])),
        np.zeros(2),
        {"x": rows, "y": (rows > 0.1) * 1.0},
    )
    assert str(separated.status) == "unbounded"
    # The second block alone differs, and is not in the sample, which has no maximum.
    rare = np.zeros(120_000)
    rare[4_096:8_192:100] = 1.0
    fit = mle.fit(lambda p, y: -jax.nn.softplus((1 - 2 * y) * p), 0.0, rare)
    assert str(fit.status) == "converged"
    np.testing.assert_allclose(fit.params, np.log(rare.mean() / (1 - rare.mean())), rtol=1e-10)


@pytest.mark.parametrize("solver", mostly_slow([None, mle.Scoring(), mle.BFGS()], None), ids=str)
def test_a_large_data_set_in_few_steps(solver: Any) -> None:
    """Wherever the steps end, what is reported was seen on all rows."""
    data = line_data(120_000)
    start, rules = {"intercept": 1.0, "slope": 1.0, "sigma": 3.0}, {"sigma": mle.positive}
    values = []
    for max_steps in (1, 2, 5, 9, 10, 11, 12, 14, 100):
        fit = mle.fit(line, start, data, constraints=rules, solver=solver, max_steps=max_steps)
        assert str(fit.status) in ("max_steps", "converged", "stalled")
        np.testing.assert_allclose(fit.log_likelihood, mle.log_likelihood(line, fit.params, data), rtol=1e-12)
        values.append(float(fit.log_likelihood))
    assert str(fit.status) == "converged"
    assert values[0] < values[-1] == pytest.approx(max(values), rel=1e-12)


def test_rows_outside_the_sample_may_forbid_its_maximum() -> None:
    """An uniform distribution's kin: the second block, which is not in the sample, has the only large value."""
    x = np.random.default_rng(5).gamma(2.0, 1.0, 120_000)
    x[4_097] = 60.0

    def density(rate: Any, obs: Any) -> Any:  # of an odds that must stay below one
        return jnp.log(rate) + jnp.log1p(-rate * obs / 70.0)

    def alone(rate: float) -> float:
        return -float(np.sum(np.log(rate) + np.log1p(-rate * x / 70.0)))

    fit = mle.fit(density, 0.5, x, constraints=mle.positive)
    best = optimize.minimize_scalar(
        alone, bounds=(1e-3, 70 / 60 - 1e-9), method="bounded", options={"xatol": 1e-12}
    )
    assert np.isnan(density(1.5, x[4_097]))
    assert str(fit.status) == "converged"
    np.testing.assert_allclose(fit.params, best.x, rtol=1e-6)
