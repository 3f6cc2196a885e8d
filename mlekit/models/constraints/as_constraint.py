"""Objects that stand for a constraint."""

from __future__ import annotations

from typing import Any

from .base import Constraint
from .bijector import Bijector
from .bounds import unconstrained
from .fixed_tied import Fixed, Tied


def is_constraint(obj: object) -> bool:
    """True if `obj` may stand as one constraint: one of mlekit's, a marker, or a foreign bijector.

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
    return obj if isinstance(obj, Constraint | Fixed | Tied) else Bijector(obj)
