"""Lines that bend with an argument, one and many at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.scipy.stats import norm

import mlekit as mle

RNG = np.random.default_rng(30)
X = RNG.normal(size=(4, 30))
Y = 1.0 + 0.5 * X + RNG.normal(size=(4, 30))
WEIGHTS = RNG.uniform(0.5, 1.5, size=(4, 30))
LINE = {"level": 0.0, "slope": 0.3, "sd": 1.0, "shift": 0.2}
RULES = {"sd": mle.positive, "shift": mle.fixed}


def line(params: Any, obs: Any, bend: Any) -> Any:
    mean = params["level"] + params["slope"] * obs["x"] + params["shift"] + bend * obs["x"] ** 2
    return norm.logpdf(obs["y"], mean, params["sd"])
