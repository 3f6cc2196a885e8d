"""The densities that compositions are made of here, and how their derivatives are checked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats as st
from jax.scipy.special import log_ndtr
from jax.scipy.stats import norm

import mlekit as mle
from mlekit.models.families.numerics import log1mexp
from tests.helpers.derivatives import difference

normal = mle.regression(lambda params, obs: (params[0], params[1]), mle.families.normal)
weibull = mle.regression(lambda params, obs: (params[0], params[1]), mle.families.weibull)


def normal_log_density(params: Any, obs: Any) -> Any:
    return norm.logpdf(obs["y"], params[0], params[1])


def normal_log_cdf(params: Any, obs: Any) -> Any:
    return log_ndtr((obs["y"] - params[0]) / params[1], 8)


def weibull_log_density(params: Any, obs: Any) -> Any:
    z = params[1] * jnp.log(obs["y"] / params[0])
    return jnp.log(params[1] / obs["y"]) + z - jnp.exp(z)


def weibull_log_cdf(params: Any, obs: Any) -> Any:
    return log1mexp((obs["y"] / params[0]) ** params[1])


def weibull_log_survival(params: Any, obs: Any) -> Any:
    return -((obs["y"] / params[0]) ** params[1])


#: As a regression, whose predictions are guarded, and as functions, which know no edges, of one tail or of both.
MODELS = {
    "normal": normal,
    "normal functions": mle.Model(normal_log_density, log_cdf=normal_log_cdf),
    "weibull": weibull,
    "weibull functions": mle.Model(weibull_log_density, log_cdf=weibull_log_cdf),
    "weibull survival": mle.Model(weibull_log_density, log_survival=weibull_log_survival),
    "weibull tails": mle.Model(weibull_log_density, None, weibull_log_cdf, weibull_log_survival),
}
POINTS = {"normal": np.array([0.3, 1.7]), "weibull": np.array([2.0, 1.5])}


def by_row(fn: Callable[..., Any], params: Any, data: Any) -> Any:
    return jax.jit(jax.vmap(fn, in_axes=(None, 0)))(params, data)


@functools.cache
def with_derivatives(model: Callable[..., Any]) -> Callable[..., Any]:
    """Value, gradient and Hessian, in forward over reverse and in reverse over reverse mode, row by row."""

    def one(params: Any, obs: Any) -> Any:
        f = lambda p: model(p, obs)  # noqa: E731
        return f(params), jax.grad(f)(params), jax.hessian(f)(params), jax.jacrev(jax.grad(f))(params)

    return jax.jit(jax.vmap(one, in_axes=(None, 0)))


def assert_smooth(
    model: Callable[..., Any], params: np.ndarray, obs: Any, wanted: Callable[[Any], np.ndarray]
) -> None:
    """Values as wanted; gradients by differences of what is wanted, Hessians by differences of gradients."""
    at = with_derivatives(model)
    value, gradient, hessian, reverse = at(params, obs)
    np.testing.assert_allclose(value, wanted(params), rtol=1e-12, atol=1e-300)
    for i, move in enumerate(np.eye(len(params))):
        with np.errstate(all="ignore"):
            slope = difference(lambda p: np.array(wanted(p)), (params,), (move,), 1e-3)
        slope = np.where(np.isneginf(value), 0, slope)
        np.testing.assert_allclose(gradient[:, i], slope, rtol=1e-7, atol=1e-9)
        bend = difference(lambda p: at(p, obs)[1], (params,), (move,), 1e-3)
        np.testing.assert_allclose(hessian[:, i], bend, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(reverse, hessian, rtol=1e-7, atol=1e-9)


def of_one(family: Any, *others: float) -> mle.Model:
    """Intervals of a family, of which the first parameter is to be found."""
    return mle.censored(mle.regression(lambda p, obs: (p[0], *others), family), lower="low", upper="high")


ENDING = {
    "poisson": (of_one(mle.families.poisson), 3.0, st.poisson),
    "binomial": (of_one(mle.families.binomial(400)), -3.0, lambda t: st.binom(400, scipy.special.expit(t))),
    "gamma": (of_one(mle.families.gamma, 2.0), 1.0, lambda mean: st.gamma(2, scale=mean / 2)),
}


def inflated(params: Any, obs: Any) -> Any:
    return jax.nn.sigmoid(obs["x"] @ params["zero"])


pair = mle.regression(lambda params, obs: (params["mean"], params["scale"]), mle.families.normal)

rate = mle.regression(lambda params, obs: params["rate"], mle.families.poisson)
TWO = {"mean": np.array([-1.0, 2.0]), "scale": np.array([1.0, 0.5])}


def below(params: Any, y: Any) -> Any:
    return log_ndtr((y - params[0]) / params[1])


PLACED = np.array([0.3, 1.7])
