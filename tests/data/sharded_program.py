"""What `test_sharding.py` runs in processes of its own: fits of rows on many devices, as JSON on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import mlekit as mle
import mlekit.distributed

NUMBER = mlekit.distributed.initialize()
jax.config.update("jax_enable_x64", True)
START = {"intercept": 0.0, "slope": 0.0}
COUNTS = mle.regression(lambda p, obs: jnp.exp(p["intercept"] + p["slope"] * obs["x"]), mle.families.poisson)


def init(data: Any) -> Any:
    """A start that would differ between processes if they did not see the same rows."""
    return {"intercept": jnp.log(jnp.mean(data["y"])), "slope": jnp.mean(data["x"])}


def numbers(data: Any, weights: Any = None, start: Any = init) -> dict[str, Any]:
    """What a fit brings, in plain numbers."""
    fit = mle.fit(COUNTS, start, data, weights=weights)
    found = {
        "vector": fit._solution.estimates,
        "log_likelihood": fit.log_likelihood,
        "n_obs": fit.n_obs,
        "errors": fit.covariance(),
        "sandwich": fit.covariance("sandwich"),
    }
    if start is not START and weights is None:
        found["profile"] = jnp.array(jax.tree.leaves(fit.intervals(method="profile")))
    return {"status": str(fit.status), **{name: np.asarray(value).tolist() for name, value in found.items()}}


#: Fits that a test may ask for, and derivatives of one, by forward mode and by reverse mode.
FITS = [f"{kind}{how}" for how in ("", ", weighted", ", partly silent") for kind in ("arrays", "table")]
DERIVATIVES = [f"{mode} of {kind}" for mode in ("grad", "jacfwd") for kind in ("arrays", "table")]
#: Beside those: a fit from a checkpoint.
GOES_ON = "goes on"


def main(path: Path, asked: list[str]) -> None:
    """Fits of the rows of `path`, in arrays and on disk, with weights and without."""
    columns = {name: np.load(path / f"{name}.npy") for name in ("x", "y", "w")}
    n, count = len(columns["x"]), jax.process_count()
    # Parts of unequal size: process 0 holds the fewest rows.
    ends = [0, *(n * (i + 1) ** 2 // count**2 for i in range(count))]
    mine = {name: column[ends[NUMBER] : ends[NUMBER + 1]] for name, column in columns.items()}
    table = mle.open_table(path / "rows.parquet", block_rows=130)
    found: dict[str, Any] = {"devices": jax.device_count(), "processes": count}
    shared = {"arrays": mle.shard(mine), "table": mle.shard(table)}
    for name, data in shared.items():
        found[f"{name} is"] = repr(data)
        if name in asked:
            found[name] = numbers(data)
        if f"{name}, weighted" in asked:
            found[f"{name}, weighted"] = numbers(data, "w")
    silent = {"x": np.where(np.arange(90) < 45, np.nan, columns["x"][:90]), "y": columns["y"][:90]}
    silent["w"] = (np.arange(90) >= 45).astype(float)
    ends = [90 * i // count for i in range(count + 1)]
    own = {name: column[ends[NUMBER] : ends[NUMBER + 1]] for name, column in silent.items()}
    for name, data in {"arrays": mle.shard(own), "table": mle.shard(mle.open_table(silent))}.items():
        if f"{name}, partly silent" in asked:
            found[f"{name}, partly silent"] = numbers(data, "w", START)
    if GOES_ON in asked:
        checkpoint = path / f"checkpoint-{count}"
        first = mle.fit(COUNTS, START, mle.shard(table), checkpoint=checkpoint)
        again = mle.fit(COUNTS, START, mle.shard(table), checkpoint=checkpoint)
        found[GOES_ON] = bool(jnp.all(first._solution.estimates == again._solution.estimates))
    if count == 1:
        mesh = Mesh(np.array(jax.devices()), ("rows",))
        even = {name: jnp.asarray(column[: n // 3 * 3]) for name, column in columns.items()}
        found["as it lies"] = numbers(jax.device_put(even, NamedSharding(mesh, PartitionSpec("rows"))), "w")
        try:
            mle.fit(COUNTS, START, jax.device_put(even, NamedSharding(mesh, PartitionSpec())))
        except ValueError as error:
            found["everywhere"] = str(error)
        shards = shared["arrays"]
        slope = lambda data, c: mle.argmax(lambda p, o, c: -((p - c * o["x"]) ** 2), 0.0, data, args=c)  # noqa: E731
        for name in set(DERIVATIVES).intersection(asked):
            mode, kind = name.split(" of ")
            found[name] = float(getattr(jax, mode)(slope, 1)(shared[kind], 2.0))
        fit = mle.fit(COUNTS, START, shards)
        fit.save(path / "sharded.fit")
        found["loaded"] = mle.load(path / "sharded.fit", like=fit)._solution.estimates.tolist()
        for name, ask in {
            "contributions": lambda: fit.contributions(),
            "joint": lambda: mle.fit(mle.joint(lambda p, d: p * d["x"]), 0.0, shards),
            "weights": lambda: mle.fit(COUNTS, START, shards, weights=np.ones(n)),
            "negative": lambda: mle.fit(COUNTS, START, shards, weights="x"),
            "few": lambda: mle.shard(mle.open_table({"x": np.ones(2)})),
        }.items():
            try:
                ask()
            except (ValueError, TypeError) as error:
                found[name] = f"{type(error).__name__}: {error}"
    else:
        try:
            mle.shard({"x" if NUMBER else "z": np.ones(3)})
        except ValueError as error:
            found["differ"] = str(error)
        try:
            mle.shard({"x": np.ones(3 * min(1, NUMBER))})
        except ValueError as error:
            found["empty"] = str(error)
    if NUMBER == 0:
        print("RESULT", json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
