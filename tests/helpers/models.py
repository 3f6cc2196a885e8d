"""Small models and data that several test files share."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import mlekit as mle

START = {"intercept": 0.0, "slope": 1.0, "sigma": 1.0}
RULES = {"sigma": mle.positive}


def line(params: Any, obs: Any) -> Any:
    """A straight line with normal noise."""
    return norm.logpdf(obs["y"], params["intercept"] + params["slope"] * obs["x"], params["sigma"])


def line_data(n_obs: int = 40, n_sets: int | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (n_obs,) if n_sets is None else (n_sets, n_obs)
    x = rng.normal(size=shape)
    return {"x": x, "y": 0.5 + 2.0 * x + 0.7 * rng.normal(size=shape)}


def least_squares(data: Any) -> dict[str, float]:
    """The maximum of `line`, in closed form."""
    design = np.column_stack([np.ones(len(data["x"])), data["x"]])
    coef, *_ = np.linalg.lstsq(design, data["y"], rcond=None)
    residual = data["y"] - design @ coef
    return {"intercept": coef[0], "slope": coef[1], "sigma": float(np.sqrt(np.mean(residual**2)))}


def logistic(coef: Any, obs: Any) -> Any:
    """Logistic regression; `coef` is a bare vector."""
    eta = jnp.dot(obs["x"], coef)
    return obs["y"] * eta - jnp.logaddexp(0.0, eta)


def logistic_data(n_obs: int = 200, k: int = 3, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n_obs), rng.normal(size=(n_obs, k - 1))])
    chance = 1 / (1 + np.exp(-x @ np.linspace(-0.5, 1.0, k)))
    return {"x": x, "y": (rng.random(n_obs) < chance).astype(float)}


class Counted:
    """A log-density that counts how often JAX traces it."""

    def __init__(self, log_density: Any) -> None:
        self.log_density = log_density
        self.traces = 0

    def __call__(self, *args: Any) -> Any:
        self.traces += 1
        return self.log_density(*args)
