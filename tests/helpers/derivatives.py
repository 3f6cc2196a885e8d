"""Central differences, to check derivatives by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: A relative error that the differences themselves stay below where fits converge to all digits.
CLOSE = 1e-6


def direction(value: Any, seed: int = 0) -> Any:
    """A direction in which to move a tree of arrays."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=jnp.shape(leaf))), value)


def difference(fn: Callable[..., Any], point: tuple[Any, ...], move: tuple[Any, ...], step: float = 3e-4) -> Any:
    """How `fn(*point)` changes along a move: central differences of fourth order."""

    def at(t: float) -> Any:
        return fn(*jax.tree.map(lambda p, m: p + t * m, point, move))

    def central(h: float) -> Any:
        return jax.tree.map(lambda a, b: (a - b) / (2 * h), at(h), at(-h))

    return jax.tree.map(lambda a, b: (4 * a - b) / 3, central(step), central(2 * step))


def inner(a: Any, b: Any) -> Any:
    """The inner product of two trees."""
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def assert_derivatives(fn: Callable[..., Any], *point: Any, close: float = CLOSE) -> None:
    """Derivatives in forward and in reverse mode agree with central differences.

    Args:
        fn: a function whose value is an array.
        point: where: trees of arrays.
        close: relative error, of the largest entry.
    """
    point = jax.tree.map(jnp.asarray, point)
    move = tuple(direction(p, i) for i, p in enumerate(point))
    wanted = difference(jax.jit(fn), point, move)
    size = np.max(np.abs(wanted))
    assert np.isfinite(size), "the differences are not known"
    assert size > 0, "nothing depends on the arguments"

    def modes(point: Any, move: Any, cotangent: Any) -> Any:
        _, linear = jax.linearize(fn, *point)
        return linear(*move), jax.linear_transpose(linear, *point)(cotangent)

    cotangent = direction(wanted, 99)
    forward, pulled = jax.jit(modes)(point, move, cotangent)
    np.testing.assert_allclose(forward, wanted, rtol=0, atol=close * size)
    np.testing.assert_allclose(inner(pulled, move), inner(cotangent, forward), rtol=1e-7, atol=1e-9 * size)


def slope(fn: Callable[..., Any], *point: Any) -> Callable[..., Any]:
    """The derivative of a function in some direction, by reverse mode, for its own derivatives to be checked."""
    point = jax.tree.map(jnp.asarray, point)
    move = tuple(direction(p, 7 + i) for i, p in enumerate(point))
    cotangent = direction(jax.eval_shape(fn, *point), 98)
    return lambda *p: inner(jax.vjp(fn, *p)[1](cotangent), move)
