"""The local runner: takes the table into memory and fits its groups part after part, in the order of keys."""

from __future__ import annotations

import collections
import math
import time

from ..data.groups import group_by
from .job import Job, Outcome, part_bar
from .output_directory import claimed
from .partition import split_evenly


def run(job: Job, progress: bool) -> Outcome:
    """Fit the parts that the directory lacks.

    Args:
        job: the job.
        progress: true to show a bar.

    Returns:
        The outcome, when every part is there.

    Raises:
        ValueError: a table that cannot be read, or a directory that cannot be used or holds another job.
    """
    groups = group_by(job.source.read(job.needed), job.by, job.columns)
    n_parts = math.ceil(len(groups) / job.part_sets)
    first = split_evenly(len(groups), n_parts)
    with claimed(job.out, {**job.manifest, "engine": "local", "groups": len(groups)}) as output:
        parts, damaged = output.survey(n_parts)
        statuses = sum((part.statuses for part in parts.values()), collections.Counter[str]())
        found, begin = statuses.total(), time.perf_counter()
        with part_bar(len(groups) - found, progress) as show:
            for number in sorted(set(range(n_parts)) - parts.keys()):
                mine = groups.take(slice(*first[number : number + 2]))
                part = output.write(number, job.fit(mine), mine.n_rows)
                statuses += part.statuses
                show(part.statuses)
    seconds = time.perf_counter() - begin
    return Outcome(len(groups) - found, found, seconds, statuses, tuple(damaged))
