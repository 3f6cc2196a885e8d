"""Models with data that have a maximum, and with data that have none."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import t

import mlekit as mle

S = mle.Status
N = 40
POSITIVE = {"alpha": mle.positive, "df": mle.positive, "sigma": mle.positive}


def logistic(params, obs):
    eta = obs["x"] @ params["coef"]
    return obs["y"] * eta - jax.nn.softplus(eta)


def negative_binomial(params, obs):
    eta, size, y = params["level"], 1 / params["alpha"], obs["y"]
    total = jnp.logaddexp(jnp.log(size), eta)
    return gammaln(y + size) - gammaln(size) - gammaln(y + 1) + size * (jnp.log(size) - total) + y * (eta - total)


def student(params, obs):
    return t.logpdf(obs["y"], params["df"], params["centre"], params["sigma"])


def parabola(params, obs):
    """Zero density further than 3 from the centre."""
    gap = 1 - ((obs["y"] - params["centre"]) / 3) ** 2
    return jnp.where(gap > 0, jnp.log(jnp.where(gap > 0, gap, 1.0)), -jnp.inf)


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "logistic": (logistic, {"coef": jnp.zeros(4)}),
    "negative binomial": (negative_binomial, {"level": 1.0, "alpha": 0.5}),
    "student": (student, {"centre": 0.5, "sigma": 1.0, "df": 4.0}),
    "parabola": (parabola, {"centre": 0.0}),
}


def constraints_of(params: dict[str, Any]) -> Any:
    return {key: value for key, value in POSITIVE.items() if key in params} or None


@functools.cache
def healthy(model: str, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    if model == "logistic":
        x = np.column_stack([np.ones(N), rng.normal(size=(N, 3))])
        return {"x": x, "y": (x @ [0.2, 0.8, -0.5, 0.1] + rng.logistic(size=N) > 0).astype(float)}
    if model == "negative binomial":
        return {"y": rng.negative_binomial(2, 0.3, size=N).astype(float)}
    if model == "student":
        return {"y": rng.standard_t(2, size=N)}
    return {"y": rng.uniform(-1.5, 1.5, size=N)}


def fit_one(model: str, data: Any, **options: Any) -> mle.Fit:
    log_density, init = MODELS[model]
    return mle.fit(log_density, init, data, constraints=constraints_of(init), **options)
