"""Spots: Levenberg-Marquardt on the expected information (Fisher scoring), a Poisson likelihood, 5x5 pixels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .small import FAST, damped_search, inline, logarithms

SIDE, PIXELS, SIZE = 5, 25, 5


@functools.cache
def levenberg_marquardt(dtype: Any) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """`loop(counts, starts)` gives estimates and evaluations; everything in `dtype`.

    Counts have shape `(n, 25)`, row by row; parameters are amplitude, x0, y0, width, background.
    """
    real: Any = np.dtype(dtype).type
    log_all = logarithms(real)
    nothing, one, half, eps, narrowest = real(0), real(1), real(0.5), real(np.finfo(real).eps), real(0.1)

    @inline
    def evaluate(data, p, gradient, information):
        """Log-likelihood less that of the counts themselves, its gradient and the expected information."""
        counts, inverse, work, jacobian = data
        profile_x, profile_y, from_x, from_y = work[0], work[1], work[2], work[3]
        rate, ratio, log, scale = work[4], work[5], work[6], work[7]
        narrow = one / (p[3] * p[3])
        for i in range(SIDE):
            from_x[i], from_y[i] = real(i) - p[1], real(i) - p[2]
            profile_x[i] = math.exp(-half * from_x[i] * from_x[i] * narrow)
            profile_y[i] = p[0] * math.exp(-half * from_y[i] * from_y[i] * narrow)
        for j in range(SIDE):
            for i in range(SIDE):
                k, peak = j * SIDE + i, profile_y[j] * profile_x[i]
                rate[k] = peak + p[4]
                ratio[k] = rate[k] * inverse[k]
                jacobian[0, k] = peak
                jacobian[1, k] = peak * from_x[i]
                jacobian[2, k] = peak * from_y[j]
                jacobian[3, k] = peak * (from_x[i] * from_x[i] + from_y[j] * from_y[j])
        log_all(ratio, log, PIXELS)
        value = g0 = g1 = g2 = g3 = g4 = nothing
        h00 = h10 = h11 = h20 = h21 = h22 = h30 = h31 = h32 = h33 = h40 = h41 = h42 = h43 = h44 = nothing
        # One pass with every sum in a register, which is why they have names.
        for k in range(PIXELS):
            value += counts[k] * log[k] + (counts[k] - rate[k])
            r4 = one / rate[k]
            slope = counts[k] * r4 - one
            j0, j1, j2, j3 = jacobian[0, k], jacobian[1, k], jacobian[2, k], jacobian[3, k]
            g0 += slope * j0
            g1 += slope * j1
            g2 += slope * j2
            g3 += slope * j3
            g4 += slope
            r0, r1, r2, r3 = j0 * r4, j1 * r4, j2 * r4, j3 * r4
            h00 += r0 * j0
            h10 += r1 * j0
            h11 += r1 * j1
            h20 += r2 * j0
            h21 += r2 * j1
            h22 += r2 * j2
            h30 += r3 * j0
            h31 += r3 * j1
            h32 += r3 * j2
            h33 += r3 * j3
            h40 += r0
            h41 += r1
            h42 += r2
            h43 += r3
            h44 += r4
        gradient[0], gradient[1], gradient[2], gradient[3], gradient[4] = g0, g1, g2, g3, g4
        information[0, 0], information[1, 0], information[1, 1] = h00, h10, h11
        information[2, 0], information[2, 1], information[2, 2] = h20, h21, h22
        information[3, 0], information[3, 1], information[3, 2], information[3, 3] = h30, h31, h32, h33
        information[4, 0], information[4, 1], information[4, 2], information[4, 3] = h40, h41, h42, h43
        information[4, 4] = h44
        scale[0], scale[1], scale[2], scale[3], scale[4] = one / p[0], narrow, narrow, narrow / p[3], one
        for r in range(SIZE):
            gradient[r] *= scale[r]
            for c in range(r + 1):
                information[r, c] *= scale[r] * scale[c]
        return value

    @inline
    def inside(p):
        return p[0] > nothing and p[3] > narrowest and p[4] > nothing

    search = damped_search(evaluate, inside, SIZE, real)

    @numba.njit(parallel=True, fastmath=FAST, error_model="numpy")
    def loop(counts, starts):
        n = counts.shape[0]
        estimates, steps = np.empty((n, SIZE), real), np.empty(n, np.int64)
        chunks = 16 * numba.get_num_threads()
        for chunk in numba.prange(chunks):
            work, jacobian, inverse = (
                np.empty((8, PIXELS), real),
                np.empty((4, PIXELS), real),
                np.empty(PIXELS, real),
            )
            here, room = np.empty(SIZE, real), np.empty((4 + 3 * SIZE, SIZE), real)
            for i in range(chunk * n // chunks, (chunk + 1) * n // chunks):
                total = nothing
                for k in range(PIXELS):
                    inverse[k] = one / max(counts[i, k], one)
                    total += counts[i, k]
                for k in range(SIZE):
                    here[k] = starts[i, k]
                steps[i] = search((counts[i], inverse, work, jacobian), eps * total, here, room)
                for k in range(SIZE):
                    estimates[i, k] = here[k]
        return estimates, steps

    return loop
