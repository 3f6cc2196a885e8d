"""The names of the families, and the check of an object for being one."""

from __future__ import annotations

from typing import Any

from .base import Family

#: The families; `binomial` takes its trials first.
NAMES = (
    *("normal", "log_normal", "laplace", "student_t", "logistic", "poisson", "bernoulli", "binomial(trials)"),
    *("negative_binomial", "exponential", "gamma", "weibull", "beta", "inverse_gaussian"),
)


def as_family(obj: Any) -> Family:
    """The family itself; anything else is an error that lists what there is.

    Args:
        obj: any object.

    Returns:
        `obj`.

    Raises:
        TypeError: `obj` is no family.

    Example:
        >>> import mlekit as mle
        >>> mle.families.as_family(mle.families.normal)
        Normal()
    """
    if isinstance(obj, Family):
        return obj
    listed = ", ".join(f"mle.families.{name}" for name in NAMES)
    hint = ", a class: call it first" if isinstance(obj, type) else ""
    raise TypeError(f"family must be one of {listed}; it got {obj!r}{hint}")
