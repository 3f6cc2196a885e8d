"""Noise families: the distribution of a response given its parameters, for `mle.regression`.

A family is an instance: `mle.families.poisson` is the distribution of a count whose one parameter is its rate.
The contract of the methods is written once, in `Family`; subclass it for a family of your own.
"""

from .as_family import NAMES, as_family
from .base import Family
from .counts import Bernoulli, Binomial, Poisson, bernoulli, binomial, poisson
from .location_scale import Laplace, Logistic, Normal, StudentT, laplace, logistic, normal, student_t
from .negative_binomial import NegativeBinomial, negative_binomial
from .positive import (
    Beta,
    Exponential,
    Gamma,
    InverseGaussian,
    LogNormal,
    Weibull,
    beta,
    exponential,
    gamma,
    inverse_gaussian,
    log_normal,
    weibull,
)

__all__ = [
    "NAMES",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Exponential",
    "Family",
    "Gamma",
    "InverseGaussian",
    "Laplace",
    "LogNormal",
    "Logistic",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "StudentT",
    "Weibull",
    "as_family",
    "bernoulli",
    "beta",
    "binomial",
    "exponential",
    "gamma",
    "inverse_gaussian",
    "laplace",
    "log_normal",
    "logistic",
    "negative_binomial",
    "normal",
    "poisson",
    "student_t",
    "weibull",
]
