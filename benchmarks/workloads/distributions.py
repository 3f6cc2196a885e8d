"""Many small fits of one distribution each: gamma, Weibull and Student-t."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

import mlekit as mle
from mlekit.core.special import gammaln, gammaln_difference

from .. import peers
from ..harness import Way, Workload
from ..peers_single import needs, wanted

POINTS = 100
FITS = {"quick": 400, "full": 100_000, "gpu": 1_000_000}
SCIPY_SAMPLE = {"quick": 40, "full": 1_000, "gpu": 1_000}
MINUIT_SAMPLE = {"quick": 100, "full": 5_000, "gpu": 5_000}

SCIPY, IMINUIT = "SciPy fit", "iminuit, numba cost and gradient"
#: By what algebra leaves of each likelihood, whose steps are not those of a search over all parameters.
NUMBA = "numba Newton, prange"


def gamma_density(params, x):
    shape, scale = params["shape"], params["scale"]
    return (shape - 1) * jnp.log(x) - x / scale - shape * jnp.log(scale) - gammaln(shape)


def weibull_density(params, x):
    shape = params["shape"]
    log = jnp.log(x) - jnp.log(params["scale"])
    return jnp.log(shape) + shape * log - jnp.log(x) - jnp.exp(shape * log)


def t_density(params, x):
    df, scale = params["df"], params["scale"]
    constant = gammaln_difference(0.5 * df, 0.5) - 0.5 * jnp.log(jnp.pi * df) - jnp.log(scale)
    return constant - 0.5 * (df + 1) * jnp.log1p(((x - params["loc"]) / scale) ** 2 / df)


def gamma_start(x: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(axis=1), x.var(axis=1)
    return np.stack([mean**2 / variance, variance / mean], axis=1)


def weibull_start(x: np.ndarray) -> np.ndarray:
    """From the moments of the logarithm."""
    log = np.log(x)
    shape = np.pi / np.sqrt(6) / log.std(axis=1)
    return np.stack([shape, np.exp(log.mean(axis=1) + np.euler_gamma / shape)], axis=1)


def t_start(x: np.ndarray) -> np.ndarray:
    """From mean, variance and kurtosis, the last within reason."""
    excess = scipy.stats.kurtosis(x, axis=1)
    df = np.clip(4 + 6 / np.maximum(excess, 0.1), None, 20.0)
    return np.stack([df, x.mean(axis=1), x.std(axis=1) * np.sqrt((df - 2) / df)], axis=1)


@dataclasses.dataclass(frozen=True)
class Case:
    """A distribution and how to fit it.

    Args:
        names: of its parameters.
        positive: which of them are.
        truth: the least and the largest values that data sets are made of.
        draw: `draw(rng, parameters, shape)` makes data.
        density: mlekit's model.
        start: starts from moments.
        log_density: `log_density(x, parameters)` for the judge.
        loop: its name among the loops of the peers.
    """

    names: tuple[str, ...]
    positive: tuple[bool, ...]
    truth: tuple[tuple[float, ...], tuple[float, ...]]
    draw: Callable[..., np.ndarray]
    density: Callable[..., Any]
    start: Callable[[np.ndarray], np.ndarray]
    log_density: Callable[..., np.ndarray]
    loop: str


CASES = {
    "gamma": Case(
        ("shape", "scale"),
        (True, True),
        ((0.7, 0.5), (5.0, 3.0)),
        lambda rng, p, size: rng.gamma(p[0], p[1], size),
        gamma_density,
        gamma_start,
        lambda x, p: (p[0] - 1) * np.log(x) - x / p[1] - p[0] * np.log(p[1]) - scipy.special.gammaln(p[0]),
        "gamma",
    ),
    "Weibull": Case(
        ("shape", "scale"),
        (True, True),
        ((0.7, 0.5), (5.0, 3.0)),
        lambda rng, p, size: p[1] * rng.weibull(p[0], size),
        weibull_density,
        weibull_start,
        lambda x, p: np.log(p[0] / p[1]) + (p[0] - 1) * np.log(x / p[1]) - (x / p[1]) ** p[0],
        "weibull",
    ),
    "Student-t": Case(
        ("df", "loc", "scale"),
        (True, False, True),
        ((2.5, -2.0, 0.5), (5.0, 2.0, 3.0)),
        lambda rng, p, size: p[1] + p[2] * rng.standard_t(p[0], size),
        t_density,
        t_start,
        lambda x, p: (
            scipy.special.gammaln((p[0] + 1) / 2)
            - scipy.special.gammaln(p[0] / 2)
            - 0.5 * np.log(np.pi * p[0])
            - np.log(p[2])
            - 0.5 * (p[0] + 1) * np.log1p(((x - p[1]) / p[2]) ** 2 / p[0])
        ),
        "student_t",
    ),
}


def simulate(case: Case, n: int, seed: int) -> np.ndarray:
    """Data sets, shape `(n, POINTS)`, each with parameters of its own."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(*case.truth, (n, len(case.names))).T[:, :, None]
    return case.draw(rng, truth, (n, POINTS))


def workloads(size: str) -> list[Workload]:
    """One workload a distribution."""
    return [workload(size, name, 30 + k) for k, name in enumerate(CASES)]


def workload(size: str, name: str, seed: int) -> Workload:
    """The fits of the distribution `name`."""
    case = CASES[name]
    x = simulate(case, FITS[size], seed)
    starts = case.start(x)
    init = dict(zip(case.names, starts.T))
    constraints = {n: mle.positive for n, positive in zip(case.names, case.positive) if positive}
    by_logarithm = np.array(case.positive)

    def fit() -> mle.Fit:
        return mle.fit_batch(case.density, init, x, init_axis=0, constraints=constraints)

    def by_scipy() -> Way:
        from ..scipy_loops import distributions as loops

        fit_one = getattr(loops, f"scipy_{case.loop}")
        return peers.on_all_cores(SCIPY, fit_one, x, starts, sample=SCIPY_SAMPLE[size])

    def by_iminuit() -> Way:
        needs("iminuit", "numba")
        from ..scipy_loops import distributions as loops

        fit_one = functools.partial(loops.iminuit, f"{case.loop}_cost", case.positive)
        return peers.on_all_cores(IMINUIT, fit_one, x, starts, sample=MINUIT_SAMPLE[size])

    def by_numba() -> Way:
        from ..numba_loops import distributions as loops

        return peers.compiled_loop(NUMBA, getattr(loops, case.loop), x, starts, sample=peers.cpu_sample(size))

    own, latest = peers.mlekit_way(fit, lambda fits: np.stack([fits.params[n] for n in case.names], axis=1))
    others, missing = peers.available({SCIPY: by_scipy, IMINUIT: by_iminuit, NUMBA: by_numba})

    def log_likelihood(estimates: np.ndarray) -> np.ndarray:
        return case.log_density(x[: len(estimates)], estimates.T[:, :, None]).sum(axis=1)

    def loss(free: jax.Array, one: jax.Array) -> jax.Array:
        values = [jnp.exp(value) if positive else value for value, positive in zip(free, case.positive)]
        return -jnp.sum(case.density(dict(zip(case.names, values)), one))

    return Workload(
        name=name,
        title=f"{len(x):,} {name} fits of {POINTS} points, {len(case.names)} parameters, float64",
        n_fits=len(x),
        ways=(own, *others),
        log_likelihood=log_likelihood,
        # Heavier tails than the normal's make the likelihood rise from infinite degrees of freedom inwards.
        counted=scipy.stats.kurtosis(x, axis=1) > 0 if name == "Student-t" else None,
        reach=wanted(others, {SCIPY: 50.0, IMINUIT: 5.0}),
        limit=peers.limit_of(
            latest,
            rows=POINTS,
            loss=loss,
            points=np.where(by_logarithm, np.log(np.where(by_logarithm, starts, 1.0)), starts),
            sets=x,
            others=(),
        ),
        missing=missing,
    )
