"""The distribution function at each observation, and the residuals that follow from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from ..core.random_keys import check_key, from_seed, seeds
from ..likelihood.base import AbstractLikelihood
from ..likelihood.objective import Objective
from .evaluate import evaluate_proven, longest
from .record import FitRecord, index


def log_tails(
    likelihood: AbstractLikelihood, params: Any, share: Array | float | None = None
) -> tuple[Float[Array, " rows"], Float[Array, " rows"]]:
    """Logarithms of the distribution function and of the survival function at all rows, in their order.

    Args:
        likelihood: of one data set.
        params: parameters.
        share: the part of an atom's probability, from 0 to 1, that counts as above the response; none if left out.
    """
    log_cdf, log_survival = likelihood.model.log_cdf, likelihood.model.log_survival
    assert log_cdf is not None
    assert log_survival is not None
    extra = () if likelihood.args is None else (likelihood.args,)
    data, _ = likelihood.aligned()
    tails = lambda rows: (log_cdf(params, rows, *extra), log_survival(params, rows, *extra))  # noqa: E731
    below, above = tails(data) if likelihood.model.is_joint else jax.vmap(tails)(data)
    if share is None:
        return below, above
    log_atom = jnp.minimum(likelihood.contributions(params), below)
    if callable(atoms := likelihood.model.atoms):
        log_atom = jnp.where(jax.vmap(atoms)(data), log_atom, -jnp.inf)
    part = share * jnp.where(log_atom == -jnp.inf, 0.0, jnp.exp(log_atom - below))
    return below + jnp.log1p(-part), jnp.logaddexp(above, log_atom + jnp.log(share))


def check_log_cdf(fit: FitRecord, who: str) -> None:
    """A `ValueError` where the model does not know its distribution function."""
    if fit.model.log_cdf is None:
        raise ValueError(
            f"{who} wants the distribution function, and this model has no log_cdf: write "
            "mle.Model(log_density, log_cdf=log_cdf) with log_cdf(params, obs), or use mle.regression"
        )


def pit(fit: FitRecord, key: Any) -> Float[Array, "... n_obs"]:
    """`Fit.pit`."""
    return _evaluate_rows(fit, key, "pit", False)


def residuals(fit: FitRecord, key: Any) -> Float[Array, "... n_obs"]:
    """`Fit.residuals`."""
    return _evaluate_rows(fit, key, "residuals", True)


def _evaluate_rows(fit: FitRecord, key: Any, who: str, normal: bool) -> Array:
    check_log_cdf(fit, who)
    atoms = fit.model.atoms
    if atoms and key is None:
        where = "at zero" if callable(atoms) else "at whole numbers"
        raise ValueError(
            f"{who}: the distribution function of these responses jumps {where}: pass key=jax.random.key(0) to "
            "draw between the two sides of each jump"
        )
    key = None if atoms is False else key
    if key is not None:
        check_key(key, who)
    words = None if key is None else seeds(key, index(fit))
    return evaluate_proven(fit, _of_rows(longest(fit), normal), (fit._solution.free, words))


@functools.cache
def _of_rows(width: int, normal: bool) -> Callable[[Objective, Any], Array]:
    """The distribution function at each row, or the normal quantile of its value, shape `(width,)`.

    With a seed, at an atom a value drawn between the two sides of the jump.
    """

    def of_dataset(objective: Objective, value: tuple[Array, Array | None]) -> Array:
        free, seed = value
        likelihood, params = objective.likelihood, objective.parameters.natural(free)
        share = None
        if seed is not None:
            key = from_seed(seed)
            # A key for each row, so that its draw does not depend on how many rows follow.
            uniform = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), dtype=free.dtype))
            share = uniform(jnp.arange(likelihood.rows))
        below, above = log_tails(likelihood, params, share)
        found = jnp.exp(below)
        if normal:  # each half by its own tail, where floating-point numbers are finer
            found = jnp.where(below > above, -ndtri(jnp.exp(above)), ndtri(found))
        length = likelihood.n_unpadded
        found = jnp.where(jnp.arange(likelihood.rows) < length, found, jnp.nan)
        return jnp.pad(found[:width], (0, max(0, width - likelihood.rows)), constant_values=jnp.nan)

    return of_dataset
