"""Batches of which one set in twenty is poisoned: neighbours do not change, and SciPy agrees on what converged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.stats as jst
import numpy as np
import pytest
import scipy.special as sc
import scipy.stats as st
from jax.scipy.special import gammaln

import mlekit as mle
from tests.helpers.marks import mostly_slow

ROWS = 20
EVERY = 20  #: one set in so many is poisoned
POISONS = ("nan", "infinite", "empty", "one row", "constant", "sorted", "huge", "tiny")
P = mle.positive


class Family(NamedTuple):
    """A density, where a fit begins, how data are drawn, and the logarithm of the density by SciPy."""

    density: Callable[[Any, Any], jax.Array]
    start: dict[str, float]
    rules: dict[str, Any]
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    by_scipy: Callable[..., np.ndarray]


def negative_binomial(p: Any, o: Any) -> jax.Array:
    size = 1 / p["a"]
    ways = gammaln(o["y"] + size) - gammaln(size) - gammaln(o["y"] + 1)
    return ways - size * jnp.log1p(p["a"] * p["m"]) + o["y"] * (jnp.log(p["m"]) - jnp.log(size + p["m"]))


FAMILIES = {
    "gamma": Family(
        lambda p, o: jst.gamma.logpdf(o["y"] * p["r"], p["a"]) + jnp.log(p["r"]),
        {"a": 1.0, "r": 1.0},
        {"a": P, "r": P},
        lambda rng, shape: rng.gamma(2.0, 1.5, shape),
        lambda y, x, a, r: st.gamma.logpdf(y, a, scale=1 / r),
    ),
    "logistic": Family(
        lambda p, o: o["y"] * (p["a"] + p["b"] * o["x"]) - jax.nn.softplus(p["a"] + p["b"] * o["x"]),
        {"a": 0.0, "b": 0.0},
        {},
        lambda rng, shape: (rng.random(shape) < 0.5).astype(float),
        lambda y, x, a, b: y * (a + b * x) - np.logaddexp(0, a + b * x),
    ),
    "normal": Family(
        lambda p, o: jst.norm.logpdf(o["y"], p["m"], p["s"]),
        {"m": 0.0, "s": 1.0},
        {"s": P},
        lambda rng, shape: rng.normal(2.0, 3.0, shape),
        lambda y, x, m, s: st.norm.logpdf(y, m, s),
    ),
    "exponential": Family(
        lambda p, o: jnp.log(p["r"]) - p["r"] * o["y"],
        {"r": 1.0},
        {"r": P},
        lambda rng, shape: rng.exponential(2.0, shape),
        lambda y, x, r: st.expon.logpdf(y, scale=1 / r),
    ),
    "Weibull": Family(
        lambda p, o: (
            jnp.log(p["a"] / p["s"]) + (p["a"] - 1) * jnp.log(o["y"] / p["s"]) - (o["y"] / p["s"]) ** p["a"]
        ),
        {"a": 1.0, "s": 1.0},
        {"a": P, "s": P},
        lambda rng, shape: 2 * rng.weibull(1.5, shape),
        lambda y, x, a, s: st.weibull_min.logpdf(y, a, scale=s),
    ),
    "Student-t": Family(
        lambda p, o: jst.t.logpdf(o["y"], p["d"], p["m"], p["s"]),
        {"d": 4.0, "m": 0.0, "s": 1.0},
        {"d": P, "s": P},
        lambda rng, shape: rng.standard_t(2.0, shape),
        lambda y, x, d, m, s: st.t.logpdf(y, d, m, s),
    ),
    "Poisson": Family(
        lambda p, o: o["y"] * (p["a"] + p["b"] * o["x"]) - jnp.exp(p["a"] + p["b"] * o["x"]) - gammaln(o["y"] + 1),
        {"a": 0.0, "b": 0.0},
        {},
        lambda rng, shape: rng.poisson(2.0, shape).astype(float),
        lambda y, x, a, b: y * (a + b * x) - np.exp(a + b * x) - sc.gammaln(y + 1),
    ),
    "negative binomial": Family(
        negative_binomial,
        {"a": 0.5, "m": 1.0},
        {"a": P, "m": P},
        lambda rng, shape: rng.negative_binomial(2, 0.4, shape).astype(float),
        lambda y, x, a, m: st.nbinom.logpmf(y, 1 / a, 1 / (1 + a * m)),
    ),
}


def poisoned(y: np.ndarray, lengths: np.ndarray) -> None:
    """Poison one set in twenty, each kind in turn."""
    for turn, kind in enumerate(POISONS):
        sick = slice(turn * EVERY, None, len(POISONS) * EVERY)
        if kind in ("nan", "infinite"):
            y[sick, 3] = np.nan if kind == "nan" else np.inf
        elif kind in ("empty", "one row"):
            lengths[sick] = 0 if kind == "empty" else 1
        elif kind == "constant":
            y[sick] = y[sick, :1]
        elif kind == "sorted":  # by the covariate: a logistic regression is separated
            y[sick] = np.sort(y[sick], axis=1)
        else:
            y[sick] *= 1e300 if kind == "huge" else 1e-300


def check(name: str, n_sets: int) -> None:
    """A family, of which neighbours must not change by a bit, and what converged must be a maximum."""
    family, rng = FAMILIES[name], np.random.default_rng(11)
    clean = family.draw(rng, (n_sets, ROWS))
    x = np.sort(rng.normal(size=(n_sets, ROWS)), axis=1)
    y, lengths = clean.copy(), np.full(n_sets, ROWS)
    poisoned(y, lengths)
    sick = np.arange(n_sets) % EVERY == 0

    def fit(y: np.ndarray) -> mle.Fit:
        return mle.fit_batch(
            family.density, family.start, {"x": x, "y": y}, lengths=lengths, constraints=family.rules
        )

    fits, others = fit(y), fit(np.where(sick[:, None], 1.0, clean))
    for one, other in zip(jax.tree.leaves(fits._solution), jax.tree.leaves(others._solution), strict=True):
        np.testing.assert_array_equal(np.asarray(one)[~sick], np.asarray(other)[~sick])

    converged = np.asarray(fits.converged)
    assert converged[~sick].mean() > 0.6
    estimates = np.stack([np.asarray(leaf, float) for leaf in fits.params.values()], axis=1)
    errors = np.stack([np.asarray(leaf, float) for leaf in fits.standard_errors().values()], axis=1)
    low = np.array([0.0 if key in family.rules else -np.inf for key in fits.params])
    order = list(family.start)
    names = list(fits.params)

    def log_likelihood(points: np.ndarray) -> np.ndarray:
        columns = dict(zip(names, points.T[:, :, None]))
        with np.errstate(all="ignore"):
            rows = family.by_scipy(y[converged], x[converged], *(columns[key] for key in order))
        return np.where(np.arange(ROWS) < lengths[converged, None], rows, 0.0).sum(axis=1)

    best = log_likelihood(estimates[converged])
    noise = 1e-9 * np.maximum(1.0, np.abs(best))
    # Degrees of freedom that few rows tell have a long way to fall on one side.
    most = 0.0 if name == "Student-t" else 0.02
    for j in range(len(names)):
        for distance, least in ((-1.0, most), (1.0, most), (-0.1, 0.0), (0.1, 0.0)):
            points = estimates[converged].copy()
            points[:, j] += distance * errors[converged, j]
            inside = points[:, j] > low[j]
            fall = best - log_likelihood(points)
            wrong = inside & ~(fall > least - noise)
            assert not wrong.any(), (names[j], distance, np.flatnonzero(converged)[wrong][:5], fall[wrong][:5])


@pytest.mark.parametrize("family", mostly_slow(FAMILIES, "logistic"))
def test_neighbours_are_as_without_and_what_converged_is_a_maximum(family: str) -> None:
    check(family, 2_000)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_hundred_thousand_sets(family: str) -> None:
    check(family, 100_000)
