"""How a fit is compared with numbers that were printed."""

from __future__ import annotations

import decimal
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import statsmodels
from jax.flatten_util import ravel_pytree
from jax.scipy.special import gammaln

import mlekit as mle

FOLDER = Path(statsmodels.__file__).parent
ROUNDING = 1e-13  # relative: what is left of a float64 after sums over all observations
EXACT = 1e-12  # the same for estimates, in standard errors: sums that cancel


@np.vectorize
def half_unit(number: float) -> float:
    """Half a unit of the last decimal place that a number was printed with."""
    if number == 0:
        return 0.0
    place = decimal.Decimal(repr(float(number))).normalize().as_tuple().exponent
    return 0.5001 * 10.0 ** min(int(place), 0)


def agree(found: Any, published: Any, slack: Any = 0.0, what: str = "") -> None:
    """Every digit printed agrees; `slack`, in units of the numbers, is what the published ones are known to lack.

    Args:
        found: what mlekit found.
        published: the same in print.
        slack: as above.
        what: what messages call it.
    """
    found, published = np.asarray(found), np.asarray(published, float)
    assert found.shape == published.shape, what
    gap = np.abs(found - published)
    allowed = half_unit(published) + slack + ROUNDING * np.abs(published)
    assert np.all(gap <= allowed), (
        f"{what}: {found} != {published}, off by {np.max(gap / allowed):.3g} of the allowed"
    )


def agree_covariance(found: Any, published: Any, search: float = 0.0) -> None:
    """As `agree`, with the slack in units of the standard errors that belong to rows and columns."""
    errors = np.sqrt(np.diagonal(published))
    agree(found, published, search * np.outer(errors, errors), "covariance")


def flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0])


def check(
    fit: mle.Fit,
    published: Any,
    kind: str = "observed",
    *,
    search: float = EXACT,
    curvature: float | None = None,
    factor: float = 1.0,
    **options: Any,
) -> None:
    """A fit against a table of Stata: estimates, errors, covariance and log-likelihood, as far as they are stored.

    Args:
        fit: the fit; Stata's table may hold its first parameters only.
        published: Stata's table, an object of statsmodels.
        kind: of the covariance.
        search: how far from the maximum Stata stopped, in standard errors.
        curvature: how far off Stata's errors are, relatively, if not as far as that.
        factor: what Stata multiplies the covariance with.
        options: further arguments of `Fit.covariance`.
    """
    assert fit.converged, fit.message
    covariance = np.asarray(fit.covariance(kind, **options)) * factor
    table = np.asarray(published["params_table"])
    k = min(len(fit.parameter_names), len(table))
    estimates, errors = table[:k, 0], np.nan_to_num(table[:k, 1])  # no number for the error of a fixed parameter
    curvature = search if curvature is None else curvature
    agree(flat(fit.params)[:k], estimates, search * errors, "estimates")
    agree(np.sqrt(np.diagonal(covariance))[:k], errors, curvature * errors, "standard errors")
    if "cov" in published:
        agree_covariance(covariance[:k, :k], published["cov"], 2 * curvature)
    value = float(fit.log_likelihood)
    if search > EXACT:
        theirs = np.append(estimates, flat(fit.params)[k:])
        value = stopped_early(fit, theirs, search, np.asarray(fit.covariance()))
    if "ll" in published:
        agree(value, published["ll"], what="log-likelihood")


@functools.partial(jax.jit, static_argnums=0)
def climb(model: mle.Model, params: Any, data: Any, weights: Any) -> Any:
    """The log-likelihood and its gradient, by JAX alone."""

    def log_likelihood(params: Any) -> Any:
        each = model(params, data) if model.is_joint else jax.vmap(model, in_axes=(None, 0))(params, data)
        return jnp.sum(weights * each)

    return jax.value_and_grad(log_likelihood)(params)


def stopped_early(fit: mle.Fit, published: Any, search: float, covariance: Any = None) -> float:
    """The published estimates lie below the maximum that was found, by nothing but a Newton step of their own.

    Returns:
        The log-likelihood at the published estimates.
    """
    ours, errors = flat(fit.params), flat(fit.standard_errors())
    if covariance is None:
        covariance = np.linalg.inv(by_differences(fit, ours, 1e-4 * errors))
    top, slope = climbed(fit, ours)
    value, rise = climbed(fit, published)
    assert value <= top + ROUNDING * abs(top)
    assert slope @ covariance @ slope < rise @ covariance @ rise
    # What is left is of the second order; the digits printed do not matter, as the step makes up for them.
    gap = np.abs(np.asarray(published) + covariance @ rise - ours)
    assert np.all(gap <= 0.1 * search * errors), f"off by {np.nanmax(gap / errors):.3g} standard errors"
    return value


def climbed(fit: mle.Fit, vector: Any) -> tuple[float, np.ndarray]:
    """The log-likelihood and its gradient at other parameters; those that are fixed do not move."""
    _, unravel = ravel_pytree(fit.params)
    weights = 1.0 if fit.weights is None else fit.weights
    value, gradient = climb(fit.model, unravel(jnp.asarray(vector)), fit.data, weights)
    return float(value), np.where(fit.fixed, 0.0, flat(gradient))


def by_differences(fit: mle.Fit, at: Any, steps: Any) -> np.ndarray:
    """The information at some parameters, by central differences of the gradient, as R's `optim` makes it."""
    matrix = np.eye(len(steps))
    for i in np.flatnonzero(np.logical_not(fit.fixed)):
        step = steps[i] * np.eye(len(steps))[i]
        matrix[i] = (climbed(fit, at - step)[1] - climbed(fit, at + step)[1]) / (2 * steps[i])
    return (matrix + matrix.T) / 2


def columns(frame: Any, names: str) -> np.ndarray:
    """Columns of a table, and one of ones at the end, where Stata has it."""
    return np.column_stack([frame[names.split()], np.ones(len(frame))]).astype(float)


def single(values: Any) -> np.ndarray:
    """Numbers as Stata keeps them unless told otherwise: in single precision."""
    return np.asarray(values).astype(np.float32).astype(float)


def poisson(params, obs):
    eta = obs["x"] @ params["coef"] + obs["offset"]
    return obs["y"] * eta - jnp.exp(eta) - gammaln(obs["y"] + 1)
