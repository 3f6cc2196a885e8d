"""Maximum likelihood in JAX: one log-density, exact derivatives, thousands of data sets, honest errors."""

import difflib
from typing import TYPE_CHECKING, NoReturn

from . import constraints as constraints
from . import families, plot, special
from .api import argmax, fit, fit_batch, log_likelihood
from .core.status import Status
from .data.groups import Groups, group_by
from .data.shards import Shards, shard
from .data.table import Table, open_table
from .engine.certificate import Certificate
from .engine.checkpoint import Checkpoint
from .engine.history import History
from .engine.modes import Modes
from .inference.bootstrap.bootstrap import Bootstrap, bootstrap
from .inference.comparison import Comparison, compare
from .inference.delta import Estimate, Prediction
from .inference.diagnosis import Diagnosis
from .inference.expected_information import ExpectedInformation
from .inference.expected_information import by_simulation as expected_information
from .inference.hypothesis_tests.goodness_of_fit import goodness_of_fit_test
from .inference.hypothesis_tests.information_matrix import information_matrix_test
from .inference.hypothesis_tests.nested import likelihood_ratio_test, score_test, wald_test
from .inference.hypothesis_tests.result import HypothesisTest
from .inference.hypothesis_tests.vuong import vuong_test
from .inference.identifiability import Identifiability, identifiability
from .inference.profile.curve import Profile, profile
from .jobs.fit_table import fit_table
from .jobs.job import Outcome
from .models.compositions import censored, mixture, truncated, zero_inflated
from .models.constraints import (
    at_least,
    at_most,
    between,
    correlation,
    fixed,
    greater_than,
    interval,
    less_than,
    nonnegative,
    ordered,
    positive,
    positive_definite,
    simplex,
    tied,
    unit_interval,
)
from .models.model import Model, joint
from .models.regression import regression
from .results.files import load
from .results.fit import Fit
from .solvers import BFGS, LBFGS, Newton, Optax, Scoring
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
    "at_least",
    "at_most",
    "between",
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
    "nonnegative",
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


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> NoReturn:
        likely = difflib.get_close_matches(name, __all__, 1)
        meant = f"; did you mean {likely[0]}?" if likely else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{meant}", name=name)
