"""A job: the fits of all groups of a table; and its outcome."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..api import fit_batch
from ..core.format.progress import BatchProgress
from ..core.status import Status
from ..data.groups import Groups
from .table_files import TableFiles

if TYPE_CHECKING:
    import pyarrow


PART_SETS = 4096  #: groups of a part, unless given; as many as the lanes take onto the device at a time


class RunnerError(RuntimeError):
    """A failure of machines, not of the job: the same call goes on."""


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A model, a table and the directory of the fits. It may be sent to other processes.

    Args:
        model: returns `log_density`, `init`, and perhaps `constraints` and `solver`, in any process.
        source: the table.
        by: the key columns.
        columns: the columns that the model reads, weights included.
        options: `weights`, `max_steps` and `tolerance` of `mle.fit_batch`.
        part_sets: groups of a part.
        x64: true to compute in float64.
        out: the directory of the parts.
        manifest: names and values that tell this job from others, in plain JSON values.
    """

    model: Callable[[], Mapping[str, Any]]
    source: TableFiles
    by: tuple[str, ...]
    columns: tuple[str, ...]
    options: Mapping[str, Any]
    part_sets: int
    x64: bool
    out: Path
    manifest: Mapping[str, Any]

    @property
    def needed(self) -> tuple[str, ...]:
        """All columns to read."""
        return tuple(dict.fromkeys((*self.by, *self.columns)))

    def fit(self, groups: Groups) -> pyarrow.Table:
        """The fits of some groups, one row a group."""
        model = self.model()
        options: dict[str, Any] = {name: model.get(name) for name in ("constraints", "solver")} | dict(
            self.options
        )
        return fit_batch(model["log_density"], model["init"], groups, **options).to_arrow()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a run, when every group of the table has its row in the directory.

    Args:
        fitted: number of groups fitted now.
        found: number of groups that an earlier run had finished.
        seconds: the time that fitting and writing took.
        statuses: the count of each status, over all groups.
        damaged: names of parts that were damaged, and were fitted again.

    Example:
        >>> import collections
        >>> outcome = Outcome(fitted=2, found=0, seconds=1.5, statuses=collections.Counter(converged=2))
        >>> outcome.statuses["converged"] == outcome.fitted + outcome.found
        True
    """

    fitted: int
    found: int
    seconds: float
    statuses: collections.Counter[str]
    damaged: tuple[str, ...] = ()


@contextlib.contextmanager
def part_bar(fits: int, wanted: bool) -> Iterator[Callable[[collections.Counter[str]], None]]:
    """Show a progress bar, if wanted and there is work; yields a function that takes the statuses of a part."""
    if not (wanted and fits):
        yield lambda statuses: None
        return
    with BatchProgress(fits) as bar:
        yield lambda statuses: bar.update(np.array([Status[name] for name in statuses.elements()], int))
