"""Logistic regressions of unequal length: iteratively reweighted least squares, which is Newton's method."""

from __future__ import annotations

import math

import numba
import numpy as np

from .small import FAST, damped_search, exponentials, inline, logarithms

SIZE = 8
#: Rows at a time, so that what is computed of them stays in the innermost cache.
BLOCK = 256
exp_all, log_all = exponentials(np.float64), logarithms(np.float64)


@numba.njit(fastmath=FAST, error_model="numpy")
def evaluate(data, p, gradient, information):
    """Log-likelihood, gradient and information of the rows `begin` to `end`; `x` has shape `(SIZE, all rows)`.

    So the inner loops run over rows, which are dense, and become vector instructions.
    """
    x, y, begin, end, logit, power, log, curvature, weighted = data
    value = 0.0
    gradient[:] = 0
    information[:] = 0
    for start in range(begin, end, BLOCK):
        # Slices, because numba takes the sum of two indices for one that may count from the end.
        part = y[start : min(start + BLOCK, end)]
        size = len(part)
        for i in range(size):
            logit[i] = 0
        for k in range(SIZE):
            column = x[k][start : start + size]
            for i in range(size):
                logit[i] += p[k] * column[i]
        for i in range(size):
            power[i] = -abs(logit[i])
        exp_all(power, size)
        for i in range(size):
            share = 1 / (1 + power[i])
            mean = share if logit[i] > 0 else power[i] * share
            value += part[i] * logit[i] - max(logit[i], 0)
            curvature[i] = power[i] * share * share
            logit[i] = part[i] - mean
            power[i] += 1
        log_all(power, log, size)
        for i in range(size):
            value -= log[i]
        for k in range(SIZE):
            column = x[k][start : start + size]
            slope = 0.0
            for i in range(size):
                slope += logit[i] * column[i]
                weighted[i] = curvature[i] * column[i]
            gradient[k] += slope
            for j in range(k + 1):
                other = x[j][start : start + size]
                total = 0.0
                for i in range(size):
                    total += weighted[i] * other[i]
                information[k, j] += total
    return value


@inline
def inside(p):
    return True


search = damped_search(evaluate, inside, SIZE, np.float64)


@numba.njit(fastmath=FAST, error_model="numpy")
def errors(factor, out):
    """Roots of the diagonal of the inverse of a matrix with this Cholesky factor, its diagonal as reciprocals."""
    column = np.empty(SIZE)
    for k in range(SIZE):
        total = 0.0
        for i in range(k, SIZE):
            part = 1.0 if i == k else 0.0
            for j in range(k, i):
                part -= factor[i, j] * column[j]
            column[i] = part * factor[i, i]
            total += column[i] * column[i]
        out[k] = math.sqrt(total)


@numba.njit(parallel=True, fastmath=FAST, error_model="numpy")
def irls(x, y, offsets, lengths):
    """Coefficients with their standard errors, and evaluations; `x` has shape `(SIZE, all rows)`."""
    n = len(offsets)
    estimates, steps = np.empty((n, 2 * SIZE)), np.empty(n, np.int64)
    chunks = 64 * numba.get_num_threads()
    for chunk in numba.prange(chunks):
        work = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
        room = np.empty((4 + 3 * SIZE, SIZE))
        for i in range(chunk * n // chunks, (chunk + 1) * n // chunks):
            here = estimates[i, :SIZE]
            here[:] = 0
            room[0] = 0
            data = (x, y, offsets[i], offsets[i] + lengths[i], *work)
            steps[i] = search(data, 1e-13 * lengths[i], here, room)
            errors(room[4 + 2 * SIZE :], estimates[i, SIZE:])
    return estimates, steps
