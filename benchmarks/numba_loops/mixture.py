"""The mixture: log-likelihood and all that its gradient needs, in one pass over the events."""

from __future__ import annotations

import math

import numba
import numpy as np

from .small import FAST, exponentials, logarithms

#: Events at a time, so that loops over them become vector instructions and their results stay in the cache.
BLOCK = 256

log_all = logarithms(np.float64)
exp_all = exponentials(np.float64)


@numba.njit(parallel=True, fastmath=FAST, error_model="numpy")
def sums(x, parts, signal, mean, precision, background, slope):
    """Of each part of the events: log-likelihood, and sums of s, s z, s z^2 and (1 - s) x.

    The density is signal exp(-z^2 / 2) + background exp(-slope x), z = (x - mean) precision, and s the share
    of its first term.
    """
    out = np.empty((parts, 5))
    for part in numba.prange(parts):
        above, density, log = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
        value = count = first = second = rest = 0.0
        end = (part + 1) * len(x) // parts
        for start in range(part * len(x) // parts, end, BLOCK):
            # A slice, because numba takes the sum of two indices for one that may count from the end.
            events = x[start : min(start + BLOCK, end)]
            size = len(events)
            for i in range(size):
                z = (events[i] - mean) * precision
                above[i] = -0.5 * z * z
                density[i] = -slope * events[i]
            exp_all(above, size)
            exp_all(density, size)
            for i in range(size):
                above[i] *= signal
                density[i] = above[i] + background * density[i]
                above[i] /= density[i]
            log_all(density, log, size)
            for i in range(size):
                z = (events[i] - mean) * precision
                value += log[i]
                count += above[i]
                first += above[i] * z
                second += above[i] * z * z
                rest += (1 - above[i]) * events[i]
        out[part, 0], out[part, 1], out[part, 2], out[part, 3], out[part, 4] = value, count, first, second, rest
    return out


def value_and_gradient(
    x: np.ndarray, edge: float, parts: int, point: tuple[float, float, float, float]
) -> tuple[float, np.ndarray]:
    """The log-likelihood at `point` (fraction, mean, width, slope) of events cut off at 0 and `edge`."""
    fraction, mean, width, slope = point
    low, high = -mean / width, (edge - mean) / width
    height_low, height_high = (math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) for z in (low, high))
    inside = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    whole = -math.expm1(-slope * edge)
    signal = fraction / (math.sqrt(2 * math.pi) * width * inside)
    background = (1 - fraction) * slope / whole
    value, n_signal, z, zz, rest = sums(x, parts, signal, mean, 1 / width, background, slope).sum(axis=0)
    n_background = len(x) - n_signal
    gradient = np.array(
        [
            n_signal / fraction - n_background / (1 - fraction),
            (z + n_signal * (height_high - height_low) / inside) / width,
            (zz + n_signal * ((high * height_high - low * height_low) / inside - 1)) / width,
            n_background * (1 / slope - edge * math.exp(-slope * edge) / whole) - rest,
        ]
    )
    return value, gradient
