"""What a workload is, and how its ways are timed and judged."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

import mlekit as mle
from mlekit.core.devices import cores

#: A way that takes longer than so many seconds is repeated once only.
LONG = 20.0
#: One that takes less than so many seconds runs several times in its turn, for the scheduler disturbs it.
SHORT, SEVERAL = 0.05, 5

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to do the fits of a workload.

    Args:
        name: as in the table.
        run: does the fits; returns the estimates, shape `(n_done, k)`, in natural units and in the order of the
            data sets, with NaN rows where the way itself reports failure. The first call compiles.
        sample: it does only the first so many data sets, because all would take too long.
        steps: mean number of steps of the latest run, if the way can tell.
    """

    name: str
    run: Callable[[], Any]
    sample: int | None = None
    steps: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Limit:
    """How close to the limit: one factor for the solver, one for the lanes, one for the overhead.

    Args:
        fewest_over_mean_steps: the fewest mean steps that any way needs, over those of mlekit.
        mean_over_executed_steps: mlekit's mean steps, over the steps that its lanes executed per fit.
        bare_over_measured_step: the seconds of a bare evaluation, over those that an executed step took.
    """

    fewest_over_mean_steps: float
    mean_over_executed_steps: float
    bare_over_measured_step: float

    @property
    def fraction(self) -> float:
        """The fraction of the limit that was reached."""
        return self.fewest_over_mean_steps * self.mean_over_executed_steps * self.bare_over_measured_step


@dataclasses.dataclass(frozen=True)
class Workload:
    """Data sets to fit, and the ways to fit them.

    Args:
        name: short, with the dtype where there are several.
        title: one line for people.
        n_fits: number of data sets.
        ways: the first is mlekit's.
        log_likelihood: estimates of the first `m` sets, shape `(m, k)`, to their log-likelihoods, shape `(m,)`,
            in float64 with NumPy or SciPy alone: the judge, which no way supplies.
        counted: the sets with a finite maximum, shape `(n_fits,)`; others are not counted as failures.
        accept: a fit has failed if its log-likelihood is more than so many nats below the best that any way found.
        reach: name of a way -> the ratio that is wanted; "limit" -> the wanted fraction of the limit.
        limit: median seconds of mlekit's way -> how close it is to the limit.
        missing: peers that cannot run here -> why.
    """

    name: str
    title: str
    n_fits: int
    ways: tuple[Way, ...]
    log_likelihood: Callable[[np.ndarray], np.ndarray]
    counted: np.ndarray | None = None
    accept: float = 1e-6
    reach: Mapping[str, float] = dataclasses.field(default_factory=lambda: NOTHING)
    limit: Callable[[float], Limit | None] | None = None
    missing: Mapping[str, str] = dataclasses.field(default_factory=lambda: NOTHING)


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one way.

    Args:
        name: of the way.
        fits: how many data sets it did.
        seconds: median of its runs.
        fits_per_second: its rate.
        ratio: mlekit's rate over this one; above 1 mlekit is faster.
        compile_seconds: what the first call took beyond the median.
        failures: fits below the best that any way found, among those that count.
        counted: how many of its fits count.
        steps: mean number of steps, if it can tell.
        reach: the ratio that is wanted.
    """

    name: str
    fits: int
    seconds: float
    fits_per_second: float
    ratio: float
    compile_seconds: float
    failures: int
    counted: int
    steps: float | None
    reach: float | None


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of a workload; `rows[0]` is mlekit's.

    Args:
        name: of the workload.
        title: one line for people.
        fits: number of data sets.
        rows: one a way.
        limit: how close to the limit.
        limit_reach: the fraction of the limit that is wanted.
        missing: peers that did not run -> why.
    """

    name: str
    title: str
    fits: int
    rows: tuple[Row, ...]
    limit: Limit | None
    limit_reach: float | None
    missing: Mapping[str, str]


def timed(run: Callable[[], Any]) -> tuple[float, np.ndarray]:
    """Seconds, and the estimates on the host."""
    begin = time.perf_counter()
    out = np.asarray(run())
    return time.perf_counter() - begin, out


def measure(workload: Workload, repeats: int, say: Callable[[str], None] = lambda _: None) -> Measured:
    """Run all ways of a workload in turn, several times, and judge what they found.

    Args:
        workload: the workload.
        repeats: runs after the first, which compiles.
        say: told what is running.
    """
    missing = dict(workload.missing)
    first: dict[str, float] = {}
    found: dict[str, np.ndarray] = {}
    runs: dict[str, list[float]] = {}
    for way in workload.ways:
        say(f"{workload.name}: {way.name}, first run")
        try:
            first[way.name], found[way.name] = timed(way.run)
        except Exception as error:
            # A peer that breaks must not take the others' figures with it; mlekit's own errors are ours.
            if way is workload.ways[0]:
                raise
            missing[way.name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        runs[way.name] = []
    ways = [way for way in workload.ways if way.name in found]
    for repeat in range(repeats):
        for way in ways:
            if repeat and statistics.median(runs[way.name]) > LONG:
                continue
            say(f"{workload.name}: {way.name}, run {repeat + 1} of {repeats}")
            for _ in range(SEVERAL if repeat and statistics.median(runs[way.name]) < SHORT else 1):
                seconds, found[way.name] = timed(way.run)
                runs[way.name].append(seconds)

    failures, counted = judge(workload, found)
    middle = {name: statistics.median(seconds) for name, seconds in runs.items()}
    rate = {name: len(found[name]) / middle[name] for name in middle}
    own = rate[ways[0].name]
    rows = tuple(
        Row(
            name=way.name,
            fits=len(found[way.name]),
            seconds=middle[way.name],
            fits_per_second=rate[way.name],
            ratio=own / rate[way.name],
            compile_seconds=max(0.0, first[way.name] - middle[way.name]),
            failures=failures[way.name],
            counted=counted[way.name],
            steps=None if way.steps is None else float(way.steps()),
            reach=workload.reach.get(way.name),
        )
        for way in ways
    )
    limit = None
    if workload.limit is not None:
        say(f"{workload.name}: the limit")
        limit = workload.limit(middle[ways[0].name])
    return Measured(
        name=workload.name,
        title=workload.title,
        fits=workload.n_fits,
        rows=rows,
        limit=limit,
        limit_reach=workload.reach.get("limit"),
        missing=missing,
    )


def judge(workload: Workload, found: Mapping[str, np.ndarray]) -> tuple[dict[str, int], dict[str, int]]:
    """How many fits of each way failed, and how many of them count."""
    finite = np.ones(workload.n_fits, bool) if workload.counted is None else np.asarray(workload.counted)
    values = {}
    for name, estimates in found.items():
        with np.errstate(all="ignore"):
            value = np.asarray(workload.log_likelihood(np.asarray(estimates, np.float64)))
        values[name] = np.where(np.isnan(value), -np.inf, value)
    best = np.full(workload.n_fits, -np.inf)
    for value in values.values():
        best[: len(value)] = np.maximum(best[: len(value)], value)
    failures, counted = {}, {}
    for name, value in values.items():
        m = len(value)
        failures[name] = int(np.sum(finite[:m] & ~(value >= best[:m] - workload.accept)))
        counted[name] = int(finite[:m].sum())
    return failures, counted


def measure_limit(
    seconds: float,
    *,
    fits: mle.Fit,
    executed_rows: int,
    rows: int,
    loss: Callable[[jax.Array, Any], jax.Array],
    points: np.ndarray,
    sets: Any,
    others: tuple[Way, ...] = (),
) -> Limit | None:
    """The three factors of the limit of a batch of fits that XLA ran; native kernels have no lanes to account for.

    Args:
        seconds: what the batch took.
        fits: what it returned.
        executed_rows: rows that mlekit's lanes ran over, by its own account.
        rows: of each data set.
        loss: `loss(free, one set)`: the negative log-likelihood of one set, for the bare evaluation.
        points: where to evaluate it, shape `(n, n_free)`.
        sets: the data of these `n` sets, arrays with a leading axis.
        others: ways whose steps count for the fewest; those that did not run, or cannot tell, are left out.
    """
    if not executed_rows:
        return None
    steps = np.asarray(fits.steps)
    n_sets, mean, executed = len(steps), float(steps.mean()), executed_rows / rows / len(steps)
    told = [way.steps() for way in others if way.steps is not None]
    fewest = min([mean, *(float(number) for number in told if number)])
    enough = min(n_sets, 1 << 14)
    pairs = jax.tree.map(lambda leaf: np.asarray(leaf)[:enough], (points, sets))
    # On a CPU as many at once as stay in a core's cache.
    tiles = [64, 256] if jax.default_backend() == "cpu" else [None]
    bare = min(bare_seconds(loss, pairs, enough, tile) for tile in tiles)
    return Limit(fewest / mean, mean / executed, bare * executed / (seconds / n_sets))


def bare_seconds(loss: Callable[[jax.Array, Any], jax.Array], pairs: Any, n_sets: int, tile: int | None) -> float:
    """Seconds a set of a bare evaluation of value, gradient and Hessian on the whole machine; best of several."""

    def one(pair: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(*pair)
        return value, gradient, jax.hessian(loss)(*pair)

    run = in_shares(one, pairs, n_sets, tile)
    run()
    best = np.inf
    for _ in range(5):
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best / n_sets


def in_shares(
    one: Callable[[Any], Any], sets: Any, n_sets: int, tile: int | None = None
) -> Callable[[], list[Any]]:
    """`one` for every data set, compiled, in equal shares: one a device, on a CPU one a core.

    JAX runs what a loop holds on one core only, but computes in as many threads as ask it to.

    Args:
        one: what is done with one set; arrays in and out.
        sets: all of them, arrays with a leading axis.
        n_sets: the length of that axis.
        tile: sets of a share that are mapped at once, the tiles one after the other; all at once by default.

    Returns:
        A function that does it, and gives the list of what came out of each share, the last of which may hold the
        last set repeatedly. Its first call compiles.
    """
    devices = jax.local_devices()
    devices = devices[:1] * cores() if devices[0].platform == "cpu" else devices
    share = -(-n_sets // len(devices))
    tile = share if tile is None else min(tile, share)
    # Whole tiles and equal shares, so that one program serves all.
    share = -(-share // tile) * tile
    filled = np.minimum(np.arange(len(devices) * share), n_sets - 1).reshape(len(devices), share // tile, tile)
    parts = [jax.tree.map(lambda leaf: np.asarray(leaf)[index], sets) for index in filled]  # noqa: B023
    programs: dict[jax.Device, Any] = {}

    @jax.jit
    def do(part: Any) -> Any:
        # No loop around a single tile, which is what plain `vmap` means.
        out = jax.vmap(jax.vmap(one))(part) if share == tile else jax.lax.map(jax.vmap(one), part)
        return jax.tree.map(lambda leaf: leaf.reshape(share, *leaf.shape[2:]), out)

    def on(device: jax.Device, part: Any) -> Any:
        return jax.block_until_ready(programs[device](jax.device_put(part, device)))

    threads = ThreadPoolExecutor(len(devices))

    def run() -> list[Any]:
        for device in devices:
            if device not in programs:
                programs[device] = do.lower(jax.device_put(parts[0], device)).compile()
        return list(threads.map(on, devices, parts))

    return run


def machine() -> str:
    """The processor, its cores that this process may use, the accelerator if there is one, and the system."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    device = jax.devices()[0]
    accelerator = "" if device.platform == "cpu" else f"{len(jax.devices())} x {device.device_kind}, "
    return f"{accelerator}{name}, {cores()} cores, {platform.system()}, JAX {jax.__version__}"
