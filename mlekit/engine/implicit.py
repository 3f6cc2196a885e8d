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
from ..core.trees import differential, transforming
from ..likelihood.objective import Objective
from ..solvers.box import hold
from ..solvers.choice import DENSE_CERTIFICATE
from ..solvers.objective import Curvature
from . import matrix_free
from .solution import Solution


class Linearisation(eqx.Module):
    """The linearisation of a problem around its maximum.

    Args:
        hessian: of the loss; the unit matrix where no maximum is proven. `None` where parameters are too many for
            one.
        gradient_tangent: of the gradient of the loss, while the free vector stays; without a Hessian that of
            the free vector.
        bound_tangent: of the entries of the free vector that active bounds hold, zero for others; `None` if there
            are no bounds.
        jacobian: derivative of the natural parameters with respect to the free vector, where there is a Hessian.
        params_tangent: of the natural parameters, while the free vector stays; without a Hessian in all.
        log_likelihood_tangent: of the log-likelihood.
        n_obs_tangent: of the number of observations; `None` if that is whole.
    """

    hessian: Float[Array, "n_free n_free"] | None
    gradient_tangent: Float[Array, " n_free"]
    bound_tangent: Float[Array, " n_free"] | None
    jacobian: Float[Array, "k n_free"] | None
    params_tangent: Float[Array, " k"]
    log_likelihood_tangent: Float[Array, ""]
    n_obs_tangent: Float[Array, ""] | None


#: `(linearise, operands, tangents, free, proven, held)` to the linearisation of one data set, or of many.
Lineariser = Callable[[Callable[..., Linearisation], PyTree, PyTree, Array, Array, Any], Linearisation]


def maximum(operands: PyTree, others: PyTree, search: Callable[..., Any], lineariser: Lineariser) -> Any:
    """The result of a search, with its derivative with respect to everything in `operands`.

    Args:
        operands: all arrays that the likelihood depends on, in a tree that `lineariser` can read.
        others: what else the search needs, and has no influence on where the maximum lies.
        search: `search(operands, others)` returns a `Solution`, and whatever it likes after that.
        lineariser: how `operands` make objectives, and of how many data sets.

    Returns:
        The search's value. Estimates and log-likelihood have derivatives, NaN where no maximum is proven;
        the certificate and all else that describes the search are constants.
    """
    if not transforming():
        return search(operands, others)
    return _maximum(operands, others, search=search, lineariser=lineariser)


@eqx.filter_custom_jvp
def _maximum(operands: PyTree, others: PyTree, *, search: Callable[..., Any], lineariser: Lineariser) -> Any:
    return search(operands, others)


@_maximum.def_jvp
def _maximum_jvp(
    primals: Any, tangents: Any, *, search: Callable[..., Any], lineariser: Lineariser
) -> tuple[Any, Any]:
    (operands, others), (operand_tangents, _) = primals, tangents
    found = _maximum(operands, others, search=search, lineariser=lineariser)
    nothing = jax.tree.map(lambda leaf: None, found)
    if not jax.tree.leaves(operand_tangents):
        return found, nothing
    solution: Solution = found[0]
    around = _linearise_all(
        lineariser, operands, operand_tangents, solution.free, solution.smooth, solution.active
    )
    moved = solve_tangents(around) if solution.free.ndim == 1 else jax.vmap(solve_tangents)(around)
    place = lambda tree: (tree[0].free, tree[0].estimates, tree[0].log_likelihood, tree[0].n_obs)  # noqa: E731
    return found, eqx.tree_at(place, nothing, moved, is_leaf=lambda leaf: leaf is None)


@Compiled
def _linearise_all(
    lineariser: Lineariser, operands: PyTree, tangents: PyTree, free: Array, proven: Array, held: Array | None
) -> Linearisation:
    return lineariser(linearise, operands, tangents, free, proven, held)


@Compiled
def solve_tangents(around: Linearisation) -> tuple[Array, Array, Array, Array | None]:
    """The tangents of a maximum: free vector, natural parameters, log-likelihood and number of observations."""
    rest = around.log_likelihood_tangent, around.n_obs_tangent
    if around.hessian is None or around.jacobian is None:
        free_tangent, params_tangent = around.gradient_tangent, around.params_tangent
    else:
        free_tangent = -inverse(around.hessian) @ around.gradient_tangent
        params_tangent = around.params_tangent + around.jacobian @ free_tangent
    if around.bound_tangent is not None:
        free_tangent += around.bound_tangent
    return free_tangent, params_tangent, *rest


def linearise(
    objective: Callable[[PyTree], Objective],
    operands: PyTree,
    tangents: PyTree,
    free: Float[Array, " n_free"],
    proven: Bool[Array, ""],
    held: Bool[Array, " n_free"] | None,
) -> Linearisation:
    """The linearisation around the maximum of one data set. Entries at active bounds move with these.

    Args:
        objective: the objective that `operands` make.
        operands: all that it depends on.
        tangents: of the operands; `None` for those that do not change.
        free: the maximum.
        proven: True if it is one.
        held: the entries that active bounds hold, if there are bounds.
    """
    here = objective(operands)
    n_obs_tangent = differential(lambda operands: objective(operands).likelihood.n_obs, operands, tangents)

    def at_fixed_free(operands: PyTree) -> tuple[Array, ...]:
        """Gradient, natural parameters and log-likelihood while the free vector stays."""
        here = objective(operands)
        point = free if here.box is None else here.box.pinned(free, held)
        found = here.evaluate(point)
        gradient = found.gradient if held is None else jnp.where(held, 0.0, found.gradient)
        return gradient, here.parameters.natural_vector(point), -found.loss * here.n_obs, point

    like = (free, here.parameters.natural_vector(free), jnp.zeros((), free.dtype), free)
    tangents, poison = mask_tangents(proven, tangents, like)
    moved = jax.tree.map(jnp.add, differential(at_fixed_free, operands, tangents), poison)
    gradient_tangent, params_tangent, log_likelihood_tangent, bound_tangent = moved
    hessian = jacobian = None
    if free.size > DENSE_CERTIFICATE:
        gradient_tangent = -matrix_free.solve(here, free, gradient_tangent, held)
        params_tangent += jax.jvp(here.parameters.natural_vector, (free,), (gradient_tangent,))[1]
    else:
        unit = jnp.eye(free.size, dtype=free.dtype)
        exact = here.evaluate(free, Curvature.exact).curvature if free.size else unit
        if held is not None:
            exact, _ = hold(exact, gradient_tangent, held, jnp.ones_like(free))
        hessian = jnp.where(proven, exact, unit)
        # Far out the Jacobian may be infinite, and its product with a tangent of zero must be zero.
        jacobian = here.parameters.jacobian(free)
        jacobian = jnp.where(proven | jnp.isfinite(jacobian), jacobian, 1.0)
    return Linearisation(
        hessian=hessian,
        gradient_tangent=gradient_tangent,
        bound_tangent=None if held is None else bound_tangent,
        jacobian=jacobian,
        params_tangent=params_tangent,
        log_likelihood_tangent=log_likelihood_tangent,
        n_obs_tangent=n_obs_tangent if jnp.issubdtype(n_obs_tangent.dtype, jnp.inexact) else None,
    )


def where_proven(fn: Callable[..., Any], proven: Bool[Array, ""], *operands: PyTree) -> Any:
    """`fn(*operands)`, an array or a tree of arrays; NaN, and with derivatives of NaN, unless a maximum is proven.

    Derivatives that nobody asks for stay zero.

    Args:
        fn: what is wanted of a maximum.
        proven: True if it is one.
        operands: what that depends on.
    """
    return _where_proven(proven, operands, fn=fn)


@eqx.filter_custom_jvp
def _where_proven(proven: Array, operands: tuple[PyTree, ...], *, fn: Callable[..., Any]) -> Any:
    return jax.tree.map(lambda leaf: jnp.where(proven, leaf, jnp.nan), fn(*operands))


@_where_proven.def_jvp
def _where_proven_jvp(primals: Any, tangents: Any, *, fn: Callable[..., Any]) -> tuple[Any, Any]:
    (proven, operands), (_, operand_tangents) = primals, tangents
    found = _where_proven(proven, operands, fn=fn)
    operand_tangents, poison = mask_tangents(proven, operand_tangents, found)
    moved = differential(lambda operands: fn(*operands), operands, operand_tangents)
    return found, jax.tree.map(jnp.add, moved, poison)


def with_derivative_of(value: Any, operands: PyTree, fn: Callable[[PyTree], Any]) -> Any:
    """A value that is known already, with the derivative of `fn(operands)`, which it is the value of."""
    return _with_derivative_of(value, operands, fn=fn) if transforming() else value


@eqx.filter_custom_jvp
def _with_derivative_of(value: Any, operands: PyTree, *, fn: Callable[[PyTree], Any]) -> Any:
    return value


@_with_derivative_of.def_jvp
def _with_derivative_of_jvp(primals: Any, tangents: Any, *, fn: Callable[[PyTree], Any]) -> tuple[Any, Any]:
    (value, operands), (_, operand_tangents) = primals, tangents
    return _with_derivative_of(value, operands, fn=fn), differential(fn, operands, operand_tangents)


def without_derivative(value: PyTree, operands: PyTree) -> PyTree:
    """Arrays that describe a search: where `operands` change, their derivative is NaN."""
    return _without_derivative(value, operands) if transforming() else value


@eqx.filter_custom_jvp
def _without_derivative(value: PyTree, operands: PyTree) -> PyTree:
    return value


@_without_derivative.def_jvp
def _without_derivative_jvp(primals: Any, tangents: Any) -> tuple[PyTree, PyTree]:
    moving, floats = tangents[1], eqx.filter(primals[0], eqx.is_inexact_array)
    poison = mask_tangents(jnp.asarray(False), moving, floats)[1] if jax.tree.leaves((moving, floats)) else None
    return primals[0], eqx.combine(poison, jax.tree.map(lambda leaf: None, primals[0]))


def differentiable_weights(objective: Objective, tangents: PyTree, free: Float[Array, " n_free"]) -> Objective:
    """The objective for derivatives with respect to its weights, unless their tangents are `None`."""
    if tangents is None:
        return objective
    still = jax.lax.stop_gradient(free)
    likelihood = objective.likelihood.differentiable_weights(objective.parameters.natural(still))
    return dataclasses.replace(objective, likelihood=likelihood)


def mask_tangents(proven: Array, tangents: PyTree, like: PyTree) -> tuple[PyTree, PyTree]:
    """Tangents where a maximum is `proven`, zero elsewhere; and a tree to add to whatever follows from them.

    That is zero, but NaN where no maximum is proven and any tangent is not zero. Cotangents likewise: zero if the
    unproven output is unused, NaN otherwise. So a failed data set poisons derivatives of its own results only.
    """
    # One vector: a system of several arrays cannot be differentiated twice where only some of them change
    # (https://github.com/jax-ml/jax/issues/10929, seen with 0.10.2). Once it can: the pair of trees itself.
    vector, unravel = ravel_pytree((tangents, jax.tree.map(jnp.zeros_like, like)))
    size = vector.size - sum(leaf.size for leaf in jax.tree.leaves(like))

    def poisoned(part: Array, other: Array) -> Array:
        return jnp.where(proven, part, jnp.where(jnp.any(other != 0), jnp.nan, 0.0))

    def forward(_: Any, both: Array) -> Array:
        moving, still = both[:size], both[size:]
        return jnp.concatenate([jnp.where(proven, moving, 0.0), poisoned(still, moving)])

    def backward(_: Any, both: Array) -> Array:
        moving, still = both[:size], both[size:]
        return jnp.concatenate([poisoned(moving, still), jnp.where(proven, still, 0.0)])

    # custom_linear_solve with the identity: the only public way to give a linear map its own transpose rule, until
    # https://github.com/jax-ml/jax/issues/9129 is closed.
    return unravel(jax.lax.custom_linear_solve(lambda it: it, vector, forward, backward))
