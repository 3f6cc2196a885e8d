"""Spots of light: Poisson counts of 5x5 pixels around a two-dimensional Gaussian, as Gpufit lays them out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln

import mlekit as mle

from .. import peers
from ..harness import Way, Workload
from ..peers_single import wanted

SIDE = 5
N_FITS = {"quick": 1_000, "full": 100_000, "gpu": 1_000_000}
NAMES = ("amplitude", "x0", "y0", "width", "background")
CONSTRAINTS = {"amplitude": mle.positive, "width": mle.positive, "background": mle.positive}
#: Tiles that suit a core's cache.
TILE = 128

NUMBA = "numba Levenberg-Marquardt (Fisher scoring), prange"
AT_ONCE = "optimistix BFGS, all at once"
OPTIMISTIX, JAXOPT, TFP = "optimistix BFGS", "jaxopt BFGS", "TFP on JAX BFGS"


def log_density(params: Any, pixel: Any) -> Any:
    """The log-density of one pixel; of arrays of them just as well."""
    square = (pixel["x"] - params["x0"]) ** 2 + (pixel["y"] - params["y0"]) ** 2
    rate = params["background"] + params["amplitude"] * jnp.exp(-square / (2 * params["width"] ** 2))
    # Relative to the count, which float32 resolves far better than the logarithm of the rate itself.
    return pixel["count"] * jnp.log(rate / pixel["reference"]) + (pixel["count"] - rate) - pixel["constant"]


def rates(estimates: np.ndarray) -> np.ndarray:
    """Expected counts, shape `(n, 25)`, row by row."""
    amplitude, x0, y0, width, background = estimates.T[:, :, None]
    pixel = np.arange(SIDE)
    profile = [np.exp(-0.5 * ((pixel - centre) / width) ** 2) for centre in (x0, y0)]
    peak = amplitude[:, :, None] * profile[1][:, :, None] * profile[0][:, None, :]
    return (background[:, :, None] + peak).reshape(-1, SIDE**2)


def simulate(n_fits: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts, shape `(n, 25)`, and rough starts, in natural units: the truth, 20 % off."""
    rng = np.random.default_rng(20260101)
    low, high = np.array([[200, 1.7, 1.7, 0.8, 20], [1000, 2.3, 2.3, 1.05, 50]])
    truth = rng.uniform(low, high, (n_fits, 5))
    starts = truth * (1 + rng.uniform(-0.2, 0.2, truth.shape))
    return rng.poisson(rates(truth)).astype(float), starts


def natural(free: jax.Array) -> jax.Array:
    """Estimates of a free vector: amplitude, width and background by their logarithms."""
    return jnp.stack([jnp.exp(free[0]), free[1], free[2], jnp.exp(free[3]), jnp.exp(free[4])])


def loss(free: jax.Array, image: Any) -> jax.Array:
    """The negative log-likelihood of one image."""
    return -jnp.sum(log_density(dict(zip(NAMES, natural(free))), image))


def per_photon(free: jax.Array, image: Any) -> jax.Array:
    """The loss of the quasi-Newton peers: a first step of length one is sane, which halves their time."""
    return loss(free, image) / jnp.sum(image["count"])


def workloads(size: str) -> list[Workload]:
    """The same spots in float64 and in float32."""
    return [spots(size, np.float64), spots(size, np.float32)]


def spots(size: str, dtype: Any) -> Workload:
    """Spots with everything in `dtype`."""
    n_fits, double, tile = N_FITS[size], dtype is np.float64, None if size == "gpu" else TILE
    exact, starts = simulate(n_fits)
    reference = np.maximum(exact, 1)
    row, column = (np.broadcast_to(index.ravel(), exact.shape) for index in np.indices((SIDE, SIDE)))
    constant = gammaln(exact + 1) + exact - exact * np.log(reference)
    names = ("x", "y", "count", "reference", "constant")
    arrays = (column, row, exact, reference, constant)
    images = {name: np.ascontiguousarray(array, dtype) for name, array in zip(names, arrays)}
    starts = starts.astype(dtype)
    free = starts.copy()
    free[:, [0, 3, 4]] = np.log(starts[:, [0, 3, 4]])
    init = dict(zip(NAMES, starts.T))

    def fit() -> mle.Fit:
        return mle.fit_batch(log_density, init, images, init_axis=0, constraints=CONSTRAINTS)

    def by_numba() -> Way:
        from ..numba_loops.spots import levenberg_marquardt

        return peers.compiled_loop(NUMBA, levenberg_marquardt(dtype), images["count"], starts, sample=cpu_sample)

    def bfgs() -> peers.Solve:
        return peers.optimistix(per_photon, "BFGS", 1e-6 if double else 1e-4)

    def mapped(name: str, solve: peers.Solve, tile: int | None = tile, sample: int | None = None) -> Way:
        return peers.mapped(name, solve, free, images, natural, tile=tile, sample=sample)

    cpu_sample = peers.cpu_sample(size)
    # The loosest tolerances at which they find the maxima; line searches of float32 fail on tighter ones.
    makers = {
        NUMBA: by_numba,
        OPTIMISTIX: lambda: mapped(OPTIMISTIX, bfgs()),
        JAXOPT: lambda: mapped(
            JAXOPT,
            peers.jaxopt(per_photon, "BFGS", 3e-6)
            if double
            else peers.jaxopt(per_photon, "BFGS", 1e-4, max_steps=40, linesearch="backtracking"),
        ),
        TFP: lambda: mapped(TFP, peers.tfp(per_photon, "bfgs_minimize", 1e-6 if double else 1e-4, max_steps=100)),
    }
    if tile is not None:
        makers[AT_ONCE] = lambda: mapped(OPTIMISTIX, bfgs(), tile=None, sample=20_000)
    own, latest = peers.mlekit_way(fit, lambda fits: jnp.stack([fits.params[name] for name in NAMES], axis=1))
    others, missing = peers.available(makers)

    return Workload(
        name=f"spots, {np.dtype(dtype).name}",
        title=f"{n_fits:,} images of 5x5 pixels, Poisson counts around a Gaussian, 5 parameters",
        n_fits=n_fits,
        ways=(own, *others),
        log_likelihood=lambda p: peers.poisson_log_likelihood(exact[: len(p)], rates(p)),
        # What float32 can tell apart; its counts alone are sums of some thousands.
        accept=1e-6 if double else 1e-4,
        reach=wanted(others, {NUMBA: 0.6, OPTIMISTIX: 4, JAXOPT: 4, TFP: 4}),
        limit=peers.limit_of(latest, rows=SIDE**2, loss=loss, points=free, sets=images, others=others),
        missing=missing,
    )
