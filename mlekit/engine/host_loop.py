"""A search whose loop runs in Python, so that its steps can be seen; its numbers are those of a compiled one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..core.compilation import Compiled
from .checkpoint import Checkpointer
from .search import Steps


@runtime_checkable
class Callback(Protocol):
    """Sees the steps of a search."""

    every: int  #: steps between two calls, at most

    def __call__(
        self,
        steps: Int[Array, ""],
        log_likelihood: Float[Array, ""],
        decrement: Float[Array, ""],
        vector: Float[Array, " k"],
        /,
    ) -> None:
        """See where the search is.

        Args:
            steps: steps taken in all.
            log_likelihood: the sum, in nats; NaN while only a sample of the rows is looked at.
            decrement: in nats.
            vector: the scalar parameters, in natural units.
        """


class HostLoop:
    """A loop in Python around a solver's steps, which calls back; one search may have several loops in a row.

    Args:
        callbacks: called after each stretch of steps.
        checkpointer: saves what the loops carry, if that is wanted.
    """

    def __init__(self, callbacks: Sequence[Callback], checkpointer: Checkpointer | None = None) -> None:
        self._callbacks, self._checkpointer = callbacks, checkpointer
        every = [one.every for one in (*callbacks, checkpointer) if one is not None]
        self._every = jnp.asarray(min(every), jnp.int32)
        self._before: Any = None

    def __call__(self, steps: Steps, state: Any) -> Any:
        """The solver's last state."""
        # Where a solver takes over at a point that was known, its first step is no new one.
        before = 0 if self._before is None else self._before - int(not state.is_newton_step)
        carry = steps.begin(state)
        if self._checkpointer is not None:
            carry = self._checkpointer.begin(carry)
        while bool(steps.unfinished(carry)):
            carry, point = jax.block_until_ready(_advance(steps, carry, self._every))
            for callback in self._callbacks:
                callback(before + point[0], *point[1:])
            if self._checkpointer is not None:
                self._checkpointer.keep(carry, int(self._every), ended=not bool(steps.unfinished(carry)))
        state = steps.state(carry)
        self._before = before + state.steps
        return state


@Compiled
def _advance(steps: Steps, carry: Any, length: Int[Array, ""]) -> tuple[Any, tuple[Array, ...]]:
    """So many steps further, and the arguments of callbacks there."""

    def unfinished(both: tuple[Any, Array]) -> Array:
        return steps.unfinished(both[0]) & (both[1] < length)

    def step(both: tuple[Any, Array]) -> tuple[Any, Array]:
        return steps.step(both[0]), both[1] + 1

    carry, _ = jax.lax.while_loop(unfinished, step, (carry, jnp.zeros_like(length)))
    state, objective = steps.state(carry), steps.objective
    log_likelihood = jnp.where(steps.of_all_rows(carry), -state.loss * objective.n_obs, jnp.nan)
    return carry, (state.steps, log_likelihood, state.decrement, objective.parameters.natural_vector(state.free))
