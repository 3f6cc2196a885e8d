"""Log-densities written at random from all primitives that are covered: value, gradient and Hessian as JAX's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mlekit.native import derivatives
from mlekit.native.row_program import RowProgram
from mlekit.native.sums_kernel import SumsKernel

K, ROWS = 3, 21
SPECIAL = [0.0, np.inf, -np.inf, np.nan, 1e300, -1e300, 1e-300, -1.0]

#: Functions of numbers that stay within bounds, whatever they are given.
TAME: list[Callable[..., Any]] = [
    lambda g, u: jnp.tanh(u),
    lambda g, u: jnp.exp(-jnp.abs(u)),
    lambda g, u: jnp.log1p(u * u),
    lambda g, u: jnp.sqrt(1 + u * u),
    lambda g, u: jax.nn.sigmoid(u),
    lambda g, u: jax.nn.softplus(u),
    lambda g, u: 1 / (1 + u * u),
    lambda g, u: jnp.clip(u, -2.0, 3.0),
    lambda g, u: jnp.abs(u),
    lambda g, u: jnp.sin(u) * jnp.cos(0.5 * u),
    lambda g, u: jax.scipy.special.erf(u),
    lambda g, u: jnp.arctan(u),
    lambda g, u: jnp.log(1.5 + jnp.tanh(u)),
    lambda g, u: jnp.expm1(jnp.minimum(u, 1.0)),
    lambda g, u: lax.fori_loop(0, 3, lambda i, c: 0.5 * c + jnp.tanh(c + u), u),
    lambda g, u: lax.while_loop(lambda c: jnp.abs(c) > 1.5, lambda c: c / 2, lax.stop_gradient(u)) + u,
    lambda g, u: lax.scan(lambda c, v: (0.5 * c + v, c * v), u, g.vector)[1].sum(),
    # XLA of jaxlib 0.10 gets the derivative of one entry of a running sum wrong once it is compiled and mapped.
    lambda g, u: jnp.cumsum(g.vector * u) @ g.vector / 3,
    lambda g, u: jnp.sort(g.vector + jnp.tanh(u))[1],
    lambda g, u: jax.nn.logsumexp(g.vector * jnp.tanh(u)),
    lambda g, u: (g.vector @ g.free) * jnp.tanh(u),
    lambda g, u: jnp.linalg.norm(g.vector + 2.0) * u / 5,
    lambda g, u: g.vector[g.number] + u,
    lambda g, u: g.free[g.number] * u,
    lambda g, u: jnp.where(u > 0.3, u, 0.1 * u),
    lambda g, u: lax.cond(g.truth, lambda: jnp.tanh(u), lambda: 0.3 * u),
    lambda g, u: lax.select_n(g.number, u, -u, 0.5 * u),
    lambda g, u: jnp.maximum(u, g.x),
    lambda g, u: jnp.floor(u) * 0.1 + u,
    lambda g, u: jnp.sign(u) * jnp.sqrt(1e-3 + jnp.abs(u)),
    lambda g, u: jnp.concatenate([g.vector, g.free]).at[2].set(u)[1:4].sum(),
    lambda g, u: jnp.prod(jnp.tanh(g.vector + u)),
    lambda g, u: jnp.max(g.vector * u),
    lambda g, u: u * g.number,
    lambda g, u: jnp.outer(g.vector, g.free).T.ravel()[2:7].sum() * jnp.tanh(u),
]
#: And those that do not.
WILD: list[Callable[..., Any]] = [
    lambda g, u: jnp.log(u),
    lambda g, u: 1 / u,
    lambda g, u: jnp.exp(u),
    lambda g, u: jnp.sqrt(u),
    lambda g, u: u**3,
    lambda g, u: jnp.where(jnp.isfinite(u), u, 0.0),
    lambda g, u: jnp.where(u == jnp.inf, 1.0, u),
    lambda g, u: 0.0 * u + g.x,
    lambda g, u: jnp.where(u > 0, jnp.log(u), 0.0),
]
JOINS: list[Callable[..., Any]] = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / (1 + b * b),
    lambda a, b: jnp.logaddexp(a, b),
    lambda a, b: jnp.hypot(a, 1 + jnp.abs(b)),
    lambda a, b: jnp.minimum(a, b),
]


class Given:
    def __init__(self, free: Any, obs: Any) -> None:
        self.free, self.x, self.vector, self.number, self.truth = free, obs["x"], obs["v"], obs["n"], obs["b"]


def program(seed: int, wild: bool) -> Callable[[Any, Any, Any], Any]:
    def loss(free: Any, settings: Any, obs: Any) -> Any:
        rng, given = np.random.default_rng(seed), Given(free, obs)
        values = [*free, given.x, *given.vector, settings["s"] * free[0], free[1] * given.x]
        for _ in range(int(rng.integers(3, 9))):
            u, w = (values[rng.integers(len(values))] for _ in range(2))
            if rng.random() < 0.5:
                choice = WILD if wild and rng.random() < 0.3 else TAME
                values.append(choice[rng.integers(len(choice))](given, u))
            else:
                values.append(JOINS[rng.integers(len(JOINS))](u, w))
        return sum(values[-3:]) + 0.1 * free @ free

    return loss


def data(seed: int, wild: bool) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed + 10_000)
    obs: dict[str, np.ndarray] = {"x": rng.normal(size=ROWS), "v": rng.normal(size=(ROWS, 3))}
    if wild:
        obs["x"] = np.where(rng.random(ROWS) < 0.05, rng.choice(SPECIAL, ROWS), np.abs(obs["x"]))
    obs |= {"n": rng.integers(0, 3, ROWS).astype(np.int32), "b": rng.random(ROWS) < 0.5}
    return rng.normal(size=K), obs, {"s": rng.normal(size=())}


def outcome(seed: int, wild: bool, mapped: bool) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """What both say, and the size of rounding errors."""
    loss = program(seed, wild)
    free, obs, settings = data(seed, wild)
    shapes = [jax.tree.map(derivatives.shape_of, part) for part in (free, settings)]
    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), obs)
    terms = derivatives.exact(loss, shapes[0], shapes[1], row)
    kernel = SumsKernel(RowProgram(terms, K, np.float64, shapes[1], row), weighted=False)
    prepared = kernel.prepare(jax.tree.leaves(obs), None, ROWS)
    got = kernel.evaluate(prepared, free, settings["s"].reshape(1, 1), float(ROWS))

    def of_row(z: Any, o: Any) -> tuple[Any, Any, Any]:
        first = lambda z: loss(z, settings, o)  # noqa: E731
        return first(z), jax.grad(first)(z), jax.hessian(first)(z)

    if mapped:
        rows = [np.asarray(part) for part in jax.jit(jax.vmap(of_row, in_axes=(None, 0)))(free, obs)]
    else:
        each = [jax.jit(of_row)(free, jax.tree.map(lambda leaf: leaf[i], obs)) for i in range(ROWS)]  # noqa: B023
        rows = [np.stack(parts) for parts in zip(*each)]
    scale = float(sum(np.sum(np.abs(part)) for part in rows))
    return [np.asarray(part) for part in got], [part.sum(axis=0) for part in rows], scale


def check(seed: int, mapped: bool = True) -> None:
    wild = seed % 3 == 0
    got, want, scale = outcome(seed, wild, mapped)
    finite = [all(np.isfinite(part).all() for part in parts) for parts in (got, want)]
    # Products are put in another order, and where a square overflows that may be seen: never as a number, and fits
    # of data without powers have a status of their own.
    without_powers = np.isin(data(seed, wild)[1]["x"], [1e300, -1e300, 1e-300]).any()
    assert finite[0] == finite[1] or (without_powers and finite == [False, True])
    if all(finite):
        for mine, theirs in zip(got, want):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12 * max(1.0, scale))
    elif not np.isfinite(want[0]):
        assert not np.isfinite(got[0])


def check_both(seed: int) -> None:
    """XLA of jaxlib 0.10 computes the same number in two ways in a mapped program, and loses ties by that."""
    try:
        check(seed)
    except AssertionError:
        check(seed, mapped=False)


pytestmark = pytest.mark.standard_promotion


@pytest.mark.parametrize("seed", range(24))
def test_programs(seed: int) -> None:
    check_both(seed)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(1, 101))
def test_many_programs(hundred: int) -> None:
    for seed in range(100 * hundred, 100 * (hundred + 1)):
        check_both(seed)
