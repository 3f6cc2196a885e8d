"""The command line: a table in, a table out.

What is heavy is imported inside the commands, so that `mlekit --help` answers at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import traceback
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .version import __version__

if TYPE_CHECKING:
    import pyarrow

    from .engines.local import Outcome

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DIRECTORY = click.Path(readable=False, path_type=Path)  # what is wrong with it, the engine says


class UserError(click.ClickException):
    """What the user can mend: one message, no traceback."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="mlekit %(version)s")
def main() -> None:
    """Maximum likelihood for one data set or a million: one log-density, exact derivatives, honest errors."""


@main.command()
@click.argument("model", metavar="MODEL.py", type=FILE)
@click.argument("table", metavar="TABLE.parquet", type=FILE)
@click.option("--by", multiple=True, required=True, metavar="COLUMN", help="Key column; may be repeated.")
@click.option("--out", required=True, type=DIRECTORY, metavar="DIRECTORY", help="Where the Parquet parts go.")
@click.option("--engine", default="local", show_default=True, help="Where the fits run: local.")
@click.option("--weights", metavar="COLUMN", help="Column of frequency weights.")
@click.option("--part-sets", type=click.IntRange(min=1), metavar="N", help="Groups a part.  [default: 4096]")
@click.option("--x64/--no-x64", default=True, show_default=True, help="Compute in float64.")
@click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Steps at most, for each group.")
@click.option("--tolerance", type=float, metavar="X", help="On the decrement, in nats.")
def fit(
    model: Path,
    table: Path,
    by: tuple[str, ...],
    out: Path,
    engine: str,
    weights: str | None,
    part_sets: int | None,
    x64: bool,
    max_steps: int | None,
    tolerance: float | None,
) -> None:
    """Fit a model to every group of a table.

    MODEL.py defines log_density(params, obs), where obs is a dict of columns, and init, the starting params or
    a function of one group's data; and, if wanted, constraints, columns (the names of the columns it reads; all
    but the keys by default) and solver. TABLE is a .parquet or .csv file.

    DIRECTORY gets Parquet parts, one row a group. The same command run again after a crash goes on where it
    stopped.
    """
    if engine == "ray":
        raise UserError("--engine: the ray engine is not there yet, want local, the only one in this version")
    if engine != "local":
        raise UserError(f"--engine: there is no {engine!r}, want local, the only one in this version")

    import jax

    from .engines import local
    from .groups import group_by

    with jax.enable_x64(x64), explained(model):
        source = model.read_bytes()
        members = load_model(model, source)
        columns = members.get("columns")
        if columns is not None and weights is not None and weights not in columns:
            columns = [*columns, weights]
        groups = group_by(read_table(table, by, columns, weights), by, columns)
        size = part_sets or local.PART_SETS
        with table.open("rb") as file:
            table_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        manifest = {
            "mlekit": __version__,
            "model": str(model),
            "model_sha256": hashlib.sha256(source).hexdigest(),
            "table": str(table),
            "table_bytes": table.stat().st_size,
            "table_sha256": table_sha256,
            "by": list(by),
            "columns": list(groups.columns),
            "weights": weights,
            "groups": len(groups),
            "part_sets": size,
            "precision": "float64" if x64 else "float32",
            "max_steps": max_steps,
            "tolerance": tolerance,
        }
        options = {name: members.get(name) for name in ("constraints", "solver")}
        options |= {"weights": weights, "max_steps": max_steps, "tolerance": tolerance}
        job = local.Job(members["log_density"], members["init"], groups, options, size, manifest)
        outcome = local.run(job, out)
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

    lines = {"mlekit": __version__}
    lines |= {name: metadata.version(name) for name in ("jax", "jaxlib", "optax", "equinox")}
    lines["python"] = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    lines["devices"] = ", ".join(
        f"{device.platform}:{device.id} ({device.device_kind})" for device in jax.devices()
    )
    in_python = "float64" if jax.config.read("jax_enable_x64") else "float32"
    lines["precision"] = f"mlekit fit: float64 unless --no-x64; in Python: {in_python} (jax_enable_x64)"
    for name, value in lines.items():
        click.echo(f"{name:<10} {value}")


@contextlib.contextmanager
def explained(model: Path | None = None) -> Iterator[None]:
    """Show what the user can mend as one message.

    The library's own errors say what is wrong as they are. Whatever comes out of the model file is shown with
    the line it came from. All else is a bug of mlekit and keeps its traceback.
    """
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if model and f.filename == str(model)]
        if frames:
            said = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"{model}, line {frames[-1].lineno}: {frames[-1].line}\n  {said}") from error
        if isinstance(error, ValueError | TypeError):
            raise UserError(str(error)) from error
        raise


def load_model(path: Path, source: bytes) -> dict[str, Any]:
    """What a model file defines.

    The source is compiled here rather than imported: what runs is what was hashed, never a stale cache, and
    nothing is written beside the user's file.

    Args:
        path: where the file lies; what it imports from beside itself is found.
        source: its content.

    Raises:
        UserError: a syntax error, no `log_density` or `init`, or `columns` that are no names.
    """
    try:
        code = compile(source, str(path), "exec")
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}: {(error.text or '').strip()}\n " if isinstance(error, SyntaxError) else ":"
        said = error.msg if isinstance(error, SyntaxError) else error
        raise UserError(f"{path}{line} {type(error).__name__}: {said}") from error
    module = types.ModuleType("mlekit_model")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))
    exec(code, module.__dict__)
    members = vars(module)
    for name, wanted in (
        ("log_density", "a function log_density(params, obs) that returns the log-density of one observation"),
        ("init", "the starting params, or a function init(data) that computes them from one group"),
    ):
        if name not in members:
            raise UserError(f"MODEL.py: {path} defines no {name}, want {wanted}")
    columns = members.get("columns")
    if isinstance(columns, str):
        members["columns"] = [columns]
    elif columns is not None and not (
        isinstance(columns, Sequence) and all(isinstance(name, str) for name in columns)
    ):
        raise UserError(f"MODEL.py: columns is {columns!r}, want a list of column names")
    return members


def read_table(path: Path, by: Sequence[str], columns: Sequence[str] | None, weights: str | None) -> pyarrow.Table:
    """The columns of a Parquet or CSV file that are needed.

    Args:
        path: the file.
        by: the key columns.
        columns: the columns of the model; all if `None`.
        weights: the column of weights, if there is one.

    Raises:
        UserError: another suffix, a file that cannot be read, or a column that is not there.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise UserError(f"TABLE: {path} ends with {suffix or 'no suffix'!r}, want .parquet or .csv")
    try:
        if suffix == ".csv":
            whole = pyarrow.csv.read_csv(path)
            names = whole.column_names
        else:
            names = pq.read_schema(path).names
        for option, wanted in (("--by", by), ("--weights", [weights]), ("columns of MODEL.py", columns)):
            for name in wanted or ():
                if name is not None and name not in names:
                    there = ", ".join(map(repr, names))
                    raise UserError(f"{option}: {path} has no column {name!r}, want one of {there}")
        needed = [name for name in names if columns is None or name in (*by, *columns)]
        if suffix == ".csv":
            return whole.select(needed)
        with pq.ParquetFile(path) as file:
            return file.read(columns=needed)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"TABLE: {path} cannot be read as {suffix[1:]}: {first_line(error)}") from error


def closing_lines(outcome: Outcome, out: Path) -> Iterator[str]:
    """What was done, and one sentence of advice for each status that is not `converged`."""
    from .status import ADVICE, Status

    counts = ", ".join(f"{count:,} {name}" for name, count in outcome.statuses.most_common())
    if outcome.fitted:
        rate = outcome.fitted / outcome.seconds
        done = f"{outcome.fitted:,} fits in {outcome.seconds:.1f} s ({rate:,.0f} fits/s)"
        if outcome.found:
            done += f", {outcome.found:,} were there already"
    else:
        done = f"nothing left to do, all {outcome.found:,} fits were there already"
    yield f"{done}: {counts}  ->  {out}/"
    for name, _ in outcome.statuses.most_common():
        if name != Status.converged.name:
            yield f"  {name}: {ADVICE[Status[name]]}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message; JAX's go on for paragraphs."""
    return (str(error).strip().splitlines() or [""])[0]


if __name__ == "__main__":
    main(prog_name="mlekit")
