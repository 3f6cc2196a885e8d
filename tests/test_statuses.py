"""Every trouble ends in the status that names it, alone and in a batch, and no neighbour notices.

Existence of a maximum is decided independently, by linear programming, for hundreds of small odd data sets.
"""

from __future__ import annotations

import functools
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import strategies as st
from jax.scipy.special import gammaln
from jax.scipy.stats import norm, t

import mlekit as mle

from .marks import mostly_slow

S = mle.Status
N = 40
POSITIVE = {"alpha": mle.positive, "df": mle.positive, "sigma": mle.positive}

# --- models -------------------------------------------------------------------------------------------------


def logistic(params, obs):
    eta = obs["x"] @ params["coef"]
    return obs["y"] * eta - jax.nn.softplus(eta)


def poisson(params, obs):
    eta = obs["x"] @ params["coef"]
    return obs["y"] * eta - jnp.exp(eta) - gammaln(obs["y"] + 1)


def negative_binomial(params, obs):
    eta, size, y = params["level"], 1 / params["alpha"], obs["y"]
    total = jnp.logaddexp(jnp.log(size), eta)
    return gammaln(y + size) - gammaln(size) - gammaln(y + 1) + size * (jnp.log(size) - total) + y * (eta - total)


def student(params, obs):
    return t.logpdf(obs["y"], params["df"], params["centre"], params["sigma"])


def normal(params, obs):
    return norm.logpdf(obs["y"], obs["x"] @ params["coef"], params["sigma"])


def parabola(params, obs):
    """Zero density further than 3 from the centre."""
    gap = 1 - ((obs["y"] - params["centre"]) / 3) ** 2
    return jnp.where(gap > 0, jnp.log(jnp.where(gap > 0, gap, 1.0)), -jnp.inf)


def mixture(params, obs):
    """Two normals of equal weight and unit variance."""
    return jax.nn.logsumexp(norm.logpdf(obs["y"], params["means"], 1.0)) - jnp.log(2.0)


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "logistic": (logistic, {"coef": jnp.zeros(4)}),
    "negative binomial": (negative_binomial, {"level": 1.0, "alpha": 0.5}),
    "student": (student, {"centre": 0.5, "sigma": 1.0, "df": 4.0}),
    "parabola": (parabola, {"centre": 0.0}),
}


def constraints_of(params: dict[str, Any]) -> Any:
    return {key: value for key, value in POSITIVE.items() if key in params} or None


@functools.cache
def healthy(model: str, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    if model == "logistic":
        x = np.column_stack([np.ones(N), rng.normal(size=(N, 3))])
        return {"x": x, "y": (x @ [0.2, 0.8, -0.5, 0.1] + rng.logistic(size=N) > 0).astype(float)}
    if model == "negative binomial":
        return {"y": rng.negative_binomial(2, 0.3, size=N).astype(float)}
    if model == "student":
        return {"y": rng.standard_t(2, size=N)}
    return {"y": rng.uniform(-1.5, 1.5, size=N)}


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


def fit_one(model: str, data: Any, **options: Any) -> mle.Fit:
    log_density, init = MODELS[model]
    return mle.fit(log_density, init, data, constraints=constraints_of(init), **options)


def fit_many(model: str, sets: list[tuple[Any, int]], start: Any = None, **options: Any) -> mle.Fit:
    log_density, init = MODELS[model]
    data = jax.tree.map(lambda *leaves: np.stack(leaves), *(data for data, _ in sets))
    lengths = np.array([rows for _, rows in sets])
    start = init if start is None else start
    return mle.fit_batch(log_density, start, data, lengths=lengths, constraints=constraints_of(init), **options)


def no_errors(fit: mle.Fit) -> bool:
    return all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves((fit.standard_errors(), fit.covariance())))


# --- each trouble has its name ------------------------------------------------------------------------------


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
    assert fit.message.endswith(f"Weak direction: {', '.join(weak)}.")


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


# --- converged means: a maximum -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_converged_fit_is_a_maximum(model):
    """Central differences of the log-likelihood vanish, and every neighbour has less."""
    log_density, _ = MODELS[model]
    data = healthy(model, 0)
    fit = fit_one(model, data)
    assert fit.converged
    assert 0 <= fit.certificate.decrement <= 1e-9
    assert fit.certificate.min_eigenvalue > 0
    params, errors = (jax.flatten_util.ravel_pytree(tree) for tree in (fit.params, fit.standard_errors()))
    (centre, unravel), sizes = params, errors[0]
    assert np.all(sizes > 0)
    values = jax.jit(jax.vmap(lambda v: mle.log_likelihood(log_density, unravel(v), data)))
    k = len(centre)
    steps = np.concatenate([np.eye(k), -np.eye(k)])
    up, down = np.split(np.asarray(values(centre + 1e-4 * sizes * steps)), 2)
    # In units of standard errors: a rise of 1e-6 nats a standard error; rounding alone makes 1e-9.
    assert np.max(np.abs(up - down)) / 2e-4 < 1e-6
    best = float(values(centre[None])[0])
    assert best == pytest.approx(float(fit.log_likelihood), rel=1e-13)
    directions = np.random.default_rng(0).normal(size=(200, k))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for distance in (0.01, 0.1):
        assert np.all(np.asarray(values(centre + distance * sizes * directions)) < best)


def existing(x: np.ndarray, y: np.ndarray, model: str) -> str:
    """Whether the likelihood has one maximum: `yes`, `flat`, `infinite` or `both`, by linear programming.

    It rises for ever along `b` if no observation loses and some gain (Albert and Anderson 1984 for the
    logistic, Santos Silva and Tenreyro 2010 for the Poisson regression).
    """
    k = x.shape[1]
    if model == "logistic":
        gains, still = (2 * y - 1)[:, None] * x, np.zeros((0, k))
    else:
        gains, still = -x[y == 0], x[y > 0]
    flat = np.linalg.matrix_rank(x) < k
    away = False
    if len(gains):
        equal = {"A_eq": still, "b_eq": np.zeros(len(still))} if len(still) else {}
        found = scipy.optimize.linprog(
            -gains.sum(0), A_ub=-gains, b_ub=np.zeros(len(gains)), bounds=[(-1, 1)] * k, **equal
        )
        away = -found.fun > 1e-7
    return {(0, 0): "yes", (1, 0): "flat", (0, 1): "infinite", (1, 1): "both"}[flat, away]


@pytest.mark.parametrize("model", mostly_slow(["logistic", "poisson"], "logistic"))
def test_converged_if_and_only_if_a_maximum_exists(model):
    """400 data sets of 1 to 12 rows on a small grid: separated, tied, constant and singular ones abound."""
    rng = np.random.default_rng(7)
    n_sets, n = 400, 12
    lengths = rng.integers(1, n + 1, n_sets)
    x = rng.integers(-2, 3, (n_sets, n, 3)).astype(float)
    x[..., 0] = 1
    x[rng.random(n_sets) < 0.1, :, 2] = 1
    y = rng.integers(0, 2, (n_sets, n)) * (1 if model == "logistic" else rng.integers(0, 4, (n_sets, n)))
    y = y.astype(float)
    log_density = {"logistic": logistic, "poisson": poisson}[model]
    fits = mle.fit_batch(log_density, {"coef": jnp.zeros(3)}, {"x": x, "y": y}, lengths=lengths)
    wanted = [existing(x[i, : lengths[i]], y[i, : lengths[i]], model) for i in range(n_sets)]
    assert {kind: wanted.count(kind) >= 20 for kind in ("yes", "flat", "infinite", "both")} == dict.fromkeys(
        ("yes", "flat", "infinite", "both"), True
    )
    few = lengths < 3
    allowed = {
        "yes": {S.converged},
        "flat": {S.not_identified},
        "infinite": {S.unbounded},
        "both": {S.unbounded, S.not_identified},
    }
    wrong = [
        (i, int(lengths[i]), wanted[i], S(int(code)).name)
        for i, code in enumerate(np.asarray(fits.status))
        if S(int(code)) not in ({S.too_few_observations} if few[i] else allowed[wanted[i]])
    ]
    assert not wrong, f"{len(wrong)}: {wrong[:20]}"


@pytest.mark.slow
def test_negative_binomial_converges_if_and_only_if_over_dispersed():
    """Without regressors a positive dispersion is best exactly where the variance exceeds the mean."""
    rng = np.random.default_rng(3)
    n_sets, lengths = 300, np.repeat([20, 60, 200], 100)
    y = rng.poisson(rng.uniform(1, 8, (n_sets, 1)), (n_sets, 200)).astype(float)
    y[::3] = rng.binomial(8, rng.uniform(0.2, 0.9, (n_sets // 3, 1)), (n_sets // 3, 200))
    init = MODELS["negative binomial"][1]
    fits = mle.fit_batch(negative_binomial, init, {"y": y}, lengths=lengths, constraints={"alpha": mle.positive})
    excess = np.array([np.var(row[:n]) / np.mean(row[:n]) - 1 for row, n in zip(y, lengths)])
    clear = np.abs(excess) > 0.01  # the rest converges slowly: a dispersion of almost nothing
    wanted = np.where(excess > 0, S.converged, S.unbounded)
    assert np.sum(clear & (excess > 0)) > 80
    wrong = np.flatnonzero(clear & (np.asarray(fits.status) != wanted))
    assert not wrong.size, [(int(lengths[i]), float(excess[i]), fits.status[i]) for i in wrong[:10]]


N_SETS, N_ROWS = 4, 6
ODD = st.sampled_from([0.0, 1.0, 1.0, 2.0, -1.0, 0.5, 3.0, 1e-6, -1e4, 1e8])


@hypothesis.settings(deadline=None, derandomize=True, max_examples=30, database=None)
@hypothesis.given(
    x=hnp.arrays(float, (N_SETS, N_ROWS), elements=ODD | st.floats(-5, 5)),
    y=hnp.arrays(float, (N_SETS, N_ROWS), elements=ODD | st.floats(-5, 5)),
    lengths=hnp.arrays(int, (N_SETS,), elements=st.integers(1, N_ROWS)),
    model=st.sampled_from(["normal", "student"]),
)
def test_never_converged_without_proof(x, y, lengths, model):
    lengths[0] = N_ROWS  # one shape for all
    data = {"x": np.stack([np.ones_like(x), x], -1), "y": y}
    init: dict[str, Any] = {"coef": jnp.zeros(2)}
    if model == "normal":
        init["sigma"] = 2.0
    else:
        init = MODELS["student"][1]
    log_density = {"normal": normal, "student": student}[model]
    fits = mle.fit_batch(log_density, init, data, lengths=lengths, constraints=constraints_of(init))
    done = np.asarray(fits.converged)
    errors = np.concatenate(
        [np.reshape(leaf, (N_SETS, -1)) for leaf in jax.tree.leaves(fits.standard_errors())], 1
    )
    certificate = fits.certificate
    assert np.all(np.asarray(certificate.decrement)[done] <= 1e-9)
    assert np.all(np.asarray(certificate.min_eigenvalue)[done] > 0)
    assert np.all(np.isfinite(errors[done]) & (errors[done] > 0))
    assert np.all(np.isnan(errors[~done]))
    assert np.all(np.isfinite(np.asarray(fits.log_likelihood)[done]))
    assert not np.any(fits.status == S.nonfinite_data)
    # What must not have a maximum: a line through constant or fully explained data has no error left.
    for i in np.flatnonzero(done):
        rows = slice(0, lengths[i])
        if model == "normal":
            rest = np.linalg.lstsq(data["x"][i, rows], y[i, rows])[1]
            assert rest.size
            assert rest[0] > 0
        else:
            assert np.ptp(y[i, rows]) > 0


# --- hard starts --------------------------------------------------------------------------------------------


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
