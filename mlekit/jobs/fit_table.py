"""`fit_table`: the fits of all groups of a table in files, as a table in files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from ..core.checks import check_choice, check_count
from ..core.digest import digest_of
from ..version import __version__
from . import local_runner
from .job import PART_SETS, Job, Outcome
from .table_files import open_table_files

ENGINES = ("local", "ray")


def fit_table(
    log_density: Callable[..., Any],
    init: PyTree | Callable[[PyTree], PyTree],
    table: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    by: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    columns: str | Sequence[str] | None = None,
    constraints: PyTree = None,
    weights: str | None = None,
    solver: Any = None,
    max_steps: int | None = None,
    tolerance: float | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    part_sets: int | None = None,
    progress: bool = True,
) -> Outcome:
    r"""The fits of all groups of a table in files, as a directory of Parquet files with one row a group.

    $$\hat\theta_g = \arg\max_\theta \sum_{i \in g} w_i \log p(x_i \mid \theta)$$

    for every combination $g$ of keys that occurs. Each row has the keys, the estimates, their standard errors, the
    log-likelihood, the status, the steps and the number of observations, as `Fit.to_arrow` gives them.

    The directory fills up part after part, and the same call goes on after any crash: parts that are whole stay,
    parts that are damaged are fitted again, and in the end every group has one row. A manifest in the directory
    notes the arguments of the call, and a call with others is refused. Functions are told apart by their source
    text and by the values that they close over, not by names that they look up in their module.

    Args:
        log_density: as in `mle.fit`; `obs` is a dict of columns.
        init: starting `params`, or a function of one group's data, as in `mle.fit_batch`.
        table: a `.parquet` file, a directory of them, or a list of them; for the local engine a `.csv` file too.
        by: the key column or columns, as in `mle.group_by`.
        out: the directory; made if it is not there. One run at a time may write to it.
        columns: those that the model reads; all but `by` unless given.
        constraints: as in `mle.fit`.
        weights: the column of frequency weights.
        solver: as in `mle.fit`.
        max_steps: steps at most, for each group.
        tolerance: on the decrement, in nats, for each group.
        engine: `"local"` takes the table into the memory of this process. `"ray"`, which needs
            `pip install 'mlekit[ray]'`, hands the parts to workers, each of them a process with one GPU where the
            cluster has GPUs and one CPU elsewhere. Where the rows of each group lie together, in the order of the
            files, every worker reads its own rows; otherwise Ray brings them together first.
        address: of a Ray cluster, such as `"10.0.0.1:6379"`, or `"auto"` on one of its machines; a local one is
            started for the run unless it is given or this process is connected to one. All its machines must see
            `table` and `out` under the same paths, and have mlekit and what the functions import.
        workers: number of workers; one for each GPU of the cluster, or else each CPU, unless given.
        part_sets: groups of a part, or about so many where Ray brings the rows together; 4,096 unless given.
        progress: show a bar with finished groups, fits per second and statuses.

    Returns:
        An `Outcome`: the numbers of groups fitted now and found, the seconds it took, the count of each status,
        and the names of the parts that had to be fitted again.

    Raises:
        ValueError: an unknown column or engine; a table that cannot be read; a directory that cannot be used, is
            full, belongs to another call, or to which another run is writing; and as `mle.fit_batch`.
        TypeError: as `mle.fit_batch`.
        RuntimeError: the Ray cluster lost workers again and again, or a worker met a bug. The same call goes on.

    Example:
        >>> import tempfile, jax.numpy as jnp, mlekit as mle, pyarrow as pa, pyarrow.parquet as pq
        >>> folder = tempfile.mkdtemp()
        >>> waits = {"line": ["a", "a", "b", "b"], "wait": [1.0, 3.0, 2.0, 8.0]}
        >>> pq.write_table(pa.table(waits), f"{folder}/waits.parquet")
        >>> density = lambda params, obs: jnp.log(params["rate"]) - params["rate"] * obs["wait"]
        >>> outcome = mle.fit_table(density, {"rate": 1.0}, f"{folder}/waits.parquet", "line", f"{folder}/fits",
        ...                         constraints={"rate": mle.positive}, progress=False)
        >>> outcome.fitted, outcome.found, dict(outcome.statuses)
        (2, 0, {'converged': 2})
        >>> table = pq.read_table(f"{folder}/fits")
        >>> table["line"].to_pylist(), [round(rate, 4) for rate in table["rate"].to_pylist()]
        (['a', 'b'], [0.5, 0.2])
    """
    model = {"log_density": log_density, "init": init, "constraints": constraints, "solver": solver}
    digest = digest_of(*model.values())
    return run(
        functools.partial(dict, model),
        {"functions_sha256": digest},
        table,
        by,
        out,
        columns=columns,
        weights=weights,
        max_steps=max_steps,
        tolerance=tolerance,
        engine=engine,
        address=address,
        workers=workers,
        part_sets=part_sets,
        progress=progress,
    )


def run(
    model: Callable[[], Any],
    fingerprint: dict[str, Any],
    table: Any,
    by: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    columns: str | Sequence[str] | None,
    weights: str | None,
    max_steps: int | None,
    tolerance: float | None,
    engine: str,
    address: str | None,
    workers: int | None,
    part_sets: int | None,
    progress: bool,
) -> Outcome:
    """`fit_table` of a model that each process makes for itself.

    Args:
        model: returns `log_density`, `init`, and perhaps `constraints` and `solver`, in any process.
        fingerprint: entries of the manifest that tell the model from others.
        table: the rest as in `fit_table`.
    """
    check_choice(engine, ENGINES, "engine")
    if engine == "local":
        for argument, given in (("address", address), ("workers", workers)):
            if given is not None:
                raise ValueError(f"{argument}: the local engine has none; leave it out, or ask for engine ray")
    for argument, count in (("workers", workers), ("part_sets", part_sets)):
        if count is not None:
            check_count(count, argument)
    source = open_table_files(table)
    by = _names("by", by)
    source.check("by", by)
    if columns is None:
        columns = [name for name in source.schema.names if name not in by]
    if weights is not None:
        source.check("weights", [weights])
    columns = _names("columns", columns)
    source.check("columns", columns)
    if weights is not None and weights not in columns:
        columns = (*columns, weights)
    size, x64 = part_sets or PART_SETS, bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    manifest = {
        "mlekit": __version__,
        **fingerprint,
        **source.fingerprint(),
        "by": list(by),
        "columns": list(columns),
        "weights": weights,
        "part_sets": size,
        "precision": "float64" if x64 else "float32",
        "max_steps": max_steps,
        "tolerance": tolerance,
    }
    options = {"weights": weights, "max_steps": max_steps, "tolerance": tolerance}
    job = Job(model, source, by, columns, options, size, x64, Path(out), manifest)
    if engine == "local":
        return local_runner.run(job, progress)
    try:
        from . import ray_runner
    except ModuleNotFoundError as error:
        raise ValueError(f"engine: {error.name} is not installed: pip install 'mlekit[ray]'") from None
    return ray_runner.run(job, address, workers, progress)


def _names(argument: str, given: Any) -> tuple[str, ...]:
    chosen = (given,) if isinstance(given, str) else given
    if not isinstance(chosen, list | tuple) or not all(isinstance(name, str) for name in chosen):
        raise TypeError(f"{argument}: got {given!r}, want a column name or a list of names")
    return tuple(chosen)
