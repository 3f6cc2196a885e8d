"""Robust regression of one aircraft's arrival delays on its departure delays, in minutes.

A model file of the command line, too:
`mlekit fit mlekit/demo/model.py mlekit/demo/flights.parquet --by tailnum --out fits`.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

import mlekit as mle
from mlekit.core.special import gammaln_difference

columns = ["dep_delay", "arr_delay"]
init = {"intercept": 0.0, "slope": 1.0, "scale": 10.0, "degrees_of_freedom": 5.0}
constraints = {"scale": mle.positive, "degrees_of_freedom": mle.positive}


def log_density(params: dict[str, Any], obs: dict[str, Any]) -> Any:
    """Log-density of one flight's arrival delay: a Student-t around a line, whose tails forgive odd flights."""
    scale, nu = params["scale"], params["degrees_of_freedom"]
    z = (obs["arr_delay"] - params["intercept"] - params["slope"] * obs["dep_delay"]) / scale
    norming = gammaln_difference(nu / 2, 0.5) - 0.5 * jnp.log(nu * jnp.pi) - jnp.log(scale)
    return norming - (nu + 1) / 2 * jnp.log1p(z**2 / nu)
