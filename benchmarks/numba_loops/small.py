"""What several loops share: the damped search, and logarithms and exponentials of whole arrays.

The C library computes one logarithm at a time. Written out as polynomials, loops over them become vector
instructions, which makes a loop over pixels about twice as fast.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numba
import numpy as np

#: What may be done to sums and quotients; NaN and infinity keep their meaning.
FAST = {"reassoc", "nsz", "arcp", "contract", "afn"}
inline = numba.njit(inline="always", fastmath=FAST, error_model="numpy")
#: Where every rounding is meant.
literal = numba.njit(inline="always", error_model="numpy")


@inline
def solve_damped(matrix: Any, right: Any, damping: Any, factor: Any, out: Any, size: Any) -> bool:
    """`out` = (matrix + damping * |its diagonal|)^-1 right by Cholesky; False if not positive definite.

    Args:
        matrix: lower triangle of a symmetric matrix.
        right: right-hand side.
        damping: Levenberg-Marquardt's.
        factor: room for the factor.
        out: where the solution goes.
        size: of the matrix; a constant of the caller, so that the loops unroll.
    """
    for i in range(size):
        for j in range(i + 1):
            total = matrix[i, j]
            if i == j:
                total += damping * abs(matrix[i, i])
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if i == j:
                if not total > 0:
                    return False
                # The diagonal holds reciprocals: multiplications are cheaper than divisions.
                factor[i, i] = 1 / math.sqrt(total)
            else:
                factor[i, j] = total * factor[j, j]
    for i in range(size):
        total = right[i]
        for k in range(i):
            total -= factor[i, k] * out[k]
        out[i] = total * factor[i, i]
    for i in range(size - 1, -1, -1):
        total = out[i]
        for k in range(i + 1, size):
            total -= factor[k, i] * out[k]
        out[i] = total * factor[i, i]
    return True


def _layout(real: Any) -> tuple[Any, int, int]:
    """The integer of the same size, the width of the mantissa, and the bias of the exponent."""
    return (np.int64, 52, 1023) if real is np.float64 else (np.int32, 23, 127)


@functools.cache
def logarithms(real: Any) -> Callable[..., Any]:
    """`log_all(values, out, size)`: logarithms of positive numbers; the values are lost."""
    whole, width, bias = _layout(real)
    one, ln2 = real(1), real(math.log(2))
    lowest = np.array([math.sqrt(0.5)], real).view(whole)[0]
    offset = whole(np.array([one]).view(whole)[0] - lowest)
    mantissa = whole((1 << width) - 1)
    # log m = 2 artanh((m - 1) / (m + 1)) for m in [sqrt(1/2), sqrt(2)).
    series = tuple(real(2 / (2 * k + 1)) for k in range(10 if real is np.float64 else 5))
    last = len(series) - 1

    @inline
    def log_all(values, out, size):
        bits = values.view(whole)
        for i in range(size):
            shifted = bits[i] + offset
            out[i] = ln2 * real((shifted >> width) - bias)
            bits[i] = (shifted & mantissa) + lowest
        for i in range(size):
            s = (values[i] - one) / (values[i] + one)
            square = s * s
            log = series[last]
            for k in range(last - 1, -1, -1):
                log = log * square + series[k]
            out[i] += s * log

    return log_all


@functools.cache
def exponentials(real: Any) -> Callable[..., Any]:
    """`exp_all(values, size)`: exponentials in place, of numbers held within the range of the type."""
    whole, width, _ = _layout(real)
    widest = real(700 if real is np.float64 else 80)
    per_ln2, half = real(1 / math.log(2)), real(0.5)
    # ln 2 in two parts, the first with so few digits that its multiples are exact.
    high = real(math.floor(math.log(2) * 2**16) / 2**16) if real is np.float64 else real(0.693359375)
    low = real(Fraction("0.693147180559945309417232121458") - Fraction(float(high)))
    series = tuple(real(1 / math.factorial(k)) for k in range(14 if real is np.float64 else 8))
    last = len(series) - 1

    @literal
    def exp_all(values, size):
        bits = values.view(whole)
        for i in range(size):
            x = max(-widest, min(widest, values[i]))
            power = math.floor(x * per_ln2 + half)
            rest = (x - power * high) - power * low
            total = series[last]
            for k in range(last - 1, -1, -1):
                total = total * rest + series[k]
            values[i] = total
            bits[i] += whole(power) << width

    return exp_all


def damped_search(evaluate: Callable[..., Any], inside: Callable[..., Any], size: int, real: Any) -> Any:
    """Newton's or the scoring method, damped as Levenberg and Marquardt do: `search(data, slack, here, room)`.

    It moves `here`, and returns the number of evaluations. `slack` is what rounding does to the value; `room`, of
    shape `(4 + 3 * size, size)`, is where it works.

    Args:
        evaluate: `evaluate(data, parameters, gradient, information)` fills the last two and returns the value.
        inside: whether parameters may be evaluated.
        size: number of parameters.
        real: type of all numbers; Python's own would turn float32 into float64.
    """
    nothing, half, tenth, ten, lowest = real(0), real(0.5), real(0.1), real(10), real(-1e30)
    tolerance, nearly_newton, first, small, large = real(1e-9), real(1e-3), real(1e-2), real(1e-4), real(1e8)

    @inline
    def search(data, slack, here, room):
        there, gradient, gradient_there, step = room[0], room[1], room[2], room[3]
        information, information_there = room[4 : 4 + size], room[4 + size : 4 + 2 * size]
        factor = room[4 + 2 * size : 4 + 3 * size]
        for k in range(size):
            there[k] = here[k]
        value, damping, count, good = lowest, nothing, 0, True
        while count < 200 and damping < large:
            if good:
                value_there = evaluate(data, there, gradient_there, information_there)
                count += 1
                good = value_there >= value - slack
            if good:
                value = value_there
                # Copies keep the arrays apart for the compiler, which makes them faster than swaps.
                for r in range(size):
                    here[r], gradient[r] = there[r], gradient_there[r]
                    for c in range(r + 1):
                        information[r, c] = information_there[r, c]
                damping = damping * tenth if damping > small else nothing
            else:
                damping = max(damping * ten, first)
            good = solve_damped(information, gradient, damping, factor, step, size)
            if good:
                decrement = nothing
                for k in range(size):
                    there[k] = here[k] + step[k]
                    decrement += half * gradient[k] * step[k]
                if decrement < tolerance and damping <= nearly_newton:
                    for k in range(size):
                        here[k] = there[k]
                    break
                good = inside(there)
        return count

    return search
