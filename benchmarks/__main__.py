"""All workloads, mlekit beside its peers: `python -m benchmarks --help`."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import click
import jax

from . import report
from .harness import Measured, machine, measure

WORKLOADS = (
    *("flights", "spots", "negative_binomial", "decays", "ragged_logistic", "distributions"),
    *("large_logistic", "mixture", "inference", "derivatives", "cold_start"),
)
RESULTS = Path(__file__).parent / "results"
#: The results that the tables of the README and of benchmarks/README.md show.
SHOWN = RESULTS / "cpu.json"


@click.command()
@click.option("--quick", is_flag=True, help="Small sizes, a few minutes; keeps nothing unless told where.")
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True, help="For JAX.")
@click.option("--only", multiple=True, type=click.Choice(WORKLOADS), help="This workload; may be repeated.")
@click.option("--repeats", type=click.IntRange(1), help="Runs after the first one, which compiles: 5, quick 2.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to keep the results, a .json; .png beside it.")
@click.option("--tables", is_flag=True, help="Only write the tables of the kept results anew; measures nothing.")
def main(
    quick: bool, device: str, only: tuple[str, ...], repeats: int | None, out: Path | None, tables: bool
) -> None:
    """Time mlekit and its peers on the same data, and judge what they found.

    Prints a table for each workload and one for all. Keeps the figures and a picture of them in
    benchmarks/results; a run of some workloads renews theirs and leaves the others, if it is the same machine.
    The figures of a CPU go into the tables of README.md and benchmarks/README.md.
    """
    if tables:
        write_tables()
        return
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu" if device == "cpu" else "cuda")
    try:
        where = machine()
    except RuntimeError as error:
        raise click.ClickException(f"JAX finds no {device}: {error}") from error
    size = "quick" if quick else "full" if device == "cpu" else "gpu"
    header = {"machine": where, "device": device, "size": size}
    path = out or (None if quick else RESULTS / f"{device}.json")
    kept = [] if path is None else report.read(path, header)

    begin = time.perf_counter()

    def say(what: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{time.perf_counter() - begin:5.0f} s  {what[:100]}", nl=False, err=True)

    click.echo(f"{where}\n")
    results: list[Measured] = []
    for name in only or WORKLOADS:
        for workload in importlib.import_module(f".workloads.{name}", __package__).workloads(size):
            measured = measure(workload, repeats or (2 if quick else 5), say)
            results.append(measured)
            say("")
            click.echo(("\r\033[K" if sys.stderr.isatty() else "") + report.table(measured) + "\n\n")
            kept = [measured if old.name == measured.name else old for old in kept]
            kept += [measured] if measured.name not in [old.name for old in kept] else []
            if path is not None:
                report.write(path, header, kept)
                report.picture(path.with_suffix(".png"), where, kept)
    if path == SHOWN:
        write_tables()
    click.echo(report.summary(results))
    click.echo(f"\n{where}; {time.perf_counter() - begin:.0f} s" + ("" if path is None else f"; kept in {path}"))


def write_tables() -> None:
    """Put the kept figures into the files that show them."""
    header, results = report.stored(SHOWN)
    report.write_tables(RESULTS.parents[1], header["machine"], results)


if __name__ == "__main__":
    main()
