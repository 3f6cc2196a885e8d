"""Data sets drawn from a fitted model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..likelihood.objective import Objective
from ..models.model import Model


def check_simulator(model: Model, who: str) -> None:
    """A `ValueError` where the model cannot draw observations."""
    if model.simulate is None:
        raise ValueError(
            f"{who} wants a model that draws observations, and this one has no simulate: write "
            "mle.Model(log_density, simulate=simulate) with simulate(key, params, obs) -> obs"
            + (", for a joint model simulate(key, params, data) -> data" if model.is_joint else "")
            + ", or use mle.regression"
        )


def simulated(objective: Objective, free: Array, key: Array) -> PyTree:
    """A data set drawn from the model at a free vector, its rows in their order."""
    likelihood = objective.likelihood
    params = objective.parameters.natural(free)
    data, _ = likelihood.aligned()
    extra = () if likelihood.args is None else (likelihood.args,)
    assert likelihood.model.simulate is not None
    if likelihood.model.is_joint:
        drawn = likelihood.model.simulate(key, params, data, *extra)
    else:
        keys = jax.random.split(key, likelihood.rows)
        simulate = lambda key, obs: likelihood.model.simulate(key, params, obs, *extra)  # noqa: E731
        drawn = jax.vmap(simulate)(keys, data)
    return _checked(drawn, data)


def _checked(drawn: PyTree, data: PyTree) -> PyTree:
    """The draw as arrays; a `ValueError` unless it has the structure and shapes of the data."""
    got, wanted = jax.tree.structure(drawn), jax.tree.structure(data)
    if str(got) != str(wanted):
        raise ValueError(
            f"simulate must return an observation like the one it got, of structure {wanted}; it returned {got}"
        )
    for new, old in zip(jax.tree.leaves(drawn), jax.tree.leaves(data)):
        if jnp.shape(new) != jnp.shape(old):
            raise ValueError(
                f"simulate must return an observation like the one it got, of shape {jnp.shape(old)[1:]}; "
                f"it returned shape {jnp.shape(new)[1:]}"
            )
    return jax.tree.map(jnp.asarray, drawn)
