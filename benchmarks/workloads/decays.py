"""Biexponential decays with noise of unknown size, a few of them from starts that are far off."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlekit as mle

from .. import peers
from ..harness import Way, Workload
from ..peers_single import needs, wanted

POINTS = 64
N_FITS = {"quick": 500, "full": 20_000, "gpu": 500_000}
NAMES = ("fast_amplitude", "fast_rate", "slow_amplitude", "slow_rate", "noise")
CONSTRAINTS = dict.fromkeys(NAMES, mle.positive)
TILE = 64

NUMBA = "numba Levenberg-Marquardt, prange"
SCIPY = "SciPy least_squares, analytic Jacobian"
LMFIT = "lmfit leastsq, analytic Jacobian, no errors"
OPTIMISTIX = "optimistix BFGS, noise profiled out"


def curve(params: Any, t: Any) -> Any:
    """The decay without noise."""
    fast = params["fast_amplitude"] * jnp.exp(-params["fast_rate"] * t)
    return fast + params["slow_amplitude"] * jnp.exp(-params["slow_rate"] * t)


def log_density(params: Any, obs: Any) -> Any:
    """The log-density of one point; of arrays of them just as well."""
    z = (obs["y"] - curve(params, obs["t"])) / params["noise"]
    return -0.5 * z * z - jnp.log(params["noise"]) - 0.5 * np.log(2 * np.pi)


def simulate(n_fits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times and values, shape `(n, 64)`, and starts; one in a hundred of these is pathological."""
    rng = np.random.default_rng(20260103)
    t = 6 * np.sort(rng.uniform(size=(n_fits, POINTS)), axis=1) ** 2
    low, high = np.array([[0.5, 2, 0.5, 0.3, 0.01], [1.5, 4, 1.5, 0.8, 0.03]])
    truth = rng.uniform(low, high, (n_fits, 5))
    y = truth[:, :1] * np.exp(-truth[:, 1:2] * t) + truth[:, 2:3] * np.exp(-truth[:, 3:4] * t)
    y += truth[:, 4:] * rng.normal(size=y.shape)
    starts = truth * np.exp(rng.uniform(-0.4, 0.4, truth.shape))
    starts[:, 4] = 0.1
    # Rates almost alike, which is next to a saddle; one far too fast, where it is flat; and the two exchanged.
    far = np.arange(n_fits) % 100 == 50
    starts[far, 1] = starts[far, 3] * rng.choice([1.02, 60, 0.01], far.sum())
    return t, y, starts


def loss(free: jax.Array, one: Any) -> jax.Array:
    """The negative log-likelihood of one decay, all parameters by their logarithms."""
    return -jnp.sum(log_density(dict(zip(NAMES, jnp.exp(free))), one))


def log_likelihood(t: np.ndarray, y: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Log-likelihoods in NumPy."""
    t, y = t[: len(estimates)], y[: len(estimates)]
    a, rate_a, b, rate_b, noise = estimates.T[:, :, None]
    z = (y - a * np.exp(-rate_a * t) - b * np.exp(-rate_b * t)) / noise
    return (-0.5 * z * z - np.log(noise) - 0.5 * np.log(2 * np.pi)).sum(axis=1)


def workloads(size: str) -> list[Workload]:
    """One workload, in float64."""
    n_fits = N_FITS[size]
    t, y, starts = simulate(n_fits)
    data, init = {"t": t, "y": y}, dict(zip(NAMES, starts.T))

    def fit() -> mle.Fit:
        return mle.fit_batch(log_density, init, data, init_axis=0, constraints=CONSTRAINTS)

    def by_numba() -> Way:
        from ..numba_loops.decays import levenberg_marquardt

        return peers.compiled_loop(NUMBA, levenberg_marquardt, t, y, starts, sample=cpu_sample)

    def by_scipy() -> Way:
        from ..scipy_loops.decays import least_squares

        return peers.on_all_cores(SCIPY, least_squares, t, y, starts, sample=cpu_sample)

    def by_lmfit() -> Way:
        from ..scipy_loops.decays import lmfit

        needs("lmfit")
        return peers.on_all_cores(LMFIT, lmfit, t, y, starts, sample=2_000)

    def profile(free: jax.Array, one: Any) -> jax.Array:
        """The mean loss up to a constant, with the noise at its maximum for amplitudes and rates."""
        return jnp.log(jnp.mean((curve(dict(zip(NAMES, jnp.exp(free))), one["t"]) - one["y"]) ** 2)) / 2

    def by_optimistix() -> Way:
        search = peers.optimistix(profile, "BFGS", 1e-6)

        def solve(start: jax.Array, one: Any) -> tuple[jax.Array, jax.Array]:
            free, steps = search(start[:4], one)
            return jnp.append(free, profile(free, one)), steps

        return peers.mapped(OPTIMISTIX, solve, np.log(starts), data, jnp.exp, tile=None if size == "gpu" else TILE)

    cpu_sample = peers.cpu_sample(size)
    makers = {NUMBA: by_numba, SCIPY: by_scipy, LMFIT: by_lmfit, OPTIMISTIX: by_optimistix}
    own, latest = peers.mlekit_way(fit, lambda fits: jnp.stack([fits.params[name] for name in NAMES], axis=1))
    others, missing = peers.available(makers)

    workload = Workload(
        name="decays",
        title=f"{n_fits:,} biexponential decays of 64 points, 5 parameters, 1 % from pathological starts",
        n_fits=n_fits,
        ways=(own, *others),
        log_likelihood=lambda estimates: log_likelihood(t, y, estimates),
        reach={**wanted(others, {SCIPY: 10}), "limit": 0.75},
        limit=peers.limit_of(latest, rows=POINTS, loss=loss, points=np.log(starts), sets=data, others=others),
        missing=missing,
    )
    return [workload]
