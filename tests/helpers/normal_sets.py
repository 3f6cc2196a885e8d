"""Six normal samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.scipy.stats import norm

import mlekit as mle

Y = np.random.default_rng(0).normal(2.0, 3.0, size=(6, 20))
PLAIN = {"mu": 0.0, "s": 1.0}
POSITIVE = {"s": mle.positive}


def normal(params: Any, x: Any) -> Any:
    return norm.logpdf(x, params["mu"], params["s"])
