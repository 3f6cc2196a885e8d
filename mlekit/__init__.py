"""Maximum likelihood in JAX: one log-density, exact derivatives, thousands of data sets, honest errors."""

from . import families, plot, special
from .certificate import Certificate
from .checkpoint import Checkpoint
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
from .densities import censored, mixture, truncated, zero_inflated
from .engines.job import Outcome
from .engines.table import fit_table
from .fit import argmax, fit, fit_batch
from .groups import Groups, group_by
from .history import History
from .inference.bootstrap import Bootstrap, bootstrap
from .inference.comparison import Comparison, compare
from .inference.delta import Estimate, Prediction
from .inference.diagnosis import Diagnosis
from .inference.expected import ExpectedInformation
from .inference.expected import by_simulation as expected_information
from .inference.goodness_of_fit import goodness_of_fit_test
from .inference.hypothesis import HypothesisTest
from .inference.identifiability import Identifiability, identifiability
from .inference.misspecification import information_matrix_test
from .inference.nested import likelihood_ratio_test, score_test, wald_test
from .inference.non_nested import vuong_test
from .inference.profile import Profile, profile
from .model import Model, joint, regression
from .modes import Modes
from .observed import log_likelihood
from .result import Fit
from .shards import Shards, shard
from .solvers import BFGS, LBFGS, Newton, Optax, Scoring
from .status import Status
from .storage import load
from .table import Table, open_table
from .version import __version__

__all__ = [
    "BFGS",
    "LBFGS",
    "Bootstrap",
    "Certificate",
    "Checkpoint",
    "Comparison",
    "Diagnosis",
    "Estimate",
    "ExpectedInformation",
    "Fit",
    "Groups",
    "History",
    "HypothesisTest",
    "Identifiability",
    "Model",
    "Modes",
    "Newton",
    "Optax",
    "Outcome",
    "Prediction",
    "Profile",
    "Scoring",
    "Shards",
    "Status",
    "Table",
    "__version__",
    "argmax",
    "bootstrap",
    "censored",
    "compare",
    "correlation",
    "expected_information",
    "families",
    "fit",
    "fit_batch",
    "fit_table",
    "fixed",
    "goodness_of_fit_test",
    "greater_than",
    "group_by",
    "identifiability",
    "information_matrix_test",
    "interval",
    "joint",
    "less_than",
    "likelihood_ratio_test",
    "load",
    "log_likelihood",
    "mixture",
    "open_table",
    "ordered",
    "plot",
    "positive",
    "positive_definite",
    "profile",
    "regression",
    "score_test",
    "shard",
    "simplex",
    "special",
    "tied",
    "truncated",
    "unit_interval",
    "vuong_test",
    "wald_test",
    "zero_inflated",
]
