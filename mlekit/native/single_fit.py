"""The search of one data set: its sums by threads over rows, its steps by the solver's native step."""

from __future__ import annotations

from typing import Any

import numpy as np

from .layout import workspace
from .step import StepKernel
from .sums_kernel import Prepared, SumsKernel
from .threads import StopFlag


class OneStep:
    """A native step for one data set: the first of its vectors' elements.

    Args:
        step: the step.
    """

    def __init__(self, step: StepKernel) -> None:
        self.step = step
        self._memory, self._workspace = workspace(step.layout.size), workspace(step.workspace_size)

    def put(self, i: int, value: Any) -> None:
        """Give a value to all elements of leaf `i` of the arguments."""
        place = self.step.layout[i]
        self._view(i)[:] = np.asarray(value).astype(self._type(place.type)).reshape(-1, 1)

    def get(self, i: int) -> np.ndarray:
        """The value of leaf `i` of arguments and results."""
        place = self.step.layout[i]
        out = self._view(i)[:, 0].reshape(place.shape)
        return out.astype(bool) if place.type == "bool" else out.copy()

    def run(self) -> None:
        """Take the step."""
        self.step.function(self._memory.ctypes.data, self._workspace.ctypes.data)

    def _view(self, i: int) -> np.ndarray:
        place = self.step.layout[i]
        stretch = self._memory[place.offset : place.offset + place.size * place.stride]
        return stretch.view(self._type(place.type)).reshape(place.size, self.step.width)

    @staticmethod
    def _type(name: str) -> Any:
        return np.int8 if name == "bool" else np.dtype(name)


def search(
    kernel: SumsKernel,
    step: StepKernel,
    prepared: Prepared,
    state: list[np.ndarray],
    point: np.ndarray,
    settings: np.ndarray,
    n_obs: float,
    tolerance: float,
    max_steps: int,
    extra: list[np.ndarray] | None = None,
    n_threads: int = 1,
) -> list[np.ndarray]:
    """The last state of a search of one data set.

    Args:
        kernel: its sums.
        step: the solver's step.
        prepared: the data set.
        state: the leaves of the first state.
        point: the first point.
        settings: numbers that the terms depend on beside it.
        n_obs: number of observations.
        tolerance: on the decrement.
        max_steps: steps at most.
        extra: further arguments of the step.
        n_threads: threads to use.
    """
    one, stop = OneStep(step), StopFlag()
    n_state, n_places = step.n_state, len(step.layout)
    for i, leaf in enumerate(state):
        one.put(i, leaf)
    first = n_state + (3 if kernel.program.has_matrix else 2)
    others: list[Any] = [n_obs, tolerance, max_steps, *(extra or [])]
    for i, other in enumerate(others):
        one.put(first + i, other)
    while True:
        found = kernel.evaluate(prepared, point, settings, n_obs, n_threads, stop)
        for i, part in enumerate(found):
            if part is not None:
                one.put(n_state + i, part)
        one.run()
        point = one.get(n_places - 2)
        if not one.get(n_places - 1):
            return [one.get(i) for i in range(n_state)]
