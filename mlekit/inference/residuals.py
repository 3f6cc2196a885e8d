"""The distribution function at each observation, and the residuals that follow from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from ..keys import from_seed, need_key, seeds
from ..likelihood import Likelihood
from ..objective import Objective
from .each import evaluate_proven, index, longest

if TYPE_CHECKING:
    from ..result import Fit


def log_cdfs(likelihood: Likelihood, params: Any) -> Float[Array, " rows"]:
    """The logarithm of the distribution function at all rows of the data set, in their order."""
    log_cdf = likelihood.model.log_cdf
    assert log_cdf is not None
    extra = () if likelihood.args is None else (likelihood.args,)
    data, _ = likelihood.aligned()
    if likelihood.model.is_joint:
        return log_cdf(params, data, *extra)
    return jax.vmap(lambda obs: log_cdf(params, obs, *extra))(data)


def need_log_cdf(fit: Fit, who: str) -> None:
    """A `ValueError` where the model does not know its distribution function."""
    if fit.model.log_cdf is None:
        raise ValueError(
            f"{who} wants the distribution function, and this model has no log_cdf: write "
            "mle.Model(log_density, log_cdf=log_cdf) with log_cdf(params, obs), or use mle.regression"
        )


def pit(fit: Fit, key: Any) -> Float[Array, "... n_obs"]:
    """`Fit.pit`."""
    return _of_rows(fit, key, "pit", False)


def residuals(fit: Fit, key: Any) -> Float[Array, "... n_obs"]:
    """`Fit.residuals`."""
    return _of_rows(fit, key, "residuals", True)


def _of_rows(fit: Fit, key: Any, who: str, normal: bool) -> Array:
    need_log_cdf(fit, who)
    jumps = fit.model.jumps
    if jumps and key is None:
        where = "at zero" if callable(jumps) else "at whole numbers"
        raise ValueError(
            f"{who}: the distribution function of these responses jumps {where}: pass key=jax.random.key(0) to "
            "draw between the two sides of each jump"
        )
    key = None if jumps is False else key
    if key is not None:
        need_key(key, who)
    words = None if key is None else seeds(key, index(fit))
    return evaluate_proven(fit, _rows(longest(fit), normal), (fit.solution.free, words))


@functools.cache
def _rows(width: int, normal: bool) -> Callable[[Objective, Any], Array]:
    """The share of the distribution below each row, or the normal quantile of that share, shape `(width,)`.

    Where there is a seed, a share drawn between the two sides of each jump.
    """

    def at(objective: Objective, value: tuple[Array, Array | None]) -> Array:
        free, seed = value
        likelihood, params = objective.likelihood, objective.parameters.natural(free)
        logs = log_cdfs(likelihood, params)
        if seed is not None:
            key = from_seed(seed)
            # So that what is drawn for a row does not depend on how many follow.
            draw = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), dtype=logs.dtype))
            jump = jnp.exp(likelihood.contributions(params) - logs)
            if callable(jumps := likelihood.model.jumps):
                jump = jnp.where(jax.vmap(jumps)(likelihood.aligned()[0]), jump, 0.0)
            logs = logs + jnp.log1p(-draw(jnp.arange(likelihood.rows)) * jnp.minimum(jump, 1.0))
        # Each half of the distribution is measured from its own end, where numbers are finer.
        upper = logs > jnp.log(0.5)
        below, above = jnp.exp(logs), -jnp.expm1(logs)
        found = jnp.where(upper, -ndtri(above), ndtri(below)) if normal else below
        length = likelihood.rows if likelihood.length is None else likelihood.length
        found = jnp.where(jnp.arange(likelihood.rows) < length, found, jnp.nan)
        return jnp.pad(found[:width], (0, max(0, width - likelihood.rows)), constant_values=jnp.nan)

    return at
