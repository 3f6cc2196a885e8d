"""Every trouble ends in the status that names it, alone and in a batch, and no neighbour notices.

Existence of a maximum is decided independently, by linear programming, for hundreds of small odd data sets.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.stats
from jax.scipy.stats import gamma, nbinom, norm

import mlekit as mle
from tests.helpers.normal_sets import POSITIVE, normal
from tests.solvers.sick_data import (
    MODELS,
    N,
    S,
    constraints_of,
    fit_one,
    healthy,
    logistic,
    negative_binomial,
)


def separated() -> dict[str, np.ndarray]:
    data = healthy("logistic", 100)
    return {"x": data["x"], "y": (data["x"][:, 1] > 0).astype(float)}


def quasi_separated() -> dict[str, np.ndarray]:
    """A dummy whose cases all have the same outcome: one coefficient runs away, the others stay."""
    data = healthy("logistic", 100)
    x = data["x"].copy()
    x[:, 3] = np.arange(N) < 6
    return {"x": x, "y": np.where(x[:, 3] == 1, 1.0, data["y"])}


def duplicated() -> dict[str, np.ndarray]:
    data = healthy("logistic", 101)
    return {"x": data["x"][:, [0, 1, 2, 1]], "y": data["y"]}


def unused() -> dict[str, np.ndarray]:
    data = healthy("logistic", 102)
    return {"x": data["x"] * np.array([1.0, 1, 0, 1]), "y": data["y"]}


def spoilt(value: float) -> dict[str, np.ndarray]:
    data = healthy("logistic", 103)
    x = data["x"].copy()
    x[17, 2] = value
    return {"x": x, "y": data["y"]}


# name -> (model, data, number of rows, status, the parameters of the weak direction with their weights)
SICK: dict[str, tuple[str, dict[str, np.ndarray], int, S, dict[str, float] | None]] = {
    "separated": ("logistic", separated(), N, S.unbounded, None),
    "quasi-separated": ("logistic", quasi_separated(), N, S.unbounded, {"coef[3]": 1.0}),
    "duplicated regressor": (
        "logistic", duplicated(), N, S.not_identified, {"coef[1]": 0.5**0.5, "coef[3]": 0.5**0.5},
    ),
    "unused parameter": ("logistic", unused(), N, S.not_identified, {"coef[2]": 1.0}),
    "one row": ("logistic", healthy("logistic", 104), 1, S.too_few_observations, None),
    "NaN": ("logistic", spoilt(np.nan), N, S.nonfinite_data, None),
    "infinite": ("logistic", spoilt(np.inf), N, S.nonfinite_data, None),
    "under-dispersed": (
        "negative binomial", {"y": np.resize([4.0, 5, 6, 5, 7, 4, 5, 3], N)}, N, S.unbounded, {"alpha": 1.0},
    ),
    "constant counts": ("negative binomial", {"y": np.full(N, 4.0)}, N, S.unbounded, {"alpha": 1.0}),
    "light tails": ("student", {"y": np.linspace(-2, 3, N)}, N, S.unbounded, {"df": 1.0}),
    "normal tails": (
        "student", {"y": scipy.stats.norm.ppf((np.arange(N) + 0.5) / N)}, N, S.unbounded, {"df": 1.0},
    ),
    "identical": ("student", {"y": np.full(N, 1.5)}, N, S.unbounded, None),
    "zero likelihood": ("parabola", {"y": np.linspace(9, 11, N)}, N, S.nonfinite_start, None),
}  # fmt: skip
PHRASE = {
    S.unbounded: "no finite maximum",
    S.not_identified: "flat",
    S.nonfinite_start: "not finite at the start",
    S.nonfinite_data: "NaN or infinite",
    S.too_few_observations: "fewer observations",
    S.max_steps: "raise max_steps",
}


def fit_many(model: str, sets: list[tuple[Any, int]], start: Any = None, **options: Any) -> mle.Fit:
    log_density, init = MODELS[model]
    data = jax.tree.map(lambda *leaves: np.stack(leaves), *(data for data, _ in sets))
    lengths = np.array([rows for _, rows in sets])
    start = init if start is None else start
    return mle.fit_batch(log_density, start, data, lengths=lengths, constraints=constraints_of(init), **options)


def no_errors(fit: mle.Fit) -> bool:
    return all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves((fit.standard_errors(), fit.covariance())))


@pytest.mark.parametrize("name", SICK)
def test_alone(name):
    model, data, rows, status, _ = SICK[name]
    fit = fit_one(model, jax.tree.map(lambda leaf: leaf[:rows], data))
    assert fit.status == status, fit.message
    assert not fit.converged
    assert no_errors(fit)
    assert fit.message.startswith(f"{status.name}: ")
    assert PHRASE[status] in fit.message


@pytest.mark.parametrize("name", [name for name in SICK if SICK[name][-1]])
def test_the_weak_direction_names_the_parameters(name):
    """Those that the data cannot tell apart, or that run away."""
    model, data, _, _, weak = SICK[name]
    fit = fit_one(model, data)
    assert weak is not None
    direction = {key: abs(float(value)) for key, value in fit.certificate.weak_direction.items()}
    assert direction == pytest.approx({key: weak.get(key, 0.0) for key in direction}, abs=0.02)
    assert f"Weak direction: {', '.join(weak)}." in fit.message


@pytest.mark.parametrize(
    ("name", "lanes"),
    [pytest.param(name, None, marks=pytest.mark.slow) for name in SICK]
    + [(name, 2) for name in SICK if SICK[name][0] == "logistic"],
)
def test_in_a_batch_no_neighbour_notices(name, lanes):
    model, data, rows, status, _ = SICK[name]
    sets: list[tuple[Any, int]] = [(healthy(model, seed), N) for seed in range(7)]
    well = fit_many(model, sets, lanes=lanes)
    sets[3] = (data, rows)
    fits = fit_many(model, sets, lanes=lanes)
    others = np.arange(7) != 3
    assert np.all(np.asarray(well.status) == S.converged), well.status
    for a, b in zip(jax.tree.leaves(fits._solution), jax.tree.leaves(well._solution)):
        np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])
    sick = fits[3]
    assert sick.status == status, fits.status
    assert no_errors(sick)
    assert fits.message[3].startswith(f"{status.name}: ")
    single = fit_one(model, jax.tree.map(lambda leaf: leaf[:rows], data))
    assert int(single.status) == int(sick.status)
    if status in (S.not_identified, S.too_few_observations, S.unbounded):
        np.testing.assert_allclose(sick.log_likelihood, single.log_likelihood, rtol=1e-6, atol=1e-4)


def test_max_steps_alone_and_in_a_batch():
    fit = fit_one("logistic", healthy("logistic", 0), max_steps=2)
    assert fit.status == S.max_steps
    assert int(fit.steps) == 2
    assert no_errors(fit)
    assert PHRASE[S.max_steps] in fit.message
    # A neighbour that starts at its maximum is done in the same few steps.
    sets = [(healthy("logistic", seed), N) for seed in range(7)]
    found = fit_many("logistic", sets)
    starts = {"coef": found.params["coef"].at[3].set(0.0)}
    fits = fit_many("logistic", sets, start=starts, init_axis=0, max_steps=3)
    assert np.array_equal(np.asarray(fits.status) == S.converged, np.arange(7) != 3)
    assert fits[3].status == S.max_steps
    assert np.all(np.isnan(fits.standard_errors()["coef"][3]))
    np.testing.assert_allclose(fits.params["coef"][:3], found.params["coef"][:3], rtol=1e-9)


def test_a_parameter_that_never_enters():
    def model(params, obs):
        return norm.logpdf(obs["y"], params["centre"], 1.0) + 0 * params["idle"]

    fit = mle.fit(model, {"centre": 0.0, "idle": 2.0}, healthy("student", 0))
    assert fit.status == S.not_identified
    assert float(abs(fit.certificate.weak_direction["idle"])) == pytest.approx(1.0)
    assert no_errors(fit)
    np.testing.assert_allclose(fit.params["centre"], healthy("student", 0)["y"].mean(), rtol=1e-12)
    assert float(fit.params["idle"]) == 2.0


def test_rows_of_weight_zero_may_hold_anything():
    data = spoilt(np.nan)
    weights = np.where(np.arange(N) == 17, 0.0, 1.0)
    fit = fit_one("logistic", data, weights=weights)
    clean = fit_one("logistic", jax.tree.map(lambda leaf: np.nan_to_num(leaf), data), weights=weights)
    assert fit.converged
    assert int(fit.n_obs) == N - 1
    np.testing.assert_array_equal(fit.params["coef"], clean.params["coef"])
    np.testing.assert_array_equal(fit.standard_errors()["coef"], clean.standard_errors()["coef"])


@pytest.mark.parametrize("name", ["separated", "quasi-separated", "duplicated regressor", "NaN"])
def test_in_float32(name):
    _, data, _, status, _ = SICK[name]
    small = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), data)
    fit = mle.fit(logistic, {"coef": jnp.zeros(4, np.float32)}, small)
    assert fit.params["coef"].dtype == np.float32
    assert fit.status == status, fit.message
    assert no_errors(fit)


SOLVERS = {
    "scoring": mle.Scoring(),
    "bfgs": mle.BFGS(),
    "lbfgs": mle.LBFGS(),
    "adam": optax.adam(0.1),
}


@pytest.mark.parametrize("name", ["separated", "quasi-separated", "duplicated regressor", "NaN"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_no_solver_converges_on(solver, name):
    model, data, _, _, _ = SICK[name]
    fit = fit_one(model, data, solver=SOLVERS[solver])
    assert not fit.converged, fit.params
    assert no_errors(fit)
    if name == "NaN":
        assert fit.status == S.nonfinite_data


def test_what_is_wrong_before_tracing_is_no_status():
    with pytest.raises(ValueError, match="alpha"):
        mle.fit(
            negative_binomial,
            {"level": 0.0, "alpha": -1.0},
            {"y": np.ones(3)},
            constraints={"alpha": mle.positive},
        )
    with pytest.raises(ValueError, match="data"):
        mle.fit(negative_binomial, {"level": 0.0, "alpha": 1.0}, {"y": np.ones(0)})


def test_rounding_is_not_running_away() -> None:
    rng = np.random.default_rng(3)
    for centre in (0.0, 100.0, 2000.0, 10_000.0):
        z = (centre + rng.normal(size=(4, 2000))).astype(np.float32)
        fits = mle.fit_batch(normal, lambda d: {"mu": d.mean(), "s": d.std()}, z, constraints=POSITIVE)
        assert set(fits.status.names()) <= {"converged", "stalled"}
        assert centre > 0 or set(fits.status.names()) == {"converged"}
        np.testing.assert_allclose(fits.params["mu"], z.astype(float).mean(1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [1.0, 5.0])
def test_equal_values_have_no_gamma_density(shape):
    """Its likelihood rises for ever as the shape grows and the mean stays."""
    values = np.repeat([[0.1], [1.0], [3.0], [1e3]], 10, axis=1)
    init = {"shape": shape, "scale": 1 / shape}
    fits = mle.fit_batch(
        lambda p, y: gamma.logpdf(y, p["shape"], scale=p["scale"]),
        init,
        values,
        constraints=dict.fromkeys(init, mle.positive),
    )
    assert fits.status.counts() == {"unbounded": 4}


def test_zeros_under_a_negative_binomial():
    def log_density(p, y):
        return nbinom.logpmf(y, p["size"], p["size"] / (p["size"] + p["mean"]))

    init = {"mean": 1.0, "size": 1.0}
    fits = mle.fit_batch(log_density, init, np.zeros((2, 10)), constraints=dict.fromkeys(init, mle.positive))
    assert fits.status.counts() == {"unbounded": 2}
