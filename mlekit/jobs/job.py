"""What an engine is asked for, and what it answers."""

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


PART_SETS = 4096  #: groups a part, unless said; as many as the lanes take onto the device at a time


class EngineError(RuntimeError):
    """What an engine could not do for reasons that lie in the machines; the same call goes on."""


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What is to be fitted, and where the fits go. It may be sent to other processes.

    Args:
        model: gives `log_density`, `init`, and perhaps `constraints` and `solver`, in whichever process.
        source: the table.
        by: its key columns.
        columns: those that the model reads, weights included.
        options: `weights`, `max_steps` and `tolerance` of `mle.fit_batch`.
        part_sets: groups a part.
        x64: whether to compute in float64.
        out: the directory of the parts.
        manifest: what makes this job this job, in plain JSON values.
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
        """All columns that are read."""
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
    """What a run did, when every group of the table has its row in the directory.

    Args:
        fitted: groups fitted now.
        found: groups that an earlier run had finished.
        seconds: what fitting and writing took.
        statuses: how often each status occurs, all groups together.
        damaged: names of parts that were there, were not what an earlier run had written, and are fitted again.

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
    """Shows a bar, if wanted and there is work, and yields what takes the statuses of a finished part."""
    if not (wanted and fits):
        yield lambda statuses: None
        return
    with BatchProgress(fits) as bar:
        yield lambda statuses: bar.update(np.array([Status[name] for name in statuses.elements()], int))
