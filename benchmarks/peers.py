"""What the peers of several workloads share: loops over all cores, and JAX's other optimisers under `vmap`.

No peer is imported here before it is used: one that is not installed is named in the table, with the reason.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import scipy.special

import mlekit as mle
from mlekit.engine import chunks

from .harness import Limit, Way, cores, in_shares, measure_limit

#: `loss(free, one set)`: the negative log-likelihood of one data set.
Loss = Callable[[jax.Array, Any], jax.Array]
#: `solve(start, one set)`: where it ended, and after how many steps.
Solve = Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]


def available(makers: Mapping[str, Callable[[], Way]]) -> tuple[tuple[Way, ...], dict[str, str]]:
    """The ways that can be made here, and why others cannot.

    Args:
        makers: name of the peer -> what makes its way, and imports what that needs.
    """
    ways, missing = [], {}
    for name, make in makers.items():
        try:
            ways.append(make())
        except (ImportError, AttributeError) as error:  # packages that do not suit each other lack something
            missing[name] = f"not installable: {type(error).__name__}: {error}"
    return tuple(ways), missing


def mlekit_way(
    fit: Callable[[], mle.Fit], estimates: Callable[[mle.Fit], Any]
) -> tuple[Way, Callable[[], tuple[mle.Fit, int]]]:
    """The way of mlekit, and what gives its latest fits with the rows that its lanes ran over for them.

    Args:
        fit: does the fits.
        estimates: of the fits, in natural units, shape `(n_fits, k)`.
    """
    latest: list[tuple[mle.Fit, int]] = []

    def run() -> np.ndarray:
        with chunks.accounting() as account:
            fits = fit()
        latest[:] = [(fits, account.rows)]
        return np.where(np.asarray(fits.converged)[:, None], np.asarray(estimates(fits)), np.nan)

    def steps() -> float | None:
        return float(np.mean(np.asarray(latest[0][0].steps))) if latest else None

    return Way("mlekit", run, steps=steps), lambda: latest[0]


def limit_of(
    latest: Callable[[], tuple[mle.Fit, int]],
    *,
    rows: int,
    loss: Loss,
    points: np.ndarray,
    sets: Any,
    others: tuple[Way, ...] = (),
) -> Callable[[float], Limit | None]:
    """What gives the limit of mlekit's latest fits from the seconds they took; arguments as of `measure_limit`."""

    def limit(seconds: float) -> Limit | None:
        fits, executed = latest()
        return measure_limit(
            seconds,
            fits=fits,
            executed_rows=executed,
            rows=rows,
            loss=loss,
            points=points,
            sets=sets,
            others=others,
        )

    return limit


def cpu_sample(size: str) -> int | None:
    """How many data sets peers without a GPU do where the size is made for one."""
    return 20_000 if size == "gpu" else None


def poisson_log_likelihood(counts: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Log-likelihood of each row of counts."""
    return (counts * np.log(rates) - rates - scipy.special.gammaln(counts + 1)).sum(axis=1)


def compiled_loop(
    name: str,
    loop: Callable[..., tuple[np.ndarray, np.ndarray]],
    *arrays: np.ndarray,
    sample: int | None = None,
) -> Way:
    """A loop in numba on all cores: `loop(*arrays)` gives estimates and steps.

    Args:
        name: of the way.
        loop: compiled, with `prange`.
        arrays: its arguments, each with a leading axis of data sets.
        sample: only so many of the sets.
    """
    import numba

    n_sets = len(arrays[0])
    latest: list[np.ndarray] = []

    def run() -> np.ndarray:
        numba.set_num_threads(cores())
        estimates, steps = loop(*(array[:sample] for array in arrays))
        latest[:] = [steps]
        return estimates

    return Way(name, run, sample=None if sample is None or sample >= n_sets else sample, steps=mean_of(latest))


def mean_of(latest: list[np.ndarray]) -> Callable[[], float | None]:
    """The mean number of steps of the latest run, `None` before the first."""
    return lambda: float(np.mean(latest[0])) if latest else None


def on_all_cores(
    name: str, fit_one: Callable[..., np.ndarray], *arrays: np.ndarray, sample: int | None = None
) -> Way:
    """A loop in Python over data sets, in as many processes as there are cores, with one BLAS thread each.

    The processes start in the first run, whose excess counts as compilation.

    Args:
        name: of the way; the number of processes is appended.
        fit_one: `fit_one(*one set)` gives the estimates; of a module that does not import JAX.
        arrays: the data sets, each array with a leading axis of them.
        sample: only so many of the sets.
    """
    import joblib

    n_sets = len(arrays[0]) if sample is None else min(sample, len(arrays[0]))
    parts = [chosen for chosen in np.array_split(np.arange(n_sets), 8 * cores()) if len(chosen)]

    def run() -> np.ndarray:
        with joblib.parallel_config(backend="loky", n_jobs=cores(), inner_max_num_threads=1):
            tasks = (joblib.delayed(_several)(fit_one, tuple(array[part] for array in arrays)) for part in parts)
            return np.concatenate(joblib.Parallel()(tasks))

    return Way(f"{name}, {cores()} processes", run, sample=None if n_sets == len(arrays[0]) else n_sets)


def _several(fit_one: Callable[..., np.ndarray], arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.stack([fit_one(*one) for one in zip(*arrays)])


def mapped(
    name: str,
    solve: Solve,
    starts: Any,
    sets: Any,
    natural: Callable[[jax.Array], jax.Array],
    tile: int | None = None,
    sample: int | None = None,
) -> Way:
    """One of JAX's optimisers under `vmap`, compiled as a whole; every core or device has its share of the sets.

    Args:
        name: of the way; how it is mapped is appended.
        solve: does one fit.
        starts: free vectors, shape `(n_sets, k)`.
        sets: the data sets, arrays with a leading axis of them.
        natural: free vector -> estimates in natural units.
        tile: data sets mapped at a time, the tiles one after the other; all at once by default.
        sample: only so many of the sets.
    """
    every_set = len(starts)
    n_sets = every_set if sample is None else min(sample, every_set)

    def one(pair: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
        free, steps = solve(*pair)
        return natural(free), steps

    search = in_shares(one, (starts, sets), n_sets, tile)
    latest: list[np.ndarray] = []

    def run() -> np.ndarray:
        estimates, steps = (np.concatenate(parts)[:n_sets] for parts in zip(*search()))
        latest[:] = [steps]
        return estimates

    how = "vmap" if tile is None else f"vmap in tiles of {tile}"
    return Way(
        f"{name}, {how}",
        run,
        sample=None if n_sets == every_set else n_sets,
        steps=mean_of(latest),
    )


def optimistix(loss: Loss, solver: str, tolerance: float, max_steps: int = 500) -> Solve:
    """One of optimistix's minimisers, by name."""
    import optimistix as optx

    chosen = getattr(optx, solver)(rtol=tolerance, atol=tolerance)

    def solve(start: jax.Array, data: Any) -> tuple[jax.Array, jax.Array]:
        found: Any = optx.minimise(loss, chosen, start, data, max_steps=max_steps, throw=False)
        return found.value, found.stats["num_steps"]

    return solve


def jaxopt(loss: Loss, solver: str, tolerance: float, max_steps: int = 500, **settings: Any) -> Solve:
    """One of jaxopt's minimisers, by name."""
    library = _quietly("jaxopt")

    chosen = getattr(library, solver)(fun=loss, tol=tolerance, maxiter=max_steps, **settings)

    def solve(start: jax.Array, data: Any) -> tuple[jax.Array, jax.Array]:
        found = chosen.run(start, data)
        return found.params, found.state.iter_num

    return solve


def tfp(loss: Loss, solver: str, tolerance: float, max_steps: int = 500, **settings: Any) -> Solve:
    """One of the minimisers of TensorFlow Probability on JAX, by name."""
    library = _quietly("tensorflow_probability.substrates.jax")
    minimise = getattr(library.optimizer, solver)

    def solve(start: jax.Array, data: Any) -> tuple[jax.Array, jax.Array]:
        found = minimise(
            jax.value_and_grad(lambda free: loss(free, data)),
            start,
            tolerance=tolerance,
            max_iterations=max_steps,
            **settings,
        )
        return found.position, found.num_iterations

    return solve


def _quietly(package: str) -> Any:
    """A package that warns of its own imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(package)
