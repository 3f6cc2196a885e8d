"""One likelihood over more rows than memory: logistic regression on seven columns, from a Parquet file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import child, table

COLUMNS = 7
#: Rows that are made and written at a time; a row group each.
CHUNK = 1 << 20
HERE = f"{__package__}.streaming"


def make(path: Path, rows: int) -> None:
    """Write the file, unless it is there: seven normal columns and an outcome of 0 or 1, eight in all."""
    slopes = np.linspace(-0.6, 0.6, COLUMNS)

    def pieces() -> Iterator[list[Any]]:
        for i, begin in enumerate(range(0, rows, CHUNK)):
            rng = np.random.default_rng([1, i])
            x = rng.normal(size=(min(CHUNK, rows - begin), COLUMNS))
            y = (rng.random(len(x)) < 1 / (1 + np.exp(0.3 - x @ slopes))).astype(float)
            yield [*x.T, y]

    table.write(path, dict.fromkeys([*(f"x{j}" for j in range(COLUMNS)), "y"], "float64"), pieces())


def log_density(params: Any, obs: Any) -> Any:
    """Logistic regression."""
    import jax.numpy as jnp

    eta = params["intercept"] + sum(params[f"x{j}"] * obs[f"x{j}"] for j in range(COLUMNS))
    return obs["y"] * eta - jnp.logaddexp(0.0, eta)


START = {"intercept": 0.0, **{f"x{j}": 0.0 for j in range(COLUMNS)}}


def fit(path: str, on_disk: bool, repeats: int) -> dict[str, Any]:
    """Seconds of fits, and of single passes over the rows, in this process."""
    import jax
    import jax.numpy as jnp
    import pyarrow.parquet as pq

    jax.config.update("jax_enable_x64", True)
    import mlekit as mle
    from mlekit.core.compilation import Compiled
    from mlekit.inference import record
    from mlekit.solvers.objective import Curvature

    data: Any
    if on_disk:
        data = mle.open_table(path)
    else:
        columns = {}
        for name in pq.read_schema(path).names:
            columns[name] = jnp.asarray(pq.read_table(path, columns=[name])[name].to_numpy())
        data = columns
    seconds = []
    for _ in range(1 + repeats):
        begin = time.perf_counter()
        found = mle.fit(log_density, START, data)
        jax.block_until_ready(found._solution)
        seconds.append(time.perf_counter() - begin)
    passes = {}
    objective = record.objective(found)
    for kind, curvature in (("gradient", Curvature.none), ("hessian", Curvature.exact)):
        run = Compiled(lambda objective, free, kind=curvature: objective.evaluate(free, kind)).lower_and_compile(
            objective, found._solution.free, thorough=True
        )
        times = []
        for _ in range(1 + repeats):
            begin = time.perf_counter()
            jax.block_until_ready(run(objective, found._solution.free))
            times.append(time.perf_counter() - begin)
        passes[kind] = min(times[1:])
    return {
        "rows": int(found.n_obs),
        "status": str(found.status),
        "steps": int(found.steps),
        "first_seconds": seconds[0],
        "seconds": min(seconds[1:]),
        "passes": passes,
        "estimates": np.asarray(found._solution.estimates).tolist(),
        "log_likelihood": float(found.log_likelihood),
    }


def measure(directory: Path, rows: list[int], repeats: int) -> dict[str, Any]:
    """Fits from disk and in memory, of files of so many rows each."""
    found = []
    for n in rows:
        path = directory / f"logistic-{n}.parquet"
        make(path, n)
        with path.open("rb") as file:  # into the page cache
            while file.read(1 << 24):
                pass
        for on_disk in (True, False):
            one = child.run(f"{HERE}:fit", path=str(path), on_disk=on_disk, repeats=repeats)
            one |= {"on_disk": on_disk, "file_bytes": path.stat().st_size}
            found.append(one)
            shown = {kind: f"{1e9 * seconds / n:.1f} ns a row" for kind, seconds in one["passes"].items()}
            where = "from disk" if on_disk else "in memory"
            print(
                f"{n:>11,} rows {where}: fit {one['seconds']:.2f} s, {one['steps']} steps, {shown}, "
                f"peak {one['peak_bytes'] / 1e9:.2f} GB",
                flush=True,
            )
    return {"fits": found}
