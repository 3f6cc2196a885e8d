"""The demonstration: one robust regression an aircraft, all in one call, and what comes out."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ..api import fit_batch
from ..core.status import ADVICE, Status
from ..data.groups import Groups, group_by
from ..engine.chunks import accounting
from ..results.fit import Fit
from .make_flights import PATH
from .model import columns, constraints, init, log_density

#: Beyond so many degrees of freedom a Student-t is a normal in all but name.
LIKE_NORMAL = 30.0
#: Below this scale, in minutes, flights lie exactly on a line: delays are recorded in whole minutes.
NO_SPREAD = 1e-3


def run(table: Any = None, out: Path = Path("demo-output")) -> Fit:
    """Fit every aircraft, print what came out and save it.

    Args:
        table: pyarrow Table with the columns of `flights.parquet`; that file's unless given.
        out: directory for `flights.parquet`, all fits, and `flights.png`, the figure.

    Returns:
        The fits, one an aircraft.
    """
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    groups = group_by(pq.read_table(PATH) if table is None else table, "tailnum", columns)
    _say(
        f"{groups.n_rows:,} flights out of New York City in 2013 by {len(groups):,} aircraft, "
        f"{groups.lengths.min():,} to {groups.lengths.max():,} flights each. For each aircraft: arrival delay = "
        "intercept + slope * departure delay + Student-t error, in minutes: four parameters."
    )
    fits, first = _timed(groups, progress=True)
    with accounting() as account:
        _, again = _timed(groups, progress=False)
    _say(
        f"First call: {first:.1f} s, compilation included. The same call again, compiled: {again:.2f} s, "
        f"{len(fits) / again:,.0f} fits/s."
    )
    print(_status_table(fits))
    for line in _why_unbounded(fits):
        _say(line)
    print("The aircraft with the most flights, estimate ± standard error:\n")
    print(_estimates_table(fits) + "\n")
    _say(_work(fits, groups, account.rows))
    for line in save(fits, out):
        print(line)
    return fits


def _say(text: str) -> None:
    print(textwrap.fill(text, 110) + "\n")


def _timed(groups: Groups, progress: bool) -> tuple[Fit, float]:
    begin = time.perf_counter()
    fits = fit_batch(log_density, init, groups, constraints=constraints, progress=progress)
    np.asarray(fits._solution.estimates)  # JAX answers before it has the numbers
    return fits, time.perf_counter() - begin


MEANINGS = {
    Status.converged.name: "the maximum is proven; estimates have standard errors",
    Status.unbounded.name: "the likelihood keeps rising, there is no finite maximum: see below",
    Status.too_few_observations.name: "fewer flights than the four parameters",
}


def _status_table(fits: Fit) -> str:
    rows = []
    for name, count in fits.status.counts().items():
        meaning = MEANINGS.get(name, ADVICE[Status[name]])
        rows.append([name, f"{count:,}", f"{count / len(fits):.1%}", textwrap.fill(meaning, 72)])
    return (
        tabulate(rows, ["status", "aircraft", "share", "meaning"], colalign=("left", "right", "right", "left"))
        + "\n"
    )


def runaways(fits: Fit) -> tuple[np.ndarray, np.ndarray]:
    """The fits that ended because the degrees of freedom run off, and those because the scale vanishes.

    Returns:
        Two masks over the fits; only `unbounded` ones are in them.
    """
    unbounded = np.asarray(fits.status == Status.unbounded)
    vanished = np.asarray(fits.params["scale"]) < NO_SPREAD
    grown = np.asarray(fits.params["degrees_of_freedom"]) > LIKE_NORMAL
    return unbounded & grown & ~vanished, unbounded & vanished


def _why_unbounded(fits: Fit) -> Iterator[str]:
    normal, exact = runaways(fits)
    whole = int(np.sum(np.asarray(fits.status == Status.unbounded)))
    freedom = np.asarray(fits.params["degrees_of_freedom"])
    if normal.any():
        yield (
            f"unbounded, {normal.sum():,} of {whole:,}: the degrees of freedom run to infinity (they were at "
            f"{freedom[normal].min():,.0f} or more where the search stopped). These delays have no heavier tails "
            "than a normal distribution, so the normal model is enough for them."
        )
    if exact.any():
        n_obs = np.asarray(fits.n_obs)[exact]
        yield (
            f"unbounded, {exact.sum():,} of {whole:,}: the scale runs to zero. A line passes exactly through some "
            f"of the aircraft's few flights ({n_obs.min():.0f} to {n_obs.max():.0f}), and the density there grows "
            "without limit. Strictly, such a spike waits in every aircraft's likelihood, at degrees of freedom "
            "near zero; a converged fit is a proven maximum away from it."
        )
    if rest := whole - int(normal.sum() + exact.sum()):
        yield f"unbounded, {rest:,} of {whole:,}: another direction; the certificate's weak_direction names it."
    stalled = np.asarray(fits.status == Status.stalled)
    far = stalled & (freedom > LIKE_NORMAL)
    if far.any():
        yield (
            f"stalled, {far.sum():,} of {stalled.sum():,}: these stopped at {freedom[far].min():,.0f} degrees of "
            "freedom or more, where the likelihood is so flat that rounding hides whether it still rises."
        )


def _estimates_table(fits: Fit, n_rows: int = 6) -> str:
    proven = np.flatnonzero(np.asarray(fits.converged))
    chosen = proven[np.argsort(-np.asarray(fits.n_obs)[proven], kind="stable")[:n_rows]]
    units = {"intercept": "min", "slope": "min per min", "scale": "min", "degrees_of_freedom": ""}
    some = fits[chosen].to_arrow().to_pydict()
    rows = [
        [some["tailnum"][i], f"{some['n_obs'][i]:,.0f}"]
        + [f"{some[name][i]:.2f} ± {some[name + '_se'][i]:.2f}" for name in units]
        for i in range(len(chosen))
    ]
    names = [f"{name.replace('_', ' ')}\n{unit}" for name, unit in units.items()]
    return tabulate(rows, ["aircraft", "flights", *names], stralign="right", disable_numparse=True)


def _work(fits: Fit, groups: Groups, evaluated: int) -> str:
    needed = int((groups.lengths * np.asarray(fits.steps)).sum())
    widest = 1 - groups.n_rows / (len(groups) * int(groups.lengths.max()))
    padding = f"(Were every aircraft padded to the longest, {widest:.0%} of the rows would be padding.)"
    if not evaluated:
        return f"{fits._searched_by.words} {padding}"
    return (
        f"Of the {evaluated:,} rows that the lanes ran over in all steps, {needed / evaluated:.0%} were flights "
        "that a search needed; the rest filled up the last block of an aircraft, or a lane with nothing left to "
        f"do. {padding}"
    )


def save(fits: Fit, out: Path) -> Iterator[str]:
    """Save all fits as a table and, if matplotlib is there, the figure; a line for each."""
    import pyarrow.parquet as pq

    pq.write_table(fits.to_arrow(), out / "flights.parquet")
    yield f"all fits    {out / 'flights.parquet'}"
    try:
        from .figure import draw
    except ModuleNotFoundError as error:
        yield f"no figure   {error.name} is not installed: pip install 'mlekit[plots]'"
        return
    draw(fits, int(runaways(fits)[0].sum())).savefig(out / "flights.png", dpi=200)
    yield f"figure      {out / 'flights.png'}"
