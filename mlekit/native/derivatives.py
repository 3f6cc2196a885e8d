"""What one row adds to loss, gradient and matrix of second order, as nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .arrays import Array, small
from .interpreter import Interpreter
from .nodes import Node


class RowTerms(NamedTuple):
    """What one row adds.

    Args:
        loss: to the loss.
        gradient: to each entry of the gradient.
        matrix: to each entry of the upper triangle of the matrix, row by row; None where there is no matrix.
    """

    loss: Node
    gradient: list[Node]
    matrix: list[Node] | None

    @property
    def all(self) -> list[Node]:
        """All of them in this order."""
        return [self.loss, *self.gradient, *(self.matrix or [])]


#: The loss of one row: `loss(free, settings, obs)`.
Loss = Callable[[Any, Any, Any], Any]
#: Makes the terms: given an interpreter, the entries of the free vector, and the leaves of settings and row.
Terms = Callable[[Interpreter, np.ndarray, Sequence[Array], Sequence[Array]], RowTerms]


def gradient(loss: Loss, free: Any, settings: Any, obs: Any) -> Terms:
    """Loss and gradient.

    Args:
        loss: of one row.
        free: shape and dtype of the free vector.
        settings: PyTree of shapes and dtypes of what else the loss depends on.
        obs: PyTree of those of a row.
    """
    jaxpr = jax.make_jaxpr(jax.value_and_grad(loss))(free, settings, obs)

    def terms(
        interpreter: Interpreter, z: np.ndarray, settings: Sequence[Array], obs: Sequence[Array]
    ) -> RowTerms:
        value, slope = interpreter.closed(jaxpr, [z, *settings, *obs])
        return RowTerms(interpreter.element(value, ()), interpreter.all_elements(slope), None)

    return terms


def outer_product(loss: Loss, free: Any, settings: Any, obs: Any) -> Terms:
    """Loss, gradient, and the outer product of the gradient of each row; arguments as of `gradient`."""
    first = gradient(loss, free, settings, obs)

    def terms(
        interpreter: Interpreter, z: np.ndarray, settings: Sequence[Array], obs: Sequence[Array]
    ) -> RowTerms:
        found = first(interpreter, z, settings, obs)
        pairs = [(i, j) for i in range(len(z)) for j in range(i, len(z))]
        slope = found.gradient
        return found._replace(matrix=[interpreter.graph.mul(slope[i], slope[j]) for i, j in pairs])

    return terms


def exact(loss: Loss, free: Any, settings: Any, obs: Any) -> Terms:
    """Loss, gradient and Hessian, one direction after the other; arguments as of `gradient`."""

    def change(z: Any, direction: Any, settings: Any, obs: Any) -> tuple[Any, Any]:
        first = lambda z: jax.value_and_grad(loss)(z, settings, obs)  # noqa: E731
        return jax.jvp(first, (z,), (direction,))

    jaxpr = jax.make_jaxpr(change)(free, free, settings, obs)

    def terms(
        interpreter: Interpreter, z: np.ndarray, settings: Sequence[Array], obs: Sequence[Array]
    ) -> RowTerms:
        graph, k, type = interpreter.graph, len(z), z[0].type
        matrix: list[Node] = []
        for i in range(k):
            direction = [graph.constant(1, type) if j == i else graph.no_change(type) for j in range(k)]
            value, slope, _, row = interpreter.closed(jaxpr, [z, small((k,), direction), *settings, *obs])
            matrix += interpreter.all_elements(row)[i:]
        return RowTerms(interpreter.element(value, ()), interpreter.all_elements(slope), matrix)

    return terms


def with_matrix(matrix_of_row: Loss, loss: Loss, free: Any, settings: Any, obs: Any) -> Terms:
    """Loss, gradient, and a matrix made from derivatives in given directions.

    Args:
        matrix_of_row: `matrix_of_row(free, settings, obs)`. Its known zeros, as of the unit vectors that it takes
            derivatives along, count as directions that nothing moves along.
        loss: of one row.
        free: shape and dtype of the free vector.
        settings: PyTree of shapes and dtypes of what else both depend on.
        obs: PyTree of those of a row.
    """
    first = gradient(loss, free, settings, obs)
    jaxpr = jax.make_jaxpr(matrix_of_row)(free, settings, obs)

    def terms(
        interpreter: Interpreter, z: np.ndarray, settings: Sequence[Array], obs: Sequence[Array]
    ) -> RowTerms:
        found = first(interpreter, z, settings, obs)
        interpreter.graph.zeros_vanish = True
        (whole,) = interpreter.closed(jaxpr, [z, *settings, *obs])
        interpreter.graph.zeros_vanish = False
        k, entries = len(z), interpreter.small(whole)
        return found._replace(matrix=[entries[i, j] for i in range(k) for j in range(i, k)])

    return terms


def shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype."""
    x = x if hasattr(x, "dtype") else jnp.asarray(x)
    return jax.ShapeDtypeStruct(jnp.shape(x), x.dtype)
