"""The path of a search: where it was after each step, and how far below the maximum."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree


class History(eqx.Module):
    """The points of a search after each of its steps: `Fit.history` of a fit with `history=True`.

    The first step evaluates the start. A step that brought nothing leaves the search where it was; those of an
    optax optimiser are recorded many at a time. Steps of Newton's method that prove what another solver
    found belong to the path; those on a sample of a large data set do not.
    The log-likelihood of mini-batches is that of the last one, scaled up.

    Args:
        steps: steps taken so far, shape `(points,)`.
        log_likelihood: there, the sum, in nats.
        decrement: nats that a perfect next step could still gain; infinite where the information is not positive
            definite, or not known.
        vector: the scalar parameters there in natural units, shape `(points, k)`.
        params: the same, a PyTree like `init` whose leaves have a leading axis of points.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> density = lambda rate, x: jnp.log(rate) - rate * x
        >>> fit = mle.fit(density, 1.0, jnp.array([1.0, 2.0, 3.0]), constraints=mle.positive, history=True)
        >>> print(fit.history.params.round(4))
        [1.     0.6065 0.5088 0.5001 0.5    0.5   ]
    """

    steps: Int[Array, " points"]
    log_likelihood: Float[Array, " points"]
    decrement: Float[Array, " points"]
    vector: Float[Array, "points k"]
    params: PyTree = None

    def __len__(self) -> int:
        return self.steps.shape[0]


class Recorder:
    """Keeps the points of a search: a `host_loop.Callback`."""

    every = 1

    def __init__(self) -> None:
        self._points: list[tuple[Array, ...]] = []

    def __call__(self, *point: Array) -> None:
        """Add a point: steps, log-likelihood, decrement and vector, as a `History` holds them."""
        self._points.append(point)

    def __len__(self) -> int:
        return len(self._points)

    @property
    def points(self) -> list[Array]:
        """All points so far, one array for each of what they hold."""
        return [jnp.asarray(np.stack(column)) for column in zip(*jax.device_get(self._points))]

    def resume(self, points: list[Array]) -> None:
        """Go on behind these points."""
        self._points = list(zip(*points))

    def history(self) -> History:
        """All points where the log-likelihood was looked at; of those after as many steps, the last."""
        steps, log_likelihood, decrement, vector = map(np.stack, zip(*jax.device_get(self._points)))
        last = np.append(steps[1:] != steps[:-1], True)
        kept = np.flatnonzero(last & np.isfinite(log_likelihood))
        return History(*(jnp.asarray(column[kept]) for column in (steps, log_likelihood, decrement, vector)))
