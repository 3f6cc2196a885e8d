"""Why a fit ended: one outcome per data set, with a sentence that says what to try next."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


class Status(enum.IntEnum):
    """Why a fit ended.

    With `converged` the certificate proves a maximum: a vanishing decrement and a positive-definite information.
    Every other status names the trouble; the estimates of such a fit are where it stopped, and its
    standard errors are NaN.

    Example:
        >>> import mlekit as mle
        >>> mle.Status(3).name, mle.Status["stalled"] == 2
        ('unbounded', True)
    """

    converged = 0
    max_steps = 1
    stalled = 2
    unbounded = 3
    not_identified = 4
    nonfinite_start = 5
    nonfinite_data = 6
    too_few_observations = 7
    raised = 8


#: Carried inside a solver's state only, no fit ends with them: the search goes on, or must begin anew with a
#: solver that passes walls and kinks.
RUNNING, OBSTRUCTED = -1, -2

ADVICE: dict[int, str] = {
    Status.converged: "the maximum is proven: the decrement is within tolerance and the information is "
    "positive definite.",
    Status.max_steps: "the steps ran out before the maximum was proven; raise max_steps, start closer, or "
    "use a second-order solver.",
    Status.stalled: "no further step raised the log-likelihood, yet the maximum is not proven; look for a "
    "kink or rounding in the log-density, rescale the parameters, or use float64.",
    Status.unbounded: "the log-likelihood keeps rising: it has no finite maximum, or one at the edge of a "
    "constraint or of the density's support; the certificate's weak_direction says which parameters run away. "
    "Fix or constrain them, or use a simpler model.",
    Status.not_identified: "the log-likelihood is flat along the certificate's weak_direction: the data cannot "
    "tell those parameters apart; drop, fix or tie one of them.",
    Status.nonfinite_start: "the log-likelihood or its gradient is not finite at the start; begin where every "
    "observation has a positive density.",
    Status.nonfinite_data: "the data hold NaN or infinite values, or numbers whose powers are infinite or "
    "vanish, and the log-density does not cope with them; drop those rows, give them weight zero, or use other "
    "units.",
    Status.too_few_observations: "there are fewer observations than free parameters; use more data or a "
    "simpler model.",
    Status.raised: "the log-density raised an exception where the search cannot step back, most often at the "
    "start, which the estimates are; begin where it can be computed, or have it return NaN instead.",
}


def unproven(status: Any) -> Any:
    """True where a search found no maximum, and another one might; of an array of `Status` values."""
    return (status != Status.converged) & (status < Status.nonfinite_start)


class StatusArray(eqx.Module):
    """An integer array of `Status` values that compares with them and prints as their names.

    It is a PyTree with one integer leaf, so it passes through `jax.jit` and `jax.vmap`.

    Args:
        codes: integer array of any shape.

    Example:
        >>> import jax.numpy as jnp
        >>> status = StatusArray(jnp.array([0, 3]))
        >>> status
        [converged, unbounded]
        >>> status == Status.converged
        Array([ True, False], dtype=bool)
        >>> status.counts()
        {'converged': 1, 'unbounded': 1}
    """

    codes: Int[Array, "..."] | Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array: `()` for one fit, `(n_sets,)` for a batch."""
        return tuple(jnp.shape(self.codes))

    @property
    def dtype(self) -> Any:
        """The integer dtype of the codes."""
        return self.codes.dtype

    def names(self) -> Any:
        """The names of the outcomes: a string, or nested lists of them."""
        table = np.array([status.name for status in Status], dtype=object)
        return table[np.asarray(self.codes)].tolist() if self.shape else str(table[int(self.codes)])

    def counts(self) -> dict[str, int]:
        """The number of data sets of each status that occurred, most frequent first."""
        values, counts = np.unique(np.asarray(self.codes), return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return {Status(int(values[i])).name: int(counts[i]) for i in order}

    def __eq__(self, other: object) -> Bool[Array, "..."]:  # type: ignore[override]
        return jnp.asarray(self.codes) == _codes(other)

    def __ne__(self, other: object) -> Bool[Array, "..."]:  # type: ignore[override]
        return jnp.asarray(self.codes) != _codes(other)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, index: Any) -> StatusArray:
        return StatusArray(self.codes[index])

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[StatusArray]:
        return (self[i] for i in range(len(self)))

    def __int__(self) -> int:
        return int(self.codes)

    def __index__(self) -> int:
        return int(self.codes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.codes, dtype=dtype)

    def __jax_array__(self) -> Array:
        return jnp.asarray(self.codes)

    def __repr__(self) -> str:
        if isinstance(self.codes, jax.core.Tracer):
            return f"StatusArray({self.codes})"
        names = self.names()
        return names if isinstance(names, str) else str(names).replace("'", "")

    __str__ = __repr__


def _codes(other: object) -> Any:
    if isinstance(other, StatusArray):
        return other.codes
    if isinstance(other, str):
        return Status[other].value
    return jnp.asarray(other)
