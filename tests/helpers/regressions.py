"""Predictions, and a small data set, of regressions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats as st

from mlekit.models import families


@dataclasses.dataclass(frozen=True)
class Case:
    """A family, what scipy calls it, and where the two are compared."""

    family: Any
    scipy: Callable[..., Any]
    points: tuple[tuple[float, ...], ...]  #: parameters; at the first all is tested, at the others densities
    responses: tuple[float, ...]
    outside: tuple[float, ...] = ()  #: responses outside the support
    invalid: tuple[float | None, ...] = ()  #: of each parameter a value outside its domain, if there is one

    @property
    def whole(self) -> bool:
        return self.family.support.whole


LINE = (-30.0, -3.0, -0.5, 0.3, 2.0, 40.0)
SIZES = (1e-6, 0.02, 0.7, 1.0, 1.1, 4.0, 60.0)
COUNTS = (0.0, 1.0, 2.0, 7.0, 8.0, 9.0, 30.0, 400.0)
NOT_COUNTS = (-1.0, 0.5, np.inf)
NOT_POSITIVE = (-1.0, 0.0, np.inf)
ENDLESS = (-np.inf, np.inf)

CASES = {
    "normal": Case(families.normal, st.norm, ((0.5, 2.0), (-3.0, 0.1)), LINE, ENDLESS, (np.inf, 0.0)),
    "log_normal": Case(
        families.log_normal,
        lambda m, s: st.lognorm(s, scale=np.exp(m)),
        ((0.3, 0.5), (-1.0, 3.0)),
        SIZES,
        NOT_POSITIVE,
        (np.nan, -1.0),
    ),
    "laplace": Case(families.laplace, st.laplace, ((0.5, 2.0), (-3.0, 0.4)), LINE, ENDLESS, (np.inf, 0.0)),
    "student_t": Case(
        families.student_t,
        lambda m, s, v: st.t(v, m, s),
        ((0.5, 2.0, 5.0), (0.0, 0.3, 0.4), (0.0, 1.0, 30.0)),
        LINE,
        ENDLESS,
        (np.inf, 0.0, 0.0),
    ),
    "logistic": Case(families.logistic, st.logistic, ((0.5, 2.0), (-3.0, 0.1)), LINE, ENDLESS, (np.inf, 0.0)),
    "poisson": Case(families.poisson, st.poisson, ((3.5,), (0.01,), (300.0,)), COUNTS, NOT_COUNTS, (-1.0,)),
    "bernoulli": Case(
        families.bernoulli,
        lambda eta: st.bernoulli(scipy.special.expit(eta)),
        ((0.4,), (-3.0,), (4.0,)),
        (0.0, 1.0),
        (-1.0, 0.5, 2.0),
        (np.inf,),
    ),
    "binomial": Case(
        families.binomial(9),
        lambda eta: st.binom(9, scipy.special.expit(eta)),
        ((0.4,), (-3.0,), (4.0,)),
        (0.0, 1.0, 4.0, 9.0),
        (-1.0, 0.5, 10.0),
        (np.inf,),
    ),
    "negative_binomial": Case(
        families.negative_binomial,
        lambda m, a: st.nbinom(1 / a, 1 / (1 + a * m)),
        ((3.5, 0.7), (20.0, 0.1), (0.2, 5.0), (3.5, 0.01)),
        COUNTS,
        NOT_COUNTS,
        (-1.0, -0.1),
    ),
    "exponential": Case(
        families.exponential, lambda m: st.expon(scale=m), ((2.0,), (0.1,)), SIZES, (-1.0, np.inf), (0.0,)
    ),
    "gamma": Case(
        families.gamma,
        lambda m, k: st.gamma(k, scale=m / k),
        ((2.0, 1.7), (0.5, 0.3), (1.0, 40.0)),
        SIZES,
        NOT_POSITIVE,
        (0.0, 0.0),
    ),
    "weibull": Case(
        families.weibull,
        lambda b, k: st.weibull_min(k, scale=b),
        ((2.0, 1.7), (0.5, 0.3)),
        SIZES,
        NOT_POSITIVE,
        (0.0, 0.0),
    ),
    "beta": Case(
        families.beta,
        lambda m, p: st.beta(m * p, (1 - m) * p),
        ((0.3, 6.0), (0.9, 0.5), (0.5, 50.0)),
        (1e-6, 0.1, 0.3, 0.5, 0.99),
        (0.0, 1.0, -1.0, 2.0),
        (1.0, 0.0),
    ),
    "inverse_gaussian": Case(
        families.inverse_gaussian,
        lambda m, b: st.invgauss(m / b, scale=b),
        ((2.0, 1.5), (0.5, 4.0)),
        SIZES,
        NOT_POSITIVE,
        (0.0, 0.0),
    ),
}


def linear(params, obs):
    return obs["x"] @ params["coef"]


def log_linear(*others):
    """A log-linear mean, and further parameters that all observations share."""
    return lambda params, obs: (jnp.exp(linear(params, obs)), *(params[name] for name in others))


def synthetic(n_obs: int = 300) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(n_obs), rng.normal(size=(n_obs, 2))])
    mean, share = np.exp(x @ [1.0, 0.4, -0.3]), scipy.special.expit(x @ [0.3, 0.8, -0.5])
    return {
        "x": x,
        "count": rng.poisson(mean * rng.gamma(2.0, 0.5, n_obs)),
        "size": mean * rng.gamma(3.0, 1 / 3, n_obs),
        "share": rng.beta(9 * share, 9 * (1 - share)),
    }
