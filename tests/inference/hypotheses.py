"""Models of which one may be true, and their fits."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from jax.scipy.stats import cauchy, norm

import mlekit as mle

FAMILIES = mle.families
N = 50
rng = np.random.default_rng(4)
X = rng.normal(size=(3, N))
DATA = {
    "x": X,
    "y": rng.poisson(np.exp(1 + 0.1 * X) * rng.gamma(4.0, 0.25, X.shape)).astype(float),
    "firm": X > 0.3,
}
FIRST = {name: column[0] for name, column in DATA.items()}
COUNTS = mle.regression(lambda p, obs: jnp.exp(p["const"] + p["slope"] * obs["x"]), FAMILIES.poisson)
COUNTS_START = {"const": 1.0, "slope": 0.0}
HELD = {"slope": mle.fixed}


@functools.cache
def full_fit() -> mle.Fit:
    return mle.fit(COUNTS, COUNTS_START, FIRST)


@functools.cache
def null_fit() -> mle.Fit:
    return mle.fit(COUNTS, COUNTS_START, FIRST, constraints=HELD)


def check(test: mle.HypothesisTest, statistic: float, df: int) -> None:
    """A chi-square test with this statistic."""
    np.testing.assert_allclose(test.statistic, statistic, rtol=1e-8)
    assert test.degrees_of_freedom == df
    np.testing.assert_allclose(test.p_value, scipy.stats.chi2.sf(statistic, df), rtol=1e-7)


def location_scale(density: Any) -> Any:
    return lambda p, obs: density(obs["y"], p["place"], p["scale"])


PLACE = {"place": 3.0, "scale": 1.0}
NORMAL, CAUCHY = location_scale(norm.logpdf), location_scale(cauchy.logpdf)
PAIR_RULES = {"scale": mle.positive}


@functools.cache
def rival_fits() -> tuple[mle.Fit, mle.Fit]:
    data = {"y": DATA["y"]}
    a, b = (mle.fit_batch(one, PLACE, data, constraints=PAIR_RULES) for one in (NORMAL, CAUCHY))
    assert np.all(a.converged & b.converged)
    return a, b
