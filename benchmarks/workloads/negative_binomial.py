"""Negative-binomial regressions, a few of which have no finite maximum because their counts vary too little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

import mlekit as mle
from mlekit.core.special import gammaln_difference

from .. import peers
from ..harness import Way, Workload
from ..peers_single import wanted

ROWS = 200
N_FITS = {"quick": 200, "full": 20_000, "gpu": 200_000}
NAMES = ("intercept", "slope1", "slope2", "alpha")
CONSTRAINTS = {"alpha": mle.positive}
TILE = 64

NUMBA = "numba Newton, prange"
SCIPY, STATSMODELS = "SciPy L-BFGS-B, analytic gradient", "statsmodels NegativeBinomial, BFGS, no errors"
OPTIMISTIX, JAXOPT, PLAIN = "optimistix BFGS", "jaxopt BFGS", "mlekit's own solver"


def log_density(params: Any, obs: Any) -> Any:
    """The log-density of one count; of arrays of them just as well."""
    log_mean = params["intercept"] + params["slope1"] * obs["x1"] + params["slope2"] * obs["x2"]
    alpha, y = params["alpha"], obs["y"]
    size = 1 / alpha
    rises = gammaln_difference(size, y) - obs["constant"]
    return rises + y * (jnp.log(alpha) + log_mean) - (y + size) * jnp.log1p(alpha * jnp.exp(log_mean))


def simulate(n_fits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariates, shape `(n, 200, 2)`, counts, and which sets have a finite maximum: all but one in a hundred."""
    rng = np.random.default_rng(20260102)
    x = rng.normal(size=(n_fits, ROWS, 2))
    slopes = rng.normal(0, 0.4, (n_fits, 2))
    mean = np.exp(rng.uniform(0.7, 2, (n_fits, 1)) + np.einsum("sij,sj->si", x, slopes))
    alpha = rng.uniform(0.3, 1, (n_fits, 1))
    y = rng.poisson(mean * rng.gamma(1 / alpha, alpha, mean.shape))
    finite = np.arange(n_fits) % 100 != 50
    # Binomial counts of half the variance of Poisson ones: the likelihood rises all the way to alpha = 0.
    trials = np.ceil(2 * mean[~finite]).astype(int)
    y[~finite] = rng.binomial(trials, mean[~finite] / trials)
    return x, y.astype(float), finite


def natural(free: jax.Array) -> jax.Array:
    """Estimates of a free vector: alpha by its logarithm."""
    return jnp.append(free[:3], jnp.exp(free[3]))


def loss(free: jax.Array, one: Any) -> jax.Array:
    """The negative log-likelihood of one data set."""
    return -jnp.sum(log_density(dict(zip(NAMES, natural(free))), one))


def log_likelihood(x: np.ndarray, y: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Log-likelihoods in NumPy and SciPy."""
    x, y = x[: len(estimates)], y[: len(estimates)]
    size = 1 / estimates[:, 3:]
    mean = np.exp(estimates[:, :1] + np.einsum("sij,sj->si", x, estimates[:, 1:3]))
    rises = special.gammaln(y + size) - special.gammaln(size) - special.gammaln(y + 1)
    return (rises + y * np.log(mean / (size + mean)) - size * np.log1p(mean / size)).sum(axis=1)


def fit_of(x: np.ndarray, y: np.ndarray) -> tuple[Callable[[], mle.Fit], dict[str, np.ndarray], np.ndarray]:
    """What fits these data sets, their columns, and where it begins."""
    n_fits = len(y)
    data = {"x1": x[:, :, 0].copy(), "x2": x[:, :, 1].copy(), "y": y, "constant": special.gammaln(y + 1)}
    starts = np.column_stack([np.log(y.mean(axis=1)), np.zeros(n_fits), np.zeros(n_fits), np.full(n_fits, 0.5)])
    init = dict(zip(NAMES, starts.T))

    def fit() -> mle.Fit:
        return mle.fit_batch(log_density, init, data, init_axis=0, constraints=CONSTRAINTS)

    return fit, data, starts


def workloads(size: str) -> list[Workload]:
    """One workload, in float64."""
    n_fits = N_FITS[size]
    x, y, finite = simulate(n_fits)
    fit, data, starts = fit_of(x, y)
    free = np.column_stack([starts[:, :3], np.log(starts[:, 3])])

    def by_numba() -> Way:
        from ..numba_loops.negative_binomial import newton

        return peers.compiled_loop(NUMBA, newton, x, y, starts, sample=cpu_sample)

    def by_scipy() -> Way:
        from ..scipy_loops.negative_binomial import lbfgsb

        return peers.on_all_cores(SCIPY, lbfgsb, x, y, starts, sample=cpu_sample)

    def by_statsmodels() -> Way:
        import statsmodels.discrete.discrete_model

        from ..scipy_loops.negative_binomial import statsmodels

        return peers.on_all_cores(STATSMODELS, statsmodels, x, y, starts, sample=cpu_sample)

    def plain(start: jax.Array, one: Any) -> tuple[jax.Array, jax.Array]:
        found = mle.fit(log_density, dict(zip(NAMES, natural(start))), one, constraints=CONSTRAINTS, max_steps=200)
        return jnp.stack([found.params[name] for name in NAMES]), found.steps

    def mapped(name: str, solve: peers.Solve) -> Way:
        return peers.mapped(name, solve, free, data, natural, tile=tile)

    def mean_loss(free: jax.Array, one: Any) -> jax.Array:
        return loss(free, one) / ROWS

    cpu_sample = peers.cpu_sample(size)
    tile = None if size == "gpu" else TILE
    makers = {
        NUMBA: by_numba,
        SCIPY: by_scipy,
        STATSMODELS: by_statsmodels,
        OPTIMISTIX: lambda: mapped(OPTIMISTIX, peers.optimistix(mean_loss, "BFGS", 1e-6, max_steps=100)),
        JAXOPT: lambda: mapped(JAXOPT, peers.jaxopt(mean_loss, "BFGS", 1e-5, max_steps=100)),
        PLAIN: lambda: peers.mapped(PLAIN, plain, free, data, lambda estimates: estimates),
    }
    own, latest = peers.mlekit_way(fit, lambda fits: jnp.stack([fits.params[name] for name in NAMES], axis=1))
    others, missing = peers.available(makers)

    workload = Workload(
        name="negative binomial",
        title=f"{n_fits:,} negative-binomial regressions of 200 counts, 4 parameters, 1 % without a maximum",
        n_fits=n_fits,
        ways=(own, *others),
        log_likelihood=lambda estimates: log_likelihood(x, y, estimates),
        counted=finite,
        reach={**wanted(others, {PLAIN: 6, SCIPY: 3, STATSMODELS: 8}), "limit": 0.8},
        limit=peers.limit_of(latest, rows=ROWS, loss=loss, points=free, sets=data, others=others),
        missing=missing,
    )
    return [workload]
