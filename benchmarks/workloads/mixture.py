"""One mixture of very many events: a normal signal on an exponential background, both cut off at the edges."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.scipy.special import ndtr

import mlekit as mle

from ..harness import Way, Workload, cores
from ..peers import available
from ..peers_single import mlekit_single

EVENTS = {"quick": 20_000, "full": 1_000_000, "gpu": 20_000_000}
#: Events lie between 0 and this.
EDGE = 10.0
NAMES = ("fraction", "mean", "width", "slope")
TRUTH = (0.3, 4.0, 0.8, 0.35)
START = (0.5, 5.0, 1.5, 0.2)
CONSTRAINTS = {"fraction": mle.unit_interval, "width": mle.positive, "slope": mle.positive}
#: The same for those who want edges.
LIMITS = ((1e-6, 1 - 1e-6), (0.0, EDGE), (1e-3, EDGE), (1e-3, 10.0))
#: iminuit stops where it expects to gain less than 1e-3 times this, in nats.
TOLERANCE = 1e-3
#: Nats of a log-likelihood of 2e6.
ACCEPT = 1e-3


def log_density(params, x):  # of one event
    fraction, mean, width, slope = (params[name] for name in NAMES)
    inside = ndtr((EDGE - mean) / width) - ndtr(-mean / width)
    signal = fraction / (math.sqrt(2 * math.pi) * width * inside)
    background = (1 - fraction) * slope / -jnp.expm1(-slope * EDGE)
    return jnp.log(signal * jnp.exp(-0.5 * ((x - mean) / width) ** 2) + background * jnp.exp(-slope * x))


def simulate(n: int) -> np.ndarray:
    """Events of both kinds, shuffled, by inverting their distribution functions."""
    rng = np.random.default_rng(21)
    fraction, mean, width, slope = TRUTH
    u = rng.random(n)
    low, high = scipy.special.ndtr([-mean / width, (EDGE - mean) / width])
    signal = mean + width * scipy.special.ndtri(low + u * (high - low))
    background = -np.log1p(u * np.expm1(-slope * EDGE)) / slope
    return np.where(rng.random(n) < fraction, signal, background)


def log_likelihood(x: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """The judge."""
    fraction, mean, width, slope = estimates[0]
    inside = scipy.special.ndtr((EDGE - mean) / width) - scipy.special.ndtr(-mean / width)
    signal = fraction / (math.sqrt(2 * math.pi) * width * inside)
    background = (1 - fraction) * slope / -np.expm1(-slope * EDGE)
    return np.array(
        [np.log(signal * np.exp(-0.5 * ((x - mean) / width) ** 2) + background * np.exp(-slope * x)).sum()]
    )


def workloads(size: str) -> list[Workload]:
    """The one workload; every way reads the same array in host memory."""
    x = simulate(EVENTS[size])
    start = dict(zip(NAMES, START))

    def estimates(fit: mle.Fit) -> np.ndarray:
        return np.array([fit.params[name] for name in NAMES])

    own = mlekit_single(lambda: mle.fit(log_density, start, x, constraints=CONSTRAINTS), estimates)
    peers, missing = available(
        {
            "iminuit, numba_stats": lambda: numba_stats_way(x),
            "iminuit, numba cost and gradient by hand": lambda: numba_way(x),
            "zfit": lambda: zfit_way(x),
        }
    )
    return [
        Workload(
            name="mixture",
            title=f"one mixture, {len(x):,} events, 4 parameters, float64; within {ACCEPT:g} nats",
            n_fits=1,
            ways=(own, *peers),
            log_likelihood=functools.partial(log_likelihood, x),
            accept=ACCEPT,
            reach={way.name: 1.0 for way in peers},
            missing=missing,
        )
    ]


def migrad(name: str, cost: Any, gradient: Callable[..., Any] | None = None) -> Way:
    """The search of iminuit for the least cost, at the strategy that leaves errors worth having."""
    import iminuit
    import numba

    def run() -> np.ndarray:
        numba.set_num_threads(cores())
        search = iminuit.Minuit(cost, *START, name=NAMES, grad=gradient)
        search.errordef = iminuit.Minuit.LIKELIHOOD
        search.limits = LIMITS
        search.tol = TOLERANCE
        search.migrad()
        return np.array(search.values)[None] if search.valid else np.full((1, len(NAMES)), np.nan)

    return Way(name, run)


def numba_stats_way(x: np.ndarray) -> Way:
    """Densities of numba_stats in one compiled sum, parallel and with fast arithmetic, as its guide recommends."""
    import numba
    from numba_stats import truncexpon, truncnorm

    @numba.njit(parallel=True, fastmath=True)
    def cost(x, fraction, mean, width, slope):
        signal = truncnorm.pdf(x, 0.0, EDGE, mean, width)
        background = truncexpon.pdf(x, 0.0, EDGE, 0.0, 1 / slope)
        return -np.sum(np.log(fraction * signal + (1 - fraction) * background))

    return migrad("iminuit, numba_stats", lambda *point: cost(x, *point))


def numba_way(x: np.ndarray) -> Way:
    """A loop of our own that yields value and gradient in one pass."""
    from ..numba_loops.mixture import value_and_gradient

    latest: dict[Any, tuple[float, np.ndarray]] = {}

    def at(*point: Any) -> tuple[float, np.ndarray]:
        # MIGRAD asks for value and gradient apart, mostly at the same point.
        if point not in latest:
            latest.clear()
            latest[point] = value_and_gradient(x, EDGE, 64 * cores(), point)
        return latest[point]

    name = "iminuit, numba cost and gradient by hand"
    return migrad(name, lambda *point: -at(*point)[0], lambda *point: -at(*point)[1])


def zfit_way(x: np.ndarray) -> Way:
    """zfit: TensorFlow's compiled gradients, minimised by iminuit's MIGRAD."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import zfit

    space = zfit.Space("x", limits=(0.0, EDGE))
    parameters = [
        zfit.Parameter(f"mixture_{name}", value, low, high)
        for name, value, (low, high) in zip(NAMES, START, LIMITS)
    ]
    fraction, mean, width, slope = parameters
    decay = zfit.ComposedParameter("mixture_decay", lambda slope: -slope, params=[slope])
    signal = zfit.pdf.Gauss(mean, width, obs=space)
    background = zfit.pdf.Exponential(decay, obs=space)
    loss = zfit.loss.UnbinnedNLL(
        zfit.pdf.SumPDF([signal, background], fracs=fraction), zfit.Data.from_numpy(obs=space, array=x)
    )

    def run() -> np.ndarray:
        for parameter, value in zip(parameters, START):
            parameter.set_value(value)
        found = zfit.minimize.Minuit(tol=TOLERANCE, gradient="zfit").minimize(loss, params=parameters)
        values = np.array([found.params[parameter]["value"] for parameter in parameters])[None]
        return values if found.converged else np.full_like(values, np.nan)

    return Way("zfit", run)
