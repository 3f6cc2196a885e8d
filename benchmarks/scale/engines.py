"""Many data sets from Parquet to Parquet: the engine of one machine, and Ray with two workers."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import child, table

HERE = f"{__package__}.engines"
#: Groups that are made and written at a time.
CHUNK = 1 << 14
#: One thread for each process that fits, and what else XLA would take.
ONE_THREAD = {"NPROC": "1", "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}


def make(path: Path, groups: int, rows: int, covariates: int) -> None:
    """Write the file, unless it is there: a key, covariates and a count for so many rows of each group."""
    at_once = max(1, CHUNK * 20 // rows)

    def pieces() -> Iterator[list[Any]]:
        for begin in range(0, groups, at_once):
            keys = np.arange(begin, min(begin + at_once, groups))
            rng = np.random.default_rng([2, begin])
            x = rng.normal(size=(len(keys) * rows, covariates))
            slopes = rng.normal(0, 0.3, size=(len(keys), covariates)).repeat(rows, axis=0)
            mean = np.exp(1.0 + np.sum(slopes * x, axis=1))
            y = rng.negative_binomial(3, 3 / (3 + mean)) if covariates > 1 else rng.poisson(mean)
            yield [keys.repeat(rows), *x.T, y.astype(float)]

    numbers = dict.fromkeys([*(f"x{j}" for j in range(covariates)), "y"], "float64")
    table.write(path, {"group": "int64"} | numbers, pieces())


def poisson(params: Any, obs: Any) -> Any:
    """A Poisson regression with one covariate."""
    import jax.numpy as jnp

    import mlekit as mle

    eta = params["a"] + params["b"] * obs["x0"]
    return obs["y"] * eta - jnp.exp(eta) - mle.special.gammaln(obs["y"] + 1)


def negative_binomial(params: Any, obs: Any) -> Any:
    """A negative-binomial regression with three covariates."""
    import jax.numpy as jnp

    import mlekit as mle

    eta = params["a"] + params["b"] * obs["x0"] + params["c"] * obs["x1"] + params["d"] * obs["x2"]
    r, log_r = params["r"], jnp.log(params["r"])
    mean = jnp.logaddexp(log_r, eta)
    rising = mle.special.gammaln_difference(r, obs["y"]) - mle.special.gammaln(obs["y"] + 1)
    return rising + r * (log_r - mean) + obs["y"] * (eta - mean)


STARTS = {
    "poisson": {"a": 0.0, "b": 0.0},
    "negative_binomial": {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0, "r": 1.0},
}


def fit(
    path: str, out: str, model: str, engine: str, workers: int | None = None, repeats: int = 1
) -> dict[str, Any]:
    """Fit the groups of a file, in this process or by its workers; later runs find programs compiled."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import mlekit as mle

    rules = {"r": mle.positive} if model == "negative_binomial" else None
    density = {"poisson": poisson, "negative_binomial": negative_binomial}[model]
    seconds = []
    for _ in range(repeats):
        shutil.rmtree(out, ignore_errors=True)
        began, begin = time.time(), time.perf_counter()
        outcome = mle.fit_table(
            density,
            STARTS[model],
            path,
            "group",
            out,
            constraints=rules,
            engine=engine,
            workers=workers,
            progress=False,
        )
        seconds.append(time.perf_counter() - begin)
    ended = sorted(part.stat().st_mtime - began for part in Path(out).glob("*.parquet"))
    return {
        "groups": outcome.fitted,
        "statuses": dict(outcome.statuses),
        "seconds": seconds[-1],
        "first_seconds": seconds[0],
        "parts": len(ended),
        "part_seconds": ended,
    }


def steady(found: dict[str, Any]) -> float:
    """Groups a second once all workers are at work: between the first tenth of the parts and the last; or NaN."""
    ended, first = found["part_seconds"], max(1, found["parts"] // 10)
    if len(ended) == first:
        return math.nan
    share = (len(ended) - first) / len(ended)
    return found["groups"] * share / (ended[-1] - ended[first - 1])


def measure(directory: Path, dear: int, many: int) -> dict[str, Any]:
    """Dear fits with either engine, for the ratio; and many small ones, for the memory over time.

    Args:
        directory: where files are made.
        dear: groups of 200 rows.
        many: groups of 20 rows.
    """
    found: dict[str, Any] = {}
    for name, model, groups, rows, covariates in (
        ("dear", "negative_binomial", dear, 200, 3),
        ("many", "poisson", many, 20, 1),
    ):
        path = directory / f"{model}-{groups}-{rows}.parquet"
        make(path, groups, rows, covariates)
        for engine, workers in (("local", None), ("ray", 2)):
            arguments: dict[str, Any] = {"path": str(path), "out": str(directory / "out"), "model": model}
            one = child.run(f"{HERE}:fit", ONE_THREAD, engine=engine, workers=workers, **arguments)
            found[f"{name}, {engine}"] = one | {"rows_of_a_group": rows, "steady": steady(one)}
            memory = [size for _, size in one["memory"]]
            late = memory[len(memory) // 4 :]
            print(
                f"{name}, {engine}: {one['groups']:,} groups in {one['seconds']:.1f} s, "
                f"{one['groups'] / one['seconds']:,.0f} a second, steady {steady(one):,.0f}; first part after "
                f"{one['part_seconds'][0]:.1f} s; memory {max(memory) / 1e9:.2f} GB at most, in the last three "
                f"quarters {min(late) / 1e9:.2f} to {max(late) / 1e9:.2f}",
                flush=True,
            )
    return found
