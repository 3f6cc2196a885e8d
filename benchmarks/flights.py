"""The main job, timed: one Student-t regression for each of the 4,037 aircraft of the demo's table.

Run with `make bench` or `python -m benchmarks.flights`. Everything runs on the same data in float64, one
process, from the same start; runs are interleaved and medians reported; compilation stands apart. A fit counts as
found if its log-likelihood is within 1e-6 nats of the best that any of them found; aircraft without a finite
maximum are left out of that count.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import scipy.optimize  # noqa: E402
import scipy.special  # noqa: E402
from tabulate import tabulate  # noqa: E402

import mlekit as mle  # noqa: E402
from mlekit.collection import from_groups  # noqa: E402
from mlekit.demo.make_flights import PATH  # noqa: E402
from mlekit.demo.model import columns, constraints, init, log_density  # noqa: E402
from mlekit.model import as_model  # noqa: E402

REPEATS = 5
RESULTS = Path(__file__).parent / "results" / "flights.json"


def machine() -> str:
    """The processor, its cores that this process may use, and the system."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {platform.system()}, JAX {jax.__version__}"


def timed(fn: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    begin = time.perf_counter()
    out = jax.block_until_ready(fn())
    return time.perf_counter() - begin, out


def import_seconds() -> float:
    """What `import mlekit` takes beyond `import jax`, in a fresh process; the median of several."""
    code = "import jax, time; t = time.perf_counter(); import mlekit; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def scipy_fit(x: np.ndarray, y: np.ndarray) -> float:
    """The same fit with SciPy's L-BFGS-B and a hand-written NumPy gradient: its log-likelihood."""
    digamma, gammaln = scipy.special.digamma, scipy.special.gammaln
    n = len(x)

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        scale, nu = np.exp(z[2]), np.exp(z[3])
        r = (y - z[0] - z[1] * x) / scale
        q = r * r / nu
        value = n * (gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi) - z[2])
        value -= (nu + 1) / 2 * np.log1p(q).sum()
        w = (nu + 1) / (1 + q)
        d_nu = n * (digamma((nu + 1) / 2) - digamma(nu / 2) - 1 / nu) / 2 - 0.5 * np.log1p(q).sum()
        d_nu += 0.5 * (w * q).sum() / nu
        gradient = np.array(
            [(w * r).sum() / nu / scale, (w * r * x).sum() / nu / scale, (w * q).sum() - n, nu * d_nu]
        )
        return -value / n, -gradient / n

    start = np.array([init["intercept"], init["slope"], np.log(init["scale"]), np.log(init["degrees_of_freedom"])])
    with np.errstate(all="ignore"):
        found = scipy.optimize.minimize(
            loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-8, "maxiter": 1000}
        )
    return -found.fun * n


def main() -> None:
    """Time everything, print the table and keep it."""
    groups = mle.group_by(pq.read_table(PATH), "tailnum", columns)
    n_sets = len(groups)
    longest = int(groups.lengths.max())
    padded = {
        name: np.stack([np.resize(groups[i][name], longest) for i in range(n_sets)]) for name in groups.columns
    }
    lengths = jnp.asarray(groups.lengths)

    def batch() -> mle.Fit:
        return mle.fit_batch(log_density, init, groups, constraints=constraints)

    def one(data: Any, length: Any) -> Any:
        weights = (jnp.arange(longest) < length).astype(float)
        return mle.fit(log_density, init, data, weights=weights, constraints=constraints, max_steps=200).solution

    mapped = jax.jit(jax.vmap(one))
    with_finite = lambda: mapped(padded, lengths)  # noqa: E731
    by_scipy = lambda: np.array([scipy_fit(**_xy(groups[i])) for i in range(n_sets)])  # noqa: E731

    cold, fits = timed(batch)
    after_batch = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cold_mapped, _ = timed(with_finite)
    runs: dict[str, list[float]] = {"batch": [], "vmap": [], "scipy": []}
    found: dict[str, np.ndarray] = {}
    for repeat in range(REPEATS):
        for name, fn in (("batch", batch), ("vmap", with_finite), ("scipy", by_scipy)):
            if repeat and name != "batch" and statistics.median(runs[name]) > 20:
                continue  # long runs need no more repeats
            seconds, out = timed(fn)
            runs[name].append(seconds)
            found[name] = np.asarray(out if name == "scipy" else out.log_likelihood)
    middle = {name: statistics.median(values) for name, values in runs.items()}

    finite = np.asarray(fits.converged)
    best = np.maximum.reduce([np.where(np.isnan(ll), -np.inf, ll) for ll in found.values()])[finite]
    missed = {name: int(np.sum(~(ll[finite] > best - 1e-6))) for name, ll in found.items()}
    work = from_groups(groups, np.arange(n_sets), None, None).work(
        as_model(log_density), fits.n_free, np.asarray(fits.steps)
    )
    labels = {
        "batch": "mlekit, fit_batch, with errors and certificate",
        "vmap": "mlekit, plain vmap of fit, padded to 544 rows, at most 200 steps",
        "scipy": "SciPy L-BFGS-B in a loop, hand-written gradient, no errors",
    }
    compiled = {"batch": cold - middle["batch"], "vmap": cold_mapped - middle["vmap"], "scipy": 0.0}
    rows = [
        {
            "way": labels[name],
            "seconds": round(middle[name], 3),
            "fits_per_second": round(n_sets / middle[name]),
            "ratio": round(middle[name] / middle["batch"], 2),
            "compile_seconds": round(compiled[name], 2),
            "missed": missed[name],
        }
        for name in labels
    ]
    figures = {
        "machine": machine(),
        "fits": n_sets,
        "statuses": fits.status.counts(),
        "table": rows,
        "import_seconds_beyond_jax": round(import_seconds(), 3),
        "peak_memory_mb_after_batch": round(after_batch),
        "share_of_padding": round(work.padding / (work.needed + work.padding), 3),
        "rows_needed_over_rows_evaluated": round(work.needed / work.evaluated, 3),
    }
    print(f"{n_sets:,} Student-t regressions, {groups.n_rows:,} rows, float64")
    print(figures["machine"] + "\n")
    headers = ["", "seconds", "fits/s", "times mlekit", "compile s", f"missed of {finite.sum():,}"]
    print(tabulate([list(row.values()) for row in rows], headers=headers, intfmt=","))
    print(f"\nimport mlekit, beyond import jax: {figures['import_seconds_beyond_jax']} s")
    print(f"peak memory of the process after fit_batch: {figures['peak_memory_mb_after_batch']} MB")
    print(
        f"padding: {figures['share_of_padding']:.1%} of the rows of each set's own steps; "
        f"rows needed over rows evaluated: {figures['rows_needed_over_rows_evaluated']:.1%}"
    )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"kept in {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")


def _xy(group: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"x": group["dep_delay"].astype(float), "y": group["arr_delay"].astype(float)}


if __name__ == "__main__":
    main()
