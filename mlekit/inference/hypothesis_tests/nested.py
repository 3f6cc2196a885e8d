"""Tests of a restricted model against the full one: by likelihood ratio, Wald's, and by the score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from ...core.checks import check_choice
from ...core.linear_algebra import root_of_inverse
from ...core.status import Status
from ...core.trees import is_array, tracing, vmap_if
from ...likelihood.objective import Objective
from ...models.initial_parameters import build_parameters
from ...models.parameters import Parameters
from ..covariance import covariance
from ..evaluate import evaluate
from ..information import information
from ..record import FitRecord
from . import reasons
from .boundary import at_boundary, halves, mixture_weights, on_bounds
from .result import HypothesisTest, chi_square

#: Nats by which a search that runs towards an edge may stop below its supremum.
SHORT = 1e-2


def likelihood_ratio_test(
    restricted: FitRecord, full: FitRecord, *, boundary: bool | None = None
) -> HypothesisTest:
    r"""Likelihood-ratio test: does a model describe the data as well as a larger one that contains it?

    $$2\,(\hat\ell_{\text{full}} - \hat\ell_{\text{restricted}}) \sim \chi^2_d, \qquad
    d = k_{\text{full}} - k_{\text{restricted}}$$

    Args:
        restricted: the fit of the smaller model.
        full: the fit of the larger one, to the same data. Batches are compared data set by data set.
        boundary: whether the hypothesis puts one of the parameters at the edge of its range, such as a variance at
            zero: then half of the distribution is that of one degree of freedom less,
            $\tfrac12 \chi^2_{d-1} + \tfrac12 \chi^2_d$ (Self and Liang 1987). By default the fits tell, where they
            have the same parameters: those that the restricted one fixes at an end of their range in the full one.
            Several make a mixture of more parts (`HypothesisTest.distribution` names it).

    Returns:
        `HypothesisTest`. A full model that reaches less than the restricted one has not found its maximum: then
        the p-value is NaN.

    Raises:
        ValueError: the full model has no more parameters than the restricted one, or the fits are of different
            numbers of observations or data sets.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> def density(params, x):
        ...     return -jnp.log(params["sd"]) - 0.5 * ((x - params["mean"]) / params["sd"]) ** 2
        >>> x = jnp.array([0.2, 1.1, 0.7, 1.9, 0.4, 1.3])
        >>> full = mle.fit(density, {"mean": 0.0, "sd": 1.0}, x, constraints={"sd": mle.positive})
        >>> centred = mle.fit(density, {"mean": 0.0, "sd": 1.0}, x,
        ...                   constraints={"mean": mle.fixed, "sd": mle.positive})
        >>> print(mle.likelihood_ratio_test(centred, full))
        Likelihood-ratio test: the hypothesis that the restriction holds is rejected at 5 %:
        chi-square(1) = 7.77, p = 0.0053
    """
    same_data(restricted, full)
    df = full.n_free - restricted.n_free
    if df < 1:
        raise ValueError(
            "the full model must have more free parameters than the restricted one: "
            f"{full.n_free} and {restricted.n_free}; it is likelihood_ratio_test(restricted, full), in this order"
        )
    gain = full.log_likelihood - restricted.log_likelihood
    eps = jnp.finfo(gain.dtype).eps
    rounding = 1e-6 + 100 * eps * jnp.abs(full.log_likelihood)
    found = restricted.converged & full.converged & (gain > -rounding)
    ends = on_bounds(restricted, full) if boundary is None else {}
    if boundary or ends:
        # A full model whose likelihood rises all the way to the hypothesis has its maximum there.
        at_edge = (full.status == Status.unbounded) & (gain <= rounding) & (gain > -SHORT)
        found |= restricted.converged & at_edge
    statistic = jnp.where(found, jnp.where(gain > rounding, 2 * gain, 0.0), jnp.nan)
    name, hypothesis = "Likelihood-ratio test", "the restriction holds"
    if not (boundary or ends):
        test = chi_square(statistic, df, name, hypothesis)
    else:
        weights = mixture_weights(restricted, full, ends) if ends else halves(statistic)
        test = at_boundary(statistic, df, weights, name, hypothesis)
    return test.or_reason(reasons.of_pair, restricted, full)


def wald_test(
    fit: FitRecord, restriction: Callable[[PyTree], Any] | str | PyTree, kind: str = "observed", **options: Any
) -> HypothesisTest:
    r"""Wald's test: is a smooth function of the parameters zero?

    $$W = r^T (R V R^T)^{-1} r \sim \chi^2_d, \qquad r = r(\hat\theta), \quad R = \partial r / \partial \theta$$

    Args:
        fit: a fit, or a batch of fits.
        restriction: `restriction(params)`, a number or PyTree of $d$ numbers that are zero if the hypothesis
            holds; or the name of a parameter, or a list of names, to be zero.
        kind: of the covariance $V$, as in `Fit.covariance`: with `sandwich` the test holds where the model is
            wrong.
        options: further arguments of `Fit.covariance`.

    Returns:
        `HypothesisTest`; NaN where the restrictions depend on one another, or on parameters at their bounds alone:
        for these there are `Fit.significance` and `mle.likelihood_ratio_test`.

    Raises:
        ValueError: a name that is no parameter.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> density = lambda params, x: jnp.log(params["rate"]) - params["rate"] * x
        >>> fit = mle.fit(density, {"rate": 1.0}, jnp.array([0.5, 1.5, 1.0, 3.0]),
        ...               constraints={"rate": mle.positive})
        >>> print(mle.wald_test(fit, lambda params: params["rate"] - 1.0))
        Wald test: the hypothesis that the restriction holds is not rejected at 5 %: chi-square(1) = 1.00,
        p = 0.3173
    """
    hypothesis = "the restriction holds"
    if not callable(restriction):
        names = (restriction,) if isinstance(restriction, str) else tuple(restriction)
        if not names:
            raise ValueError("restriction: there is nothing to test; name a parameter, or pass a function")
        for name in names:
            if name not in fit.parameter_names:
                raise ValueError(f"there is no parameter {name!r}; there are {', '.join(fit.parameter_names)}")
        places = np.array([fit.parameter_names.index(name) for name in names])
        hypothesis = " = ".join((*names, "0"))
        on_vector = lambda vector, parameters: vector[places]  # noqa: E731
    else:
        on_vector = lambda vector, parameters: _flat(restriction(parameters.tree(vector)))  # noqa: E731
    matrix = covariance(fit, kind, **options)

    def of_set(vector: Array, spread: Array, parameters: Parameters) -> tuple[Array, Array]:
        value = on_vector(vector, parameters)
        slope = jax.jacfwd(on_vector)(vector, parameters)
        return quadratic(value, slope @ spread @ slope.T), jnp.asarray(value.size, value.dtype)

    statistic, df = vmap_if(fit.batched, of_set)(fit._solution.estimates, matrix, fit.parameters)
    test = chi_square(jnp.where(fit.converged, statistic, jnp.nan), df, "Wald test", hypothesis)
    return test.or_reason(reasons.of_bounds, fit)


def score_test(restricted: FitRecord, constraints: PyTree = None, *, kind: str | None = None) -> HypothesisTest:
    r"""Score test: would freeing fixed or tied parameters raise the likelihood? Without fitting the full model.

    $$S = s^T I^{-1} s \sim \chi^2_d, \qquad s = \nabla \ell(\hat\theta_{\text{restricted}})$$

    with score and information of the full model. Nuisance parameters at their bounds are held there. What the
    hypothesis puts on a closed bound is tested both ways, as if there were none.

    Args:
        restricted: a fit of the full model's log-density with some parameters `mle.fixed` or `mle.tied`.
        constraints: those of the full model; by default none at all, which serves where no parameter lies at an
            edge.
        kind: of the information: `expected`, the default for a `mle.regression`; `opg`, the default for others; or
            `observed`, which far from the hypothesis need not be positive definite.

    Returns:
        `HypothesisTest`; NaN where the information is not positive definite.

    Raises:
        ValueError: the full model has no more free parameters than the fit, or a parameter lies on the edge of
            its constraint in the full model.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> def density(params, x):
        ...     return -jnp.log(params["sd"]) - 0.5 * ((x - params["mean"]) / params["sd"]) ** 2
        >>> x = jnp.array([0.2, 1.1, 0.7, 1.9, 0.4, 1.3])
        >>> centred = mle.fit(density, {"mean": 0.0, "sd": 1.0}, x,
        ...                   constraints={"mean": mle.fixed, "sd": mle.positive})
        >>> print(mle.score_test(centred, {"sd": mle.positive}, kind="opg"))
        Score test: the hypothesis that the restriction holds is rejected at 5 %: chi-square(1) = ...,
        p = 0.0...

    Source: Rao 1948.
    """
    if kind is None:
        kind = "opg" if restricted.model.regression is None else "expected"
    check_choice(kind, ("observed", "expected", "opg"))
    if kind == "expected" and restricted.model.regression is None:
        raise ValueError("kind='expected' is exact for a mle.regression only; use kind='observed' or 'opg'")
    params = restricted.params
    dtype = restricted._solution.estimates.dtype
    example = params
    if restricted.batched:
        example = jax.tree.map(lambda leaf: leaf[0] if is_array(leaf) else leaf, params)
    full, _ = build_parameters(example, constraints, dtype=dtype, check=False)
    df = full.n_free - restricted.n_free
    if df < 1:
        raise ValueError(
            "the full model must have more free parameters than the restricted fit: "
            f"{full.n_free} and {restricted.n_free}; constraints= are those of the full model"
        )
    leaves = restricted.parameters.split(params)
    free_of = lambda leaves: full.free(full.join(leaves))  # noqa: E731
    free = vmap_if(restricted.batched, free_of)(leaves)
    values = full.fixed_leaves(leaves)
    if not tracing(free) and np.any(np.asarray(restricted.converged) & ~np.all(np.isfinite(free), axis=-1)):
        raise ValueError(
            "a parameter lies on the edge of its constraint in the full model, where the score test does not "
            "hold; leave that constraint out, or use likelihood_ratio_test(..., boundary=True)"
        )
    statistic = evaluate(restricted, _ScoreStatistic(full, kind), (free, values, restricted._at_bound))
    statistic = jnp.where(restricted.converged, statistic, jnp.nan)
    return chi_square(statistic, df, "Score test", "the restriction holds")


class _ScoreStatistic(eqx.Module):
    """The statistic of one data set.

    Given are the free vector of the full model, the values it keeps fixed, and which parameters bounds hold.
    """

    full: Parameters
    kind: str = eqx.field(static=True)

    def __call__(self, objective: Objective, value: Any) -> Array:
        free, values, held = value
        full = self.full.with_values(values)
        active = jnp.any((full.jacobian(free) != 0) & held[:, None], axis=0)
        own = Objective(objective.likelihood, dataclasses.replace(full, active=active))
        gradient = jnp.where(active, 0.0, own.evaluate(free).gradient)
        return quadratic(own.n_obs * gradient, information(own, free, self.kind))


def quadratic(vector: Array, matrix: Array) -> Array:
    """The quadratic form of the inverse matrix; NaN unless that is positive definite."""
    return jnp.sum((root_of_inverse(matrix).T @ vector) ** 2)


def _flat(value: Any) -> Array:
    return ravel_pytree(jax.tree.map(jnp.asarray, value))[0]


def same_data(a: FitRecord, b: FitRecord) -> None:
    """A `ValueError` where two fits cannot be of the same data."""
    if a.status.shape != b.status.shape:
        raise ValueError(
            f"the fits are of {a.status.shape} and {b.status.shape} data sets; compare like with like"
        )
    if not tracing((a.n_obs, b.n_obs)) and not np.array_equal(np.asarray(a.n_obs), np.asarray(b.n_obs)):
        raise ValueError("the fits have different numbers of observations: they must be of the same data")
