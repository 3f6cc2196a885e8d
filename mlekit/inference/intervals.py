"""Confidence intervals of the parameters, by one of several methods."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..core.checks import check_choice, check_level
from ..core.trees import vmap_if
from ..models.parameters import Parameters, open_ranges
from .bootstrap.bootstrap import bootstrap
from .covariance import errors
from .profile import interval
from .record import FitRecord
from .wald import wald, wald_transformed

METHODS = ("wald", "wald-transformed", "profile", "bootstrap")
#: Former names of methods.
FORMER = {"wald-free": "wald-transformed"}


def intervals(fit: FitRecord, level: float, method: str, **options: Any) -> PyTree:
    """`Fit.intervals`, which says what the arguments are."""
    lower, upper = bounds(fit, level, method, **options)
    pair = lambda a, b: (a, b)  # noqa: E731
    return jax.tree.map(pair, fit.parameters.tree(lower), fit.parameters.tree(upper))


def bounds(
    fit: FitRecord,
    level: float,
    method: str,
    kind: str = "observed",
    key: Any = None,
    replicates: int = 0,
    **options: Any,
) -> tuple[Array, Array]:
    """Both ends of the intervals as vectors over `parameter_names`; arguments as in `Fit.intervals`."""
    method = FORMER.get(method, method)
    check_choice(method, METHODS, "method")
    if isinstance(level, str):
        instead = f"say method={level!r}"
        if level not in (*METHODS, *FORMER):
            instead = f"one parameter is picked from the intervals of all: fit.intervals()[{level!r}]"
        raise TypeError(f"level must be a number between 0 and 1, such as 0.95; got {level!r}: {instead}")
    check_level(level)
    if method == "profile":
        if kind != "observed" or key is not None or options:
            raise ValueError("method='profile' follows the likelihood alone: leave out kind, key and the rest")
        return interval.intervals(fit, level)
    if method == "bootstrap":
        how = "nonparametric" if kind == "observed" else kind
        return bootstrap(fit, key, replicates, how, **options).ends(level, "percentile")
    if key is not None:
        options["key"] = key
    vector, standard_errors = fit._solution.estimates, errors(fit, kind, **options)
    if method == "wald":
        return wald(vector, standard_errors, level)
    low, high = vmap_if(fit.batched, open_ranges)(fit.parameters, vector)
    lower, upper = wald_transformed(vector, standard_errors, low, high, level)
    low, high = vmap_if(fit.batched, Parameters.ranges)(fit.parameters, vector)
    return jnp.maximum(lower, low), jnp.minimum(upper, high)
