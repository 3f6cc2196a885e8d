"""Robust regression of one aircraft's arrival delays on its departure delays, in minutes.

A model file of the command line, too:
`mlekit fit mlekit/demo/model.py mlekit/demo/flights.parquet --by tailnum --out fits`.
"""

from typing import Any

from jax.scipy.stats import t

import mlekit as mle

columns = ["dep_delay", "arr_delay"]
init = {"intercept": 0.0, "slope": 1.0, "scale": 10.0, "degrees_of_freedom": 5.0}
constraints = {"scale": mle.positive, "degrees_of_freedom": mle.positive}


def log_density(params: dict[str, Any], obs: dict[str, Any]) -> Any:
    """Log-density of one flight's arrival delay: a Student-t around a line, whose tails forgive odd flights."""
    mean = params["intercept"] + params["slope"] * obs["dep_delay"]
    return t.logpdf(obs["arr_delay"], params["degrees_of_freedom"], mean, params["scale"])
