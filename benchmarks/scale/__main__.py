"""How far it goes, on this machine: `python -m benchmarks.scale --help`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..harness import machine
from . import engines, growth, picture, streaming

RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
FULL = {
    "rows": [1_000_000, 10_000_000, 50_000_000],
    "dear": 600_000,
    "many": 2_000_000,
    "groups": 10**6,
    "long": 10**6,
}
QUICK = {"rows": [200_000, 1_000_000], "dear": 2_000, "many": 20_000, "groups": 10**4, "long": 10**4}


@click.command()
@click.option("--quick", is_flag=True, help="Small sizes; keeps nothing.")
@click.option(
    "--only", multiple=True, type=click.Choice(["streaming", "engines", "growth"]), help="May be repeated."
)
@click.option("--data", type=click.Path(path_type=Path), default="scale-data", help="Where files are made: 6 GB.")
def main(quick: bool, only: tuple[str, ...], data: Path) -> None:
    """Rows beyond memory, groups beyond a machine, and how cost grows with both; in processes of their own."""
    sizes: dict[str, Any] = QUICK if quick else FULL
    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() and not quick else {}
    kept["machine"] = machine()
    click.echo(kept["machine"])
    data.mkdir(parents=True, exist_ok=True)
    for name in only or ("streaming", "engines", "growth"):
        if name == "streaming":
            kept[name] = streaming.measure(data, sizes["rows"], 1 if quick else 2)
        elif name == "engines":
            kept[name] = engines.measure(data, sizes["dear"], sizes["many"])
        else:
            kept[name] = growth.measure(data, sizes["groups"], sizes["long"])
        if not quick:
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
            picture.draw(kept, RESULTS.with_suffix(".png"))


if __name__ == "__main__":
    main()
