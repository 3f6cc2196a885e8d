"""Numbers as text: enough digits to be useful, none that the precision does not hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

NOTHING = "–"


def number(value: Any, digits: int = 5) -> str:
    """A number with so many significant digits; a dash for NaN.

    Example:
        >>> number(2 / 3), number(-1234.5678), number(1.5e-7), number(float("nan"))
        ('0.66667', '-1234.6', '1.5000e-07', '–')
    """
    value = float(value)
    if math.isnan(value):
        return NOTHING
    if value == 0 or math.isinf(value):
        return f"{value + 0.0:.0f}"  # zero has no sign
    power = exponent(value, digits)
    if -4 <= power < 7:
        return f"{value:.{max(0, digits - 1 - power)}f}"
    return f"{value:.{digits - 1}e}"


def uncertain(value: Any, error: Any) -> str:
    """A number with at least five digits, and with more where its standard error is that small.

    Example:
        >>> uncertain(2013.456789, 0.0123), uncertain(2013.456789, 500.0)
        ('2013.4568', '2013.5')
    """
    digits = 5
    if all(math.isfinite(x) and x != 0 for x in (float(value), float(error))):
        digits = max(digits, exponent(float(value)) - exponent(float(error)) + 3)
    return number(value, min(digits, held_digits(value)))


def likelihood(value: Any) -> str:
    """A log-likelihood or criterion, with four decimals as long as the precision holds them."""
    if not math.isfinite(value) or value == 0:
        return number(value)
    return number(value, min(held_digits(value), max(3, exponent(float(value)) + 5)))


def probability(value: Any) -> str:
    """A p-value with four decimals."""
    return "<0.0001" if value < 0.0001 else f"{float(value):.4f}"


def count(value: Any) -> str:
    """A count with separators of thousands; a sum of weights need not be whole."""
    if not math.isfinite(value):
        return number(value)
    return f"{float(value):,.{held_digits(value)}g}" if value != int(value) else f"{int(value):,}"


def counted(value: Any, thing: str) -> str:
    """A count and what was counted: `1 step`, `2,000 steps`."""
    return f"{count(value)} {thing}{'' if value == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """A percentage that says 0 and 100 only where nothing or everything is meant.

    Example:
        >>> share(1, 3), share(1, 10_000), share(9_999, 10_000), share(3, 3)
        ('33.3%', '<0.1%', '>99.9%', '100%')
    """
    if part in (0, whole):
        return "100%" if part else "0%"
    percent = 100 * part / whole
    return "<0.1%" if percent < 0.1 else ">99.9%" if percent > 99.9 else f"{percent:.1f}%"


def held_digits(value: Any) -> int:
    """Significant digits worth showing of a number of this dtype."""
    dtype = np.asarray(value).dtype
    return min(12, np.finfo(dtype).precision + 1) if dtype.kind == "f" else 12


def exponent(value: Any, digits: int = 5) -> int:
    """The power of ten of a finite number other than zero, after it was rounded."""
    return int(f"{float(value):.{digits - 1}e}".partition("e")[2])
