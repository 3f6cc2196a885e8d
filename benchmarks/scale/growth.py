"""How the cost grows with the number of groups, and with the rows of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import child, engines


def measure(directory: Path, most_groups: int, most_rows: int) -> dict[str, Any]:
    """Seconds for ever more groups of 20 rows, and for one group of ever more rows.

    Args:
        directory: where files are made.
        most_groups: from a thousand up to so many.
        most_rows: from ten up to so many.
    """
    found: dict[str, Any] = {"groups": [], "rows": []}
    sizes = [("groups", 10**k, 20) for k in range(3, 12) if 10**k <= most_groups]
    # As many groups that the rows are as many, but for few groups that are very long.
    sizes += [("rows", max(64, 10**6 // 10**k), 10**k) for k in range(1, 9) if 10**k <= most_rows]
    for axis, groups, rows in sizes:
        path = directory / f"poisson-{groups}-{rows}.parquet"
        engines.make(path, groups, rows, 1)
        arguments: dict[str, Any] = {"path": str(path), "out": str(directory / "out"), "model": "poisson"}
        one = child.run(f"{engines.HERE}:fit", None, engine="local", repeats=3, **arguments)
        entry = {"groups": groups, "rows": rows, "seconds": one["seconds"], "peak_bytes": one["peak_bytes"]}
        found[axis].append(entry)
        print(f"{groups:>9,} groups of {rows:,} rows: {one['seconds']:.2f} s", flush=True)
    found["slope of groups"] = slope(found["groups"], "groups", lambda one: one["seconds"])
    found["slope of rows"] = slope(found["rows"], "rows", lambda one: one["seconds"] / one["groups"])
    print({name: round(value, 3) for name, value in found.items() if name.startswith("slope")})
    return found


def slope(entries: list[dict[str, Any]], of: str, cost: Any) -> float:
    """The exponent of the growth: 1 is proportional."""
    size = np.log([one[of] for one in entries])
    return float(np.polyfit(size, np.log([cost(one) for one in entries]), 1)[0])
