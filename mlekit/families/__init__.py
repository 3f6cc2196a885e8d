"""Noise families: the distribution of a response given its parameters, for `mle.regression`.

A family is an instance: `mle.families.poisson` is the distribution of a count whose one parameter is its rate.
What the methods promise is written once, in `Family`; subclass it for a family of your own.
"""

from __future__ import annotations

from typing import Any

from .base import Family
from .counts import Bernoulli, Binomial, Poisson
from .dispersion import NegativeBinomial
from .location_scale import Laplace, Logistic, Normal, StudentT
from .positive import Beta, Exponential, Gamma, InverseGaussian, LogNormal, Weibull

normal = Normal()
log_normal = LogNormal()
laplace = Laplace()
student_t = StudentT()
logistic = Logistic()
poisson = Poisson()
bernoulli = Bernoulli()
binomial = Binomial
negative_binomial = NegativeBinomial()
exponential = Exponential()
gamma = Gamma()
weibull = Weibull()
beta = Beta()
inverse_gaussian = InverseGaussian()

#: The families there are; `binomial` wants to be told its trials first.
NAMES = (
    *("normal", "log_normal", "laplace", "student_t", "logistic", "poisson", "bernoulli", "binomial(trials)"),
    *("negative_binomial", "exponential", "gamma", "weibull", "beta", "inverse_gaussian"),
)


def as_family(obj: Any) -> Family:
    """The family itself; anything else is an error that lists what there is.

    Args:
        obj: what may be a family.

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
