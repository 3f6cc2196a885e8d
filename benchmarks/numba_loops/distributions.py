"""Gamma, Weibull and Student-t: whole fits, and costs with their gradients for the search of others.

The fits are Newton's method on what algebra leaves of each likelihood.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .small import FAST, damped_search, exponentials, inline, logarithms

TOLERANCE = 1e-12  #: on the relative change of a shape, which converges quadratically
MOST = 100  #: steps
exp_all, log_all = exponentials(np.float64), logarithms(np.float64)


@inline
def digamma_trigamma(x):
    """The first two derivatives of log-gamma: recurrence up to 8, then the asymptotic series."""
    first = second = 0.0
    while x < 8:
        per = 1 / x
        first -= per
        second += per * per
        x += 1
    per = 1 / x
    w = per * per
    first += math.log(x) - 0.5 * per
    first -= w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w * (1 / 132 - w * (691 / 32760))))))
    tail = 1 / 6 - w * (1 / 30 - w * (1 / 42 - w * (1 / 30 - w * (5 / 66 - w * (691 / 2730)))))
    return first, second + per + w * (0.5 + per * tail)


@inline
def mean_and_logs(x, values, log):
    """The mean and the mean logarithm; `log` is filled, and `values` are lost."""
    n = len(x)
    total = total_log = 0.0
    for i in range(n):
        values[i] = x[i]
        total += x[i]
    log_all(values, log, n)
    for i in range(n):
        total_log += log[i]
    return total / n, total_log / n


@numba.njit(parallel=True, fastmath=FAST, error_model="numpy")
def gamma(x, starts):
    """Shape and scale, and steps: mean and mean logarithm say all, and Minka's step needs but few of them."""
    n, rows = x.shape
    estimates, steps = np.empty((n, 2)), np.empty(n, np.int64)
    chunks = 16 * numba.get_num_threads()
    for chunk in numba.prange(chunks):
        values, log = np.empty(rows), np.empty(rows)
        for i in range(chunk * n // chunks, (chunk + 1) * n // chunks):
            mean, mean_log = mean_and_logs(x[i], values, log)
            shape, change, count = starts[i, 0], 1.0, 0
            while abs(change) > TOLERANCE and count < MOST:
                first, second = digamma_trigamma(shape)
                gap = mean_log - math.log(mean) + math.log(shape) - first
                inverse = 1 / shape + gap / (shape * shape * (1 / shape - second))
                change = inverse * shape - 1
                shape = 1 / inverse
                count += 1
            estimates[i, 0], estimates[i, 1], steps[i] = shape, mean / shape, count
    return estimates, steps


@numba.njit(parallel=True, fastmath=FAST, error_model="numpy")
def weibull(x, starts):
    """Shape and scale, and steps: the scale follows from the shape, whose score has one zero and is monotone."""
    n, rows = x.shape
    estimates, steps = np.empty((n, 2)), np.empty(n, np.int64)
    chunks = 16 * numba.get_num_threads()
    for chunk in numba.prange(chunks):
        power, log = np.empty(rows), np.empty(rows)
        for i in range(chunk * n // chunks, (chunk + 1) * n // chunks):
            _, mean_log = mean_and_logs(x[i], power, log)
            shape, change, count, s = starts[i, 0], 1.0, 0, 0.0
            while abs(change) > TOLERANCE and count < MOST:
                s = s_log = s_log_log = 0.0
                for j in range(rows):
                    log_j = log[j] - mean_log
                    power[j] = shape * log_j
                exp_all(power, rows)
                for j in range(rows):
                    log_j = log[j] - mean_log
                    s += power[j]
                    s_log += power[j] * log_j
                    s_log_log += power[j] * log_j * log_j
                ratio = s_log / s
                score = 1 / shape - ratio
                slope = -1 / (shape * shape) - s_log_log / s + ratio * ratio
                change = max(-0.5, min(1.0, -score / (slope * shape)))
                shape *= 1 + change
                count += 1
            estimates[i, 0], steps[i] = shape, count
            estimates[i, 1] = math.exp(mean_log + math.log(s / rows) / shape)
    return estimates, steps


@inline
def evaluate_t(data, p, gradient, information):
    """Log-likelihood, gradient and negative Hessian by location and the logarithms of scale and of freedom."""
    x, u, log = data
    n, df = len(x), math.exp(p[2])
    per = math.exp(-2 * p[1]) / df
    for i in range(n):
        r = x[i] - p[0]
        u[i] = 1 + r * r * per
    log_all(u, log, n)
    logs = a = aa = w0 = r1 = r2 = r3 = 0.0
    for i in range(n):
        r = x[i] - p[0]
        q = r * r * per
        w = 1 / (1 + q)
        logs += log[i]
        a += q * w
        aa += q * w * w
        w0 += w
        r1 += r * w
        r2 += r * w * w
        r3 += r * q * w * w
    # Of the constant: differences over half a unit of log-gamma and its derivatives.
    high, low = digamma_trigamma(0.5 * (df + 1)), digamma_trigamma(0.5 * df)
    lead, half = df + 1, 0.5 * df
    slope = half * (high[0] - low[0]) - 0.5
    bend = half * (high[0] - low[0]) + half * half * (high[1] - low[1])
    gradient[0] = lead * per * r1
    gradient[1] = lead * a - n
    gradient[2] = n * slope - half * logs + 0.5 * lead * a
    information[0, 0] = lead * per * (w0 - 2 * aa)
    information[1, 0] = 2 * lead * per * r2
    information[1, 1] = 2 * lead * aa
    information[2, 0] = per * (r1 - lead * r3)
    information[2, 1] = -(df * a - lead * aa)
    information[2, 2] = -(n * bend - half * logs + df * a - 0.5 * lead * aa)
    constant = math.lgamma(0.5 * (df + 1)) - math.lgamma(half) - 0.5 * (p[2] + math.log(math.pi)) - p[1]
    return n * constant - 0.5 * lead * logs


@inline
def inside_t(p):
    return abs(p[1]) < 30 and abs(p[2]) < 15


search_t = damped_search(evaluate_t, inside_t, 3, np.float64)


@numba.njit(parallel=True, fastmath=FAST, error_model="numpy")
def student_t(x, starts):
    """Degrees of freedom, location and scale, and evaluations: Newton's method, damped where it must be."""
    n, rows = x.shape
    estimates, steps = np.empty((n, 3)), np.empty(n, np.int64)
    chunks = 16 * numba.get_num_threads()
    for chunk in numba.prange(chunks):
        u, log = np.empty(rows), np.empty(rows)
        here, room = np.empty(3), np.empty((13, 3))
        for i in range(chunk * n // chunks, (chunk + 1) * n // chunks):
            here[0], here[1], here[2] = starts[i, 1], math.log(starts[i, 2]), math.log(starts[i, 0])
            steps[i] = search_t((x[i], u, log), 1e-13 * rows, here, room)
            estimates[i, 0], estimates[i, 1], estimates[i, 2] = math.exp(here[2]), here[0], math.exp(here[1])
    return estimates, steps


@numba.njit(fastmath=FAST, error_model="numpy")
def gamma_cost(x, shape, scale):
    """The negative log-likelihood and its gradient."""
    n = len(x)
    mean, mean_log = mean_and_logs(x, np.empty(n), np.empty(n))
    first, _ = digamma_trigamma(shape)
    value = (shape - 1) * mean_log - mean / scale - shape * math.log(scale) - math.lgamma(shape)
    by_shape, by_scale = mean_log - math.log(scale) - first, (mean / scale - shape) / scale
    return -n * value, np.array([-n * by_shape, -n * by_scale])


@numba.njit(fastmath=FAST, error_model="numpy")
def weibull_cost(x, shape, scale):
    """The negative log-likelihood and its gradient."""
    n = len(x)
    power, log = np.empty(n), np.empty(n)
    _, mean_log = mean_and_logs(x, power, log)
    log_scale = math.log(scale)
    for i in range(n):
        power[i] = shape * (log[i] - log_scale)
    exp_all(power, n)
    s = s_log = 0.0
    for i in range(n):
        s += power[i]
        s_log += power[i] * (log[i] - log_scale)
    value = n * (math.log(shape) - mean_log + shape * (mean_log - log_scale)) - s
    by_shape = n / shape + n * (mean_log - log_scale) - s_log
    return -value, np.array([-by_shape, -(s - n) * shape / scale])


@numba.njit(fastmath=FAST, error_model="numpy")
def student_t_cost(x, df, loc, scale):
    """The negative log-likelihood and its gradient."""
    n = len(x)
    gradient = np.empty(3)
    here = np.array([loc, math.log(scale), math.log(df)])
    value = evaluate_t((x, np.empty(n), np.empty(n)), here, gradient, np.empty((3, 3)))
    return -value, np.array([-gradient[2] / df, -gradient[0], -gradient[1] / scale])
