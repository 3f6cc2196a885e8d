"""The covariance of the estimates in natural units, and the standard errors that follow from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.checks import check_choice, warn
from ..core.trees import tracing
from ..engine.implicit import with_derivative_of
from ..solvers.choice import DENSE_CERTIFICATE
from .covariance_kinds import KINDS, AbstractCovarianceKind, CovarianceOptions, check_taken
from .expected_information import N_SIMULATIONS
from .record import FitRecord

#: Arguments of `Fit.draws` and `Fit.covariance` that had other names.
RENAMED = {"n": "n_draws", "draws": "n_simulations"}


def covariance(
    fit: FitRecord,
    kind: str = "observed",
    clusters: Any = None,
    *,
    small_sample: str | None = None,
    lags: Any = None,
    key: Any = None,
    n_simulations: int = N_SIMULATIONS,
    **unknown: Any,
) -> Float[Array, "... k k"]:
    """`Fit.covariance`, which says what the arguments are."""
    for name in unknown:
        now = f"is called {RENAMED[name]}" if name in RENAMED else "is not an argument"
        known = ", ".join(field.name for field in dataclasses.fields(CovarianceOptions))
        raise TypeError(f"{name} {now}; further ones are those of Fit.covariance: {known}")
    check_choice(kind, tuple(KINDS))
    chosen, options = KINDS[kind], CovarianceOptions(clusters, small_sample, lags, key, n_simulations)
    check_taken(chosen, options)
    chosen.check(fit, options)
    if not fit.n_free:
        k = len(fit.parameter_names)
        return jnp.zeros((*fit.status.shape, k, k), fit._solution.estimates.dtype)
    matrix = chosen.compute(fit, options)
    _warn_where_missing(fit, matrix, chosen, options)
    return matrix


def errors(fit: FitRecord, kind: str = "observed", clusters: Any = None, **options: Any) -> Float[Array, "... k"]:
    """The standard errors as a vector over `parameter_names`; arguments as in `covariance`."""
    known = fit.n_free <= DENSE_CERTIFICATE or not (tracing(fit) or np.any(fit.converged))
    if kind == "observed" and clusters is None and not options and known:
        return with_derivative_of(fit._solution.standard_errors, fit, _errors)
    return _errors(fit, kind, clusters, **options)


def _errors(fit: FitRecord, *args: Any, **options: Any) -> Array:
    found = errors_of(covariance(fit, *args, **options))
    # An estimate at its bound has no error that a number could tell, though the others' are as if it were fixed.
    return found if fit._solution.multiplier is None else jnp.where(fit._at_bound, jnp.nan, found)


def errors_of(matrix: Float[Array, "... k k"]) -> Float[Array, "... k"]:
    """The standard errors of a covariance."""
    variance = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    # The root of zero has no derivative, but the standard error of a fixed parameter has one: zero.
    root = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
    return jnp.where(variance > 0, root, jnp.where(variance == 0, 0.0, variance + jnp.nan))


def _warn_where_missing(
    fit: FitRecord, matrix: Array, kind: AbstractCovarianceKind, options: CovarianceOptions
) -> None:
    """A warning where a proven maximum has no error of this kind."""
    if tracing((matrix, fit._solution)):
        return
    diagonal = np.diagonal(np.asarray(matrix), axis1=-2, axis2=-1)
    missing = np.asarray(fit.converged) & ~np.all(diagonal >= 0, axis=-1)
    if not np.any(missing):
        return
    who = f"{int(missing.sum()):,} of {missing.size:,} data sets" if fit.batched else "this fit"
    warn(f"kind={kind.name!r} gives {who} no standard errors (NaN): {kind.why_missing(options)}")
