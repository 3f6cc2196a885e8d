"""Special functions of likelihoods, with derivatives that keep their digits, to every order."""

from .bessel import log_i0e, log_iv
from .gamma import betaln, digamma, gammaln, gammaln_difference, polygamma, trigamma
from .normal import log_ndtr
from .student_t import student_t_cdf, student_t_log_cdf, student_t_quantile

__all__ = [
    "betaln",
    "digamma",
    "gammaln",
    "gammaln_difference",
    "log_i0e",
    "log_iv",
    "log_ndtr",
    "polygamma",
    "student_t_cdf",
    "student_t_log_cdf",
    "student_t_quantile",
    "trigamma",
]
