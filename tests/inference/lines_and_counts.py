"""A normal line and a regression of counts, and their fits."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np

import mlekit as mle
from tests.helpers.models import RULES, START, least_squares, line, line_data

FAMILIES = mle.families
N = 30
DATA = line_data(N)
DESIGN = np.column_stack([np.ones(N), DATA["x"]])
BEST = least_squares(DATA)
RESIDUAL = DATA["y"] - DESIGN @ [BEST["intercept"], BEST["slope"]]


@functools.cache
def line_fit() -> mle.Fit:
    return mle.fit(line, START, DATA, constraints=RULES)


COUNTS = mle.regression(lambda p, obs: jnp.exp(p["const"] + p["slope"] * obs["x"]), FAMILIES.poisson)
COUNTS_START = {"const": 1.0, "slope": 0.0}


@functools.cache
def counts_fit() -> mle.Fit:
    """Three data sets: counts of the model, counts that vary far too much, and no counts at all."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3, 200))
    mean = np.exp(1 + 0.3 * x)
    y = np.stack([rng.poisson(mean[0]), rng.poisson(mean[1] * rng.gamma(0.3, 1 / 0.3, 200)), np.zeros(200)])
    return mle.fit_batch(COUNTS, COUNTS_START, {"x": x, "y": y.astype(float)})


NEW = {"x": np.array([-1.0, 0.0, 2.0, 4.0])}
