"""What a parameter may be: one small class a constraint, each a map from a free array to natural units.

Every map is smooth and one-to-one from the whole of real space onto the inside of its constraint, so a solver
moves freely and never leaves it. Leading axes hold further, independent elements: a `(3, 4)` simplex leaf is
three simplexes of four shares. What the methods promise is written once, in `Constraint`.
"""

from __future__ import annotations

from typing import Any

from .base import Constraint
from .bounds import GreaterThan, Interval, LessThan, Unconstrained
from .foreign import Foreign
from .markers import Fixed, Tied
from .matrices import Correlation, PositiveDefinite
from .vectors import Ordered, Simplex

unconstrained = Unconstrained()
positive = GreaterThan(0.0)
"""Greater than zero: `mle.greater_than(0.0)`, so `value = exp(free)`."""
greater_than = GreaterThan
less_than = LessThan
interval = Interval
unit_interval = Interval(0.0, 1.0)
"""Between zero and one: `mle.interval(0.0, 1.0)`, so `value = sigmoid(free)`."""
simplex = Simplex()
ordered = Ordered()
positive_definite = PositiveDefinite()
correlation = Correlation()
fixed = Fixed()
tied = Tied


def is_constraint(obj: object) -> bool:
    """Whether `obj` may stand as one constraint: one of mlekit's, a marker, or a foreign bijector.

    Example:
        >>> import mlekit as mle
        >>> known = mle.constraints.is_constraint
        >>> known(mle.positive), known({"scale": mle.positive}), known(None)
        (True, False, False)
    """
    if isinstance(obj, type):  # a class has the methods too, but it is no bijector yet
        return False
    methods = callable(getattr(obj, "forward", None)) and callable(getattr(obj, "inverse", None))
    return isinstance(obj, Fixed | Tied) or methods or (callable(obj) and callable(getattr(obj, "inv", None)))


def as_constraint(obj: Any) -> Constraint | Fixed | Tied:
    """The constraint, or marker, that `obj` stands for; `None` is `unconstrained`, all else a `TypeError`.

    Example:
        >>> import mlekit as mle
        >>> mle.constraints.as_constraint(None)
        Unconstrained()
    """
    if obj is None:
        return unconstrained
    if not is_constraint(obj):
        raise TypeError(
            "a constraint is None, one of mlekit's such as mle.positive or mle.interval(0, 1), or a bijector "
            f"with forward and inverse; it got {obj!r}{', a class: call it first' * isinstance(obj, type)}"
        )
    return obj if isinstance(obj, Constraint | Fixed | Tied) else Foreign(obj)
