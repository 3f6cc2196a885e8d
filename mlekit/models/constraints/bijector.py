"""Bijectors of other libraries as constraints."""

# ruff: noqa: D102 - the five methods are documented in `Constraint`, their formulas and shapes by each class
from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ...core.dtypes import promoted
from .base import Constraint, like, show, trouble


class Bijector(Constraint):
    """A bijector of another library: distreqx and TFP (`forward`, `inverse`), numpyro (a call, `.inv`).

    Args:
        bijector: the object, which handles leading axes in its own way.
    """

    # In flat parts: objects of TFP break where their arrays are taken out to be traced
    # (https://github.com/patrick-kidger/equinox/issues/911, seen with TFP 0.26). Once they are trees like others:
    # the object itself, in one field.
    leaves: list[Any]
    structure: Any = eqx.field(static=True)

    def __init__(self, bijector: Any) -> None:
        self.leaves, self.structure = jax.tree.flatten(bijector)

    @property
    def bijector(self) -> Any:
        """The object."""
        return jax.tree.unflatten(self.structure, self.leaves)

    def forward(self, free: ArrayLike) -> Array:
        free, bijector = like(free, free), self.bijector
        return jnp.asarray(promoted(getattr(bijector, "forward", bijector), free), free.dtype)

    def inverse(self, value: ArrayLike) -> Array:
        value, bijector = like(value, value), self.bijector
        inverse = bijector.inverse if hasattr(bijector, "inverse") else bijector.inv
        return jnp.asarray(promoted(inverse, value), value.dtype)

    def free_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        try:
            return jax.eval_shape(self.inverse, jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape
        except Exception as error:  # of any type: the message must name the shape
            raise ValueError(f"{self.bijector} does not suit a parameter of shape {shape}: {error}") from error

    def problem(self, value: np.ndarray) -> str | None:
        def inside(v: np.ndarray) -> bool:
            free = self.inverse(v)
            back, slack = self.forward(free), float(jnp.finfo(free.dtype).eps) ** 0.5
            # The absolute slack is in units of the value, which may be of size 1e-6.
            close = np.allclose(back, v, rtol=slack, atol=slack * float(np.max(abs(v), initial=0)))
            return close and bool(jnp.all(jnp.isfinite(free)))

        with jax.ensure_compile_time_eval():  # the value is known inside `jit` too
            hint = f"start it at {show(self.forward(jnp.zeros(self.free_shape(value.shape))))}, say"
            return trouble(value, inside, f"be a value that {self.bijector} can reach", hint)
