"""Profile-likelihood intervals: both ends of every parameter, searched side by side."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...core.checks import warn
from ...core.compilation import Compiled
from ...core.runtime_errors import Raised
from ...core.status import Status
from ...core.trees import batch_of_one, only_one, replace_rows, tracing
from ...engine.solution import Solution
from ...models.parameters import Parameters, open_ranges
from ..evaluate import evaluate_repeated
from ..record import FitRecord
from ..refit import from_better
from ..wald import quantile
from .endpoint import end
from .endpoint_search import Endpoint

#: Refits at most to higher maxima that a profile has met.
ROUNDS = 5


class Ends(eqx.Module):
    """Both ends of the profile-likelihood interval of every scalar parameter.

    Args:
        lower: shape `(k,)`; at the edge of the constraint, or infinite, where the likelihood stays high all the
            way; NaN where no end was found.
        upper: likewise.
        status: a `Status` value for each end, lower ones first, shape `(k, 2)`: `converged`; `unbounded` where
            the likelihood stays above the level; or what went wrong.
    """

    lower: Float[Array, "... k"]
    upper: Float[Array, "... k"]
    status: Int[Array, "... k 2"]


def ends(fit: FitRecord, level: float) -> tuple[FitRecord, Ends]:
    r"""The points where the profile likelihood of each parameter has fallen by half a quantile of chi-square.

    $$\ell_p(\theta_j) = \max_{\theta_{-j}} \ell(\theta) = \hat\ell - \tfrac12 \chi^2_{1, \text{level}}$$

    All ends of all data sets are searched side by side. Where a search meets a higher likelihood than that of the
    fit, the fit is made again from there, and so are its ends.

    Args:
        fit: the fit, or batch of fits.
        level: confidence level.

    Returns:
        The fit, made again where that was needed, and the ends.
    """
    if not fit.batched:
        return only_one(ends(batch_of_one(fit), level))
    found, better, free = _ends(fit, level)
    if tracing(better):
        return fit, found
    for _ in range(ROUNDS):
        sets = np.flatnonzero(better)
        if not sets.size:
            break
        refitted = from_better(fit[sets], free[sets], np.ones(len(sets), bool))
        new = (refitted._solution, *_ends(refitted, level))
        old = (fit._solution, found, better, free)
        solution, found, better, free = jax.tree.map(functools.partial(replace_rows, sets), old, new)
        fit = eqx.tree_at(lambda fit: fit._solution, fit, solution)
    return fit, found


def _ends(fit: FitRecord, level: float) -> tuple[Ends, Array, Array]:
    """The ends, which data sets met a better maximum, and its free vector."""
    solution, parameters = fit._solution, fit.parameters
    moving = [i for i, j in enumerate(twins(parameters)) if i == j]
    if not moving:
        lower = upper = jnp.where(fit.converged[:, None], solution.estimates, jnp.nan)
        status = jnp.broadcast_to(solution.status[:, None, None], (*solution.estimates.shape, 2))
        return Ends(lower, upper, status), jnp.zeros(fit.n_sets, bool), solution.free
    value = _searches(solution, parameters, quantile(level, solution.estimates.dtype), tuple(moving))
    times, lost = 2 * len(moving), Raised()
    found, reached = evaluate_repeated(fit, times, end, value, lost)
    if lost:
        where = np.divmod(np.array(list(lost)), times)
        found = eqx.tree_at(lambda it: it.status, found, found.status.at[where].set(Status.raised))
    return _collect(solution, parameters, tuple(moving), found, reached)


@Compiled
def _searches(solution: Solution, parameters: Parameters, z: Array, moving: tuple[int, ...]) -> tuple[Array, ...]:
    """The arguments of `endpoint.end` for all searches: for both ends of each parameter in turn."""
    n_sets, times = len(solution.estimates), 2 * len(moving)
    low, high = eqx.filter_vmap(open_ranges)(parameters, solution.estimates)
    which, sign = np.repeat(np.array(moving), 2), np.tile([-1.0, 1.0], len(moving))
    dtype = solution.estimates.dtype
    of_sets = lambda array: jnp.broadcast_to(array[:, None], (n_sets, times, *array.shape[1:]))  # noqa: E731
    of_searches = lambda array: jnp.broadcast_to(jnp.asarray(array), (n_sets, times))  # noqa: E731
    return (
        of_sets(solution.free),
        of_sets(solution.status == Status.converged),
        of_sets(solution.log_likelihood),
        of_searches(0.5 * z**2),
        of_searches(which),
        of_searches(sign.astype(dtype)),
        low[:, which],
        high[:, which],
    )


@Compiled
def _collect(
    solution: Solution, parameters: Parameters, moving: tuple[int, ...], found: Endpoint, reached: Array
) -> tuple[Ends, Array, Array]:
    """The results of the searches in the order of the parameters; the rest as from `_ends`."""
    vector, status = solution.estimates, solution.status[:, None]
    n_sets, k = vector.shape
    low, high = eqx.filter_vmap(Parameters.ranges)(parameters, vector)
    which, upwards = np.repeat(np.array(moving), 2), np.tile([False, True], len(moving))
    converged = status == Status.converged
    edge = jnp.where(upwards, high[:, which], low[:, which])
    reached = jnp.where(found.status == Status.converged, reached, jnp.nan)
    reached = jnp.where(found.status == Status.unbounded, edge, reached)
    # An element that never moves, as the diagonal of a correlation, is its own interval.
    still = (solution.standard_errors == 0)[:, which]
    proven = converged & ~found.better
    reached = jnp.where(still, vector[:, which], jnp.where(proven, reached, jnp.nan)).reshape(n_sets, -1, 2)
    own = jnp.where(still, Status.converged, found.status)
    own = jnp.where(converged, own, status).reshape(n_sets, -1, 2)
    # A tied parameter shares the row of its twin.
    rows = [(i, moving.index(j)) for i, j in enumerate(twins(parameters)) if j >= 0]
    mine, of = (np.array(pair, int) for pair in zip(*rows))
    lower = upper = jnp.where(converged, vector, jnp.nan)
    result = Ends(
        lower.at[:, mine].set(reached[:, of, 0]),
        upper.at[:, mine].set(reached[:, of, 1]),
        jnp.broadcast_to(status[..., None], (n_sets, k, 2)).at[:, mine].set(own[:, of]),
    )
    better = found.better & converged
    highest = jnp.argmax(jnp.where(better, found.log_likelihood, -jnp.inf), axis=1)
    free = jnp.take_along_axis(found.free, highest[:, None, None], axis=1)[:, 0]
    return result, jnp.any(better, axis=1), free


def twins(parameters: Parameters) -> list[int]:
    """For each scalar parameter itself, the twin it is tied to, or -1 where it is fixed."""
    begin, first = {}, 0
    for leaf in parameters.leaves:
        begin[leaf.name] = first
        first += leaf.size
    return [
        -1 if leaf.is_fixed else begin[leaf.tied_to or leaf.name] + i
        for leaf in parameters.leaves
        for i in range(leaf.size)
    ]


def intervals(fit: FitRecord, level: float) -> tuple[Array, Array]:
    """Both ends of every profile-likelihood interval, with a warning where they are those of a better maximum."""
    again, found = ends(fit, level)
    if not tracing(fit._solution):
        refitted = np.asarray(again.log_likelihood != fit.log_likelihood) & np.asarray(fit.converged)
        if np.any(refitted):
            who = f"of {int(refitted.sum()):,} of {fit.n_sets:,} data sets " if fit.batched else ""
            warn(
                f"profiles {who}met higher maxima than their fit had found: the intervals are those of the "
                "refitted maxima, which mle.profile(fit, name).fit holds; fit with starts="
            )
    return found.lower, found.upper
