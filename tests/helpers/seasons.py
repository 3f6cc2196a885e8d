"""Counts that are alike within firms and years, and their fit."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import statsmodels.api as sm

import mlekit as mle
from tests.helpers.models import RULES, START, least_squares, line, line_data

FAMILIES = mle.families
N = 60


def seasons(n_obs: int = N, seed: int = 3) -> dict[str, np.ndarray]:
    """Counts that vary more than the model says, alike within firms and years."""
    rng = np.random.default_rng(seed)
    firm, year = rng.integers(0, 9, n_obs), rng.integers(0, 6, n_obs)
    shift = 0.4 * rng.normal(size=9)[firm] + 0.4 * rng.normal(size=6)[year]
    x = rng.normal(size=n_obs)
    y = rng.poisson(np.exp(1 + 0.5 * x + shift) * rng.gamma(2.0, 0.5, n_obs)).astype(float)
    return {"x": x, "y": y, "firm": firm, "year": year}


DATA = seasons()
LABELS = np.column_stack([DATA["firm"], DATA["year"]])
COUNTS = mle.regression(lambda p, obs: p["level"] * jnp.exp(p["slope"] * obs["x"]), FAMILIES.poisson)
COUNTS_START = {"level": 2.0, "slope": 0.0}
COUNTS_RULES = {"level": mle.positive}


@functools.cache
def counts_fit() -> mle.Fit:
    """Two parameters, one of them through a constraint."""
    return mle.fit(COUNTS, COUNTS_START, DATA, constraints=COUNTS_RULES)


@functools.cache
def statsmodels_counts(kind: str, correction: bool = False, columns: tuple[int, ...] = ()) -> np.ndarray:
    """The covariance of level and slope; statsmodels has the logarithm of the level."""
    model = sm.Poisson(DATA["y"], sm.add_constant(DATA["x"]))
    by_kind: dict[str, dict[str, Any]] = {
        "cluster": {"cov_kwds": {"groups": np.squeeze(LABELS[:, list(columns)]), "use_correction": correction}},
        "HAC": {"cov_kwds": {"maxlags": 4, "use_correction": correction}},
    }
    found = model.fit(method="newton", tol=1e-13, disp=0, cov_type=kind, **by_kind.get(kind, {}))
    scale = np.array([np.exp(found.params[0]), 1.0])
    return found.cov_params() * np.outer(scale, scale)


def blocks(first: np.ndarray, last: float) -> np.ndarray:
    whole = np.zeros((3, 3))
    whole[:2, :2], whole[2, 2] = first, last
    return whole


def newey_west(scores: np.ndarray, lags: int) -> np.ndarray:
    distance = np.abs(np.subtract.outer(np.arange(len(scores)), np.arange(len(scores))))
    return scores.T @ np.maximum(0, 1 - distance / (lags + 1)) @ scores


def of_line(
    data: Any, kind: str, ways: tuple[np.ndarray, ...] = (), small: bool = False, lags: int = 0
) -> np.ndarray:
    """The covariance of intercept, sigma and slope of `line` at its maximum, by hand."""
    best, n = least_squares(data), len(data["x"])
    design, s = np.column_stack([np.ones(n), data["x"]]), best["sigma"]
    residual = data["y"] - design @ [best["intercept"], best["slope"]]
    bread = np.linalg.inv(blocks(design.T @ design / s**2, 2 * n / s**2))[np.ix_([0, 2, 1], [0, 2, 1])]
    scores = np.column_stack([residual / s**2, residual**2 / s**3 - 1 / s, data["x"] * residual / s**2])
    if kind == "observed":
        return bread
    if kind == "opg":
        return np.linalg.inv(scores.T @ scores)
    factor = lambda groups: groups / (groups - 1) * (n - 1) / (n - 3) if small else 1.0  # noqa: E731
    if kind == "hac":
        return factor(n) * bread @ newey_west(scores, lags) @ bread
    middle = np.zeros((3, 3))
    for size in range(1, len(ways) + 1):
        for some in itertools.combinations(ways, size):
            label = np.unique(np.column_stack(some), axis=0, return_inverse=True)[1].ravel()
            sums = np.array([scores[label == one].sum(axis=0) for one in np.unique(label)])
            middle -= (-1) ** size * factor(len(sums)) * sums.T @ sums
    middle = middle if ways else factor(n) * scores.T @ scores
    return bread @ middle @ bread


def ragged_data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    labels = {"a": rng.integers(0, 5, (3, 25)), "b": rng.integers(-2, 2, (3, 25))}
    return {**line_data(25, 3, seed=7), **labels}


@functools.cache
def batch_of_lines() -> mle.Fit:
    return mle.fit_batch(line, START, ragged_data(), constraints=RULES)


@functools.cache
def weighted_and_repeated_fits() -> tuple[mle.Fit, mle.Fit]:
    weights = np.random.default_rng(2).integers(0, 4, N)
    repeated = {name: np.repeat(column, weights) for name, column in DATA.items()}
    hidden = {**DATA, "x": np.where(weights == 0, np.nan, DATA["x"])}  # what weighs nothing may be anything
    one = mle.fit(COUNTS, COUNTS_START, hidden, constraints=COUNTS_RULES, weights=weights)
    return one, mle.fit(COUNTS, COUNTS_START, repeated, constraints=COUNTS_RULES)
