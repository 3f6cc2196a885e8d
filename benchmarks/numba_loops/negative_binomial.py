"""Negative-binomial regression: Newton's method, damped where it must be, on the exact Hessian."""

from __future__ import annotations

import math

import numba
import numpy as np

from .small import FAST, damped_search, exponentials, inline, logarithms

SIZE = 4
exp_all, log_all = exponentials(np.float64), logarithms(np.float64)


# 200 observations outweigh a call, which compiles faster.
@numba.njit(fastmath=FAST, error_model="numpy")
def evaluate(data, p, gradient, information):
    """Log-likelihood up to a constant, its gradient and its negative Hessian; the dispersion by its logarithm.

    For whole numbers `gammaln(y + r) - gammaln(r)` is a sum of logarithms, and summed over all observations one
    of each is enough: `above[j]` says how many counts are greater than `j`.
    """
    x, y, above, most, work = data
    n = len(y)
    mean, spread, log = work[0], work[1], work[2]
    alpha = math.exp(p[3])
    size = 1 / alpha
    for i in range(n):
        spread[i] = p[0] + p[1] * x[i, 0] + p[2] * x[i, 1]
        mean[i] = spread[i]
    exp_all(mean, n)
    value = sum_log = a = aa = g0 = g1 = g2 = h00 = h10 = h11 = h20 = h21 = h22 = h30 = h31 = h32 = 0.0
    for i in range(n):
        value += y[i] * spread[i]
        spread[i] = 1 + alpha * mean[i]
    for i in range(n):
        x1, x2, mu, per = x[i, 0], x[i, 1], mean[i], 1 / spread[i]
        residual = (y[i] - mu) * per
        g0 += residual
        g1 += residual * x1
        g2 += residual * x2
        weight = mu * (1 + alpha * y[i]) * per * per
        h00 += weight
        h10 += weight * x1
        h11 += weight * x1 * x1
        h20 += weight * x2
        h21 += weight * x2 * x1
        h22 += weight * x2 * x2
        mixed = residual * mu * per
        h30 += mixed
        h31 += mixed * x1
        h32 += mixed * x2
        share = mu * per
        a -= (y[i] + size) * share
        aa += (2 * size * size + (y[i] + size) * share) * share
    log_all(spread, log, n)
    for i in range(n):
        sum_log += log[i]
        value -= (y[i] + size) * log[i]
    a += sum_log * size * size
    aa -= 2 * sum_log * size * size * size
    for j in range(most):
        spread[j] = 1 + alpha * j
        per = j / spread[j]
        a += above[j] * per
        aa -= above[j] * per * per
    log_all(spread, log, most)
    for j in range(most):
        value += above[j] * log[j]
    gradient[0], gradient[1], gradient[2], gradient[3] = g0, g1, g2, alpha * a
    information[0, 0], information[1, 0], information[1, 1] = h00, h10, h11
    information[2, 0], information[2, 1], information[2, 2] = h20, h21, h22
    information[3, 0], information[3, 1], information[3, 2] = alpha * h30, alpha * h31, alpha * h32
    information[3, 3] = -alpha * (alpha * aa + a)
    return value


@inline
def inside(p):
    return abs(p[0]) < 30 and abs(p[1]) < 30 and abs(p[2]) < 30 and abs(p[3]) < 30


search = damped_search(evaluate, inside, SIZE, np.float64)


@numba.njit(parallel=True, fastmath=FAST, error_model="numpy")
def newton(x, y, starts):
    """Estimates (intercept, two slopes, dispersion) and evaluations; `x` has shape `(n, rows, 2)`."""
    n, rows = y.shape
    room_for = max(rows, int(y.max()) + 1)
    estimates, steps = np.empty((n, SIZE)), np.empty(n, np.int64)
    chunks = 16 * numba.get_num_threads()
    for chunk in numba.prange(chunks):
        work, above = np.empty((3, room_for)), np.empty(room_for)
        here, room = np.empty(SIZE), np.empty((4 + 3 * SIZE, SIZE))
        for i in range(chunk * n // chunks, (chunk + 1) * n // chunks):
            total = 0.0
            above[:] = 0
            for row in range(rows):
                total += y[i, row]
                if y[i, row] > 0:
                    above[int(y[i, row]) - 1] += 1
            most = int(y[i].max())
            for j in range(most - 2, -1, -1):
                above[j] += above[j + 1]
            for k in range(3):
                here[k] = starts[i, k]
            here[3] = math.log(starts[i, 3])
            steps[i] = search((x[i], y[i], above, most, work), 1e-15 * total, here, room)
            for k in range(3):
                estimates[i, k] = here[k]
            estimates[i, 3] = math.exp(here[3])
    return estimates, steps
