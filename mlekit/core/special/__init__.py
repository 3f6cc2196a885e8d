"""Special functions of likelihoods, with derivatives that keep their digits, to every order."""

from .bessel import log_i0e, log_iv
from .gamma import betaln, digamma, gammaln, gammaln_difference, polygamma, trigamma
from .normal import log_ndtr

__all__ = [
    "betaln",
    "digamma",
    "gammaln",
    "gammaln_difference",
    "log_i0e",
    "log_iv",
    "log_ndtr",
    "polygamma",
    "trigamma",
]
