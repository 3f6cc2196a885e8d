"""The main job: a Student-t regression of arrival on departure delays for each aircraft of the demo's table."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import scipy.stats

import mlekit as mle
from mlekit.demo.make_flights import PATH
from mlekit.demo.model import columns, constraints, init, log_density

from .. import peers
from ..harness import Limit, Way, Workload, measure_limit
from ..peers_single import wanted
from ..scipy_loops.flights import lbfgsb

N_FITS = {"quick": 200, "full": None, "gpu": None}
NAMES = ("intercept", "slope", "scale", "degrees_of_freedom")
PIECE = 64  #: rows of the bare evaluation
SCIPY, PLAIN = "SciPy L-BFGS-B, analytic gradient, no errors", "mlekit's own solver, padded to the longest"


def natural(free: jax.Array) -> jax.Array:
    """Estimates of a free vector: scale and degrees of freedom by their logarithms."""
    return jnp.append(free[:2], jnp.exp(free[2:]))


def loss(free: jax.Array, piece: Any) -> jax.Array:
    """The negative log-likelihood of several rows."""
    params = dict(zip(NAMES, natural(free)))
    return -jnp.sum(jax.vmap(log_density, in_axes=(None, 0))(params, piece))


def heavy_tails(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether a finite number of degrees of freedom fits better than a normal distribution.

    At the normal's maximum the log-likelihood rises with 1 / freedom just where the kurtosis exceeds 3.
    """
    if len(y) < 30:
        return False
    slope, intercept = np.polyfit(x, y, 1)
    return float(scipy.stats.kurtosis(y - intercept - slope * x, fisher=False)) > 3


def workloads(size: str) -> list[Workload]:
    """One workload, in float64."""
    table = pq.read_table(PATH)
    groups = mle.group_by(table, "tailnum", columns).take(slice(0, N_FITS[size]))
    lengths, offsets = groups.lengths, groups.offsets
    longest, n = int(lengths.max()), len(groups)
    x, y = (np.asarray(groups.columns[name], float) for name in columns)
    rows = [slice(begin, begin + count) for begin, count in zip(offsets, lengths)]
    # Padded with rows of its own that do not count.
    inside = np.arange(longest) % lengths[:, None]
    padded = {name: np.asarray(groups.columns[name], float)[offsets[:, None] + inside] for name in columns}
    padded["weight"] = (np.arange(longest) < lengths[:, None]).astype(float)
    start = np.array([init["intercept"], init["slope"], np.log(init["scale"]), np.log(init["degrees_of_freedom"])])
    starts = np.tile(start, (n, 1))

    def fit() -> mle.Fit:
        return mle.fit_batch(log_density, init, groups, constraints=constraints)

    def plain(_: jax.Array, one: Any) -> tuple[jax.Array, jax.Array]:
        data = {name: one[name] for name in columns}
        found = mle.fit(log_density, init, data, weights=one["weight"], constraints=constraints, max_steps=200)
        return jnp.stack([found.params[name] for name in NAMES]), found.steps

    def by_scipy() -> Way:
        fit_one = functools.partial(lbfgsb, x, y)
        return peers.on_all_cores(SCIPY, fit_one, starts, offsets, lengths)

    makers = {
        SCIPY: by_scipy,
        PLAIN: lambda: peers.mapped(PLAIN, plain, starts, padded, lambda estimates: estimates),
    }
    own, latest = peers.mlekit_way(fit, lambda fits: jnp.stack([fits.params[name] for name in NAMES], axis=1))
    others, missing = peers.available(makers)

    def log_likelihood(estimates: np.ndarray) -> np.ndarray:
        out = np.empty(len(estimates))
        for i, mine in zip(range(len(estimates)), rows):
            intercept, slope, scale, nu = estimates[i]
            out[i] = scipy.stats.t.logpdf(y[mine], nu, intercept + slope * x[mine], scale).sum()
        return out

    def limit(seconds: float) -> Limit | None:
        fits, executed = latest()
        found = measure_limit(
            seconds,
            fits=fits,
            executed_rows=executed,
            rows=PIECE,
            loss=loss,
            points=starts,
            sets={name: padded[name][:, :PIECE] for name in columns},
            others=others,
        )
        needed = int((lengths * np.asarray(fits.steps)).sum())
        return None if found is None else dataclasses.replace(found, mean_over_executed_steps=needed / executed)

    return [
        Workload(
            name="flights",
            title=f"{n:,} Student-t regressions, {lengths.min():,} to {longest:,} rows, with errors, float64",
            n_fits=n,
            ways=(own, *others),
            log_likelihood=log_likelihood,
            counted=np.array([heavy_tails(x[mine], y[mine]) for mine in rows]),
            reach=wanted(others, {}),
            limit=limit,
            missing=missing,
        )
    ]
