"""Solvers: one a file, each with an `init` and a `step` for one data set."""

from .base import AbstractSolver, Stop
from .bfgs import BFGS
from .choice import choose_solver
from .lbfgs import LBFGS
from .newton import Newton
from .optax import Optax
from .optimistix import Optimistix
from .scoring import Scoring

__all__ = [
    "BFGS",
    "LBFGS",
    "AbstractSolver",
    "Newton",
    "Optax",
    "Optimistix",
    "Scoring",
    "Stop",
    "choose_solver",
]
