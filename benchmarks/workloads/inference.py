"""What inference costs: bootstrap replicates, profile intervals and covariances, beside fits and peers."""

from __future__ import annotations

import warnings
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
from ..peers_single import needs
from . import negative_binomial

#: Replicates of the bootstrap, data sets with profile intervals, fits with covariances.
SIZES = {"quick": (100, 50, 2_000), "full": (1_000, 1_000, 100_000), "gpu": (100_000, 10_000, 1_000_000)}
ROWS = 500
SLOPES = np.array([0.3, 0.5, -0.2, 0.1, 0.4])
MINOS = "iminuit MINOS, NumPy"
FITS = "mlekit's own fits"


def logistic(coef: Any, obs: Any) -> Any:
    """The log-density of one yes or no."""
    eta = obs["x"] @ coef
    return obs["y"] * eta - jnp.logaddexp(0.0, eta)


def poisson(coef: Any, obs: Any) -> Any:
    """The log-density of one count, but for a constant."""
    eta = obs["x"] @ coef
    return obs["y"] * eta - jnp.exp(eta)


def finite(estimates: np.ndarray) -> np.ndarray:
    """A judge that knows of no maximum: whatever is a number will do."""
    return np.where(np.all(np.isfinite(estimates), axis=1), 0.0, -np.inf)


def counts(params: Any, obs: Any) -> Any:
    """The log-density of one overdispersed count, but for a constant."""
    log_mean, alpha, y = obs["x"] @ params["coef"], params["alpha"], obs["y"]
    rises = gammaln_difference(1 / alpha, y)
    return rises + y * (jnp.log(alpha) + log_mean) - (y + 1 / alpha) * jnp.log1p(alpha * jnp.exp(log_mean))


def workloads(size: str) -> list[Workload]:
    """Four workloads, in float64."""
    replicates, profiles, fits = SIZES[size]
    return [
        bootstrap_logistic(replicates),
        bootstrap_counts(replicates),
        profile(profiles),
        covariance(fits),
    ]


def bootstrap_logistic(replicates: int) -> Workload:
    """A regression of 500 yes and no with 5 parameters, drawn anew many times."""
    rng = np.random.default_rng(20260110)
    x = covariates(rng, len(SLOPES))
    y = (rng.uniform(size=ROWS) < special.expit(x @ SLOPES)).astype(float)
    fit = mle.fit(logistic, np.zeros(len(SLOPES)), {"x": x, "y": y})
    start = np.asarray(fit.params)

    def one(rows: np.ndarray) -> np.ndarray:
        from statsmodels.discrete.discrete_model import Logit

        return Logit(y[rows], x[rows]).fit(start_params=start, disp=0).params

    return bootstrap("bootstrap, logistic", "logistic", fit, replicates, "Logit", one)


def bootstrap_counts(replicates: int) -> Workload:
    """A regression of 500 counts with 5 parameters, drawn anew many times."""
    rng = np.random.default_rng(20260112)
    x = covariates(rng, 4)
    y = rng.poisson(np.exp(x @ np.array([1.0, 0.3, -0.2, 0.1])) * rng.gamma(2, 0.5, ROWS)).astype(float)
    init = {"coef": np.zeros(4), "alpha": 1.0}
    fit = mle.fit(counts, init, {"x": x, "y": y}, constraints={"alpha": mle.positive})
    start = np.append(fit.params["coef"], fit.params["alpha"])

    def one(rows: np.ndarray) -> np.ndarray:
        from statsmodels.discrete.discrete_model import NegativeBinomial

        model = NegativeBinomial(y[rows], x[rows])
        return model.fit(start_params=start, disp=0, skip_hessian=True).params

    return bootstrap("bootstrap, counts", "negative-binomial", fit, replicates, "NegativeBinomial, BFGS", one)


def covariates(rng: np.random.Generator, k: int) -> np.ndarray:
    """A constant and normal ones, shape `(500, k)`."""
    return np.column_stack([np.ones(ROWS), rng.normal(size=(ROWS, k - 1))])


def bootstrap(
    name: str, model: str, fit: mle.Fit, replicates: int, peer: str, one: Callable[[np.ndarray], np.ndarray]
) -> Workload:
    """Bootstrap replicates by mlekit, and `one(rows)` of statsmodels after the other, both from the estimate."""
    seeds = iter(range(1_000_000))
    loop = f"statsmodels {peer}, in a loop"

    def own() -> Any:
        return mle.bootstrap(fit, jax.random.key(next(seeds)), replicates).vector

    def by_statsmodels() -> Way:
        needs("statsmodels")

        def run() -> np.ndarray:
            draws = np.random.default_rng(next(seeds))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return np.stack([one(draws.integers(0, ROWS, ROWS)) for _ in range(replicates)])

        return Way(loop, run)

    others, missing = peers.available({loop: by_statsmodels})
    return Workload(
        name=name,
        title=f"{replicates:,} bootstrap replicates of a {model} regression, 500 observations, 5 parameters",
        n_fits=replicates,
        ways=(Way("mlekit", own), *others),
        log_likelihood=finite,
        reach={loop: 20},
        missing=missing,
    )


def profile(n_sets: int) -> Workload:
    """Profile intervals of all four parameters of negative-binomial regressions, 200 counts each."""
    x, y, has_maximum = negative_binomial.simulate(n_sets)
    fit, _, _ = negative_binomial.fit_of(x, y)
    found = fit()

    def ends(intervals: Any) -> np.ndarray:
        return np.column_stack([np.column_stack(intervals[name]) for name in negative_binomial.NAMES])

    def estimates_of(fits: mle.Fit) -> np.ndarray:
        return np.column_stack([np.asarray(fits.params[name]) for name in negative_binomial.NAMES])

    def by_minos() -> Way:
        from ..scipy_loops.negative_binomial import minos

        needs("iminuit")
        return peers.on_all_cores(MINOS, minos, x, y, estimates_of(found), sample=min(n_sets, 100))

    others, missing = peers.available({MINOS: by_minos})
    return Workload(
        name="profile",
        title=f"profile intervals of {n_sets:,} negative-binomial regressions of 200 counts, 8 ends each",
        n_fits=n_sets,
        ways=(
            Way("mlekit", lambda: ends(found.intervals(method="profile"))),
            Way(FITS, lambda: estimates_of(fit())),
            *others,
        ),
        log_likelihood=finite,
        counted=has_maximum,
        reach={FITS: 1 / 20},
        missing=missing,
    )


def covariance(n_sets: int) -> Workload:
    """Covariances of many small Poisson regressions, measured in steps of their own search."""
    rng = np.random.default_rng(20260111)
    x = np.concatenate([np.ones((n_sets, 50, 1)), rng.normal(size=(n_sets, 50, 3))], axis=2)
    y = rng.poisson(np.exp(x @ np.array([1.0, 0.3, -0.2, 0.1]))).astype(float)

    def fit() -> mle.Fit:
        return mle.fit_batch(poisson, np.zeros(4), {"x": x, "y": y})

    found = fit()
    steps = float(jnp.mean(found.steps))
    return Workload(
        name="covariances",
        title=f"covariances of {n_sets:,} Poisson regressions of 50 counts, 4 parameters, {steps:.1f} steps each",
        n_fits=n_sets,
        ways=(
            Way("mlekit", lambda: np.asarray(found.covariance()).reshape(n_sets, -1)),
            Way(FITS, lambda: fit().params),
        ),
        log_likelihood=finite,
        # At most as long as two steps of the search.
        reach={FITS: 2 / steps},
    )
