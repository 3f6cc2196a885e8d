"""Any optax optimiser as a solver, on the whole data set or on mini-batches."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..core.checks import check_count
from ..core.dtypes import promoted
from ..core.status import RUNNING, Status
from ..core.trees import choose
from .base import AbstractSolver, Stop
from .box import Box
from .objective import AbstractObjective

if TYPE_CHECKING:
    import optax


#: Optimiser steps between two looks at convergence, which cost as much as a few of them.
CHUNK = 25


class Transformation:
    """An optax transformation that equals another one made by the same call.

    `optax.adam(1e-2)` makes new functions each time. Two of them do the same if their code is optax's own and
    what it closes over is equal; then a compiled fit serves both. Anything else equals itself alone.
    """

    def __init__(self, optimizer: optax.GradientTransformation) -> None:
        import optax

        self.extended = optax.with_extra_args_support(optimizer)
        key = _identity(tuple(optimizer))
        try:
            self._hash = hash(key)
            self._key = key
        except TypeError:
            self._hash, self._key = id(optimizer), id(optimizer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transformation) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash


class OptaxState(eqx.Module):
    """The state of an optimiser."""

    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    inner: Any
    decrement: Float[Array, ""]
    steps: Int[Array, ""]
    status: Int[Array, ""]


class Optax(AbstractSolver):
    r"""An optax optimiser on minus the mean log-likelihood.

    Every `CHUNK` steps it looks whether the gradient direction itself could still gain anything,
    $\tfrac12 n (g^T g)^2 / g^T H g$, and stops if not; `mle.fit` then proves or refutes the maximum. With
    `batch_size` it takes that many observations a step, each epoch in a new random order, and stops after
    `steps`.

    Args:
        optimizer: an `optax.GradientTransformation`; those with a line search work as well.
        batch_size: observations a step; `None` means all.
        steps: steps to take at most; `max_steps` of `mle.fit`, if given, overrules it.
        key: a `jax.random.key` for the mini-batches; needed with `batch_size`.

    Raises:
        TypeError: `optimizer` is no optax transformation.
        ValueError: a `batch_size` below one or without `key`, or `steps` below one.

    Example:
        >>> import jax, optax, mlekit as mle
        >>> mle.Optax(optax.adam(1e-2), batch_size=128, steps=2000, key=jax.random.key(0)).name
        'Optax(batch_size=128)'
    """

    transformation: Transformation = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    steps: int | None = eqx.field(static=True)
    key: PRNGKeyArray | None

    def __init__(
        self,
        optimizer: optax.GradientTransformation,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        key: PRNGKeyArray | None = None,
    ) -> None:
        import optax  # where it is used: it is slow to import

        if not isinstance(optimizer, optax.GradientTransformation):
            raise TypeError(f"optimizer must be an optax.GradientTransformation, got {type(optimizer).__name__}")
        for name, count in (("batch_size", batch_size), ("steps", steps)):
            if count is not None:
                check_count(count, f"Optax: {name}")
        if batch_size is not None and key is None:
            raise ValueError("Optax: batch_size draws observations at random and needs key=jax.random.key(...)")
        self.transformation = Transformation(optimizer)
        self.batch_size = batch_size
        self.steps = steps
        self.key = key

    @property
    def default_max_steps(self) -> int:  # type: ignore[override]
        """Default of `max_steps`."""
        return self.steps or 10_000

    @property
    def name(self) -> str:
        """The solver's name in tables."""
        return f"Optax(batch_size={self.batch_size})" if self.batch_size else "Optax"

    def init(self, free: Float[Array, " n_free"]) -> OptaxState:
        """The state before the first step."""
        return OptaxState(
            free=free,
            loss=jnp.asarray(jnp.inf, free.dtype),
            inner=promoted(self.transformation.extended.init, free),
            decrement=jnp.asarray(jnp.inf, free.dtype),
            steps=jnp.asarray(0, jnp.int32),
            status=jnp.asarray(RUNNING, jnp.int32),
        )

    def step(self, objective: AbstractObjective, state: OptaxState, stop: Stop) -> OptaxState:
        """`CHUNK` steps of the optimiser, or one epoch of mini-batches, and a look at convergence."""
        chunk, batches = self._batches(objective, state.steps)

        def step_once(carry: tuple[Array, Any, Array], j: Array) -> tuple[tuple[Array, Any, Array], Array]:
            free, inner, steps = carry
            part = batches(j)
            here = part.evaluate(free)
            gradient, value_fn, box = here.gradient, part, part.box
            if box is not None:
                gradient = box.inner_gradient(free, gradient)
                value_fn = _ClippedLoss(part, box)
            known = {"value": here.loss, "grad": gradient, "value_fn": value_fn}
            updates, after = promoted(
                functools.partial(self.transformation.extended.update, **known), gradient, inner, free
            )
            go = steps < stop.max_steps
            moved = free + updates.astype(free.dtype)
            free = jnp.where(go, moved if box is None else box.clip(moved), free)
            inner = choose(go, after, inner)
            return (free, inner, steps + go.astype(jnp.int32)), here.loss

        start = (state.free, state.inner, state.steps)
        (free, inner, steps), losses = jax.lax.scan(step_once, start, jnp.arange(chunk))
        first = state.steps == 0
        bad_start = first & ~jnp.isfinite(losses[0])
        if self.batch_size is None:
            loss, decrement = cauchy_decrement(objective, free)
            status = jnp.where(decrement <= 0.1 * stop.tolerance, Status.converged, RUNNING)
        else:
            loss, decrement = losses[-1], state.decrement
            status = jnp.asarray(RUNNING)
        lost = ~jnp.isfinite(loss) | ~jnp.all(jnp.isfinite(free))
        status = jnp.where(lost, Status.stalled, status)
        status = jnp.where(bad_start, Status.nonfinite_start, status)
        keep = lambda new, old: jnp.where(lost, old, new)  # noqa: E731
        return OptaxState(
            free=keep(free, state.free),
            loss=keep(loss, state.loss).astype(state.loss.dtype),
            inner=jax.tree.map(keep, inner, state.inner),
            decrement=decrement,
            steps=steps,
            status=status.astype(jnp.int32),
        )

    def _batches(self, objective: AbstractObjective, steps: Array) -> tuple[int, Any]:
        """The number of optimiser steps to take, and the objective of each."""
        if self.batch_size is None:
            return CHUNK, lambda j: objective
        assert self.key is not None
        return objective.minibatches(self.key, steps, self.batch_size)


class _ClippedLoss(eqx.Module):
    """The loss at the nearest point in a box, for line searches."""

    objective: AbstractObjective
    box: Box

    def __call__(self, free: Array) -> Array:
        return self.objective(self.box.clip(free.astype(self.box.low.dtype)))


def cauchy_decrement(objective: AbstractObjective, free: Array) -> tuple[Array, Array]:
    """The loss, and the gain of the best step along the gradient: a lower bound of the decrement."""
    here = objective.evaluate(free)
    loss, gradient = here.loss, here.gradient
    if here.box is not None:
        gradient = here.box.inner_gradient(free, gradient)
    _, product = jax.jvp(lambda z: objective.evaluate(z).gradient, (free,), (gradient,))
    slope, curvature = jnp.dot(gradient, gradient), jnp.dot(gradient, product)
    gain = 0.5 * objective.n_obs * slope**2 / jnp.where(curvature > 0, curvature, 1.0)
    return loss, jnp.where(slope == 0, 0.0, jnp.where(curvature > 0, gain, jnp.inf))


def _identity(thing: Any, seen: tuple[int, ...] = ()) -> Any:
    """A key under which functions made by the same call of optax are equal; itself for anything else."""
    if isinstance(thing, tuple):
        return (type(thing), *(_identity(part, seen) for part in thing))
    if not isinstance(thing, types.FunctionType) or id(thing) in seen:
        return (type(thing), thing)
    if not str(thing.__module__).startswith("optax."):
        return (type(thing), thing)
    seen = (*seen, id(thing))
    try:
        cells = tuple(cell.cell_contents for cell in thing.__closure__ or ())
    except ValueError:  # a cell that is still empty
        return (type(thing), thing)
    keywords = tuple(sorted((thing.__kwdefaults__ or {}).items()))
    parts = (*cells, *(thing.__defaults__ or ()), *(value for _, value in keywords))
    return (thing.__code__, tuple(_identity(part, seen) for part in parts))
