"""The significance of a parameter: how far the data are from the hypothesis that it is at its bound, or zero."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...core.trees import tracing, vmap_if
from ...models.constraints.base import show
from ...models.parameters import Parameters
from ..profile.curve import profile
from ..record import FitRecord
from . import reasons
from .boundary import at_boundary, halves
from .result import HypothesisTest, chi_square


def significance(fit: FitRecord, name: str, value: Any = None) -> HypothesisTest:
    """`Fit.significance`, which says what the arguments are."""
    if name not in fit.parameter_names:
        raise ValueError(f"there is no parameter {name!r}; there are {', '.join(fit.parameter_names)}")
    place = fit.parameter_names.index(name)
    estimates = fit._solution.estimates
    low, high = (end[..., place] for end in vmap_if(fit.batched, Parameters.ranges)(fit.parameters, estimates))
    null = jnp.where(jnp.isfinite(low), low, jnp.where(jnp.isfinite(high), high, 0.0))
    null = null if value is None else jnp.broadcast_to(jnp.asarray(value, estimates.dtype), null.shape)
    curve = profile(fit, name, null[..., None])
    gain = curve.fit.log_likelihood - curve.log_likelihood[..., 0]
    rounding = 1e-6 + 100 * jnp.finfo(gain.dtype).eps * jnp.abs(fit.log_likelihood)
    statistic = jnp.where(gain > rounding, 2 * gain, jnp.where(gain > -rounding, 0.0, jnp.nan))
    values = "its bound" if tracing(null) else " or ".join(map(show, np.unique(np.asarray(null))[:2]))
    hypothesis = f"{name} = {values}"
    on_edge = (null <= low) | (null >= high)
    name_of_test = "Likelihood-ratio test"
    if not tracing(on_edge) and not np.any(on_edge):
        test = chi_square(statistic, 1, name_of_test, hypothesis)
    else:
        weights = jnp.where(on_edge[..., None], halves(statistic), jnp.array([0.0, 1.0], statistic.dtype))
        test = at_boundary(statistic, 1, weights, name_of_test, hypothesis)
        if not (tracing(on_edge) or np.all(on_edge)):
            both = f"{test.distribution} on the bound, chi-square(1) elsewhere"
            test = dataclasses.replace(test, distribution=both)
    return test.or_reason(reasons.of_profile, fit, curve.status[..., 0], hypothesis)
