"""The influence of each observation on each parameter."""

from __future__ import annotations

import functools
from collections.abc import Callable

from jaxtyping import Array, Float

from ..likelihood.objective import Objective
from .evaluate import evaluate_proven, longest, to_width
from .information import inverse
from .record import FitRecord


def influence_of(fit: FitRecord) -> Float[Array, "... n_obs k"]:
    """`Fit.influence`."""
    return evaluate_proven(fit, influence(longest(fit)), fit._solution.free)


@functools.cache
def influence(width: int, natural: bool = True) -> Callable[[Objective, Array], Array]:
    r"""Derivatives of the parameters with respect to the weights of the rows, shape `(width, k)`.

    $$\frac{\partial \hat\theta}{\partial w_i} = J I^{-1} s_i$$

    Args:
        width: number of rows.
        natural: derivatives of the natural parameters; if false of the free vector, where $J = 1$.
    """

    def of_dataset(objective: Objective, free: Array) -> Float[Array, "width k"]:
        scores = objective.likelihood.scores(free, objective.parameters.natural)
        moves = inverse(objective, free, "observed")
        if natural:
            moves = objective.parameters.jacobian(free) @ moves
        return to_width(scores @ moves.T, width)

    return of_dataset
