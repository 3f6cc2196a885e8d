"""Tables that are made once, piece by piece, and then lie on disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlekit.core.atomic_file import atomic_write


def write(path: Path, kinds: dict[str, Any], pieces: Iterable[list[Any]]) -> None:
    """Write a Parquet file, unless it is there.

    Args:
        path: its place.
        kinds: names and types of the columns.
        pieces: the columns of some rows at a time, which become a row group each.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(list(kinds.items()))
    with atomic_write(path) as file, pq.ParquetWriter(file, schema) as out:
        for columns in pieces:
            out.write_table(pa.table(columns, schema=schema))
