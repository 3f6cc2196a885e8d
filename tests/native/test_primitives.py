"""Every family of primitives, written out and in loops, against JAX itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mlekit.native.unsupported import Unsupported
from tests.native.elementwise_kernel import compiled

pytestmark = pytest.mark.standard_promotion

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 2.5, -2.5, 1e308, -1e-308, 3.0, 5e-324]
#: Arithmetic that every machine does alike: equal to the last bit, but for the sign of zeros and NaN.
EXACT: dict[str, Callable[..., Any]] = {
    "sums": lambda x, y, n: x + y - 3.0,
    "products": lambda x, y, n: x * y,
    "zero times": lambda x, y, n: 0.0 * x + 0.0 * y,
    "quotients": lambda x, y, n: (x / y, y / 4.0, 1.0 / x),
    "signs": lambda x, y, n: (-x, jnp.abs(y), jnp.sign(x), jnp.sign(n)),
    "extremes": lambda x, y, n: (jnp.maximum(x, y), jnp.minimum(x, 0.5)),
    "comparisons": lambda x, y, n: (x < y, x <= y, x > y, x >= y, x == y, x != y, x != x),
    "guards": lambda x, y, n: jnp.where(x == jnp.inf, y, jnp.where(jnp.isnan(x), 0.0, x)),
    "finite": lambda x, y, n: (jnp.isfinite(x), jnp.isinf(x), jnp.isnan(x)),
    "roots": lambda x, y, n: jnp.sqrt(x),
    "whole": lambda x, y, n: (jnp.floor(x), jnp.ceil(x), jnp.round(x), lax.round(x)),
    "clip": lambda x, y, n: jnp.clip(x, -1.0, 2.0),
    "clamp": lambda x, y, n: lax.clamp(-1.0, x, 2.0),
    "powers": lambda x, y, n: (x**2, y**3, x**-1),
    "integers": lambda x, y, n: (n + 3, n * n, n - 7, n // 3, n % 3, -n, abs(n), n & 3, n | 1, n ^ 5, ~n),
    "shifts": lambda x, y, n: (n << 3, n >> 1, lax.shift_right_logical(n, jnp.full_like(n, 2))),
    "conversions": lambda x, y, n: (n.astype(jnp.float64), x.astype(jnp.int32), y.astype(bool), n.astype(bool)),
    "narrow": lambda x, y, n: (x.astype(jnp.float32), n.astype(jnp.int8), n.astype(jnp.uint8)),
    "logic": lambda x, y, n: ((x > 0) & (y > 0), (x > 0) | (n > 2), (x > 0) ^ (y > 0), ~(x > 0)),
    "which of three": lambda x, y, n: lax.select_n(jnp.clip(n, 0, 2), x, y, x - y),
    "slices": lambda x, y, n: (x[1:4], x[::2], x[::-1], x[-1]),
    "shapes": lambda x, y, n: (x.reshape(3, 2), x.reshape(2, 3).T, jnp.outer(x[:2], y[:3])[:, None]),
    "joins": lambda x, y, n: (jnp.concatenate([x, y]), jnp.stack([x, y], axis=1), jnp.pad(x, (2, 1))),
    "tiles": lambda x, y, n: (jnp.tile(x, 2), jnp.tile(x[:2], (2, 3))),
    "splits": lambda x, y, n: tuple(jnp.split(x, 3)),
    "wide rim": lambda x, y, n: lax.pad(x, 7.0, [(1, -1, 2)]),
    "extremes of all": lambda x, y, n: (jnp.max(x), jnp.min(y), jnp.any(x > 1), jnp.all(n > 0)),
    "places": lambda x, y, n: (jnp.argmax(x), jnp.argmin(y), jnp.argmax(n)),
    "sorted": lambda x, y, n: (jnp.sort(x), jnp.argsort(y), jnp.sort(n)),
    "running": lambda x, y, n: (lax.cummax(x), lax.cummin(y, reverse=True), jnp.cumsum(n)),
    "gathers": lambda x, y, n: (x[jnp.array([3, 0, 5])], jnp.diagonal(jnp.outer(x, y))),
    "computed places": lambda x, y, n: (x[n[0] % 6], lax.dynamic_slice(x, (n[1],), (3,)), jnp.take(y, n)),
    "outside": lambda x, y, n: (x.at[n[0]].get(mode="fill", fill_value=9.0), x.at[n[2]].get(mode="clip")),
    "writes": lambda x, y, n: (x.at[2].set(y[0]), x.at[n[0] % 6].set(1.0), x.at[jnp.array([1, 1])].set(y[3])),
    "updates": lambda x, y, n: lax.dynamic_update_slice(x, y[:2], (n[3],)),
    "condition": lambda x, y, n: lax.cond(n[0] > 2, lambda: x, lambda: y),
    "switch": lambda x, y, n: lax.switch(n[0], [lambda: x, lambda: y, lambda: x - y]),
    "while": lambda x, y, n: lax.while_loop(lambda c: c[1] < n[0], lambda c: (c[0][::-1] * 2, c[1] + 1), (x, 0)),
    "loop": lambda x, y, n: lax.fori_loop(0, 4, lambda i, c: c + x[i], y),
    "long loop": lambda x, y, n: lax.fori_loop(0, 1000, lambda i, c: 0.5 * c + i, y),
    "scan": lambda x, y, n: lax.scan(lambda c, z: (c - z, c * z), y[0], x),
    "backwards": lambda x, y, n: lax.scan(lambda c, z: (c - z, c), y[0], x, reverse=True),
    "barrier": lambda x, y, n: lax.optimization_barrier((x, y)),
    "nothing": lambda x, y, n: lax.stop_gradient(x),
    "checkpoint": lambda x, y, n: jax.checkpoint(lambda z: z * y)(x),
    "counts": lambda x, y, n: (jnp.arange(6) * n, jnp.eye(3), jnp.arange(12.0).reshape(3, 4)),
}
#: What is rounded on the way.
ROUNDED: dict[str, Callable[..., Any]] = {
    "sum": lambda x, y, n: (jnp.sum(x), jnp.mean(x * y), jnp.prod(x)),
    "running sum": lambda x, y, n: (jnp.cumsum(x), jnp.cumprod(y)),
    "dot": lambda x, y, n: (x @ y, jnp.outer(x, y) @ x, jnp.einsum("ij,kj->ik", x.reshape(2, 3), y.reshape(2, 3))),
    "functions": lambda x, y, n: (
        jnp.exp(x),
        jnp.log(jnp.abs(x)),
        jnp.log1p(jnp.abs(y)),
        jnp.expm1(y),
        jnp.tanh(x),
    ),
    "logistic": lambda x, y, n: (jax.nn.sigmoid(x), jax.nn.log_sigmoid(y), jnp.logaddexp(x, y)),
    "power": lambda x, y, n: (jnp.abs(x) ** y, jnp.hypot(x, y)),
    "logsumexp": lambda x, y, n: (jax.nn.logsumexp(x), jax.nn.softmax(y)),
    "add at": lambda x, y, n: (x.at[1].add(y[0]), x.at[jnp.array([1, 1])].add(y[3]), x.at[n[0] % 6].mul(2.0)),
    "rsqrt": lambda x, y, n: lax.rsqrt(jnp.abs(x)),
    "norm": lambda x, y, n: jnp.linalg.norm(x),
    "solve": lambda x, y, n: jax.scipy.linalg.solve_triangular(
        jnp.eye(3) * 3 + jnp.tril(jnp.outer(x[:3], y[:3])) / 10, y[:3], lower=True
    ),
    "cholesky": lambda x, y, n: jnp.linalg.cholesky(
        jnp.eye(3) * 9 + jnp.outer(x[:3], x[:3]), symmetrize_input=False
    ),
    "not definite": lambda x, y, n: jnp.linalg.cholesky(
        jnp.outer(x[:3], x[:3]) - jnp.eye(3), symmetrize_input=False
    ),
}


def rows(special: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(2, 21, 6)) * 2
    n = rng.integers(0, 6, size=(21, 6)).astype(np.int32)
    if special:
        x, y = (np.where(rng.random(x.shape) < 0.6, rng.choice(SPECIAL, x.shape), z) for z in (x, y))
        n = rng.integers(-9, 12, size=(21, 6)).astype(np.int32)
    return x, y, n


def check(fn: Callable[..., Any], data: Any, limit: int | None, compare: Callable[..., None]) -> None:
    kernel = compiled(fn, *(jax.ShapeDtypeStruct(z.shape[1:], z.dtype) for z in data), limit=limit)
    wanted = jax.tree.leaves(jax.jit(jax.vmap(fn))(*data))
    for got, want in zip(kernel(*data), wanted, strict=True):
        assert got.dtype == want.dtype
        compare(flushed(got), flushed(np.asarray(want)))


def flushed(x: np.ndarray) -> np.ndarray:
    """Numbers below the smallest normal one are zeros to XLA, which may show them or not."""
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, 0, x) if x.dtype.kind == "f" else x


@pytest.mark.parametrize("limit", [None, 3], ids=["written out", "in loops"])
@pytest.mark.parametrize("name", EXACT)
def test_exact(name: str, limit: int | None) -> None:
    check(EXACT[name], rows(special=True), limit, np.testing.assert_array_equal)


@pytest.mark.parametrize("limit", [None, 3], ids=["written out", "in loops"])
@pytest.mark.parametrize("name", ROUNDED)
def test_rounded(name: str, limit: int | None) -> None:
    def close(got: np.ndarray, want: np.ndarray) -> None:
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)

    check(ROUNDED[name], rows(special=False), limit, close)


def test_a_float32_row() -> None:
    x = np.linspace(-3, 3, 40, dtype=np.float32)
    kernel = compiled(lambda x: (jnp.exp(x), x * x, x > 0), jax.ShapeDtypeStruct((), np.float32))
    got = kernel(x)
    assert [g.dtype.name for g in got] == ["float32", "float32", "bool"]
    np.testing.assert_allclose(got[0], np.exp(x), rtol=3e-7)
    np.testing.assert_array_equal(got[1], x * x)


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (lambda x: jnp.fft.fft(x).real, "complex"),
        (lambda x: jnp.linalg.eigh(jnp.outer(x, x))[0], "eigh"),
        (lambda x: x.astype(jnp.bfloat16).astype(x.dtype), "bfloat16"),
        (lambda x: jnp.sort(jnp.tile(x, 20)), "sort"),
    ],
)
def test_what_is_not_covered_is_named_with_its_place(fn: Any, name: str) -> None:
    with pytest.raises(Unsupported, match=name) as caught:
        compiled(fn, jax.ShapeDtypeStruct((4,), np.float64))
    assert "test_primitives.py" in caught.value.where
