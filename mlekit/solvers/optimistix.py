"""Any optimistix minimiser as a solver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..core.status import RUNNING, Status
from .base import AbstractSolver, Stop
from .objective import AbstractObjective
from .optax import CHUNK, cauchy_decrement

if TYPE_CHECKING:
    import optimistix


#: So many steps in a row without any move mean that a line search ends nowhere, however often it halves its step.
IDLE_STEPS = 100


class OptimistixState(eqx.Module):
    """Where the minimiser stands.

    Args:
        free: what it would return.
        loss: there.
        point: where it goes on from.
        inner: the arrays of its own state; what else that holds is the same at every step.
        idle: steps in a row that led nowhere.
        decrement: a lower bound.
        steps: steps of the minimiser.
        status: a `Status` value.
    """

    free: Float[Array, " n_free"]
    loss: Float[Array, ""]
    point: Float[Array, " n_free"]
    inner: tuple[Array, ...]
    idle: Int[Array, ""]
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
        """How the solver shows in tables."""
        return f"Optimistix({type(self.minimiser).__name__})"

    def init(self, free: Float[Array, " n_free"]) -> OptimistixState:
        """The state before the first step; its `inner` has the right shapes, and nothing in it yet."""
        try:
            inner = eqx.filter_eval_shape(self._begin, lambda point, args: (jnp.sum(point), jnp.sum(point)), free)
        except KeyError as error:
            raise TypeError(f"solver: {self.name} wants the option {error}, which mlekit cannot give it") from None
        shapes = jax.tree.leaves(eqx.filter(inner, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)))
        return OptimistixState(
            free=free,
            loss=jnp.asarray(jnp.inf, free.dtype),
            point=_wide(free),
            inner=tuple(jnp.zeros(leaf.shape, leaf.dtype) for leaf in shapes),
            idle=jnp.asarray(0, jnp.int32),
            decrement=jnp.asarray(jnp.inf, free.dtype),
            steps=jnp.asarray(0, jnp.int32),
            status=jnp.asarray(RUNNING, jnp.int32),
        )

    def step(self, objective: AbstractObjective, state: OptimistixState, stop: Stop) -> OptimistixState:
        """`CHUNK` steps of the minimiser, fewer where it stops, and a look at convergence."""
        import optimistix

        minimiser = self.minimiser

        def loss_twice(point: Array, args: None) -> tuple[Array, Array]:
            loss = _wide(objective(point))
            return loss, loss

        begun, others = eqx.partition(self._begin(loss_twice, state.free), eqx.is_array)
        first = state.steps == 0

        def whole(inner: tuple[Array, ...]) -> Any:
            return eqx.combine(jax.tree.unflatten(jax.tree.structure(begun), inner), others)

        def decided(point: Array, inner: tuple[Array, ...]) -> tuple[Array, Any]:
            return minimiser.terminate(loss_twice, point, None, {}, whole(inner), frozenset())

        def goes_on(carry: tuple[Any, ...]) -> Array:
            point, inner, _, _, steps = carry
            done, result = decided(point, inner)
            fine = (result == optimistix.RESULTS.successful) & jnp.all(jnp.isfinite(point))
            return ~done & fine & (steps < jnp.minimum(stop.max_steps, state.steps + CHUNK))

        def one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            point, inner, opening, _, steps = carry
            point, after, loss = minimiser.step(loss_twice, point, None, {}, whole(inner), frozenset())
            after = jax.tree.leaves(eqx.filter(after, eqx.is_array))
            inner = tuple(new.astype(old.dtype) for new, old in zip(after, inner, strict=True))
            # By its contract a step returns what the function said of the point it began at.
            return point, inner, jnp.where(steps == 0, loss, opening), loss, steps + 1

        inner = tuple(
            jnp.where(first, new, old) for new, old in zip(jax.tree.leaves(begun), state.inner, strict=True)
        )
        begin = (state.point, inner, _wide(state.loss), _wide(state.loss), state.steps)
        point, inner, opening, last, steps = jax.lax.while_loop(goes_on, one, begin)
        done, result = decided(point, inner)
        best, _, _ = minimiser.postprocess(loss_twice, point, last, None, {}, whole(inner), frozenset(), result)
        free = best.astype(state.free.dtype)
        loss, decrement = cauchy_decrement(objective, free)

        believes = done | (decrement <= 0.1 * stop.tolerance)
        status = jnp.where(believes, Status.converged, RUNNING)
        lost = ~jnp.isfinite(loss) | ~jnp.all(jnp.isfinite(free))
        idle = jnp.where(jnp.all(point == state.point), state.idle + steps - state.steps, 0)
        gives_up = (result != optimistix.RESULTS.successful) | ((idle >= IDLE_STEPS) & ~believes)
        status = jnp.where(lost | gives_up, Status.stalled, status)
        status = jnp.where(first & ~jnp.isfinite(opening), Status.nonfinite_start, status)
        return OptimistixState(
            free=jnp.where(lost, state.free, free),
            loss=jnp.where(lost, state.loss, loss),
            point=point,
            inner=inner,
            idle=idle,
            decrement=decrement,
            steps=steps,
            status=status.astype(jnp.int32),
        )

    def _begin(self, fn: Any, free: Array) -> Any:
        """The minimiser's own state at a start."""
        point = _wide(free)
        number = jax.ShapeDtypeStruct((), point.dtype)
        return self.minimiser.init(fn, point, None, {}, number, number, frozenset())


def _wide(array: Array) -> Array:
    """In JAX's default precision: some minimisers mix it with what they are given, and then JAX refuses."""
    return array.astype(jnp.result_type(float))
