"""The command line: a table in, a table out.

What is heavy is imported inside the commands, so that `mlekit --help` answers at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .core.checks import first_line
from .version import __version__

if TYPE_CHECKING:
    from .jobs.job import Outcome


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TABLE = click.Path(exists=True, path_type=Path)
DIRECTORY = click.Path(readable=False, path_type=Path)  # the runner says what is wrong with it
SHOWN = 5  #: names of files at most
#: Names that messages of the library begin with and that are typed otherwise here.
ARGUMENT = re.compile(
    "^(table|by|out|columns|weights|engine|address|workers|part_sets|max_steps|tolerance)(?=: | must )"
)


class UserError(click.ClickException):
    """An error that the user can mend: one message, no traceback."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="mlekit %(version)s")
def main() -> None:
    """Maximum likelihood for one data set or a million: one log-density, exact derivatives, honest errors."""


@main.command()
@click.argument("model", metavar="MODEL.py", type=FILE)
@click.argument("table", metavar="TABLE.parquet", type=TABLE)
@click.option("--by", multiple=True, required=True, metavar="COLUMN", help="Key column; may be repeated.")
@click.option("--out", required=True, type=DIRECTORY, metavar="DIRECTORY", help="Where the Parquet parts go.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where the fits run: in this process, or in workers of Ray, here or on a cluster.",
)
@click.option("--address", metavar="ADDRESS", help="Of the Ray cluster, such as auto.  [default: one of its own]")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Workers of Ray.  [default: one a GPU, or else a CPU]",
)
@click.option("--weights", metavar="COLUMN", help="Column of frequency weights.")
@click.option("--part-sets", type=click.IntRange(min=1), metavar="N", help="Groups a part.  [default: 4096]")
@click.option("--x64/--no-x64", default=True, show_default=True, help="Compute in float64.")
@click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Steps at most, for each group.")
@click.option("--tolerance", type=float, metavar="X", help="On the decrement, in nats.")
def fit(model: Path, table: Path, by: tuple[str, ...], out: Path, x64: bool, **options: Any) -> None:
    """Fit a model to every group of a table.

    MODEL.py defines log_density(params, obs), where obs is a dict of columns, and init, the starting params or
    a function of one group's data; and, if wanted, constraints, columns (the names of the columns it reads; all
    but the keys by default) and solver. It is Python code, and it is run: fit only models that you trust. TABLE is
    a .parquet file or a directory of them; for the local engine, a .csv file too.

    DIRECTORY gets Parquet parts, one row a group. The same command run again after a crash goes on where it
    stopped. All machines of a Ray cluster must see TABLE and DIRECTORY under the same paths.
    """
    import jax

    from .jobs.fit_table import run
    from .jobs.model_file import ModelFile

    with jax.enable_x64(x64), explained(model):
        source = model.read_bytes()
        file = ModelFile(model, source, str(model.resolve().parent))
        fingerprint = {"model": str(model), "model_file_sha256": hashlib.sha256(source).hexdigest()}
        columns = file().get("columns")
        outcome = run(file, fingerprint, table, by, out, columns=columns, progress=True, **options)
    click.echo("\n".join(closing_lines(outcome, out)))


@main.command()
@click.option(
    "--out", type=DIRECTORY, default="demo-output", show_default=True, help="Where the results are saved."
)
def demo(out: Path) -> None:
    """Fit a robust regression to each of 4,037 aircraft, and show what comes out."""
    import jax

    from .demo.run import run

    with jax.enable_x64(True), explained():
        run(out=out)


@main.command()
def info() -> None:
    """Show versions, devices and precision."""
    import platform
    from importlib import metadata

    import jax

    from .engine.native_backend import described

    lines = {"mlekit": __version__}
    lines |= {name: metadata.version(name) for name in ("jax", "jaxlib", "optax", "equinox")}
    lines["python"] = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    lines["devices"] = ", ".join(
        f"{device.platform}:{device.id} ({device.device_kind})" for device in jax.devices()
    )
    lines["native"] = described()
    in_python = "float64" if jax.config.read("jax_enable_x64") else "float32"
    lines["precision"] = f"mlekit fit: float64 unless --no-x64; in Python: {in_python} (jax_enable_x64)"
    for name, value in lines.items():
        click.echo(f"{name:<10} {value}")


@contextlib.contextmanager
def explained(model: Path | None = None) -> Iterator[None]:
    """Show what the user can mend as one message.

    The library's own errors say what is wrong as they are, with the argument as it is typed here. Whatever comes
    out of the model file is shown with the line it came from, in whichever process that was. All else is a bug of
    mlekit and keeps its traceback.
    """
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        stack = getattr(error, "frames", None) or traceback.extract_tb(error.__traceback__)
        frames = [frame for frame in stack if model and frame.filename == str(model)]
        if frames:
            said = getattr(error, "kind", type(error).__name__) + f": {first_line(error)}"
            raise UserError(f"{model}, line {frames[-1].lineno}: {frames[-1].line}\n  {said}") from error
        from .jobs.job import RunnerError

        if isinstance(error, ValueError | TypeError | RunnerError):
            raise UserError(ARGUMENT.sub(_as_typed, str(error))) from error
        raise


def _as_typed(argument: re.Match[str]) -> str:
    """An argument of Python, as the command line calls it."""
    name = argument[0]
    return {"table": "TABLE", "columns": "columns of MODEL.py"}.get(name, "--" + name.replace("_", "-"))


def closing_lines(outcome: Outcome, out: Path) -> Iterator[str]:
    """A count of what was done, and one sentence of advice for each status that is not `converged`."""
    from .core.status import ADVICE, Status

    counts = ", ".join(f"{count:,} {name}" for name, count in outcome.statuses.most_common())
    if outcome.fitted:
        rate = outcome.fitted / outcome.seconds
        done = f"{outcome.fitted:,} fits in {outcome.seconds:.1f} s ({rate:,.0f} fits/s)"
        if outcome.found:
            done += f", {outcome.found:,} were there already"
    else:
        done = f"nothing left to do, all {outcome.found:,} fits were there already"
    yield f"{done}: {counts}  ->  {out}/"
    if damaged := outcome.damaged:
        files = (
            "1 part file was damaged and is"
            if len(damaged) == 1
            else f"{len(damaged)} part files were damaged and are"
        )
        more = f" and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        yield f"  {files} fitted again: {', '.join(damaged[:SHOWN])}{more}"
    for name, _ in outcome.statuses.most_common():
        if name != Status.converged.name:
            yield f"  {name}: {ADVICE[Status[name]]}"


if __name__ == "__main__":
    main(prog_name="mlekit")
