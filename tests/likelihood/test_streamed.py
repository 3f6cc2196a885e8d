"""Tables on disk: the numbers are those of the same rows in memory, block by block."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa
import pyarrow.dataset as pads
import pytest

import mlekit as mle
from mlekit.engine import matrix_free
from mlekit.inference.covariance import errors
from mlekit.likelihood.in_memory import InMemoryLikelihood
from mlekit.likelihood.objective import Objective
from mlekit.likelihood.streamed import streamed_likelihood
from mlekit.models.initial_parameters import build_parameters
from mlekit.solvers.choice import DENSE_CERTIFICATE
from mlekit.solvers.objective import Curvature
from tests.helpers.marks import mostly_slow
from tests.helpers.tables import ROWS, N, write_rows

START = {"intercept": 0.0, "slope": 0.0}
COUNTS = mle.regression(lambda p, obs: jnp.exp(p["intercept"] + p["slope"] * obs["x"]), mle.families.poisson)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: Any) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"))


def mapped(directory: Path) -> dict[str, Any]:
    return {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in ROWS}


SOURCES: dict[str, Callable[[Path], Any]] = {
    "a file": lambda path: path / "one.parquet",
    "a directory": lambda path: str(path / "many"),
    "a list": lambda path: sorted((path / "many").iterdir()),
    "hive": lambda path: path / "hive",
    "arrow": lambda path: pads.dataset(path / "arrow", format="ipc"),
    "in memory": lambda path: pads.dataset(pa.table(ROWS)),
    "mapped": mapped,
    "arrays": lambda path: {name: np.repeat(column, 2)[::2] for name, column in ROWS.items()},
}


@functools.cache
def in_memory(weighted: bool) -> mle.Fit:
    with jax.enable_x64(True):  # whichever test asks first
        return mle.fit(COUNTS, START, ROWS, weights=ROWS["w"] if weighted else None)


@pytest.mark.parametrize("kind", mostly_slow(SOURCES, "a directory", "hive", "arrow", "mapped"))
def test_every_source_gives_the_numbers_of_memory(kind: str, directory: Path) -> None:
    source = SOURCES[kind](directory)
    table = mle.open_table(source, ["y", "x", "w", "firm"], block_rows=100)
    assert repr(table).startswith("Table(1,003 rows in 11 blocks; columns ")
    found, wanted = mle.fit(COUNTS, START, table), in_memory(False)
    assert found.status == mle.Status.converged
    assert found.n_obs == N
    np.testing.assert_allclose(found._solution.estimates, wanted._solution.estimates, rtol=1e-10)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=1e-12)
    order = np.argsort(ROWS["firm"], kind="stable")  # a stream of numbers a row, in the order of the files
    if kind != "hive":
        np.testing.assert_allclose(found.contributions()[order], wanted.contributions()[order], rtol=1e-8)


@pytest.mark.parametrize(
    ("weighted", "block_rows"),
    mostly_slow([(w, n) for w in (False, True) for n in (17, 500, 1_003, 5_000)], (True, 17)),
)
def test_blocks_of_every_size(weighted: bool, block_rows: int, directory: Path) -> None:
    table = mle.open_table(directory / "one.parquet", block_rows=block_rows)
    found, wanted = mle.fit(COUNTS, START, table, weights="w" if weighted else None), in_memory(weighted)
    assert found.n_obs == wanted.n_obs
    np.testing.assert_allclose(found._solution.estimates, wanted._solution.estimates, rtol=1e-10)
    np.testing.assert_allclose(found.covariance(), wanted.covariance(), rtol=1e-9)


SOLVERS = {
    "Newton": mle.Newton(),
    "Scoring": mle.Scoring(),
    "BFGS": mle.BFGS(),
    "LBFGS": mle.LBFGS(),
    "adam": optax.adam(0.1),
}


@pytest.mark.parametrize("name", mostly_slow(SOLVERS, "LBFGS"))
def test_every_solver_finds_the_maximum(name: str, directory: Path) -> None:
    table = mle.open_table(directory / "one.parquet", block_rows=150)
    found = mle.fit(COUNTS, START, table, solver=SOLVERS[name])
    assert found.converged
    np.testing.assert_allclose(found._solution.estimates, in_memory(False)._solution.estimates, rtol=1e-10)


def test_products_of_the_hessian_with_vectors(directory: Path) -> None:
    """Across functions with derivatives of their own, which second derivatives in a loop may lose."""

    def density(p: Any, obs: Any) -> Any:
        return (
            -jax.nn.softplus(p[0] - obs["x"])
            + jax.scipy.special.gammaln(jnp.exp(p[1]) + obs["y"].astype(float))
            - p[1] ** 2
        )

    model, params = mle.Model(density), jnp.array([0.3, 0.2])
    table = mle.open_table(directory / "one.parquet", block_rows=170)
    parameters, _ = build_parameters(params, None, dtype=jnp.zeros(()).dtype)
    on_disk = Objective(streamed_likelihood(table, model, None, None, 2), parameters)
    in_memory = Objective(InMemoryLikelihood(model, None, jax.tree.map(jnp.asarray, ROWS)), parameters)
    vector = jnp.array([1.0, -2.0])
    wanted = in_memory.evaluate(params, Curvature.exact).curvature @ vector
    np.testing.assert_allclose(jax.jit(matrix_free.product(on_disk, params))(vector), wanted, rtol=1e-10)
    np.testing.assert_allclose(on_disk.evaluate(params, Curvature.exact).curvature @ vector, wanted, rtol=1e-10)
    whole = lambda p: mle.log_likelihood(density, p, table)  # noqa: E731
    np.testing.assert_allclose(jax.grad(whole)(params), -in_memory.evaluate(params).gradient * N, rtol=1e-10)
    np.testing.assert_allclose(jax.hessian(whole)(params) @ vector, -wanted * N, rtol=1e-10)


@pytest.mark.slow
def test_many_parameters_use_products_with_vectors_alone() -> None:
    """No Hessian is made of so many parameters, on disk as in memory."""
    rng = np.random.default_rng(1)
    k = DENSE_CERTIFICATE + 1
    rows = {"place": rng.integers(0, k, 3_000), "y": rng.normal(size=3_000)}
    density = lambda mean, obs: -0.5 * (obs["y"] - mean[obs["place"]]) ** 2 - 0.01 * jnp.sum(mean**2)  # noqa: E731
    wanted = mle.fit(density, np.zeros(k), rows)
    found = mle.fit(density, np.zeros(k), mle.open_table(rows, block_rows=700))
    assert found.converged
    np.testing.assert_allclose(found.params, wanted.params, rtol=1e-8, atol=1e-10)


# What follows from a fit.
METHODS: dict[str, Callable[[mle.Fit], Any]] = {
    "observed": lambda fit: fit.covariance(),
    "expected": lambda fit: fit.covariance("expected"),
    "opg": lambda fit: fit.covariance("opg"),
    "sandwich": lambda fit: fit.covariance("sandwich"),
    "clusters": lambda fit: fit.covariance("sandwich", clusters="firm"),
    "contributions": lambda fit: fit.contributions(),
    "scores": lambda fit: fit.scores(),
    "influence": lambda fit: fit.influence(),
    "pit": lambda fit: fit.pit(jax.random.key(0)),
    "profile interval": lambda fit: fit.intervals(method="profile"),
    "profile": lambda fit: mle.profile(fit, "slope", points=5).log_likelihood,
    "information matrix test": lambda fit: mle.information_matrix_test(fit).statistic,
    "criteria": lambda fit: (fit.aic, fit.bic),
}


@pytest.mark.parametrize(
    ("name", "weighted"),
    mostly_slow(
        [(name, weighted) for name in METHODS for weighted in (False, True)],
        *[(name, True) for name in ("observed", "sandwich", "contributions", "profile interval")],
        *[(name, False) for name in ("clusters", "pit")],
    ),
)
def test_what_follows_from_a_fit(name: str, weighted: bool, directory: Path) -> None:
    table = mle.open_table(directory / "one.parquet", block_rows=170)
    found = mle.fit(COUNTS, START, table, weights="w" if weighted else None)
    ours, wanted = METHODS[name](found), METHODS[name](in_memory(weighted))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-9, atol=1e-12), ours, wanted)


def test_what_draws_rows_anew_says_so(directory: Path) -> None:
    fit = mle.fit(COUNTS, START, mle.open_table(directory / "one.parquet", block_rows=170))
    with pytest.raises(ValueError, match="needs the rows in the memory of one device"):
        mle.bootstrap(fit, jax.random.key(0), 10)


def test_many_starts_share_every_pass(directory: Path) -> None:
    rows = {"x": np.array([0.0, 1.0, 9.0, 0.5, 9.5] * 40)}
    cauchy = lambda place, obs: -jnp.log1p((obs["x"] - place) ** 2)  # noqa: E731
    wanted = mle.fit(cauchy, 8.0, rows, starts=8, key=jax.random.key(1))
    found = mle.fit(cauchy, 8.0, mle.open_table(rows, block_rows=70), starts=8, key=jax.random.key(1))
    assert wanted.modes is not None
    assert found.modes is not None
    np.testing.assert_allclose(found.params, wanted.params, rtol=1e-10)
    np.testing.assert_array_equal(found.modes.count, wanted.modes.count)


def test_a_file_of_a_fit_holds_no_rows_of_the_table(directory: Path, tmp_path: Path) -> None:
    table = mle.open_table(directory / "one.parquet")
    fit = mle.fit(COUNTS, START, table)
    fit.save(tmp_path / "a.fit")
    assert (tmp_path / "a.fit").stat().st_size < 20_000
    again = mle.load(tmp_path / "a.fit", like=mle.fit(COUNTS, START, table, max_steps=1))
    np.testing.assert_array_equal(again._solution.estimates, fit._solution.estimates)
    with pytest.raises(ValueError, match="those of like are others"):
        mle.load(tmp_path / "a.fit", like=mle.fit(COUNTS, START, mle.open_table(directory / "many")))


@pytest.mark.standard_promotion
def test_derivatives_of_a_fit(directory: Path) -> None:
    table = mle.open_table(directory / "one.parquet", block_rows=170)

    def slope(data: Any, penalty: Any) -> Any:
        density = lambda p, obs, c: -0.5 * (obs["y"] - p["a"] - p["b"] * obs["x"]) ** 2 - c * p["b"] ** 2  # noqa: E731
        return mle.argmax(density, {"a": 0.0, "b": 0.0}, data, args=penalty)["b"]

    wanted = jax.grad(slope, argnums=1)(ROWS, 0.3)
    np.testing.assert_allclose(jax.grad(slope, argnums=1)(table, 0.3), wanted, rtol=1e-10)
    np.testing.assert_allclose(jax.jacfwd(slope, argnums=1)(table, 0.3), wanted, rtol=1e-10)
    np.testing.assert_allclose(
        jax.jit(jax.grad(slope, argnums=1), static_argnums=0)(table, 0.3), wanted, rtol=1e-10
    )


def test_derivatives_across_rules_are_refused_where_they_would_be_lost(directory: Path) -> None:
    """JAX before 0.12 forgets such rules in second derivatives across a loop."""
    table = mle.open_table(directory / "one.parquet", block_rows=170)
    density = lambda p, obs, c: -jax.nn.softplus(p - obs["x"] * c) + 0.5 * p  # noqa: E731
    gradient = jax.grad(lambda c: mle.argmax(density, 0.0, table, args=c))
    if jax.__version_info__ < (0, 12):
        with pytest.raises(ValueError, match=r"want JAX 0\.12 or later"):
            gradient(1.0)
    else:
        wanted = jax.grad(lambda c: mle.argmax(density, 0.0, {"x": ROWS["x"]}, args=c))(1.0)
        np.testing.assert_allclose(gradient(1.0), wanted, rtol=1e-9)


def test_log_likelihood_of_a_table(directory: Path) -> None:
    table, params = mle.open_table(directory / "one.parquet", block_rows=170), {"intercept": 0.2, "slope": 0.4}
    wanted = mle.log_likelihood(COUNTS, params, ROWS, weights=ROWS["w"])
    np.testing.assert_allclose(mle.log_likelihood(COUNTS, params, table, weights="w"), wanted, rtol=1e-12)


def test_tables_of_one_layout_share_a_program() -> None:
    traces: list[None] = []

    def density(mean: Any, obs: Any) -> Any:
        traces.append(None)
        return -0.5 * (obs["x"] - mean) ** 2

    means = [
        float(mle.fit(density, 0.0, mle.open_table({"x": rows}, block_rows=60)).params)
        for rows in (np.arange(200.0), 1 + np.arange(200.0), 2 + np.arange(200.0))
    ]
    first = len(traces)
    np.testing.assert_allclose(means, [99.5, 100.5, 101.5], rtol=1e-12)
    mle.fit(density, 0.0, mle.open_table({"x": 3 + np.arange(200.0)}, block_rows=60))
    assert len(traces) == first
    assert first <= 8


def test_mini_batches_visit_every_row_once_an_epoch() -> None:
    table = mle.open_table({"x": np.arange(240.0)}, block_rows=60)
    likelihood = streamed_likelihood(table, mle.Model(lambda p, obs: p * obs["x"]), None, None, 1)

    def rows(key: jax.Array, epoch: int) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        steps = jnp.asarray(12 * epoch)
        while len(found) < 12:
            number, batch = likelihood.minibatches(key, steps, 20)
            assert number == 3
            found += [np.asarray(batch(jnp.asarray(j)).data["x"]) for j in range(number)]
            steps = steps + number
        return found

    first, second, other = rows(jax.random.key(0), 0), rows(jax.random.key(0), 1), rows(jax.random.key(1), 0)
    for epoch in (first, second, other):
        assert sorted(np.concatenate(epoch)) == list(range(240))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first, rows(jax.random.key(0), 0))
    assert len({int(batch[0]) // 60 for batch in first[:3]}) == 1  # one block after the other
    assert not np.array_equal(first[0], np.sort(first[0]))


@pytest.mark.parametrize("weights", mostly_slow([None, "w"], "w"))
def test_mini_batches_come_near_the_maximum(weights: str | None, directory: Path) -> None:
    table = mle.open_table(directory / "one.parquet", block_rows=170)
    solver = mle.Optax(optax.adam(0.01), batch_size=50, steps=2_000, key=jax.random.key(3))
    found = mle.fit(COUNTS, START, table, weights=weights, solver=solver)
    again = mle.fit(COUNTS, START, table, weights=weights, solver=solver)
    wanted = in_memory(weights is not None)
    np.testing.assert_array_equal(found._solution.estimates, again._solution.estimates)
    assert np.all(np.abs(found._solution.estimates - wanted._solution.estimates) < 2 * errors(wanted))


def test_a_start_from_a_function_sees_rows_from_all_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlekit.data.table.SAMPLE_ROWS", 64)
    seen = []

    def init(data: Any) -> Any:
        seen.append(np.asarray(data["x"]))
        return jnp.mean(data["x"])

    fit = mle.fit(lambda m, obs: -0.5 * (obs["x"] - m) ** 2, init, mle.open_table({"x": np.arange(6_400.0)}))
    assert seen[0].shape == (64,)
    np.testing.assert_array_equal(np.unique(seen[0] // 400), np.arange(16))
    np.testing.assert_allclose(fit.params, 3199.5, rtol=1e-12)


# Numbers.
def test_sums_keep_their_digits_in_float32() -> None:
    """A hundred million terms; their sum is known, as a product."""
    n, term = 10**8, np.float32(0.1)
    with jax.enable_x64(False):
        table = mle.open_table({"x": np.broadcast_to(term, (n,))})
        total, slope = jax.value_and_grad(lambda p: mle.log_likelihood(lambda p, obs: p * obs["x"], p, table))(3.0)
    exact = float(term) * n
    assert total.dtype == jnp.float32
    assert abs(float(slope) / exact - 1) < 2e-7
    assert abs(float(total) / (3 * exact) - 1) < 2e-7


def test_long_sums_in_memory_keep_their_digits_in_float32() -> None:
    rng = np.random.default_rng(2)
    x = rng.gamma(2.0, size=3_000_000).astype(np.float32)
    with jax.enable_x64(False):
        fit = mle.fit(lambda rate, obs: jnp.log(rate) - rate * obs["x"], 1.0, {"x": x}, constraints=mle.positive)
    assert fit.converged
    np.testing.assert_allclose(fit.params, 1 / x.astype(float).mean(), rtol=3e-7)


@pytest.mark.standard_promotion
def test_precision_follows_jax(directory: Path) -> None:
    with jax.enable_x64(False):
        table = mle.open_table(directory / "one.parquet", block_rows=170)
        fit = mle.fit(COUNTS, START, table)
        assert table.row["x"].dtype == jnp.float32
        assert fit._solution.estimates.dtype == jnp.float32
        np.testing.assert_allclose(fit._solution.estimates, in_memory(False)._solution.estimates, rtol=1e-5)
        big = mle.open_table({"x": np.array([1, 2**40])})
        with pytest.raises(ValueError, match=r"beyond int32: call jax\.config\.update"):
            mle.log_likelihood(lambda p, obs: p * obs["x"], 1.0, big)


def test_what_cannot_be_fitted(directory: Path) -> None:
    table = mle.open_table(directory / "one.parquet", block_rows=170)
    density = lambda p, obs: p * obs["x"]  # noqa: E731
    for options, kind, message in [
        ({"weights": np.ones(N)}, TypeError, "weights of a table on disk are the name of a column"),
        ({"weights": "z"}, ValueError, "there is no column 'z'; there are firm, w, x, y"),
        ({"weights": "x"}, ValueError, "^weights: column 'x' has negative entries"),
    ]:
        with pytest.raises(kind, match=message):
            mle.fit(density, 0.0, table, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a joint model sees all rows at once"):
        mle.fit(mle.joint(lambda p, data: p * data["x"]), 0.0, table)
    with pytest.raises(ValueError, match=r"log_density looks up 'z'.*obs has \['firm', 'w', 'x', 'y'\]"):
        mle.fit(lambda p, obs: p * obs["z"], 0.0, table)


def test_what_is_asked_for_in_the_wrong_place(directory: Path) -> None:
    with pytest.raises(ValueError, match="does not run under jit"):
        jax.jit(lambda p: mle.log_likelihood(COUNTS, p, mle.open_table(directory / "one.parquet")))(START)
    table = mle.open_table(directory / "one.parquet", block_rows=100)
    solver = mle.Optax(optax.adam(0.01), batch_size=200, steps=10, key=jax.random.key(3))
    with pytest.raises(ValueError, match=r"batch_size is 200, .* of 92 rows: open it"):
        mle.fit(COUNTS, START, table, solver=solver)
    with jax.enable_x64(False), pytest.raises(ValueError, match="more than int32 can count"):
        mle.fit(
            COUNTS,
            START,
            mle.open_table({"x": np.broadcast_to(1.0, (2**31,)), "y": np.broadcast_to(1.0, (2**31,))}),
        )
