"""So many parameters that nobody makes a Hessian."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm

import mlekit as mle
from mlekit.engine.matrix_free import units
from mlekit.inference.covariance import errors
from mlekit.likelihood.objective import Objective
from tests.engine.bent_lines import RNG
from tests.helpers.derivatives import difference
from tests.helpers.models import logistic


# Many parameters.
@pytest.fixture(params=[60, pytest.param(2100, marks=pytest.mark.slow)])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many parameters; where these are few, a Hessian is refused to still fewer."""
    if request.param < 2000:
        for module in ("engine.search", "engine.implicit", "inference.covariance"):
            monkeypatch.setattr(f"mlekit.{module}.DENSE_CERTIFICATE", 30)
    return request.param


@pytest.mark.slow
def test_many_parameters_without_a_hessian(many: int) -> None:
    """Conjugate gradients prove the maximum and solve for its derivatives."""
    n = 3 * many // 2
    x = RNG.normal(size=(n, many)) * np.exp(RNG.normal(size=many)) / np.sqrt(many)
    y = (RNG.random(n) < 0.5).astype(float)

    def ridge(coef: Any, obs: Any, penalty: Any) -> Any:
        return logistic(coef, obs) - 0.5 * penalty * jnp.sum(coef**2) / n

    def fit(penalty: Any) -> Any:
        return mle.fit(ridge, np.zeros(many), {"x": x, "y": y}, args=penalty, solver=mle.LBFGS())

    found = fit(jnp.asarray(1.0))
    assert found.status == "converged"
    coef = np.asarray(found.params)
    chance = 1 / (1 + np.exp(-x @ coef))
    hessian = (x.T * (chance * (1 - chance))) @ x + np.eye(many)
    np.testing.assert_allclose(x.T @ (y - chance) - coef, 0, atol=1e-9)
    np.testing.assert_allclose(found.standard_errors(), np.sqrt(np.diag(np.linalg.inv(hessian))), rtol=1e-8)
    likelihood = found._dataset.likelihood(found.model, found.args, many)
    scale = np.asarray(units(Objective(likelihood, found.parameters), found.params))
    assert np.all(np.abs(np.log(scale**2 * n / np.diag(hessian))) < np.log(100))
    values = np.linalg.eigvalsh(hessian / n / scale / scale[:, None])
    # Inverse iteration comes from above, and slowly where eigenvalues are close to each other.
    assert values[0] * (1 - 1e-9) < found.certificate.min_eigenvalue < 1.3 * values[0]
    assert 0.7 < found.certificate.condition_number / (values[-1] / values[0]) < 1 + 1e-9

    wanted = -np.linalg.solve(hessian, coef)
    turn = np.cos(np.arange(many))

    def modes(penalty: Any) -> Any:
        _, linear = jax.linearize(lambda t: fit(t).params, penalty)
        return linear(jnp.asarray(1.0)), jax.linear_transpose(linear, penalty)(turn)[0]

    forward, reverse = jax.jit(modes)(jnp.asarray(1.0))
    np.testing.assert_allclose(forward, wanted, atol=1e-7 * np.max(np.abs(wanted)))
    np.testing.assert_allclose(reverse, wanted @ turn, rtol=1e-6)
    if many < 2000:
        first = jax.jit(jax.grad(lambda t: jnp.sin(fit(t).params) @ turn))
        second = jax.jit(jax.grad(jax.grad(lambda t: jnp.sin(fit(t).params) @ turn)))(1.0)
        np.testing.assert_allclose(second, difference(first, (jnp.asarray(1.0),), (1.0,)), rtol=1e-6)


@pytest.mark.slow
def test_a_fit_of_many_parameters_shows_itself_without_a_hessian() -> None:
    """It would take a terabyte."""
    network = {"weights": jnp.zeros((400, 1000))}
    density = lambda p, x: -0.5 * jnp.sum((p["weights"] - x) ** 2)  # noqa: E731
    fit = mle.fit(density, network, jnp.ones((3,)), solver=mle.Optax(optax.sgd(0.1), steps=2))
    assert "too_few_observations" in repr(fit)
    assert "... and 399," in repr(fit)
    assert np.all(np.isnan(errors(fit)))
    proven = mle.fit(density, {"weights": jnp.zeros(2500)}, jnp.ones((3,)))
    assert proven.converged
    assert "fit.standard_errors() forms it" in repr(proven)


@pytest.mark.parametrize(
    "solver",
    [pytest.param(mle.Scoring(), marks=pytest.mark.slow), optax.adam(0.03)],
    ids=["scoring", "adam"],
)
def test_many_parameters_are_proven_for_every_solver(solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the curvature that a solver goes by nor its own belief proves a maximum."""
    density = lambda coef, obs: norm.logpdf(obs["y"], obs["x"] @ coef)  # noqa: E731
    x = RNG.normal(size=(120, 40)) / 6
    x[:, 1] = x[:, 0] + 0.2 * x[:, 1]  # one eigenvalue far below the others
    y = 2 * RNG.normal(size=120)  # of twice the noise that the model has, so that scores tell another curvature
    monkeypatch.setattr("mlekit.engine.search.DENSE_CERTIFICATE", 30)
    found = mle.fit(density, np.zeros(40), {"x": x, "y": y}, solver=solver)
    assert found.status == "converged"
    np.testing.assert_allclose(found.params, np.linalg.lstsq(x, y)[0], atol=1e-9)
    unit = np.sqrt(np.mean(((y - x @ found.params)[:, None] * x) ** 2, axis=0))
    least = np.linalg.eigvalsh(x.T @ x / 120 / unit / unit[:, None])[0]
    np.testing.assert_allclose(found.certificate.min_eigenvalue, least, rtol=1e-3)
    copied = np.concatenate([x[:, :1], x[:, :-1]], axis=1)
    assert mle.fit(density, np.zeros(40), {"x": copied, "y": y}, solver=solver).status != "converged"


def test_many_parameters_that_are_not_identified(many: int) -> None:
    """A flat direction that no gradient shows is found by conjugate gradients from numbers at random."""
    x = RNG.normal(size=(2 * many, many)) / np.sqrt(many)
    x[:, 1] = x[:, 0]
    density = lambda coef, obs: norm.logpdf(obs["y"], obs["x"] @ coef)  # noqa: E731
    data = {"x": x, "y": RNG.normal(size=2 * many)}
    assert mle.fit(density, np.zeros(many), data, solver=mle.LBFGS()).status == "not_identified"


def test_many_bounds_without_a_hessian(many: int) -> None:
    """Means of groups that are not negative, beside a slope that all share."""
    rng = np.random.default_rng(0)
    group, x = np.arange(3 * many) % many, rng.standard_normal(3 * many)
    y = rng.standard_normal(3 * many)
    density = lambda p, obs: -0.5 * (obs["y"] - p["mean"][obs["group"]] - p["slope"] * obs["x"]) ** 2  # noqa: E731
    start, data = {"mean": jnp.full(many, 0.5), "slope": 0.0}, {"group": group, "x": x, "y": y}
    fit = mle.fit(density, start, data, constraints={"mean": mle.nonnegative})
    assert fit.converged
    rest = np.bincount(group, y - float(fit.params["slope"]) * x)
    np.testing.assert_allclose(fit.params["mean"], np.maximum(rest, 0.0) / 3, atol=1e-9)
    held = rest < 0
    np.testing.assert_array_equal(fit.at_bound["mean"], held)
    np.testing.assert_allclose(np.asarray(fit.certificate.multiplier)[:many][held], -rest[held], rtol=1e-8)
    within = np.where(held[group], x, x - (np.bincount(group, x) / 3)[group])
    free = np.where(held[group], y, y - (np.bincount(group, y) / 3)[group])
    np.testing.assert_allclose(fit.params["slope"], within @ free / (within @ within), rtol=1e-8)
    np.testing.assert_allclose(fit.standard_errors()["slope"], 1 / np.sqrt(within @ within), rtol=1e-8)


def test_many_parameters_of_which_some_run_away(many: int) -> None:
    """Groups without successes have no finite log-odds: they are named, however little is left to gain."""
    group = np.repeat(np.arange(many), 8)
    y = (np.tile(np.arange(8), many) < 1 + group % 7).astype(float)
    empty = np.arange(3, many, 20)
    y[np.isin(group, empty)] = 0.0
    density = lambda odds, obs: obs["y"] * odds[obs["group"]] - jax.nn.softplus(odds[obs["group"]])  # noqa: E731
    fit = mle.fit(density, np.zeros(many), {"group": group, "y": y}, solver=mle.LBFGS())
    assert fit.status == "unbounded"
    assert fit.certificate.weak_parameters == tuple(f"params[{i}]" for i in empty)


def test_many_parameters_of_which_some_have_a_row_each(many: int) -> None:
    """Rows that are fitted exactly have scores of zero, which are no guess at the curvature."""
    rng = np.random.default_rng(0)
    group = np.append(np.arange(many), rng.integers(0, many // 2, 2 * many))
    x, y = rng.standard_normal((2, 3 * many))
    density = lambda p, obs: -0.5 * (obs["y"] - p["mean"][obs["group"]] - p["slope"] * obs["x"]) ** 2  # noqa: E731
    fit = mle.fit(density, {"mean": jnp.zeros(many), "slope": 0.0}, {"group": group, "x": x, "y": y})
    assert fit.converged
    size = np.bincount(group)
    within = x - (np.bincount(group, x) / size)[group]
    np.testing.assert_allclose(fit.params["slope"], within @ y / (within @ within), rtol=1e-8)
