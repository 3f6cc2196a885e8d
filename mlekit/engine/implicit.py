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

from ..core.compilation import Compiled
from ..core.linear_algebra import inverse
from ..core.status import Status
from ..core.trees import differential, transforming
from ..likelihood.objective import Objective
from ..solvers.choice import DENSE_CERTIFICATE
from ..solvers.objective import Curvature
from . import matrix_free
from .solution import Solution


class Linearisation(eqx.Module):
    """What is around a maximum, and how it changes there.

    Args:
        hessian: that of the loss; the unit matrix where no maximum is proven. `None` where parameters are too many
            for one.
        turn: change of the gradient of the loss; without a Hessian that of the free vector.
        jacobian: derivative of the natural parameters with respect to the free vector, where there is a Hessian.
        drift: change of the natural parameters while the free vector stays; without a Hessian in all.
        rise: change of the log-likelihood.
        n_obs: change of the number of observations; `None` if that is whole.
    """

    hessian: Float[Array, "n_free n_free"] | None
    turn: Float[Array, " n_free"]
    jacobian: Float[Array, "k n_free"] | None
    drift: Float[Array, " k"]
    rise: Float[Array, ""]
    n_obs: Float[Array, ""] | None


#: `over(local, operands, change, free, proven)` is that of one data set, or with a leading axis those of many.
Lineariser = Callable[[Callable[..., Linearisation], PyTree, PyTree, Array, Array], Linearisation]


def maximum(operands: PyTree, others: PyTree, search: Callable[..., Any], over: Lineariser) -> Any:
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
def _maximum(operands: PyTree, others: PyTree, *, search: Callable[..., Any], over: Lineariser) -> Any:
    return search(operands, others)


@_maximum.def_jvp
def _maximum_jvp(primals: Any, tangents: Any, *, search: Callable[..., Any], over: Lineariser) -> tuple[Any, Any]:
    (operands, others), (change, _) = primals, tangents
    found = _maximum(operands, others, search=search, over=over)
    nothing = jax.tree.map(lambda leaf: None, found)
    if not jax.tree.leaves(change):
        return found, nothing
    solution: Solution = found[0]
    around = _linearise_all(over, operands, change, solution.free, solution.status == Status.converged)
    moved = solve_tangents(around) if solution.free.ndim == 1 else jax.vmap(solve_tangents)(around)
    place = lambda tree: (tree[0].free, tree[0].vector, tree[0].log_likelihood, tree[0].n_obs)  # noqa: E731
    return found, eqx.tree_at(place, nothing, moved, is_leaf=lambda leaf: leaf is None)


@Compiled
def _linearise_all(
    over: Lineariser, operands: PyTree, change: PyTree, free: Array, proven: Array
) -> Linearisation:
    return over(linearise, operands, change, free, proven)


@Compiled
def solve_tangents(around: Linearisation) -> tuple[Array, Array, Array, Array | None]:
    """How a maximum moves: free vector, natural parameters, log-likelihood and number of observations."""
    if around.hessian is None or around.jacobian is None:
        return around.turn, around.drift, around.rise, around.n_obs
    ahead = -inverse(around.hessian) @ around.turn
    return ahead, around.drift + around.jacobian @ ahead, around.rise, around.n_obs


def linearise(
    objective: Callable[[PyTree], Objective],
    operands: PyTree,
    change: PyTree,
    free: Float[Array, " n_free"],
    proven: Bool[Array, ""],
) -> Linearisation:
    """What is around the maximum of one data set.

    Args:
        objective: the objective that `operands` make.
        operands: what it depends on.
        change: how that changes; `None` where it does not.
        free: the maximum.
        proven: whether it is one.
    """
    here = objective(operands)
    more = differential(lambda operands: objective(operands).likelihood.n_obs, operands, change)
    n_obs = more if jnp.issubdtype(more.dtype, jnp.inexact) else None

    def near(operands: PyTree) -> tuple[Array, ...]:
        """What changes while the free vector stays."""
        here = objective(operands)
        found = here.evaluate(free)
        return found.gradient, here.parameters.natural_vector(free), -found.loss * here.n_obs

    like = (free, here.parameters.natural_vector(free), jnp.zeros((), free.dtype))
    change, spoilt = mask_tangents(proven, change, like)
    turn, drift, rise = jax.tree.map(jnp.add, differential(near, operands, change), spoilt)
    if free.size > DENSE_CERTIFICATE:
        ahead = -matrix_free.solve(here, free, turn)
        _, moved = jax.jvp(here.parameters.natural_vector, (free,), (ahead,))
        return Linearisation(None, ahead, None, drift + moved, rise, n_obs)
    unit = jnp.eye(free.size, dtype=free.dtype)
    jacobian = here.parameters.jacobian(free)
    return Linearisation(
        hessian=jnp.where(proven, here.evaluate(free, Curvature.exact).curvature, unit) if free.size else unit,
        turn=turn,
        # Far out it may be infinite, and what nobody asks for must stay zero.
        jacobian=jnp.where(proven | jnp.isfinite(jacobian), jacobian, 1.0),
        drift=drift,
        rise=rise,
        n_obs=n_obs,
    )


def where_proven(fn: Callable[..., Any], proven: Bool[Array, ""], *operands: PyTree) -> Any:
    """`fn(*operands)`, an array or a tree of arrays; NaN, and with derivatives of NaN, unless a maximum is proven.

    Derivatives that nobody asks for stay zero.

    Args:
        fn: what is wanted of a maximum.
        proven: whether it is one.
        operands: what that depends on.
    """
    return _where_proven(proven, operands, fn=fn)


@eqx.filter_custom_jvp
def _where_proven(proven: Array, operands: tuple[PyTree, ...], *, fn: Callable[..., Any]) -> Any:
    return jax.tree.map(lambda leaf: jnp.where(proven, leaf, jnp.nan), fn(*operands))


@_where_proven.def_jvp
def _where_proven_jvp(primals: Any, tangents: Any, *, fn: Callable[..., Any]) -> tuple[Any, Any]:
    (proven, operands), (_, change) = primals, tangents
    found = _where_proven(proven, operands, fn=fn)
    change, spoilt = mask_tangents(proven, change, found)
    moved = differential(lambda operands: fn(*operands), operands, change)
    return found, jax.tree.map(jnp.add, moved, spoilt)


def with_derivative_of(value: Any, operands: PyTree, fn: Callable[[PyTree], Any]) -> Any:
    """A value that is known already, with the derivative of `fn(operands)`, which it is the value of."""
    return _with_derivative_of(value, operands, fn=fn) if transforming() else value


@eqx.filter_custom_jvp
def _with_derivative_of(value: Any, operands: PyTree, *, fn: Callable[[PyTree], Any]) -> Any:
    return value


@_with_derivative_of.def_jvp
def _with_derivative_of_jvp(primals: Any, tangents: Any, *, fn: Callable[[PyTree], Any]) -> tuple[Any, Any]:
    (value, operands), (_, change) = primals, tangents
    return _with_derivative_of(value, operands, fn=fn), differential(fn, operands, change)


def without_derivative(value: PyTree, operands: PyTree) -> PyTree:
    """Arrays that describe how something was found: NaN is their derivative where `operands` change."""
    return _without_derivative(value, operands) if transforming() else value


@eqx.filter_custom_jvp
def _without_derivative(value: PyTree, operands: PyTree) -> PyTree:
    return value


@_without_derivative.def_jvp
def _without_derivative_jvp(primals: Any, tangents: Any) -> tuple[PyTree, PyTree]:
    change, floats = tangents[1], eqx.filter(primals[0], eqx.is_inexact_array)
    spoilt = mask_tangents(jnp.asarray(False), change, floats)[1] if jax.tree.leaves((change, floats)) else None
    return primals[0], eqx.combine(spoilt, jax.tree.map(lambda leaf: None, primals[0]))


def differentiable_weights(objective: Objective, change: PyTree, free: Float[Array, " n_free"]) -> Objective:
    """The objective for derivatives with respect to its weights, unless their change is `None`."""
    if change is None:
        return objective
    still = jax.lax.stop_gradient(free)
    likelihood = objective.likelihood.weighing(objective.parameters.natural(still))
    return dataclasses.replace(objective, likelihood=likelihood)


def mask_tangents(proven: Array, change: PyTree, like: PyTree) -> tuple[PyTree, PyTree]:
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
