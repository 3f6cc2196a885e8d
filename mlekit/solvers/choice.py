"""The choice of a solver: the one asked for, or one that suits the size of the problem."""

from __future__ import annotations

import sys
from typing import Any

from .base import AbstractSolver
from .lbfgs import LBFGS
from .newton import Newton
from .optax import Optax
from .optimistix import Optimistix

#: Up to this many free parameters a dense Hessian is formed: for Newton's steps, and for the certificate.
DENSE_NEWTON, DENSE_CERTIFICATE = 200, 2_000


def choose_solver(solver: Any, n_free: int, n_obs: int) -> AbstractSolver:
    """The solver that was asked for, or a sensible one.

    `Newton` while a Hessian is cheap: up to 200 free parameters, fewer where observations are very many;
    `LBFGS` beyond.

    Raises:
        TypeError: `solver` is neither a solver of mlekit nor an optax transformation nor an optimistix minimiser.
    """
    if solver is None:
        cheap = n_free <= DENSE_NEWTON and n_obs * n_free**2 <= 1e11
        return Newton() if cheap else LBFGS()
    if isinstance(solver, AbstractSolver):
        return solver
    if _is_of_optimistix(solver):
        return Optimistix(solver)
    if isinstance(solver, type) and issubclass(solver, AbstractSolver):
        raise TypeError(f"solver must be an instance: write mle.{solver.__name__}() with its brackets")
    if hasattr(solver, "init") and hasattr(solver, "update"):
        return Optax(solver)
    raise TypeError(
        "solver must be one of mlekit, such as mle.Newton() or mle.LBFGS(), an optax "
        f"GradientTransformation such as optax.adam(1e-2), an optimistix minimiser such as "
        f"optimistix.BFGS(rtol=1e-8, atol=1e-8), or None; got {type(solver).__name__}"
    )


def _is_of_optimistix(solver: Any) -> bool:
    """True for a solver of optimistix, or a class of them; there is none unless optimistix was imported."""
    optimistix = sys.modules.get("optimistix")
    if optimistix is None:
        return False
    kind = solver if isinstance(solver, type) else type(solver)
    return issubclass(kind, optimistix.AbstractIterativeSolver)
