"""The picture of what `benchmarks.scale` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: One colour a thing, from the palette of Okabe and Ito, which everybody can tell apart.
DISK, MEMORY, THIRD = "#0072b2", "#d55e00", "#009e73"


def draw(found: dict[str, Any], path: Path) -> None:
    """Four panels: cost a row, growth with groups, growth with rows, and memory over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    (rows, groups), (long, memory) = panels
    for on_disk, colour, name in ((True, DISK, "from a Parquet file"), (False, MEMORY, "in memory")):
        fits = [one for one in found.get("streaming", {}).get("fits", ()) if one["on_disk"] == on_disk]
        size = [one["rows"] for one in fits]
        rows.plot(
            size, [1e9 * one["seconds"] / one["rows"] for one in fits], "o-", color=colour, label=f"fit, {name}"
        )
        for kind, line in (("hessian", "s--"), ("gradient", "^:")):
            cost = [1e9 * one["passes"][kind] / one["rows"] for one in fits]
            rows.plot(size, cost, line, color=colour, label=f"{kind}, {name}")
    rows.set(xlabel="rows", ylabel="ns a row", title="One logistic regression, 8 columns")
    if "streaming" in found:
        rows.set(xscale="log", yscale="log", ylim=(20, 2000))  # room above for the legend
        rows.legend(fontsize=8, ncols=2, loc="upper center")
    grown = found.get("growth", {"groups": [], "rows": []})
    groups.plot(
        [one["groups"] for one in grown["groups"]], [one["seconds"] for one in grown["groups"]], "o-", color=DISK
    )
    scale = "log" if "growth" in found else "linear"
    groups.set(xscale=scale, yscale=scale, xlabel="groups of 20 rows", ylabel="s")
    groups.set_title(f"Parquet to Parquet, slope {grown.get('slope of groups', float('nan')):.2f}")
    each = [1e3 * one["seconds"] / one["groups"] for one in grown["rows"]]
    long.plot([one["rows"] for one in grown["rows"]], each, "o-", color=DISK)
    long.set(xscale=scale, yscale=scale, xlabel="rows of a group", ylabel="ms a group")
    long.set_title(f"Parquet to Parquet, slope {grown.get('slope of rows', float('nan')):.2f}")
    for engine, colour in (("local", MEMORY), ("ray", DISK)):
        one = found.get("engines", {}).get(f"many, {engine}")
        if one is not None:
            seconds, taken = zip(*one["memory"])
            shown = f"{engine}, {one['groups']:,} groups"
            memory.plot(seconds, [byte / 1e9 for byte in taken], color=colour, label=shown)
    memory.set(xlabel="s", ylabel="GB, all processes", title="Memory over time", ylim=(0, None))
    if "engines" in found:
        memory.legend(fontsize=8)
    for panel in panels.flat:
        panel.grid(alpha=0.3)
    figure.suptitle(found["machine"], fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
