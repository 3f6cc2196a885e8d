"""Progress on stderr: one line while a fit runs, one bar while a batch of them does.

tqdm is imported where a bar is made, so that `import mlekit` does not pay for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ..status import Status
from ..trees import tracing


class FitProgress:
    """A line with the steps, log-likelihood and decrement of one fit while it runs.

    Args:
        label: the beginning of the line, such as the solver's name.

    Example:
        >>> with FitProgress("Newton") as progress:
        ...     progress(3, -12.5, 1e-3)
    """

    every = 5  #: steps between two updates: one costs as much as many a step

    def __init__(self, label: str) -> None:
        self._bar = _bar(desc=label, bar_format="{desc}: {n_fmt} steps [{elapsed}{postfix}]")

    def __call__(self, steps: Any, log_likelihood: Any, decrement: Any, *rest: Any) -> None:
        """Update the line.

        Args:
            steps: steps taken so far, in all.
            log_likelihood: the sum at the present point, in nats; NaN where it is not known, as while only a
                sample of the rows is looked at.
            decrement: at the present point, in nats.
            rest: further values that a search reports; not shown.
        """
        there = float(log_likelihood)
        where = "log-likelihood not known yet" if math.isnan(there) else f"log-likelihood {there:.8g}"
        self._bar.set_postfix_str(f"{where}, decrement {float(decrement):.2g}", refresh=False)
        self._bar.update(int(steps) - self._bar.n)

    def __enter__(self) -> FitProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


class BatchProgress:
    """A bar with the finished data sets of a batch, their statuses, the rate and the time left.

    Args:
        total: number of data sets.

    Example:
        >>> import numpy as np
        >>> with BatchProgress(3) as progress:
        ...     progress.update(np.array([Status.converged, Status.unbounded]))
        ...     progress.update(np.array([Status.converged]))
        >>> print(progress.counts)
        {'converged': 2, 'unbounded': 1}
    """

    def __init__(self, total: int) -> None:
        self._counts = np.zeros(len(Status), int)
        self._bar = _bar(
            desc="fits",
            total=int(total),
            unit=" fits",
            unit_scale=total >= 100_000,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
            "[{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]",
        )

    def update(self, statuses: np.ndarray) -> None:
        """Add data sets that have finished since the last call.

        Args:
            statuses: their `Status` values, shape `(n_finished,)`.
        """
        codes = np.ravel(statuses)
        self._counts += np.bincount(codes, minlength=len(Status))
        shown = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(codes.size)

    @property
    def counts(self) -> dict[str, int]:
        """The number of data sets of each status that occurred."""
        return {status.name: int(self._counts[status]) for status in Status if self._counts[status]}

    def __enter__(self) -> BatchProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


def _bar(**options: Any) -> Any:
    """A bar for a notebook if widgets are there, for a terminal otherwise.

    `tqdm.auto` decides likewise, but warns where ipywidgets is missing.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    in_notebook = "IPKernelApp" in getattr(shell, "config", ())
    widgets = in_notebook and importlib.util.find_spec("ipywidgets") is not None
    module = importlib.import_module("tqdm.notebook" if widgets else "tqdm.std")
    return module.tqdm(file=sys.stderr, dynamic_ncols=True, **options)


@contextlib.contextmanager
def fit_bar(wanted: bool, label: str, arrays: PyTree) -> Iterator[FitProgress | None]:
    """Shows a line for one fit, unless during a trace, and yields it."""
    if not wanted or tracing(arrays):
        yield None
        return
    with FitProgress(label) as bar:
        yield bar


@contextlib.contextmanager
def batch_bar(wanted: bool, fits: int, arrays: PyTree) -> Iterator[Callable[[Any], None] | None]:
    """Shows a bar, unless during a trace, and yields a function that reports finished fits to it."""
    if not wanted or tracing(arrays):
        yield None
        return
    with BatchProgress(fits) as bar:
        yield lambda found: bar.update(np.asarray(found.status))
