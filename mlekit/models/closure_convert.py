"""Closure conversion: arrays that a model closes over become leaves, so that derivatives reach them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..core.trees import is_array, traced, transforming
from .model import Joint, Model
from .regression_density import Regression


class ConvertedClosure(eqx.Module):
    """A function whose closed-over arrays are among its leaves.

    For arguments of other shapes than those of the conversion it is the original function.

    Args:
        arrays: the closed-over arrays.
        program: the function as a jaxpr.
        shapes: of the arguments at the conversion.
        treedef: of the result.
        original: the function itself.
    """

    arrays: list[Array]
    program: Any = eqx.field(static=True)
    shapes: Any = eqx.field(static=True)
    treedef: Any = eqx.field(static=True)
    original: Callable[..., Any] = eqx.field(static=True)

    def __call__(self, *args: Any) -> Any:
        """The function's value."""
        leaves, shapes = _signature(args)
        if shapes != self.shapes:
            return self.original(*args)
        out = jax.core.eval_jaxpr(self.program, self.arrays, *leaves)
        return jax.tree.unflatten(self.treedef, out)


def convert_closure(model: Model, example: Callable[[], tuple[PyTree, PyTree, PyTree]]) -> Model:
    """The model with those closed-over arrays among its leaves that a transformation of JAX traces.

    A model that closes over no such array is handed back as it is, and so is every model outside of
    transformations.

    Args:
        model: the model.
        example: makes `params`, the observation or data that the model gets, and `args`, `None` if it takes two
            arguments; shapes will do.
    """
    if not transforming():
        return model
    *both, args = example()
    seen = (*both, *(() if args is None else (args,)))
    density: Any = model.log_density
    parts: dict[type, str] = {Regression: "predict", Joint: "contributions"}
    part = parts.get(type(density))
    fn = density if part is None else getattr(density, part)
    if (found := _convert(fn, seen)) is fn:
        return model
    changed = found if part is None else dataclasses.replace(density, **{part: found})
    return dataclasses.replace(model, log_density=changed)


def is_converted(model: Model) -> bool:
    """True if `convert_closure` changed the model."""
    leaves = jax.tree.leaves(model, is_leaf=lambda leaf: isinstance(leaf, ConvertedClosure))
    return any(isinstance(leaf, ConvertedClosure) for leaf in leaves)


def _convert(fn: Callable[..., Any], example: tuple[Any, ...]) -> Any:
    leaves, shapes = _signature(example)
    out: list[Any] = []

    def flat(*leaves: Array) -> list[Array]:
        structure, others = shapes[0], shapes[2]
        it = iter(leaves)
        value = fn(*jax.tree.unflatten(structure, [next(it) if other is None else other for other in others]))
        parts, treedef = jax.tree.flatten(value)
        out.append(treedef)
        return [jnp.asarray(part) for part in parts]

    known = {id(leaf) for leaf in jax.tree.leaves(fn)}
    try:
        found = jax.make_jaxpr(flat)(*leaves)
    except (KeyError, TypeError, IndexError):  # such as an unknown name: the likelihood raises a better error
        return fn
    if not any(traced(const) and id(const) not in known for const in found.consts):
        return fn
    return ConvertedClosure(list(found.consts), found.jaxpr, shapes, out[-1], fn)


def _signature(args: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """The arrays among the leaves, and a key of their structure and of all other leaves."""
    leaves, treedef = jax.tree.flatten(args)
    counts = [is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves]
    kinds = tuple(_kind(leaf) for leaf, yes in zip(leaves, counts) if yes)
    others = tuple(None if yes else leaf for leaf, yes in zip(leaves, counts))
    return [leaf for leaf, yes in zip(leaves, counts) if yes], (treedef, kinds, others)


def _kind(leaf: Any) -> tuple[tuple[int, ...], Any]:
    like = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    return like.shape, like.dtype


def observation_struct(model: Model, data: PyTree, axes: int, rows: int) -> PyTree:
    """The shapes of a model's second argument: one observation, or all `rows` of a data set if it is joint.

    Args:
        model: the model.
        data: the data.
        axes: leading axes that the data have over one observation.
        rows: of a data set.
    """

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        shape, dtype = _kind(leaf)
        return jax.ShapeDtypeStruct((rows, *shape[axes:]) if model.is_joint else shape[axes:], dtype)

    return jax.tree.map(shape, data)
