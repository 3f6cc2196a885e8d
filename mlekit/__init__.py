"""Maximum likelihood in JAX: one log-density, exact derivatives, thousands of data sets, honest errors."""

from . import families, special
from .certificate import Certificate
from .constraints import (
    correlation,
    fixed,
    greater_than,
    interval,
    less_than,
    ordered,
    positive,
    positive_definite,
    simplex,
    tied,
    unit_interval,
)
from .fit import argmax, fit, fit_batch
from .groups import Groups, group_by
from .inference.delta import Estimate
from .likelihood import log_likelihood
from .model import Model, joint, regression
from .modes import Modes
from .result import Fit
from .solvers import BFGS, LBFGS, Newton, Optax, Scoring
from .status import Status
from .version import __version__

__all__ = [
    "BFGS",
    "LBFGS",
    "Certificate",
    "Estimate",
    "Fit",
    "Groups",
    "Model",
    "Modes",
    "Newton",
    "Optax",
    "Scoring",
    "Status",
    "__version__",
    "argmax",
    "correlation",
    "families",
    "fit",
    "fit_batch",
    "fixed",
    "greater_than",
    "group_by",
    "interval",
    "joint",
    "less_than",
    "log_likelihood",
    "ordered",
    "positive",
    "positive_definite",
    "regression",
    "simplex",
    "special",
    "tied",
    "unit_interval",
]
