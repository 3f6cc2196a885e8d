"""Probabilities of intervals, and what the digits of a printed number leave open."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np

INF = np.inf


def printed(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, and half a unit of the last digit of each."""
    words = [decimal.Decimal(word) for word in text.split()]
    return np.array(words, float), np.array([0.5001 * 10.0 ** int(word.as_tuple().exponent) for word in words])


def of_interval(at: Any, low: float, high: float) -> float:
    """The log-likelihood of one censored observation by SciPy's functions, from the nearer tail."""
    if low == high:
        return at.logpdf(low)
    near, far = (at.logsf(low), at.logsf(high)) if low > at.median() else (at.logcdf(high), at.logcdf(low))
    gap = far - near
    return near + (np.log1p(-np.exp(gap)) if gap < -0.7 else np.log(-np.expm1(gap)))
