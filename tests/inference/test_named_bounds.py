"""Profiles of parameters that bound one another, beside a constrained maximisation by brute force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import mlekit as mle

N_OBS, TOGETHER = 40, 0.3
DROP = scipy.stats.chi2.ppf(0.95, 1) / 2
FAR = 9.0


def density(p: Any, y: Any) -> Any:
    first, second = y[0] - p["a"], y[1] - p["b"]
    return -0.5 * first**2 - 0.5 * second**2 - TOGETHER * first * second


def sample(first: float, second: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((N_OBS, 2)) + np.array([first, second])


def fitted(y: Any, rule: Any) -> mle.Fit:
    """The second mean is greater than the first."""
    return mle.fit(
        density, {"a": 0.1, "b": 0.6}, jnp.asarray(y), constraints={"a": rule, "b": mle.greater_than("a")}
    )


def profiles(y: np.ndarray, low: float) -> dict[str, Callable[[float], float]]:
    """The highest log-likelihood where one of the means is held."""

    def nats(a: float, b: float) -> float:
        first, second = y.T - np.array([[a], [b]])
        return float(np.sum(-0.5 * first**2 - 0.5 * second**2 - TOGETHER * first * second))

    def highest(of: Callable[[float], float], begin: float, end: float) -> float:
        found = scipy.optimize.minimize_scalar(
            lambda v: -of(v), bounds=(begin, end), method="bounded", options={"xatol": 1e-13}
        )
        return max(-found.fun, of(begin), of(end))

    return {
        "a": lambda a: highest(lambda b: nats(a, b), a, a + FAR),
        "b": lambda b: highest(lambda a: nats(a, b), low, b),
    }


CASES = [
    (-0.15, 0.35, 1, 0.0),  # b falls as far as the bound of a
    (-0.5, 0.5, 2, 0.0),
    (0.1, 0.3, 3, -FAR),  # where one ends, both are equal
]


@pytest.mark.parametrize(("first", "second", "seed", "low"), CASES)
def test_intervals(first: float, second: float, seed: int, low: float) -> None:
    y = sample(first, second, seed)
    fit = fitted(y, None if low == -FAR else mle.at_least(low))
    assert bool(fit.at_bound["a"]) == (low == 0)
    best = float(fit.log_likelihood)
    found = fit.intervals(method="profile")
    for name, highest in profiles(y, low).items():
        below = lambda v: highest(v) - best + DROP  # noqa: B023, E731
        estimate = float(fit.params[name])
        ends = [low if below(low) >= 0 else scipy.optimize.brentq(below, low, estimate)]
        ends += [scipy.optimize.brentq(below, estimate, estimate + FAR)]
        np.testing.assert_allclose(found[name], ends, atol=1e-7)


@pytest.mark.parametrize("low", [0.0, -FAR])
def test_curves_keep_the_order(low: float) -> None:
    y = sample(0.1, 0.3, 3)
    fit = fitted(y, None if low == -FAR else mle.at_least(low))
    values = np.array([0.03, 0.1, 0.4])
    for name, highest in profiles(y, low).items():
        curve = mle.profile(fit, name, jnp.array(values))
        np.testing.assert_allclose(curve.log_likelihood, [highest(v) for v in values], rtol=1e-10)
        assert np.all(curve.params["a"] <= curve.params["b"])


def test_nothing_is_known_outside() -> None:
    fit = fitted(sample(-0.5, 0.5, 2), mle.nonnegative)
    assert np.isnan(mle.profile(fit, "a", jnp.array([-0.1, 0.0, 0.1])).drop).tolist() == [True, False, False]
    grid = mle.profile(fit, ("a", "b"), (jnp.array([0.0, 0.2]), jnp.array([0.1, 0.3])))
    assert np.isnan(grid.drop).tolist() == [[False, False], [True, False]]


def test_derivatives() -> None:
    y, step = jnp.array(sample(-0.5, 0.5, 2)), 1e-5

    def ends(first: Any) -> Any:
        found = fitted(y.at[3].set(first), mle.nonnegative).intervals(method="profile")
        return jnp.stack([found["a"][1], *found["b"]])

    moved = [(ends(y[3] + step * e) - ends(y[3] - step * e)) / (2 * step) for e in np.eye(2)]
    np.testing.assert_allclose(jax.jacrev(ends)(y[3]), np.stack(moved, axis=-1), atol=1e-8)


def test_chains_have_intervals_alone() -> None:
    rules = {"b": mle.greater_than("a"), "c": mle.greater_than("b")}
    means = lambda p, y: -0.5 * jnp.sum((y - jnp.stack([p["a"], p["b"], p["c"]])) ** 2)  # noqa: E731
    fit = mle.fit(means, {"a": 0.0, "b": 1.0, "c": 2.0}, jnp.arange(12.0).reshape(4, 3), constraints=rules)
    with pytest.raises(ValueError, match="c cannot be held by itself, as b bounds it and has other bounds"):
        mle.profile(fit, "c")
    assert np.all(np.isfinite(mle.profile(fit, "a", jnp.array([4.0, 5.0])).drop))
