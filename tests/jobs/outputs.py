"""A table, and its fits in a directory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import mlekit as mle


def log_density(params, obs):
    return -0.5 * (obs["y"] - params["mean"]) ** 2


INIT = {"mean": 0.0}


def make_table(sets: int = 12) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({"group": np.repeat(np.arange(sets), 3), "y": rng.normal(size=3 * sets)})


def fit(table, out, part_sets=3, **options) -> mle.Outcome:
    return mle.fit_table(log_density, INIT, table, "group", out, part_sets=part_sets, progress=False, **options)


def rows_of(directory: Path) -> pa.Table:
    return pq.read_table(directory).sort_by("group")


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
