"""One fit of a distribution with SciPy or iminuit: data and a start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats

#: iminuit stops where it expects to gain less than 1e-3 times this, in nats.
TOLERANCE = 1e-4


def scipy_gamma(x: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`fit` of SciPy, which solves the one equation that a fixed location leaves."""
    shape, _, scale = scipy.stats.gamma.fit(x, floc=0)
    return np.array([shape, scale])


def scipy_weibull(x: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`fit` of SciPy, with its simplex search."""
    shape, _, scale = scipy.stats.weibull_min.fit(x, start[0], floc=0, scale=start[1], optimizer=simplex)
    return np.array([shape, scale])


def scipy_student_t(x: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`fit` of SciPy, with its simplex search."""
    return np.array(scipy.stats.t.fit(x, start[0], loc=start[1], scale=start[2], optimizer=simplex))


def simplex(loss: Callable[..., float], start: Any, args: Any = (), disp: int = 0) -> np.ndarray:
    """SciPy's own choice for `fit`, but not before the simplex is as flat as others' stopping rules ask for."""
    return scipy.optimize.fmin(loss, start, args=args, disp=disp, xtol=1e-5, ftol=1e-8)


def iminuit(name: str, positive: tuple[bool, ...], x: np.ndarray, start: np.ndarray) -> np.ndarray:
    """MIGRAD of iminuit on a compiled cost with its gradient; without errors, which takes it fewer calls.

    Args:
        name: of the cost in `numba_loops.distributions`.
        positive: which parameters are.
        x: the data.
        start: the start.
    """
    import iminuit as library

    from ..numba_loops import distributions

    cost = getattr(distributions, name)
    search = library.Minuit(
        lambda *p: cost(x, *p)[0],
        *start,
        grad=lambda *p: cost(x, *p)[1],
        name=[f"p{k}" for k in range(len(start))],
    )
    search.errordef = library.Minuit.LIKELIHOOD
    search.limits = [(1e-9, None) if edge else None for edge in positive]
    search.tol = TOLERANCE
    search.strategy = 0
    search.migrad()
    return np.array(search.values) if search.valid else np.full(len(start), np.nan)
