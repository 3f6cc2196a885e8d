"""Constraints of parameters: one small class each, a map from a free array to natural units.

Every map but the closed ones is smooth and one-to-one from the whole of real space onto the inside of its
constraint, so a solver moves freely and never leaves it. Closed ones are the identity on a box, which solvers keep
to. Leading axes hold further, independent elements: a `(3, 4)` simplex leaf is
three simplexes of four shares. The contract of the methods is written once, in `Constraint`.
"""

from .as_constraint import as_constraint, is_constraint
from .base import Constraint
from .bijector import Bijector
from .bounds import (
    GreaterThan,
    Interval,
    LessThan,
    Unconstrained,
    greater_than,
    interval,
    less_than,
    positive,
    unconstrained,
    unit_interval,
)
from .closed_bounds import AtLeast, AtMost, Between, at_least, at_most, between, nonnegative
from .fixed_tied import Fixed, Tied, fixed, tied
from .matrices import Correlation, PositiveDefinite, correlation, positive_definite
from .vectors import Ordered, Simplex, ordered, simplex

__all__ = [
    "AtLeast",
    "AtMost",
    "Between",
    "Bijector",
    "Constraint",
    "Correlation",
    "Fixed",
    "GreaterThan",
    "Interval",
    "LessThan",
    "Ordered",
    "PositiveDefinite",
    "Simplex",
    "Tied",
    "Unconstrained",
    "as_constraint",
    "at_least",
    "at_most",
    "between",
    "correlation",
    "fixed",
    "greater_than",
    "interval",
    "is_constraint",
    "less_than",
    "nonnegative",
    "ordered",
    "positive",
    "positive_definite",
    "simplex",
    "tied",
    "unconstrained",
    "unit_interval",
]
