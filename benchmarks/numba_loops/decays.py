"""Biexponential decays: Levenberg-Marquardt on the sum of squares; the noise follows in closed form."""

from __future__ import annotations

import math

import numba
import numpy as np

from .small import FAST, damped_search, exponentials, inline

SIZE = 4
exp_all = exponentials(np.float64)


@inline
def evaluate(data, p, gradient, information):
    """Log-likelihood up to a constant, its gradient and the information about amplitudes and rates, by logarithms.

    With the noise at its maximum for these, the log-likelihood is `-n/2 log(sum of squares)`.
    """
    t, y, fast, slow = data
    n = len(y)
    a, rate_a, b, rate_b = math.exp(p[0]), math.exp(p[1]), math.exp(p[2]), math.exp(p[3])
    for i in range(n):
        fast[i] = -rate_a * t[i]
        slow[i] = -rate_b * t[i]
    exp_all(fast, n)
    exp_all(slow, n)
    squares = g0 = g1 = g2 = g3 = h00 = h10 = h11 = h20 = h21 = h22 = h30 = h31 = h32 = h33 = 0.0
    for i in range(n):
        j0, j2 = a * fast[i], b * slow[i]
        j1, j3 = -rate_a * t[i] * j0, -rate_b * t[i] * j2
        rest = y[i] - j0 - j2
        squares += rest * rest
        g0 += rest * j0
        g1 += rest * j1
        g2 += rest * j2
        g3 += rest * j3
        h00 += j0 * j0
        h10 += j1 * j0
        h11 += j1 * j1
        h20 += j2 * j0
        h21 += j2 * j1
        h22 += j2 * j2
        h30 += j3 * j0
        h31 += j3 * j1
        h32 += j3 * j2
        h33 += j3 * j3
    gradient[0], gradient[1], gradient[2], gradient[3] = g0, g1, g2, g3
    information[0, 0], information[1, 0], information[1, 1] = h00, h10, h11
    information[2, 0], information[2, 1], information[2, 2] = h20, h21, h22
    information[3, 0], information[3, 1], information[3, 2], information[3, 3] = h30, h31, h32, h33
    precision = n / squares
    for r in range(SIZE):
        gradient[r] *= precision
        for c in range(r + 1):
            information[r, c] *= precision
    return -0.5 * n * math.log(squares / n)


@inline
def inside(p):
    return abs(p[0]) < 30 and abs(p[1]) < 30 and abs(p[2]) < 30 and abs(p[3]) < 30


search = damped_search(evaluate, inside, SIZE, np.float64)


@numba.njit(parallel=True, fastmath=FAST, error_model="numpy")
def levenberg_marquardt(t, y, starts):
    """Estimates (amplitude, rate, amplitude, rate, noise) and evaluations; `t` and `y` have shape `(n, rows)`."""
    n, rows = y.shape
    estimates, steps = np.empty((n, SIZE + 1)), np.empty(n, np.int64)
    chunks = 16 * numba.get_num_threads()
    for chunk in numba.prange(chunks):
        fast, slow = np.empty(rows), np.empty(rows)
        here, room = np.empty(SIZE), np.empty((4 + 3 * SIZE, SIZE))
        for i in range(chunk * n // chunks, (chunk + 1) * n // chunks):
            for k in range(SIZE):
                here[k] = math.log(starts[i, k])
            steps[i] = search((t[i], y[i], fast, slow), 1e-13 * rows, here, room)
            for k in range(SIZE):
                estimates[i, k] = math.exp(here[k])
            squares = 0.0
            for row in range(rows):
                rest = y[i, row] - estimates[i, 0] * math.exp(-estimates[i, 1] * t[i, row])
                rest -= estimates[i, 2] * math.exp(-estimates[i, 3] * t[i, row])
                squares += rest * rest
            estimates[i, SIZE] = math.sqrt(squares / rows)
    return estimates, steps
