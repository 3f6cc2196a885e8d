"""Numbers stored in 16 bits are computed as wider ones, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlekit as mle
from tests.helpers.models import RULES, START, line

SHORT = [np.float16, ml_dtypes.bfloat16]
rng = np.random.default_rng(0)
X = rng.normal(size=60)
ROWS = {"x": X, "y": 3 + 2 * X + rng.normal(size=60)}


@pytest.fixture(params=[True, False], ids=["x64", "x32"])
def wide(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The dtype that short numbers are computed in."""
    with jax.enable_x64(request.param):
        yield np.dtype(float if request.param else np.float32)


def stored(dtype: Any, wide: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The rows in a short dtype, and the same numbers in a wide one."""
    short = {name: column.astype(dtype) for name, column in ROWS.items()}
    return short, {name: column.astype(wide) for name, column in short.items()}


def check_same(short: mle.Fit, wide: mle.Fit) -> None:
    assert (short.status == wide.status).all()
    assert short.converged.all()
    for one, other in zip(jax.tree.leaves(short.params), jax.tree.leaves(wide.params)):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("put", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_data_weights_and_start(dtype: Any, put: Any, wide: Any) -> None:
    weights, start = np.arange(60) % 3 + 0.5, {name: np.asarray(value) for name, value in START.items()}
    short, same = (
        mle.fit(
            line,
            {name: put(value.astype(kind)) for name, value in start.items()},
            jax.tree.map(put, rows),
            weights=put(weights.astype(kind)),
            constraints=RULES,
        )
        for rows, kind in zip(stored(dtype, wide), (dtype, wide))
    )
    check_same(short, same)


@pytest.mark.parametrize("dtype", SHORT)
def test_batches_and_groups(dtype: Any, wide: Any) -> None:
    short, same = stored(dtype, wide)
    sets = [jax.tree.map(lambda column: column.reshape(3, 20), rows) for rows in (short, same)]
    check_same(*(mle.fit_batch(line, START, rows, constraints=RULES) for rows in sets))
    groups = [mle.group_by(rows | {"k": np.arange(60) % 3}, "k") for rows in (short, same)]
    check_same(*(mle.fit_batch(line, START, rows, constraints=RULES) for rows in groups))


@pytest.mark.parametrize("dtype", SHORT)
def test_streams_and_shards(dtype: Any, wide: Any) -> None:
    short, same = stored(dtype, wide)
    for make in (lambda rows: mle.open_table(rows, block_rows=25), mle.shard):
        check_same(*(mle.fit(line, START, make(rows), constraints=RULES) for rows in (short, same)))


def test_tables(tmp_path: Path, wide: Any) -> None:
    short, same = (pa.table(rows) for rows in stored(np.float16, wide))
    check_same(*(mle.fit(line, START, table, constraints=RULES) for table in (short, same)))
    for name, table in (("short", short), ("same", same)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    tables = (mle.open_table(tmp_path / f"{name}.parquet", block_rows=25) for name in ("short", "same"))
    check_same(*(mle.fit(line, START, table, constraints=RULES) for table in tables))


def test_what_a_density_returns(wide: Any) -> None:
    """A density that rounds its own value to 16 bits is still added up in wide numbers."""
    rounded = lambda p, obs: line(p, obs).astype(jnp.bfloat16)  # noqa: E731
    rows = stored(np.float16, wide)[1]
    total = mle.log_likelihood(rounded, START, rows)
    each = jax.vmap(rounded, in_axes=(None, 0))(START, rows).astype(wide)
    assert total.dtype == wide
    np.testing.assert_allclose(total, each.sum(), rtol=1e-5)


def test_derivatives_with_respect_to_short_numbers() -> None:
    density = lambda mean, x: -0.5 * (x - mean) ** 2  # noqa: E731
    slope = jax.grad(lambda x: mle.argmax(density, 0.0, x))(jnp.asarray([1, 2, 6], jnp.bfloat16))
    assert slope.dtype == jnp.bfloat16
    np.testing.assert_allclose(slope.astype(float), 1 / 3, rtol=1e-2)
