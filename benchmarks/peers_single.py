"""What the workloads of one large fit, of distributions and of ragged sets share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import mlekit as mle

from .harness import Way


def mlekit_single(fit: Callable[[], mle.Fit], estimates: Callable[[mle.Fit], Any]) -> Way:
    """The way of mlekit for one fit.

    Args:
        fit: does the fit; its standard errors come with it.
        estimates: of the fit, in natural units, shape `(k,)`.
    """
    latest: list[mle.Fit] = []

    def run() -> np.ndarray:
        latest[:] = [fit()]
        return np.where(latest[0].converged, np.asarray(estimates(latest[0])), np.nan)[None]

    return Way("mlekit", run, steps=lambda: float(latest[0].steps))


def wanted(ways: Iterable[Way], ratios: Mapping[str, float]) -> dict[str, float]:
    """The ratio to reach, by the full names of the ways; `ratios` knows how these begin."""
    return {way.name: ratio for way in ways for begin, ratio in ratios.items() if way.name.startswith(begin)}


def needs(*packages: str) -> None:
    """Import what a peer needs in other processes or later, so that it is known to be there.

    Raises:
        ImportError: one of them is not.
    """
    for package in packages:
        importlib.import_module(package)
