"""Any optimistix minimiser as a solver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..core.dtypes import promoted
from ..core.status import RUNNING, Status
from .base import AbstractSolver, Stop
from .objective import AbstractObjective
from .optax import CHUNK, cauchy_decrement

if TYPE_CHECKING:
    import optimistix


#: After so many steps in a row without a move a line search is stuck.
IDLE_STEPS = 100


class OptimistixState(eqx.Module):
    """The state of a minimiser.

    Args:
        free: the point that it would return.
        loss: the loss there.
        point: the point of its next step.
        inner: the arrays of its own state; the rest of that is the same at every step.
        n_idle: steps in a row that did not move the point.
        decrement: a lower bound.
        steps: steps of the minimiser.
        status: a `Status` value.
    """

    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    point: Float[Array, " n_free"]
    inner: tuple[Array, ...]
    n_idle: Int[Array, ""]
    decrement: Float[Array, ""]
    steps: Int[Array, ""]
    status: Int[Array, ""]


class Optimistix(AbstractSolver):
    r"""An optimistix minimiser on minus the mean log-likelihood.

    It stops where the minimiser's own `rtol` and `atol` tell it to. Every `CHUNK` steps it also looks whether
    the gradient direction itself could still gain anything, $\tfrac12 n (g^T g)^2 / g^T H g$, and stops if not;
    `mle.fit` then proves or refutes the maximum.

    Args:
        minimiser: an `optimistix.AbstractMinimiser`, such as `optimistix.BFGS(rtol=1e-8, atol=1e-8)`.

    Raises:
        TypeError: `minimiser` is none, or one that wants further options.

    Example:
        >>> import optimistix
        >>> Optimistix(optimistix.NelderMead(rtol=1e-6, atol=1e-6)).name
        'Optimistix(NelderMead)'
    """

    minimiser: optimistix.AbstractMinimiser
    default_max_steps = 10_000

    def __init__(self, minimiser: optimistix.AbstractMinimiser) -> None:
        import optimistix  # where it is used: it is no dependency

        if not isinstance(minimiser, optimistix.AbstractMinimiser):
            a_class = isinstance(minimiser, type)
            got = f"the class {minimiser.__name__}" if a_class else f"a {type(minimiser).__name__}"
            raise TypeError(
                "solver: a log-likelihood has no residuals to square and no root to find; it wants a minimiser, "
                f"such as optimistix.BFGS(rtol=1e-8, atol=1e-8) with its brackets; got {got}"
            )
        self.minimiser = minimiser

    @property
    def name(self) -> str:
        """The solver's name in tables."""
        return f"Optimistix({type(self.minimiser).__name__})"

    def init(self, free: Float[Array, " n_free"]) -> OptimistixState:
        """The state before the first step; its `inner` has the right shapes, and nothing in it yet."""
        try:
            inner = eqx.filter_eval_shape(
                self._initial, lambda point, args: (jnp.sum(point), jnp.sum(point)), free
            )
        except KeyError as error:
            raise TypeError(f"solver: {self.name} wants the option {error}, which mlekit cannot give it") from None
        shapes = jax.tree.leaves(eqx.filter(inner, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)))
        return OptimistixState(
            free=free,
            loss=jnp.asarray(jnp.inf, free.dtype),
            point=_wide(free),
            inner=tuple(jnp.zeros(leaf.shape, leaf.dtype) for leaf in shapes),
            n_idle=jnp.asarray(0, jnp.int32),
            decrement=jnp.asarray(jnp.inf, free.dtype),
            steps=jnp.asarray(0, jnp.int32),
            status=jnp.asarray(RUNNING, jnp.int32),
        )

    def step(self, objective: AbstractObjective, state: OptimistixState, stop: Stop) -> OptimistixState:
        """`CHUNK` steps of the minimiser, fewer where it stops, and a look at convergence."""
        import optimistix

        minimiser, box = self.minimiser, objective.box

        def loss_twice(point: Array, args: None) -> tuple[Array, Array]:
            loss = _wide(objective(point if box is None else box.clip(point.astype(state.free.dtype))))
            return loss, loss

        initial, others = eqx.partition(self._initial(loss_twice, state.free), eqx.is_array)
        first = state.steps == 0

        def full_state(inner: tuple[Array, ...]) -> Any:
            return eqx.combine(jax.tree.unflatten(jax.tree.structure(initial), inner), others)

        def terminated(point: Array, inner: tuple[Array, ...]) -> tuple[Array, Any]:
            return minimiser.terminate(loss_twice, point, None, {}, full_state(inner), frozenset())

        def goes_on(carry: tuple[Any, ...]) -> Array:
            point, inner, _, _, steps = carry
            done, result = terminated(point, inner)
            fine = (result == optimistix.RESULTS.successful) & jnp.all(jnp.isfinite(point))
            return ~done & fine & (steps < jnp.minimum(stop.max_steps, state.steps + CHUNK))

        def step_once(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            point, inner, first_loss, _, steps = carry
            point, after, loss = promoted(
                minimiser.step, loss_twice, point, None, {}, full_state(inner), frozenset()
            )
            after = jax.tree.leaves(eqx.filter(after, eqx.is_array))
            inner = tuple(new.astype(old.dtype) for new, old in zip(after, inner, strict=True))
            # By its contract a step returns the loss at the point it began at.
            return point, inner, jnp.where(steps == 0, loss, first_loss), loss, steps + 1

        inner = tuple(
            jnp.where(first, new, old) for new, old in zip(jax.tree.leaves(initial), state.inner, strict=True)
        )
        begin = (state.point, inner, _wide(state.loss), _wide(state.loss), state.steps)
        point, inner, first_loss, last, steps = jax.lax.while_loop(goes_on, step_once, begin)
        done, result = terminated(point, inner)
        best, _, _ = minimiser.postprocess(
            loss_twice, point, last, None, {}, full_state(inner), frozenset(), result
        )
        free = best.astype(state.free.dtype)
        free = free if box is None else box.clip(free)
        loss, decrement = cauchy_decrement(objective, free)

        claims = done | (decrement <= 0.1 * stop.tolerance)
        status = jnp.where(claims, Status.converged, RUNNING)
        lost = ~jnp.isfinite(loss) | ~jnp.all(jnp.isfinite(free))
        n_idle = jnp.where(jnp.all(point == state.point), state.n_idle + steps - state.steps, 0)
        gives_up = (result != optimistix.RESULTS.successful) | ((n_idle >= IDLE_STEPS) & ~claims)
        status = jnp.where(lost | gives_up, Status.stalled, status)
        status = jnp.where(first & ~jnp.isfinite(first_loss), Status.nonfinite_start, status)
        return OptimistixState(
            free=jnp.where(lost, state.free, free),
            loss=jnp.where(lost, state.loss, loss),
            point=point,
            inner=inner,
            n_idle=n_idle,
            decrement=decrement,
            steps=steps,
            status=status.astype(jnp.int32),
        )

    def _initial(self, fn: Any, free: Array) -> Any:
        """The minimiser's own state at a start."""
        point = _wide(free)
        number = jax.ShapeDtypeStruct((), point.dtype)
        return self.minimiser.init(fn, point, None, {}, number, number, frozenset())


def _wide(array: Array) -> Array:
    """In JAX's default precision: some minimisers mix it with what they are given, and then JAX refuses."""
    return array.astype(jnp.result_type(float))
