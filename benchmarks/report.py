"""What was measured, as tables, as a file and as a picture."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from .harness import Limit, Measured, Row

#: Colour-blind safe (Okabe and Ito): mlekit is faster, and it is slower.
FASTER, SLOWER = "#0072B2", "#D55E00"


def ratio(number: float | None) -> str:
    """A ratio in two or three digits; nothing for `None`."""
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}" if number >= 1 else f"{number:.2g}"


def rate(number: float) -> str:
    """A rate in at least three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def factors(limit: Limit) -> str:
    """The fraction of the limit, and what it is made of."""
    parts = (limit.fewest_over_mean_steps, limit.mean_over_executed_steps, limit.bare_over_measured_step)
    return f"{limit.fraction:.2f} = " + " x ".join(f"{part:.2f}" for part in parts)


def table(measured: Measured) -> str:
    """The table of a workload, for people."""
    headers = ["way", "fits", "seconds", "fits/s", "mlekit is x faster", "wanted", "compile, s", "failed", "steps"]
    rows = [
        [
            row.name,
            f"{row.fits:,}",
            f"{row.seconds:.3g}",
            rate(row.fits_per_second),
            ratio(row.ratio),
            ratio(row.reach),
            f"{row.compile_seconds:.1f}",
            f"{row.failures:,} of {row.counted:,}",
            "" if row.steps is None else f"{row.steps:.1f}",
        ]
        for row in measured.rows
    ]
    lines = [
        f"{measured.name}: {measured.title}",
        "",
        tabulate(rows, headers, disable_numparse=True, colalign=ALIGN),
    ]
    if measured.limit is not None:
        wanted = "" if measured.limit_reach is None else f", wanted {measured.limit_reach:.2f}"
        lines.append(
            f"\nfraction of the limit {factors(measured.limit)}{wanted}\n"
            "(fewest over mean steps, mean over executed steps, bare evaluation over measured step)"
        )
    lines += [f"\n{name} did not run: {why}" for name, why in measured.missing.items()]
    return "\n".join(lines)


ALIGN = ("left", *("right",) * 8)


def summary(results: Sequence[Measured]) -> str:
    """One line a workload: the strongest peer, what was wanted and missed, and the limit."""
    rows = []
    for measured in results:
        own, *others = measured.rows
        strongest = min(others, key=lambda row: row.ratio, default=None)
        rows.append(
            [
                measured.name,
                rate(own.fits_per_second),
                "" if strongest is None else strongest.name.split(",")[0],
                "" if strongest is None else ratio(strongest.ratio),
                f"{own.failures:,}",
                "" if measured.limit is None else factors(measured.limit),
                "\n".join(missed(measured)) or ("all" if targets(measured) else ""),
            ]
        )
    headers = [
        "workload",
        "mlekit, fits/s",
        "strongest peer",
        "x faster",
        "failed",
        "of the limit",
        "wanted: reached",
    ]
    align = ("left", "right", "left", "right", "right", "left", "left")
    return tabulate(rows, headers, disable_numparse=True, colalign=align)


def wide_table(results: Sequence[Measured]) -> str:
    """The table of `benchmarks/README.md`: one line a workload, with every peer and what was wanted."""
    rows = []
    for measured in results:
        own, *others = measured.rows
        peers = [
            f"{row.name} **{ratio(row.ratio)}**" + ("" if row.reach is None else f" (wanted {ratio(row.reach)})")
            for row in sorted(others, key=lambda row: row.ratio)
        ]
        limit = "" if measured.limit is None else factors(measured.limit)
        if measured.limit_reach is not None:
            limit += f" (wanted {measured.limit_reach:.2f})"
        failed = f"{own.failures:,} of {own.counted:,}"
        title = f"**{measured.name}**: {measured.title}"
        rows.append(
            [title, rate(own.fits_per_second), f"{own.compile_seconds:.1f}", "<br>".join(peers), failed, limit]
        )
    headers = ["workload", "fits/s", "compile, s", "times as fast as", "failed", "of the limit"]
    align = ("left", "right", "right", "left", "right", "left")
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=align)


#: The workloads of the README's table: how each is called there, and the peer that most people use for it, by
#: how its name begins.
SHORT = {
    "flights": ("4,037 Student-t, 1 to 544 rows", "SciPy L-BFGS-B"),
    "ragged logistic": ("20,000 logistic, 20 to 2,000 rows", "statsmodels"),
    "negative binomial": ("20,000 negative binomial, 200 rows", "statsmodels"),
    "decays": ("20,000 biexponential decays", "SciPy least_squares"),
    "gamma": ("100,000 gamma, 100 rows", "SciPy fit"),
    "spots, float64": ("100,000 images of 5x5 pixels", "optimistix BFGS, vmap"),
    "mixture": ("one mixture of 1,000,000 events", "iminuit, numba_stats"),
    "cold start": ("the first fit of a new process", "SciPy fit"),
}


def short_table(results: Sequence[Measured]) -> str:
    """The table of the README: the workloads in `SHORT`, beside the fastest peer and the usual one."""
    by_name = {measured.name: measured for measured in results}
    rows = []
    for name, (title, usual) in SHORT.items():
        if name not in by_name:
            continue
        own, *others = by_name[name].rows
        peers = [row for row in others if not row.name.startswith("mlekit")]
        best = min(peers, key=lambda row: row.ratio)
        # "optimistix BFGS, vmap" is a way of its own, and begins "optimistix BFGS, vmap in tiles of 128", too.
        common = min((row for row in peers if row.name.startswith(usual)), key=lambda row: len(row.name))
        rows.append([title, rate(own.fits_per_second), *(f"{ratio(x.ratio)}, {brief(x)}" for x in (best, common))])
    headers = ["workload", "fits/s", "times the fastest peer", "times the usual peer"]
    return tabulate(
        rows, headers, tablefmt="pipe", disable_numparse=True, colalign=("left", "right", "left", "left")
    )


def brief(row: Row) -> str:
    """The library of a peer, and whether the likelihood was written by hand for it, as all loops in numba are."""
    library = row.name.replace(",", "").split()[0]
    return f"{library} by hand" if library == "numba" or row.name.endswith("by hand") else library


def write_tables(root: Path, machine: str, results: Sequence[Measured]) -> None:
    """Put both tables into their files, between the marks there.

    Args:
        root: the directory of the repository.
        machine: what was measured on.
        results: the figures.
    """
    for path, table in ((root / "README.md", short_table), (root / "benchmarks" / "README.md", wide_table)):
        text = path.read_text()
        block = MARKED.search(text)
        if block is None:
            raise ValueError(f"{path} has no place for the table: {BEGIN} and {END} on lines of their own")
        # Not `re.sub`: what is put in has no escapes.
        text = text[: block.start()] + marked(machine, table(results)) + text[block.end() :]
        path.write_text(text)


#: Between these lies what `python -m benchmarks` writes.
BEGIN, END = "<!-- written by python -m benchmarks -->", "<!-- to here -->"
MARKED = re.compile(f"{BEGIN}.*?{END}", re.DOTALL)


def marked(machine: str, table: str) -> str:
    """A table with its marks and the machine."""
    return f"{BEGIN}\n\n{table}\n\nMachine: {machine}.\n\n{END}"


def targets(measured: Measured) -> list[tuple[str, float, float]]:
    """What is measured against what is wanted: its name, the figure, and the wanted one."""
    out = [(row.name.split(",")[0], row.ratio, row.reach) for row in measured.rows if row.reach is not None]
    if measured.limit is not None and measured.limit_reach is not None:
        out.append(("limit", measured.limit.fraction, measured.limit_reach))
    return out


def missed(measured: Measured) -> list[str]:
    """The targets that were missed, as lines."""
    return [
        f"{name} {ratio(figure)} of {ratio(wanted)}"
        for name, figure, wanted in targets(measured)
        if figure < wanted
    ]


def write(path: Path, header: dict[str, str], results: Sequence[Measured]) -> None:
    """Keep the results, in four digits, readable for machines."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        if isinstance(value, dict):
            return {name: rounded(item) for name, item in value.items()}
        return [rounded(item) for item in value] if isinstance(value, list | tuple) else value

    workloads = []
    for measured in results:
        entry = dataclasses.asdict(dataclasses.replace(measured, missing=dict(measured.missing)))
        if measured.limit is not None:
            entry["limit"]["fraction"] = measured.limit.fraction
        workloads.append(rounded(entry))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**header, "workloads": workloads}, indent=2) + "\n")


def read(path: Path, header: dict[str, str]) -> list[Measured]:
    """The results that are kept there, if they were made under the same header: else none."""
    if not path.exists():
        return []
    kept, results = stored(path)
    return results if kept == header else []


def stored(path: Path) -> tuple[dict[str, str], list[Measured]]:
    """The header of the results that are kept there, and these."""
    header = json.loads(path.read_text())
    out = []
    for entry in header.pop("workloads", []):
        limit, rows = entry.pop("limit"), tuple(Row(**row) for row in entry.pop("rows"))
        if limit is not None:
            limit.pop("fraction")
            limit = Limit(**limit)
        out.append(Measured(**entry, rows=rows, limit=limit))
    return header, out


def picture(path: Path, machine: str, results: Sequence[Measured]) -> None:
    """A bar for every peer: how many times faster mlekit is, or slower."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    results = [measured for measured in results if len(measured.rows) > 1]
    n_lines = sum(len(measured.rows) + 0.7 for measured in results)
    figure, axes = plt.subplots(figsize=(10, 0.23 * n_lines + 1.6), layout="constrained")
    y, ticks, names = 0.0, [], []
    for measured in results:
        axes.text(0, y, measured.name, transform=axes.get_yaxis_transform(), va="center", weight="bold")
        for row in measured.rows[1:]:
            y += 1
            ticks.append(y)
            names.append(row.name)
            faster = row.ratio >= 1
            axes.barh(y, row.ratio - 1, left=1, height=0.7, color=FASTER if faster else SLOWER)
            failed = f"   {row.failures:,} of {row.counted:,} failed" if row.failures else ""
            # Beside the bar, and beyond the mark of what is wanted if that would be in the way.
            near = row.reach is not None and abs(math.log(row.reach / row.ratio)) < 1.2
            ends = [row.ratio, row.reach] if near and row.reach is not None else [row.ratio]
            axes.annotate(
                ratio(row.ratio) + failed,
                (max(1, *ends) if faster else min(1, *ends), y),
                xytext=(7 if faster else -7, 0),
                textcoords="offset points",
                ha="left" if faster else "right",
                va="center",
                fontsize=8,
            )
            if row.reach is not None:
                axes.plot(row.reach, y, marker="D", markersize=5, color="white", markeredgecolor="black", zorder=3)
        y += 1.7
    figures = [row.ratio for measured in results for row in measured.rows[1:]]
    wanted = [row.reach for measured in results for row in measured.rows[1:] if row.reach is not None]
    axes.set_xscale("log")
    # Room for the labels at both ends.
    axes.set_xlim(min([1, *figures, *wanted]) / 60, max([1, *figures, *wanted]) * 5)
    axes.xaxis.set_major_formatter(lambda number, _: f"{number:,g}")
    axes.set_ylim(y - 0.8, -1)
    axes.set_yticks(ticks, names, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("fits per second of mlekit over those of the peer")
    axes.set_title(machine, fontsize=9, color="0.3", loc="left", x=-0.5)
    marks = [
        Patch(color=FASTER, label="mlekit is faster"),
        Patch(color=SLOWER, label="the peer is faster"),
        Line2D([], [], marker="D", color="white", markeredgecolor="black", markersize=5, label="wanted"),
    ]
    figure.legend(handles=marks, loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
