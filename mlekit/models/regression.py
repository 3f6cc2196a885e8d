"""Regressions: a prediction and a noise family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .families import Family
from .model import Model
from .regression_density import Regression


def regression(predict: Callable[..., Any], family: Family, response: str | Callable[[Any], Any] = "y") -> Model:
    r"""A model of a response given predictors: a function predicts, a noise family is the distribution around it.

    $$\log p(y \mid \eta), \qquad \eta = \text{predict}(\theta, \text{obs})$$

    The expected information is exact, draws and the distribution function are there, and solvers may use a
    curvature that takes only first derivatives of `predict`.

    Args:
        predict: `predict(params, obs)`, or `predict(params, obs, args)`, for one observation: the parameters of
            the family in the order of `family.parameters`, a tuple or vector of numbers, or one number where
            there is one. Links are written here: `jnp.exp` of a linear predictor for a rate.
        family: one of `mle.families`: `normal`, `log_normal`, `laplace`, `student_t`, `logistic`, `poisson`,
            `bernoulli`, `binomial(trials)`, `negative_binomial`, `exponential`, `gamma`, `weibull`, `beta`,
            `inverse_gaussian`.
        response: the name of the response among the columns of `obs`, or a function of `obs` that picks it.

    Returns:
        A `mle.Model` with all companions; its `regression` holds the parts.

    Raises:
        TypeError: `predict` is no function, `family` no family, or `response` neither a name nor a function.
        ValueError: while tracing, if `predict` returns something else than the family wants, or the response
            is not there.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> model = mle.regression(lambda params, obs: jnp.exp(params["level"]), mle.families.poisson)
        >>> fit = mle.fit(model, {"level": 0.0}, {"y": jnp.array([2, 0, 3, 1, 4])})
        >>> print(f"{fit.params['level']:.4f}")  # the logarithm of the mean
        0.6931
    """
    structure = Regression(predict, family, response)
    return Model(structure, structure.simulate, structure.log_cdf, structure.log_survival)
