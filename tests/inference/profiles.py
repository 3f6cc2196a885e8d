"""Profiles of normal samples, in closed form."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.scipy.stats import norm
from scipy import optimize, stats

import mlekit as mle

RNG = np.random.default_rng(3)
DROP = stats.chi2.ppf(0.95, 1) / 2


def crossing(profile: Callable[[float], float], best: float, far: float, drop: float = DROP) -> float:
    """Where a profile has fallen so far, between its maximum and a point beyond."""
    top = profile(best)
    return optimize.brentq(lambda v: profile(v) - top + drop, best, far, xtol=1e-13, rtol=1e-13)


def normal(params: Any, obs: Any) -> Any:
    return norm.logpdf(obs["x"], params["mean"], params["sd"])


INIT = {"mean": 0.0, "sd": 1.0}
POSITIVE_SD = {"sd": mle.positive}
LENGTHS = np.array([15, 15, 9, 1, 12, 15])
X = RNG.normal(1.0, 2.0, size=(6, 15))
X[4, 3] = np.nan  # the fifth set is broken, the fourth too short
X[2, 9:] = np.nan  # padding, which must never be seen


@functools.cache
def normal_fits() -> mle.Fit:
    return mle.fit_batch(normal, INIT, {"x": X}, lengths=LENGTHS, constraints=POSITIVE_SD)


N = 40
KIND = np.repeat([0, 1, 2], [7, 21, 12])
U = RNG.normal([0.0, 0.7], 1.0, size=(N, 2))
V = RNG.multivariate_normal([0, 0], [[2.0, 0.9], [0.9, 1.0]], size=N)
W = RNG.multivariate_normal([0, 0], [[1.0, -0.5], [-0.5, 1.0]], size=N)

X2 = RNG.normal(size=25)
TIME = np.exp(1.0 + 0.5 * X2) * RNG.weibull(1.3, size=25)


def loss(shape: float, *coef: float) -> float:
    """The same, written for NumPy, minus its sum."""
    z = shape * (np.log(TIME) - coef[0] - coef[1] * X2)
    return -float(np.sum(np.log(shape) - np.log(TIME) + z - np.exp(z)))
