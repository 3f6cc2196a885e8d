"""Log-densities that only reverse mode can differentiate: forward mode is made of it.

So are those with a solver of differential equations inside, or any `jax.custom_vjp`.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..core.checks import first_line
from .model import Joint, Model
from .regression_density import Regression

Found = TypeVar("Found")
#: Log-densities that are known to have no forward mode, so that it is not tried again.
_KNOWN: weakref.WeakSet[Any] = weakref.WeakSet()
#: What JAX and its friends raise, and say, where a function has no derivative in forward mode, or none at all.
ERRORS = (TypeError, ValueError, NotImplementedError, RuntimeError)
NO_FORWARD = ("custom_vjp", "jvp", "forward-mode")
NO_REVERSE = ("reverse-mode differentiation does not work",)
NO_DERIVATIVE = (*NO_FORWARD, "reverse-mode", "differentiat", "autodiff")


class ThroughReverse(eqx.Module):
    """A function whose derivatives in forward mode, to every order, are products with those of reverse mode.

    Args:
        fn: the function; it returns arrays.
    """

    fn: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """The function's value."""
        kinds: list[Any] = []

        def leaves(whole: PyTree) -> list[Array]:
            fn, args = whole
            found, treedef = jax.tree.flatten(fn(*args))
            kinds.append(treedef)
            return [jnp.asarray(leaf) for leaf in found]

        found = _call(leaves, (self.fn, args))
        return jax.tree.unflatten(kinds[-1], found)


@eqx.filter_custom_jvp
def _call(fn: Callable[[PyTree], list[Array]], operands: PyTree) -> list[Array]:
    return fn(operands)


@_call.def_jvp
def _call_jvp(primals: Any, tangents: Any) -> tuple[list[Array], list[Array]]:
    (fn, operands), (_, changes) = primals, tangents
    moving, still = eqx.partition(operands, jax.tree.map(lambda _, change: change is not None, operands, changes))
    leaves, treedef = jax.tree.flatten(moving)

    def slopes(both: tuple[list[Array], PyTree]) -> list[Array]:
        leaves, still = both

        def at(leaves: list[Array]) -> list[Array]:
            return fn(eqx.combine(jax.tree.unflatten(treedef, leaves), still))

        return jax.tree.leaves(jax.jacrev(at)(leaves))

    out = _call(fn, operands)
    jacobian = iter(_call(slopes, (leaves, still)))
    moves = jax.tree.leaves(changes)
    products: list[Array] = []
    for value in out:
        parts = [jnp.tensordot(next(jacobian), move, move.ndim).astype(value.dtype) for move in moves]
        products.append(sum(parts, jnp.zeros_like(value)))
    return out, products


def through_reverse(model: Model) -> Model:
    """The model with derivatives of all kinds made of reverse mode."""
    density: Any = model.log_density
    parts: dict[type, str] = {Regression: "predict", Joint: "contributions"}
    part = parts.get(type(density))
    if part is None:
        return dataclasses.replace(model, log_density=ThroughReverse(density))
    changed = dataclasses.replace(density, **{part: ThroughReverse(getattr(density, part))})
    return dataclasses.replace(model, log_density=changed)


def with_fallback(attempt: Callable[[Callable[[Model], Model]], Found], log_density: Any) -> Found:
    """What `attempt` returns for a model as it is, or for one that only reverse mode differentiates.

    Forward mode costs less, so it is tried first; that a function has none shows while it is traced.

    Args:
        attempt: `attempt(change)` does the work with `change(model)`.
        log_density: the log-density as the user passed it.

    Raises:
        TypeError: neither can be done.
    """
    if not _is_known(log_density):
        try:
            return attempt(lambda model: model)
        except ERRORS as error:
            if _says(error, NO_REVERSE):
                raise TypeError(f"log_density cannot be differentiated in reverse: {first_line(error)}") from error
            if not _says(error, NO_FORWARD):
                raise
    try:
        found = attempt(through_reverse)
    except ERRORS as error:
        if not _says(error, NO_DERIVATIVE):
            raise
        raise TypeError(
            f"log_density cannot be differentiated twice: {first_line(error)} Give a solver of diffrax "
            "adjoint=diffrax.DirectAdjoint(); where a function of your own has a jax.custom_vjp or calls Python, "
            "give it a jax.custom_jvp"
        ) from error
    _remember(log_density)
    return found


def _says(error: Exception, words: tuple[str, ...]) -> bool:
    if isinstance(error, jax.errors.JaxRuntimeError):  # while it runs, no longer while it is traced
        return False
    return any(word in str(error).lower() for word in words)


def _is_known(log_density: Any) -> bool:
    try:
        return log_density in _KNOWN
    except TypeError:  # it has no hash
        return False


def _remember(log_density: Any) -> None:
    if callable(log_density) and not isinstance(log_density, eqx.Module):
        try:
            _KNOWN.add(log_density)
        except TypeError:  # nothing can refer to it weakly
            return
