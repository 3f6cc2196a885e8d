"""Identifiability: can data tell the parameters of a model apart, before anything is fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..core import devices
from ..core.compilation import Compiled
from ..core.eigen import spectrum
from ..core.format.numbers import count, number
from ..core.linear_algebra import curvature_scale
from ..core.trees import default_float, n_rows
from ..data.arrays import as_arrays, as_weights
from ..likelihood.base import block_rows
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.objective import Objective
from ..models.initial_parameters import build_parameters
from ..models.model import as_model
from ..solvers.objective import Curvature

#: Points around the start, besides it, and how far away they lie on the free scale. At a single point a model may
#: look worse than it is: equal components of a mixture, a product with a factor of zero.
POINTS, SPREAD = 4, 0.1
#: Digits that a direction must keep of the information of its parameters.
KEPT = 0.5


class Identifiability(eqx.Module):
    """The directions in parameter space that data tell apart, made by `mle.identifiability`.

    Args:
        identified: whether the data tell all parameters apart.
        rank: number of directions of which they tell something.
        n_free: number of directions, and of free parameters.
        condition_number: of the scaled information at the point where it is best; infinite where it is singular.
        directions: those of which the data tell nothing, `{parameter name: weight}` each, in the parameters' own
            units, the largest weight one.
        names: the names of the parameters.
    """

    identified: bool = eqx.field(static=True)
    rank: int = eqx.field(static=True)
    n_free: int = eqx.field(static=True)
    condition_number: float = eqx.field(static=True)
    directions: tuple[dict[str, float], ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def __repr__(self) -> str:
        return identifiability_text(self)


def identifiability(
    log_density: Callable[..., Any],
    init: PyTree | Callable[[PyTree], PyTree],
    data: PyTree,
    *,
    args: PyTree = None,
    constraints: PyTree = None,
    weights: Any = None,
) -> Identifiability:
    r"""The rank of the information at the start: can the data tell the parameters apart?

    The rank of the outer product of the scores $\sum_i w_i s_i s_i^T$, scaled to a unit diagonal, at the start
    and at four points near it: parameters are (locally) identified if some point has full rank. Of a joint
    model that returns a scalar it is the rank of the Hessian.

    Args:
        log_density: as in `mle.fit`, like all the others.
        init: starting `params`, or a function of the data.
        data: PyTree of arrays with leading axis `n_obs`, or a table.
        args: further arrays the model needs.
        constraints: PyTree prefix of `params`.
        weights: frequency weights.

    Returns:
        `Identifiability`, which prints as sentences that name the parameters.

    Raises:
        ValueError: as `mle.fit`, or scores that are not finite at the start.
        TypeError: as `mle.fit`.

    Example:
        Two intercepts are one too many:

        >>> import jax.numpy as jnp, mlekit as mle
        >>> density = lambda p, obs: -0.5 * (obs["y"] - p["a"] - p["b"] - p["c"] * obs["x"]) ** 2
        >>> data = {"x": jnp.array([1.0, 2.0, 3.0, 5.0]), "y": jnp.array([2.0, 2.5, 4.0, 5.0])}
        >>> print(mle.identifiability(density, {"a": 0.0, "b": 0.0, "c": 0.0}, data))
        Not identified: the data tell 2 of 3 directions apart.
        a and b: only their sum matters, not their difference.

    Source: Rothenberg 1971, *Identification in Parametric Models*.
    """
    model = as_model(log_density)
    data = jax.tree.map(devices.placed, as_arrays(data))
    weights = as_weights(weights, data, (n_rows(data),), default_float(data))
    start = init(data) if callable(init) and not isinstance(init, eqx.Module) else init
    parameters, start = build_parameters(start, constraints, dtype=default_float(data))
    block = block_rows(data, parameters.n_free, n_rows(data))
    objective = Objective(InMemoryLikelihood(model, args, data, weights, block=block), parameters.fixed_at(start))
    if not parameters.n_free:
        return Identifiability(True, 0, 0, 1.0, (), parameters.names)
    free = objective.parameters.free(start)
    moves = jax.random.normal(jax.random.key(0), (POINTS, *free.shape), free.dtype)
    points = jnp.concatenate([free[None], free[None] + SPREAD * jnp.maximum(1.0, jnp.abs(free))[None] * moves])
    matrices, jacobians = _informations(objective, points)
    values, vectors, scales = (np.asarray(part) for part in _spectra(matrices))
    if not np.all(np.isfinite(np.asarray(matrices)[0])):
        raise ValueError(
            "init: the scores are not finite there; begin where every observation has a positive density"
        )
    eps = np.finfo(values.dtype).eps
    known = np.abs(values) > max(eps**KEPT * 1e-3, 10 * len(free) * eps) * np.abs(values).max(
        axis=1, keepdims=True
    )
    rank = np.where(np.all(np.isfinite(values), axis=1), known.sum(axis=1), -1)
    best = int(np.argmax(rank))
    size = np.sort(np.abs(values[best]))
    condition = float(size[-1] / size[0]) if size[0] > 0 else float("inf")
    flat = [i for i in range(len(free)) if not known[best, i]]
    natural = np.asarray(jacobians)[best] @ (vectors[best] / scales[best][:, None])
    directions = tuple(_named(natural[:, i], parameters.names) for i in flat)
    return Identifiability(not flat, int(rank[best]), len(free), condition, directions, parameters.names)


def _named(direction: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """The parameters that take part in a direction, with their weights, the largest one."""
    largest = direction[np.argmax(np.abs(direction))]
    weights = direction / largest if largest else direction
    return {name: float(w) for name, w in zip(names, weights) if abs(w) > 1e-6}


@Compiled
def _informations(objective: Objective, points: Float[Array, "points n_free"]) -> tuple[Array, Array]:
    """The information at each point, and the derivative of the natural parameters by the free vector."""

    def at_point(free: Array) -> tuple[Array, Array]:
        has_scores = objective.likelihood.has_contributions(objective.parameters.natural(free))
        kind = Curvature.outer_product if has_scores else Curvature.exact
        return objective.evaluate(free, kind).curvature, objective.parameters.jacobian(free)

    return jax.lax.map(at_point, points)


@Compiled
def _spectra(matrices: Float[Array, "points k k"]) -> tuple[Array, Array, Array]:
    def scaled_spectrum(matrix: Array) -> tuple[Array, Array, Array]:
        fine = jnp.all(jnp.isfinite(matrix))
        safe = jnp.where(fine, matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype))
        scale = curvature_scale(safe, jnp.zeros(matrix.shape[0], matrix.dtype))
        found = spectrum(safe, scale)
        return jnp.where(fine, found.values, jnp.nan), found.vectors, scale

    return jax.vmap(scaled_spectrum)(matrices)


#: Weights that differ by less than this are called equal.
EQUAL = 1e-3


def identifiability_text(found: Identifiability) -> str:
    """The verdict in words, with a sentence for each direction that is not identified."""
    if found.identified:
        text = f"Identified: the data tell all {count(found.n_free)} directions apart"
        return f"{text} (condition number {number(found.condition_number, 2)})."
    lines = [f"Not identified: the data tell {count(found.rank)} of {count(found.n_free)} directions apart."]
    return "\n".join([*lines, *map(direction_text, found.directions)])


def direction_text(direction: dict[str, float]) -> str:
    """A flat direction in words."""
    names = list(direction)
    weights = np.array(list(direction.values()))
    if len(names) == 0:
        return "A direction without any parameter."
    if len(names) == 1:
        return f"{names[0]}: the data tell nothing of it."
    if len(names) == 2 and abs(abs(weights[0]) - abs(weights[1])) < EQUAL:
        kept, lost = ("sum", "difference") if weights[0] * weights[1] < 0 else ("difference", "sum")
        return f"{names[0]} and {names[1]}: only their {kept} matters, not their {lost}."
    moves = ", ".join(f"{name} by {number(w, 3)}" for name, w in direction.items())
    return f"{_and(names)} can move together without any effect: {moves}."


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
