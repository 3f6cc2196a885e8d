"""Tables on disk: the numbers are those of the same rows in memory, block by block."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import mlekit as mle
from mlekit.core import compensated_sum
from mlekit.data.block_reader import N_BUFFERS, BlockReader
from mlekit.data.row_source import ArrayRowSource
from mlekit.data.table import Table, open_row_source
from mlekit.engine import matrix_free
from mlekit.inference.covariance import errors
from mlekit.likelihood.in_memory import InMemoryLikelihood
from mlekit.likelihood.objective import Objective
from mlekit.likelihood.streamed import streamed_likelihood
from mlekit.models.initial_parameters import build_parameters
from mlekit.solvers.choice import DENSE_CERTIFICATE
from mlekit.solvers.objective import Curvature

from .marks import mostly_slow

RNG = np.random.default_rng(0)
N = 1_003
ROWS = {
    "x": RNG.normal(size=N),
    "y": RNG.poisson(2.0, N),
    "w": RNG.integers(0, 3, N),
    "firm": RNG.integers(0, 40, N),
}
ROWS["y"] = RNG.poisson(np.exp(0.3 + 0.5 * ROWS["x"]))
START = {"intercept": 0.0, "slope": 0.0}
COUNTS = mle.regression(lambda p, obs: jnp.exp(p["intercept"] + p["slope"] * obs["x"]), mle.families.poisson)


def decay(params: Any, obs: Any) -> Any:
    """A straight line with the noise of Cauchy: no regression of a family, and not concave."""
    residual = (obs["y"] - params["intercept"] - params["slope"] * obs["x"]) / params["scale"]
    return -jnp.log(params["scale"]) - jnp.log1p(residual**2)


DECAY_START = {"intercept": 1.0, "slope": 0.0, "scale": 1.0}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: Any) -> Path:
    """The rows in every form: one file with row groups of 97, files in a directory, Arrow files, NumPy's."""
    path = tmp_path_factory.mktemp("rows")
    table = pa.table(ROWS)
    pq.write_table(table, path / "one.parquet", row_group_size=97)
    (path / "many").mkdir()
    for i, begin in enumerate(range(0, N, 301)):
        pq.write_table(table.slice(begin, 301), path / "many" / f"{i}.parquet", row_group_size=1000)
    (path / "arrow").mkdir()
    with pa.OSFile(str(path / "arrow" / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table, max_chunksize=110)
    for name, column in ROWS.items():
        np.save(path / f"{name}.npy", column)
    by = pads.partitioning(pa.schema([("part", pa.int64())]), flavor="hive")
    parts = table.append_column("part", pa.array(np.arange(N) * 3 // N))
    pads.write_dataset(parts, path / "hive", format="parquet", partitioning=by)
    return path


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
    return mle.fit(COUNTS, START, ROWS, weights=ROWS["w"] if weighted else None)


@pytest.mark.parametrize("kind", mostly_slow(SOURCES, "a directory", "hive", "arrow", "mapped"))
def test_every_source_gives_the_numbers_of_memory(kind: str, directory: Path) -> None:
    source = SOURCES[kind](directory)
    table = mle.open_table(source, ["y", "x", "w", "firm"], block_rows=100)
    assert repr(table).startswith("Table(1,003 rows in 11 blocks; columns ")
    found, wanted = mle.fit(COUNTS, START, table), in_memory(False)
    assert found.status == mle.Status.converged
    assert found.n_obs == N
    np.testing.assert_allclose(found.solution.vector, wanted.solution.vector, rtol=1e-10)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=1e-12)
    order = np.argsort(ROWS["firm"], kind="stable")  # a stream of numbers a row, in the order of the files
    if kind != "hive":
        np.testing.assert_allclose(found.contributions()[order], wanted.contributions()[order], rtol=1e-8)


@pytest.mark.parametrize(
    ("weighted", "block_rows"),
    mostly_slow([(w, n) for w in (False, True) for n in (17, 500, 1_003, 5_000)], (True, 17), (False, 5_000)),
)
def test_blocks_of_every_size(weighted: bool, block_rows: int, directory: Path) -> None:
    table = mle.open_table(directory / "one.parquet", block_rows=block_rows)
    found, wanted = mle.fit(COUNTS, START, table, weights="w" if weighted else None), in_memory(weighted)
    assert found.n_obs == wanted.n_obs
    np.testing.assert_allclose(found.solution.vector, wanted.solution.vector, rtol=1e-10)
    np.testing.assert_allclose(found.covariance(), wanted.covariance(), rtol=1e-9)


SOLVERS = {
    "Newton": mle.Newton(),
    "Scoring": mle.Scoring(),
    "BFGS": mle.BFGS(),
    "LBFGS": mle.LBFGS(),
    "adam": optax.adam(0.1),
}


@pytest.mark.parametrize("name", mostly_slow(SOLVERS, "Scoring", "LBFGS"))
def test_every_solver_finds_the_maximum(name: str, directory: Path) -> None:
    table = mle.open_table(directory / "one.parquet", block_rows=150)
    found = mle.fit(COUNTS, START, table, solver=SOLVERS[name])
    assert found.converged
    np.testing.assert_allclose(found.solution.vector, in_memory(False).solution.vector, rtol=1e-10)


def test_products_of_the_hessian_with_vectors(directory: Path) -> None:
    """Across functions with derivatives of their own, which second derivatives in a loop may lose."""

    def density(p: Any, obs: Any) -> Any:
        return -jax.nn.softplus(p[0] - obs["x"]) + jax.scipy.special.gammaln(jnp.exp(p[1]) + obs["y"]) - p[1] ** 2

    model, params = mle.Model(density), jnp.array([0.3, 0.2])
    table = mle.open_table(directory / "one.parquet", block_rows=170)
    parameters, _ = build_parameters(params, None, dtype=jnp.zeros(()).dtype)
    on_disk = Objective(streamed_likelihood(table, model, None, None, 2), parameters)
    in_memory = Objective(InMemoryLikelihood(model, jax.tree.map(jnp.asarray, ROWS)), parameters)
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
    np.testing.assert_array_equal(again.solution.vector, fit.solution.vector)
    with pytest.raises(ValueError, match="those of like are others"):
        mle.load(tmp_path / "a.fit", like=mle.fit(COUNTS, START, mle.open_table(directory / "many")))


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


# How it is read.


class Watched(ArrayRowSource):
    """Rows that note which of them are read, and by whom."""

    def __init__(self, arrays: Any) -> None:
        super().__init__(arrays, "watched")
        self.read: list[tuple[int, str]] = []

    def batches(self, first: int, only: str | None = None, rows: int = 50) -> Any:
        for count, found in super().batches(first, only, rows):
            self.read.append((first, threading.current_thread().name))
            yield count, found


def test_a_pass_reads_every_block_once_and_ahead() -> None:
    source = Watched({"x": np.arange(400.0)})
    table = Table(source, 50)
    assert float(mle.log_likelihood(lambda p, obs: p * obs["x"], 2.0, table)) == 2 * np.arange(400.0).sum()
    began = [first for first, _ in source.read]
    assert began[:8] == [0] * 8  # one look from the first row on, batch after batch
    assert len(began) in (8, 9)  # and the first block of the next pass, ahead of time
    assert all("mlekit-reader" in name for _, name in source.read)


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
    np.testing.assert_array_equal(found.solution.vector, again.solution.vector)
    assert np.all(np.abs(found.solution.vector - wanted.solution.vector) < 2 * errors(wanted))


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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_compensated_sums(dtype: Any) -> None:
    """Terms of which each is lost by itself, whole numbers, and what is not finite."""
    small = float(jnp.finfo(dtype).eps) / 4

    def add(i: Any, sums: Any) -> Any:
        return compensated_sum.add(
            sums, (jnp.asarray(small, dtype), jnp.asarray(1), jnp.where(i == 5, jnp.inf, 1.0))
        )

    zero = (jnp.ones((), dtype), jnp.asarray(0), jnp.zeros(()))
    found = compensated_sum.total(jax.jit(lambda: jax.lax.fori_loop(0, 4096, add, compensated_sum.begin(zero)))())
    assert found[0] == 1 + 4096 * small
    assert found[1] == 4096
    assert found[2] == jnp.inf


def test_long_sums_in_memory_keep_their_digits_in_float32() -> None:
    rng = np.random.default_rng(2)
    x = rng.gamma(2.0, size=3_000_000).astype(np.float32)
    with jax.enable_x64(False):
        fit = mle.fit(lambda rate, obs: jnp.log(rate) - rate * obs["x"], 1.0, {"x": x}, constraints=mle.positive)
    assert fit.converged
    np.testing.assert_allclose(fit.params, 1 / x.astype(float).mean(), rtol=3e-7)


def test_kinds_of_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "gaps": pa.array([1, None, 3], pa.int32()),
            "flag": pa.array([True, False, True]),
            "pair": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
            "price": pa.array([Decimal("1.50"), Decimal("2"), Decimal("3")]),
            "whole": pa.array([1, 2, 3], pa.int16()),
        }
    )
    pq.write_table(table, tmp_path / "kinds.parquet")
    opened = mle.open_table(tmp_path / "kinds.parquet")
    kinds = {name: (leaf.shape, leaf.dtype.name) for name, leaf in opened.row.items()}
    assert kinds == {
        "gaps": ((), "float64"),
        "flag": ((), "bool"),
        "pair": ((2,), "float32"),
        "price": ((), "float64"),
        "whole": ((), "int16"),
    }
    data = streamed_likelihood(opened, mle.Model(lambda p, obs: p), None, None, 1).aligned()[0]
    np.testing.assert_array_equal(data["gaps"], [1, np.nan, 3])
    np.testing.assert_array_equal(data["pair"], [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(data["flag"], [True, False, True])
    missing = mle.fit(lambda m, obs: -((obs["gaps"] - m) ** 2), 0.0, opened)
    assert missing.status == mle.Status.nonfinite_data


def test_precision_follows_jax(directory: Path) -> None:
    with jax.enable_x64(False):
        table = mle.open_table(directory / "one.parquet", block_rows=170)
        fit = mle.fit(COUNTS, START, table)
        assert table.row["x"].dtype == jnp.float32
        assert fit.solution.vector.dtype == jnp.float32
        np.testing.assert_allclose(fit.solution.vector, in_memory(False).solution.vector, rtol=1e-5)
        big = mle.open_table({"x": np.array([1, 2**40])})
        with pytest.raises(ValueError, match=r"beyond int32: call jax\.config\.update"):
            mle.log_likelihood(lambda p, obs: p * obs["x"], 1.0, big)


# What goes wrong.


def test_what_cannot_be_opened(directory: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0], "name": ["a"]}), tmp_path / "text.parquet")
    pq.write_table(pa.table({"x": pa.array([], pa.float64())}), tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is none")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    one = directory / "one.parquet"
    for source, options, message in [
        (tmp_path / "nowhere.parquet", {}, "there is no .*nowhere.parquet"),
        (tmp_path / "bad.parquet", {}, "bad.parquet cannot be read"),
        (tmp_path / "empty", {}, "has no rows"),
        (tmp_path / "none.parquet", {}, "has no rows"),
        (tmp_path / "text.parquet", {}, "'name' holds string, want numbers"),
        (tmp_path / "objects.npy", {}, "objects.npy cannot be read"),
        (one, {"columns": ["x", "z"]}, "columns: there is no 'z'"),
        (one, {"block_rows": 0}, "block_rows"),
        (pads.dataset(one).filter(pads.field("x") > 0), {}, "Remove the filtering"),
        ({"x": np.ones(3), "y": np.ones(4)}, {}, "all arrays must share their leading axis"),
        ({"x": np.ones((0, 2))}, {}, "has no rows"),
        (np.ones(3), {"columns": "x"}, "only a table or a dict of arrays has columns"),
    ]:
        with pytest.raises(ValueError, match=message):
            mle.open_table(source, **options)  # type: ignore[arg-type]
    for wrong, message in [(3, "got int, want a Parquet file"), ({"x": np.array(["a"])}, "want numbers")]:
        with pytest.raises(TypeError, match=message):
            mle.open_table(wrong)


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


def _flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    begin = int(len(content) * place)
    content[begin : begin + 4000] = bytes(4000)
    path.write_bytes(content)


def test_a_file_that_is_damaged_or_changes(tmp_path: Path) -> None:
    """What cannot be read is said, by the fit and by what follows it; a later fit may find it mended."""
    path = tmp_path / "rows.parquet"
    rows = pa.table({"x": np.random.default_rng(0).normal(size=20_000)})
    options: dict[str, Any] = {"row_group_size": 5_000, "write_page_checksum": True}
    density = lambda mean, obs: -0.5 * (obs["x"] - mean) ** 2  # noqa: E731
    pq.write_table(rows, path, **options)
    stat = path.stat()
    table = mle.open_table(path, block_rows=2_000)
    fit = mle.fit(density, 0.0, table)
    _flip(path, 0.6)
    with pytest.raises(ValueError, match=r"rows\.parquet has changed since it was opened"):
        mle.fit(density, 0.0, table)
    with pytest.raises(ValueError, match=r"rows\.parquet has changed since it was opened"):
        fit.covariance("sandwich")
    again = mle.open_table(path, block_rows=2_000)
    with pytest.raises(ValueError, match=r"rows\.parquet cannot be read: .*"):
        mle.fit(density, 0.0, again)
    pq.write_table(rows, path, **options)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    np.testing.assert_array_equal(mle.fit(density, 0.0, table).params, fit.params)
    path.unlink()
    with pytest.raises(ValueError, match=r"rows\.parquet cannot be read"):
        mle.fit(density, 0.0, table)


def test_nulls_that_a_file_does_not_own_up_to(tmp_path: Path) -> None:
    path = tmp_path / "nulls.parquet"
    pq.write_table(pa.table({"x": pa.array([1, None, 3])}), path, write_statistics=False)
    with pytest.raises(ValueError, match="'x' holds nulls where its file says of none"):
        mle.fit(lambda m, obs: -((obs["x"] - m) ** 2), 0.0, mle.open_table(path))


def test_files_of_several_types_share_the_first_ones(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([1.0, 2.0])}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": pa.array([3, 5], pa.int32()), "more": ["a", "b"]}), tmp_path / "b.parquet")
    found = mle.fit(lambda m, obs: -((obs["x"] - m) ** 2), 0.0, mle.open_table(tmp_path))
    np.testing.assert_allclose(found.params, 2.75, rtol=1e-12)


def test_a_block_on_its_way_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where types differ, blocks are made in memory that is used again, once nobody holds it."""
    hand_over = BlockReader.block

    def slowly(*args: Any) -> Any:
        found = hand_over(*args)
        time.sleep(0.003)
        return found

    monkeypatch.setattr(BlockReader, "block", slowly)
    with jax.enable_x64(False):
        for rows in ({"x": np.repeat(np.arange(40.0), 500)}, np.repeat(np.arange(40.0), 500)):
            table = mle.open_table(rows, block_rows=500)
            density = lambda p, obs: p * (obs["x"] if isinstance(obs, dict) else obs)  # noqa: E731
            assert float(mle.log_likelihood(density, 1.0, table)) == 390_000
            (reader,) = table._readers.values()
            assert 1 <= len(reader._cursor._buffers) <= N_BUFFERS


def test_what_tells_rows_from_others(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6.0))
    whole = np.load(tmp_path / "x.npy", mmap_mode="r")
    different = [
        {"x": np.ones(3)}, {"x": np.zeros(3)}, {"x": whole}, {"x": whole[:3]}, {"x": whole[3:]},
        pads.dataset(pa.table({"x": [1.0]})), pads.dataset(pa.table({"x": [2.0]})),
    ]  # fmt: skip
    assert len({mle.open_table(rows).fingerprint for rows in different}) == len(different)
    assert mle.open_table({"x": np.ones(3)}).fingerprint == mle.open_table({"x": np.ones(3)}).fingerprint


def test_memory_maps_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(6))
    mine = np.load(tmp_path / "x.npy", mmap_mode="c")
    mine[:] = 5.0
    assert float(mle.log_likelihood(lambda p, obs: p * obs, 1.0, mle.open_table(mine))) == 30.0
    part = np.load(tmp_path / "x.npy", mmap_mode="r")[2:]
    assert float(mle.log_likelihood(lambda p, obs: p * obs, 1.0, mle.open_table(part))) == 4.0


def test_names_with_dots(tmp_path: Path) -> None:
    pq.write_table(pa.table({"petal.length": [1, None, 3], "petal": [1, 2, 3]}), tmp_path / "iris.parquet")
    row = mle.open_table(tmp_path / "iris.parquet").row
    assert {name: leaf.dtype.name for name, leaf in row.items()} == {"petal.length": "float64", "petal": "int64"}


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


def test_a_reader_that_goes_anywhere(directory: Path) -> None:
    source = open_row_source(directory / "one.parquet", ["x"])
    for first in (0, 96, 97, 500, 1_002):
        count, rows = next(source.batches(first))
        np.testing.assert_array_equal(rows["x"], ROWS["x"][first : first + count])
