r"""The derivative of a maximum: the implicit function theorem, through no step of the search.

$$\nabla_z f(\hat z(x); x) = 0 \quad\Rightarrow\quad
\mathrm{d}\hat z = -H^{-1}\, \frac{\partial \nabla_z f}{\partial x}\, \mathrm{d}x, \qquad
\mathrm{d}\hat\ell = \frac{\partial \ell}{\partial x}\, \mathrm{d}x$$

The second is the envelope theorem. Both are written with the maximum itself, whose derivative is then known
again: so they hold to every order, in forward and in reverse mode. (Griewank and Walther 2008, chapter 15;
Blondel and others 2022.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from .compilation import Compiled
from .linear_algebra import inverse
from .loop import Solution
from .objective import Objective
from .status import Status
from .trees import transforming


class Move(eqx.Module):
    """How a maximum moves: the differentials of a `Solution`."""

    free: Float[Array, " n_free"]
    vector: Float[Array, " k"]
    log_likelihood: Float[Array, ""]
    n_obs: Float[Array, ""] | None


#: `over(move, operands, change, free, proven)` is that of one data set, or of each of many.
Over = Callable[[Callable[..., Move], PyTree, PyTree, Array, Array], Move]


def maximum(operands: PyTree, others: PyTree, search: Callable[..., Any], over: Over) -> Any:
    """What a search found, with its derivative with respect to everything in `operands`.

    Args:
        operands: all arrays that the likelihood depends on, in a tree that `over` can read.
        others: what else the search needs, and has no influence on where the maximum lies.
        search: `search(operands, others)` returns a `Solution`, and whatever it likes after that.
        over: how `operands` make objectives, and of how many data sets.

    Returns:
        The search's value. The estimates and the log-likelihood have derivatives, NaN where no maximum is proven;
        the certificate and all else that describes the search are constants.
    """
    if not transforming():
        return search(operands, others)
    return _maximum(operands, others, search=search, over=over)


@eqx.filter_custom_jvp
def _maximum(operands: PyTree, others: PyTree, *, search: Callable[..., Any], over: Over) -> Any:
    return search(operands, others)


@_maximum.def_jvp
def _maximum_jvp(primals: Any, tangents: Any, *, search: Callable[..., Any], over: Over) -> tuple[Any, Any]:
    (operands, others), (change, _) = primals, tangents
    found = _maximum(operands, others, search=search, over=over)
    nothing = jax.tree.map(lambda leaf: None, found)
    if not jax.tree.leaves(change):
        return found, nothing
    solution: Solution = found[0]
    move = _moves(over, operands, change, solution.free, solution.status == Status.converged)
    moved = (move.free, move.vector, move.log_likelihood, move.n_obs)
    place = lambda tree: (tree[0].free, tree[0].vector, tree[0].log_likelihood, tree[0].n_obs)  # noqa: E731
    return found, eqx.tree_at(place, nothing, moved, is_leaf=lambda leaf: leaf is None)


@Compiled
def _moves(over: Over, operands: PyTree, change: PyTree, free: Array, proven: Array) -> Move:
    return over(move, operands, change, free, proven)


def move(
    objective: Callable[[PyTree], Objective],
    operands: PyTree,
    change: PyTree,
    free: Float[Array, " n_free"],
    proven: Bool[Array, ""],
) -> Move:
    """How the maximum of one data set moves.

    Args:
        objective: the objective that `operands` make.
        operands: what it depends on.
        change: how that changes; `None` where it does not.
        free: the maximum.
        proven: whether it is one.
    """
    change, spoilt = _only_if(proven, change, (free, jnp.zeros((), free.dtype)))

    def near(operands: PyTree) -> tuple[Array, Array, Array]:
        """What has derivatives of its own, at a free vector that stays."""
        here = objective(operands)
        loss, gradient = here.gradient(free)
        return -loss * here.n_obs, gradient, here.likelihood.n_obs

    rise, turn, more = differential(near, operands, change)
    ahead = jnp.zeros_like(free)
    if free.size:
        _, _, hessian = objective(operands).hessian(free)
        ahead = -inverse(jnp.where(proven, hessian, jnp.eye(free.size, dtype=free.dtype))) @ turn
    ahead, rise = jax.tree.map(jnp.add, (ahead, rise), spoilt)
    vector = lambda both: objective(both[0]).parameters.natural_vector(both[1])  # noqa: E731
    moved = differential(vector, (operands, free), (change, ahead))
    return Move(ahead, moved, rise, more if jnp.issubdtype(more.dtype, jnp.inexact) else None)


def differential(fn: Callable[[PyTree], Any], operands: PyTree, change: PyTree) -> Any:
    """How `fn(operands)` changes with them, where `change` is `None` for those that do not."""
    moving, still = eqx.partition(operands, jax.tree.map(lambda _, c: c is not None, operands, change))
    return jax.jvp(lambda moving: fn(eqx.combine(moving, still)), (moving,), (change,))[1]


def reversible(objective: Objective, change: PyTree) -> Objective:
    """The objective in a form whose derivatives reverse mode can take.

    Args:
        objective: the objective.
        change: how its weights change; `None` where they do not.
    """
    likelihood = dataclasses.replace(objective.likelihood, reversible=True, keeps=change is not None)
    return dataclasses.replace(objective, likelihood=likelihood)


def _only_if(proven: Array, change: PyTree, like: PyTree) -> tuple[PyTree, PyTree]:
    """A change where a maximum is `proven`, none elsewhere; and what to add to whatever follows from it.

    That is zero, but NaN where no maximum is proven and there is any change. In reverse mode, too: who makes no
    use of what is not proven gets zero, and who does gets NaN for everything. So a failed data set spoils the
    derivatives of those who look at it, and of nobody else.
    """
    # One vector, as JAX cannot differentiate a system again of which only some arrays change.
    vector, apart = ravel_pytree((change, jax.tree.map(jnp.zeros_like, like)))
    size = vector.size - sum(leaf.size for leaf in jax.tree.leaves(like))

    def spoil(part: Array, other: Array) -> Array:
        return jnp.where(proven, part, jnp.where(jnp.any(other != 0), jnp.nan, 0.0))

    def forward(_: Any, both: Array) -> Array:
        moving, still = both[:size], both[size:]
        return jnp.concatenate([jnp.where(proven, moving, 0.0), spoil(still, moving)])

    def backward(_: Any, both: Array) -> Array:
        moving, still = both[:size], both[size:]
        return jnp.concatenate([spoil(moving, still), jnp.where(proven, still, 0.0)])

    # A linear system whose matrix is one is the way to say what a linear function and its transpose are.
    return apart(jax.lax.custom_linear_solve(lambda it: it, vector, forward, backward))
