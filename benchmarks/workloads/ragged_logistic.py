"""Many logistic regressions of very unequal length, with standard errors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import mlekit as mle

from .. import peers
from ..harness import Limit, Way, Workload, measure_limit
from ..peers_single import needs, wanted
from ..scipy_loops import logistic as loops

COLUMNS = 8
SHORTEST, LONGEST = 20, 2_000
FITS = {"quick": 200, "full": 20_000, "gpu": 100_000}
SKLEARN_SAMPLE = {"quick": 100, "full": 4_000, "gpu": 4_000}
STATSMODELS_SAMPLE = {"quick": 50, "full": 1_000, "gpu": 1_000}
#: Rows of the sets of equal length in which the bare evaluation gets its data.
PIECE = 256
#: Sets of more rows than this are not separated.
DOUBTFUL = 200

SKLEARN, STATSMODELS = "scikit-learn newton-cholesky", "statsmodels Logit"
NUMBA = "numba IRLS, prange"


def log_density(params: Any, obs: Any) -> Any:
    """The log-density of one row."""
    logit = jnp.dot(obs["x"], params)
    return obs["y"] * logit - jax.nn.softplus(logit)


def loss(free: jax.Array, piece: Any) -> jax.Array:
    """The negative log-likelihood of several rows."""
    logit = piece["x"] @ free
    return jnp.sum(jax.nn.softplus(logit) - piece["y"] * logit)


class Data:
    """All rows, those of a set side by side: `x` with an intercept, `y`, and where each set begins and ends."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(22)
        spread = rng.uniform(np.log(SHORTEST), np.log(LONGEST + 1), n)
        self.lengths = np.floor(np.exp(spread)).astype(np.int64)
        self.offsets = np.cumsum(self.lengths) - self.lengths
        self.x = rng.standard_normal((self.lengths.sum(), COLUMNS))
        self.x[:, 0] = 1.0
        coef = 0.4 * rng.standard_normal((n, COLUMNS))
        logit = np.concatenate([self.x[rows] @ coef[i] for i, rows in enumerate(self.slices())])
        self.y = (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float64)

    def slices(self) -> Iterator[slice]:
        """The rows of each set."""
        return (slice(begin, begin + count) for begin, count in zip(self.offsets, self.lengths))

    def first_rows(self, n: int | None) -> tuple[np.ndarray, np.ndarray]:
        """`x` and `y` of the first `n` sets."""
        count = self.lengths[:n].sum()
        return self.x[:count], self.y[:count]

    def log_likelihood(self, estimates: np.ndarray) -> np.ndarray:
        """The judge; standard errors stand behind the coefficients."""
        out = np.empty(len(estimates))
        for i, rows in zip(range(len(estimates)), self.slices()):
            logit = self.x[rows] @ estimates[i, :COLUMNS]
            out[i] = self.y[rows] @ logit - np.logaddexp(0.0, logit).sum()
        return out

    def finite(self) -> np.ndarray:
        """Which sets have a finite maximum: those that no direction separates; a linear programme for each.

        The coefficients are moderate, so that among long sets separation has no chance; up to `DOUBTFUL` rows
        every set is looked at.
        """
        out = np.ones(len(self.lengths), bool)
        for i, rows in enumerate(self.slices()):
            if self.lengths[i] <= DOUBTFUL:
                signed = np.where(self.y[rows] > 0, 1.0, -1.0)[:, None] * self.x[rows]
                # The greatest sum of margins, each between 0 and 1, is 0 where classes overlap.
                held = scipy.optimize.LinearConstraint(signed, 0.0, 1.0)
                free = scipy.optimize.Bounds(-np.inf, np.inf)
                out[i] = scipy.optimize.milp(-signed.sum(axis=0), constraints=held, bounds=free).fun > -1e-7
        return out


def workloads(size: str) -> list[Workload]:
    """The one workload; all ways get rows that are grouped already."""
    data = Data(FITS[size])
    sets = (data.offsets, data.lengths)
    groups = mle.group_by(
        {"set": np.repeat(np.arange(len(data.lengths)), data.lengths), "x": data.x, "y": data.y}, by="set"
    )

    def fit() -> mle.Fit:
        return mle.fit_batch(log_density, jnp.zeros(COLUMNS), groups)

    def numba_way() -> Way:
        from ..numba_loops.logistic import irls

        sample = peers.cpu_sample(size)
        x, y = data.first_rows(sample)
        columns = np.ascontiguousarray(x.T)
        return peers.compiled_loop(NUMBA, lambda *some: irls(columns, y, *some), *sets, sample=sample)

    def in_loop(name: str, package: str, fit_one: Callable[..., np.ndarray], sample: int) -> Way:
        needs(package)
        return peers.on_all_cores(name, functools.partial(fit_one, *data.first_rows(sample)), *sets, sample=sample)

    makers = {
        SKLEARN: lambda: in_loop(SKLEARN, "sklearn", loops.scikit_learn, SKLEARN_SAMPLE[size]),
        STATSMODELS: lambda: in_loop(STATSMODELS, "statsmodels", loops.statsmodels, STATSMODELS_SAMPLE[size]),
        NUMBA: numba_way,
    }
    own, latest = peers.mlekit_way(fit, lambda fits: np.concatenate([fits.params, fits.standard_errors()], axis=1))
    others, missing = peers.available(makers)

    def limit(seconds: float) -> Limit | None:
        fits, executed = latest()
        n, rows = len(groups), len(groups) * PIECE
        pieces = {"x": data.x[:rows].reshape(n, PIECE, COLUMNS), "y": data.y[:rows].reshape(n, PIECE)}
        found = measure_limit(
            seconds,
            fits=fits,
            executed_rows=executed,
            rows=PIECE,
            loss=loss,
            points=np.zeros((n, COLUMNS)),
            sets=pieces,
            others=others,
        )
        needed = int((data.lengths * np.asarray(fits.steps)).sum())
        return None if found is None else dataclasses.replace(found, mean_over_executed_steps=needed / executed)

    return [
        Workload(
            name="ragged logistic",
            title=(
                f"{len(groups):,} logistic regressions, {data.lengths.min():,} to {data.lengths.max():,} rows, "
                f"{COLUMNS} coefficients with standard errors, float64"
            ),
            n_fits=len(groups),
            ways=(own, *others),
            log_likelihood=data.log_likelihood,
            counted=data.finite(),
            reach=wanted(others, {SKLEARN: 3.0, STATSMODELS: 20.0}),
            limit=limit,
            missing=missing,
        )
    ]
