"""The same rows in memory and on disk, in files of many kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

RNG = np.random.default_rng(0)
N = 1_003
ROWS = {
    "x": RNG.normal(size=N),
    "y": RNG.poisson(2.0, N),
    "w": RNG.integers(0, 3, N),
    "firm": RNG.integers(0, 40, N),
}
ROWS["y"] = RNG.poisson(np.exp(0.3 + 0.5 * ROWS["x"]))


def write_rows(path: Path) -> Path:
    """The rows in every form: one file with row groups of 97, files in a directory, Arrow files, NumPy's."""
    table = pa.table(ROWS)
    pq.write_table(table, path / "one.parquet", row_group_size=97)
    (path / "many").mkdir()
    for i, begin in enumerate(range(0, N, 301)):
        pq.write_table(table.slice(begin, 301), path / "many" / f"{i}.parquet", row_group_size=1000)
    (path / "arrow").mkdir()
    with pa.OSFile(str(path / "arrow" / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table, max_chunksize=110)
    for name, column in ROWS.items():
        np.save(path / f"{name}.npy", column)
    by = pads.partitioning(pa.schema([("part", pa.int64())]), flavor="hive")
    parts = table.append_column("part", pa.array(np.arange(N) * 3 // N))
    pads.write_dataset(parts, path / "hive", format="parquet", partitioning=by)
    return path
