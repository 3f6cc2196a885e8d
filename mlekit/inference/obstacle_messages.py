"""Walls and kinks in words: what stopped a search; computed where a message is asked for."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..core.compilation import Compiled
from ..core.runtime_errors import RUNTIME_ERRORS, quiet, raised
from ..core.status import Status
from ..likelihood.dataset import AbstractDataset
from ..likelihood.objective import Objective
from ..models.model import Model
from ..models.parameters import Parameters

#: Parameters at most that are looked at.
MOST = 32
#: The distance of the points is this power of the machine precision, times the size of the parameter. A slope that
#: is smooth there falls to a quarter at a quarter of it; one that is kept to this share jumps.
POWER, KEPT = 0.4, 0.6


class Obstacles(NamedTuple):
    """What is next to the estimate, by entry of the free vector.

    Args:
        above: whether the log-likelihood is finite below, and not above.
        below: whether it is finite above, and not below.
        kinks: whether it falls on both sides, with a slope that jumps.
    """

    above: Bool[Array, " k"]
    below: Bool[Array, " k"]
    kinks: Bool[Array, " k"]


def obstacles(
    status: Status, dataset: AbstractDataset, model: Model, args: PyTree, parameters: Parameters, free: Array
) -> str:
    """Sentences about walls and kinks at the estimates of a single fit, after a blank; empty without any.

    Args:
        status: why the fit ended.
        dataset: its data; only rows in memory are looked at.
        model: the log-density.
        args: its third argument, or `None`.
        parameters: how its parameters map to the free vector.
        free: the free vector.
    """
    if status not in (Status.stalled, Status.unbounded) or not dataset.at_hand or not 0 < len(free) <= MOST:
        return ""
    try:
        with quiet():
            found = jax.block_until_ready(
                _look(Objective(dataset.likelihood(model, args, parameters.n_free), parameters), free)
            )
    except RUNTIME_ERRORS as error:
        raised(error)
        return ""
    text = ""
    for beyond, where, rule in ((found.above, "above", "at_most"), (found.below, "below", "at_least")):
        names = parameters.names_with(np.asarray(beyond))
        if names:
            text += (
                f" {' and '.join(names)} ended at the edge of the support: {where} the estimate some "
                "observation has no density. If the log-likelihood is finite there, the closed constraint "
                f"mle.{rule} makes it a proven maximum."
            )
    names = parameters.names_with(np.asarray(found.kinks))
    if names and status == Status.stalled:
        text += (
            f" The log-likelihood has a kink in {' and '.join(names)}: its slope jumps there, so that no "
            "curvature tells of errors; a bootstrap does."
        )
    return text


@Compiled
def _look(objective: Objective, free: Float[Array, " k"]) -> Obstacles:
    size = jnp.where(free == 0, 1.0, jnp.abs(free))
    step = size * jnp.finfo(free.dtype).eps ** POWER

    # Each parameter by itself, both ways, far and near; one program for all points.
    shares = jnp.asarray([1.0, -1.0, 0.25, -0.25], free.dtype)
    moves = shares[:, None, None] * jnp.diag(step)[None, :, :]
    points = (free[None, None, :] + moves).reshape(-1, free.size)
    values, gradients = jax.vmap(jax.value_and_grad(objective))(points)
    up, down = values.reshape(4, -1)[:2]
    rise, fall, near_rise, near_fall = jnp.diagonal(gradients.reshape(4, free.size, free.size), axis1=1, axis2=2)
    kinks = (near_rise > KEPT * rise) & (rise > 0) & (near_fall < KEPT * fall) & (fall < 0)
    finite_up, finite_down = jnp.isfinite(up), jnp.isfinite(down)
    rises = jnp.sum(objective.parameters.jacobian(free), axis=0) > 0
    box = objective.box
    inside = jnp.isfinite(free) if box is None else (free > box.low) & (free < box.high)
    above, below = finite_down & ~finite_up & inside, finite_up & ~finite_down & inside
    return Obstacles(
        jnp.where(rises, above, below), jnp.where(rises, below, above), kinks & finite_up & finite_down
    )
