"""Functions of vectors beside digits of longer arithmetic: at every size, in common ranges, where they turn."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from llvmlite import ir
from mpmath import mpf

from mlekit.native.functions import FUNCTIONS, integer_pow

from .functions_helper import DTYPES, Native, all_exponents, close_to, ulps

BEYOND = 3000  #: an exponent whose exponential is neither a double nor its inverse


def real(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of mpmath that is None where it has no real value."""

    def value(*arguments: Any) -> Any:
        try:
            found = function(*arguments)
        except (ValueError, ZeroDivisionError):
            return None
        return found if isinstance(found, mpf) else None

    return value


def exp(x: Any) -> Any:
    return mpmath.exp(x) if abs(x) < BEYOND else mpf(0) if x < 0 else mpmath.inf


def log(x: Any) -> Any:
    return mpmath.log(x) if x > 0 else -mpmath.inf if x == 0 else None


def log1p(x: Any) -> Any:
    return mpmath.log1p(x) if x > -1 else -mpmath.inf if x == -1 else None


def power(x: Any, y: Any) -> Any:
    if x < 0 and y != int(y):
        return None
    size = exp(y * mpmath.log(abs(x)))
    return -size if x < 0 and int(y) % 2 else size


def cbrt(x: Any) -> Any:
    return mpmath.sign(x) * mpmath.cbrt(abs(x))


def at_most(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function that grows with e^|x|, where that is not beyond all numbers."""
    return lambda x: function(x if abs(x) < BEYOND else mpmath.sign(x) * BEYOND)


def atanh(x: Any) -> Any:
    return mpmath.inf * x if abs(x) == 1 else mpmath.atanh(x) if abs(x) < 1 else None


def erfc(x: Any) -> Any:
    return mpmath.erfc(x) if x < 60 else mpf(0)


def erf_inv(x: Any) -> Any:
    """By Newton's method for the logarithm of the complement."""
    if abs(x) >= 1:
        return mpmath.inf * x if abs(x) == 1 else None
    if abs(x) < mpf(2) ** -60:
        return x * mpmath.sqrt(mpmath.pi) / 2
    goal = mpmath.log1p(-abs(x))
    y = mpmath.sqrt(-mpmath.log1p(-x * x))
    for _ in range(100):
        upper = mpmath.erfc(y)
        step = (mpmath.log(upper) - goal) * upper * mpmath.sqrt(mpmath.pi) / 2 * mpmath.exp(y * y)
        y += step
        if abs(step) < y * mpf(2) ** -80:
            break
    return y * mpmath.sign(x)


def lgamma(x: Any) -> Any:
    if (x <= 0 and x == mpmath.floor(x)) or abs(x) > mpf(10) ** 306:
        return mpmath.inf
    if x < 0:
        with mpmath.workprec(400):
            return mpmath.log(abs(mpmath.pi / mpmath.sin(mpmath.pi * x) / x)) - mpmath.loggamma(-x)
    return mpmath.loggamma(x)


def digamma(x: Any) -> Any:
    if x < 0:
        with mpmath.workprec(400):
            return None if x == mpmath.floor(x) else mpmath.digamma(1 - x) - mpmath.pi * mpmath.cot(mpmath.pi * x)
    return mpmath.digamma(x)


def polygamma(n: int, x: Any) -> Any:
    sign = (-1) ** (n + 1)
    if x < 0 and n > 2:
        return None
    if x < 0 and x == mpmath.floor(x):
        return mpmath.inf if n % 2 else None
    if x < 0:
        with mpmath.workprec(400):
            part = mpmath.pi / mpmath.sin(mpmath.pi * x)
            slope = part**2 if n == 1 else -2 * part**3 * mpmath.cos(mpmath.pi * x)
            return slope - sign * mpmath.polygamma(n, 1 - x)
    if not mpf(10) ** -60 < x < mpf(10) ** 60:
        return sign * (mpmath.factorial(n) / x ** (n + 1) + mpmath.factorial(n - 1) / x**n)
    return mpmath.polygamma(n, x)


def bessel(n: int, x: Any) -> Any:
    if abs(x) < 1e4:
        return mpmath.besseli(n, x) * mpmath.exp(-abs(x))
    total = term = mpf(1)
    for k in range(1, 12):
        term *= (mpf(2 * k - 1) ** 2 - 4 * n * n) / (8 * k * abs(x))
        total += term
    return total / mpmath.sqrt(2 * mpmath.pi * abs(x)) * (mpmath.sign(x) if n else 1)


def nothing(x: Any) -> Any:
    return 0


def one(x: Any) -> Any:
    return 1


def size_of_parts(x: Any) -> Any:
    """For ψ below zero, where its parts cancel."""
    return 1 if x > 0 else max(1, abs(mpmath.log(-x)))


@dataclasses.dataclass(frozen=True)
class Case:
    """A function, its exact values, where to look, and how far it may be off.

    Args:
        name: of the primitive.
        exact: in mpmath.
        spans: where random points are drawn from.
        points: where the function has zeros, poles or changes of method.
        bound: the error allowed, in units in the last place, in float64 and in float32.
        floor: of an argument, the size of values below which places count no further.
        order: a first operand that is a constant.
        positive: whether to look above zero only.
        precision: of the exact values, in bits.
    """

    name: str
    exact: Callable[..., Any]
    spans: tuple[tuple[float, float], ...]
    points: tuple[float, ...] = (0.0,)
    bound: float = 2.0
    floor: Callable[[Any], Any] = nothing
    order: int | None = None
    positive: bool = False
    precision: int = 150

    def __str__(self) -> str:
        return self.name if self.order is None else f"{self.name} {self.order}"

    def emit(self, lanes: Any, x: ir.Value) -> ir.Value:
        before = [] if self.order is None else [lanes.constant(self.order)]
        return FUNCTIONS[self.name](lanes, *before, x)


TURNS = tuple(k * np.pi / 2 for k in (1, 2, 3, 4, 7, 100, 4096))
CASES = (
    Case("exp", exp, ((-1, 1), (-104, 89), (-746, 710)), (0, 0.5 * np.log(2), 88.72, 709.78)),
    Case("exp2", lambda x: exp(x * mpmath.log(2)), ((-1, 1), (-150, 128), (-1075, 1024)), (0, 0.5, 1024.0)),
    Case("expm1", at_most(mpmath.expm1), ((-1.5, 1.5), (-40, 89), (-45, 710)), (0, 0.3466, 1.0397)),
    Case("log", log, ((0.5, 2), (0, 100)), (1, np.sqrt(0.5), np.sqrt(2))),
    Case("log1p", log1p, ((-1, 1), (0, 100), (-0.01, 0.01)), (0, -1, np.sqrt(0.5) - 1, np.sqrt(2) - 1)),
    Case("logistic", lambda x: 1 / (1 + exp(-x)), ((-2, 2), (-10, 10), (-104, 89), (-745, 710)), (0,)),
    Case("tanh", mpmath.tanh, ((-1, 1), (-3, 3), (-25, 25)), (0, 1, 10, 22)),
    Case("sinh", at_most(mpmath.sinh), ((-1, 1), (-5, 5), (-90, 90), (-711, 711)), (0, 1)),
    Case("cosh", at_most(mpmath.cosh), ((-2, 2), (-90, 90), (-711, 711)), (0, 1)),
    Case("asinh", mpmath.asinh, ((-1, 1), (-10, 10)), (0, 1, 2.0**60)),
    Case("acosh", real(mpmath.acosh), ((1, 2), (1, 100)), (1, 2.0**60)),
    Case("atanh", atanh, ((-1, 1), (-0.3, 0.3)), (0, 1)),
    Case("sqrt", real(mpmath.sqrt), ((0, 2),), (1,), bound=0.5000001),
    Case("rsqrt", lambda x: 1 / mpmath.sqrt(x) if x > 0 else None, ((0, 2),), (1,)),
    Case("cbrt", cbrt, ((-8, 8),), (1,)),
    Case("square", lambda x: x * x, ((-8, 8),), bound=0.5000001),
    Case("sin", mpmath.sin, ((-4, 4), (-1e4, 1e4), (1e8, 2e8)), (0, 2.0**13, 2.0**27, *TURNS), precision=1300),
    Case("cos", mpmath.cos, ((-4, 4), (-1e4, 1e4), (1e8, 2e8)), (0, 2.0**13, 2.0**27, *TURNS), precision=1300),
    Case("tan", mpmath.tan, ((-4, 4), (-1e4, 1e4), (1e8, 2e8)), (0, 2.0**13, 2.0**27, *TURNS), precision=1300),
    Case("asin", real(mpmath.asin), ((-1, 1), (0.5, 0.6)), (0, 0.5, 1)),
    Case("acos", real(mpmath.acos), ((-1, 1), (0.5, 0.6)), (0, 0.5, 1)),
    Case("atan", mpmath.atan, ((-1, 1), (-9, 9)), (0, np.tan(np.pi / 8), np.tan(np.pi / 8 * 3), 1)),
    Case("erf", mpmath.erf, ((-1, 1), (-6, 6)), (0, 1)),
    Case("erfc", erfc, ((-1, 1), (0, 10), (0, 27.3)), (0, 0.47)),
    Case("erf_inv", erf_inv, ((-1, 1), (0.99, 1)), (0, 0.9966256, 0.99999921, 1)),
    Case("lgamma", lgamma, ((0, 3), (2, 8), (8, 100), (-0.5, 0.5)), (1, 2, 0.5, 1.4616, 6.5), positive=True),
    Case("lgamma", lgamma, ((-20, 0), (-200, 0)), (-1, -2, -2.457, -2.7476, -0.5), 3.0, one),
    Case("digamma", digamma, ((0, 3), (3, 8), (8, 100)), (1.4616, 1, 2, 3, 5), 2.0, one, positive=True),
    Case("digamma", digamma, ((-20, 0), (-200, 0)), (-1, -0.504, -1.573), 6.0, size_of_parts),
    Case("polygamma", functools.partial(polygamma, 1), ((0, 3), (3, 8), (8, 99)), (1, 7), order=1, positive=True),
    Case("polygamma", functools.partial(polygamma, 1), ((-10, 0),), (-1, -0.5), 6.0, one, order=1),
    Case("polygamma", functools.partial(polygamma, 2), ((0, 3), (3, 9)), (1, 8), 5.0, order=2, positive=True),
    Case("polygamma", functools.partial(polygamma, 2), ((-10, 0),), (-1, -0.5), 10.0, one, order=2),
    Case("polygamma", functools.partial(polygamma, 3), ((0, 3), (3, 9)), (1, 9), 5.0, order=3, positive=True),
    Case("bessel_i0e", functools.partial(bessel, 0), ((0, 10), (10, 100)), (0, 10), 6.0),
    Case("bessel_i1e", functools.partial(bessel, 1), ((0, 10), (10, 100)), (0, 10), 6.0),
)


def points(case: Case, dtype: Any, count: int, step: int) -> np.ndarray:
    random = np.random.default_rng(7)
    found = [all_exponents(dtype, step)]
    found += [random.uniform(low, high, count) for low, high in case.spans]
    found += [close_to(point, dtype, max(8, count // 12)) for point in case.points]
    with np.errstate(over="ignore"):
        x = np.concatenate(found).astype(dtype)
    x = x[np.isfinite(x)]
    return x[x > 0] if case.positive else x


def check(case: Case, dtype: Any, x: np.ndarray) -> None:
    found = Native(case.emit, 1, dtype)(x)
    with mpmath.workprec(case.precision):
        numbers = [mpf(each) for each in x.tolist()]
        exact = [_limit_at_zero(case, each) if each == 0 else case.exact(each) for each in numbers]
        errors = ulps(found, exact, map(case.floor, numbers))
        worst = int(np.argmax(errors))
        message = f"{errors[worst]:.3f} at {x[worst]!r}: {found[worst]!r} where {exact[worst]} is"
    assert errors[worst] <= case.bound, message


def _limit_at_zero(case: Case, zero: Any) -> Any:
    """The exact value at 0, where mpmath may stumble over a pole."""
    if case.name == "digamma":
        return -mpmath.inf
    if case.name == "polygamma":
        return mpmath.inf * (-1) ** ((case.order or 0) + 1)
    return mpmath.inf if case.name in ("rsqrt", "lgamma") else case.exact(zero)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_errors_stay_within_their_bound(case: Case, dtype: Any) -> None:
    x = points(case, dtype, 150, 24 if dtype == np.float64 else 4)
    check(case, dtype, x)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_errors_stay_within_their_bound_everywhere(case: Case, dtype: Any) -> None:
    check(case, dtype, points(case, dtype, 3000, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_powers(dtype: Any) -> None:
    random = np.random.default_rng(1)
    top = 745 if dtype == np.float64 else 104
    x = np.concatenate(
        [np.exp(random.uniform(-80, 80, 400)), random.uniform(0.9, 1.1, 200), random.uniform(0, 20, 200)]
    )
    y = np.concatenate([random.uniform(-top, top, 600) / np.log(x[:600]), random.uniform(-6, 6, 200)])
    size = abs(all_exponents(dtype, 16))
    x, y = (
        np.concatenate([x, size, -x[:200]]),
        np.concatenate([y, random.uniform(-1, 1, size.size), np.round(y[:200])]),
    )
    x, y = x.astype(dtype), y.astype(dtype)
    found = Native(FUNCTIONS["pow"], 2, dtype)(x, y)
    with mpmath.workprec(200):
        errors = ulps(found, [power(mpf(a), mpf(b)) for a, b in zip(x.tolist(), y.tolist())], np.zeros(x.size))
    worst = int(np.argmax(errors))
    assert errors[worst] <= 2, (errors[worst], x[worst], y[worst], found[worst])


@pytest.mark.parametrize("dtype", DTYPES)
def test_angles_of_points(dtype: Any) -> None:
    random = np.random.default_rng(2)
    sizes = all_exponents(dtype, 8)
    y = np.concatenate(
        [random.uniform(-3, 3, 500), random.permutation(sizes), random.uniform(0.3, 0.6, 200)]
    ).astype(dtype)
    x = np.concatenate([random.uniform(-3, 3, 500), sizes, np.ones(200)]).astype(dtype)
    found = Native(FUNCTIONS["atan2"], 2, dtype)(y, x)
    with mpmath.workprec(150):
        errors = ulps(
            found, [mpmath.atan2(mpf(a), mpf(b)) for a, b in zip(y.tolist(), x.tolist())], np.zeros(x.size)
        )
    worst = int(np.argmax(errors))
    assert errors[worst] <= 2, (errors[worst], y[worst], x[worst], found[worst])


@pytest.mark.parametrize("dtype", DTYPES)
def test_remainders_are_exact(dtype: Any) -> None:
    random = np.random.default_rng(4)
    sizes = all_exponents(dtype, 8)
    few = (np.arange(1, 400) * dtype(0.1)).astype(dtype)
    x = np.concatenate([random.uniform(-9, 9, 500), np.nextafter(few, dtype(0)), few, sizes]).astype(dtype)
    y = np.concatenate([random.uniform(-3, 3, 500), np.full(798, 0.1), random.permutation(sizes)]).astype(dtype)
    for part in (slice(0, 1296), slice(1296, None)):
        found = Native(FUNCTIONS["rem"], 2, dtype)(x[part], y[part])
        np.testing.assert_array_equal(found, np.fmod(x[part], y[part]))
        np.testing.assert_array_equal(np.signbit(found), np.signbit(x[part]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-3, -1, 0, 1, 2, 5])
def test_whole_powers(exponent: int, dtype: Any) -> None:
    x = np.linspace(-3, 3, 50).astype(dtype)
    found = Native(lambda lanes, x: integer_pow(lanes, x, exponent), 1, dtype)(x)
    np.testing.assert_allclose(found, x.astype(float) ** exponent, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_closest_to_a_quarter_turn(name: str) -> None:
    """The doubles next to a multiple of π / 2 among all (J.-M. Muller, Elementary Functions, table 11.1)."""
    x = np.array([6381956970095103 * 2.0**797, 6411027962775774 * 2.0**-48])
    found = Native(FUNCTIONS[name], 1, np.float64)(x)
    with mpmath.workprec(1300):
        assert ulps(found, [getattr(mpmath, name)(mpf(each)) for each in x.tolist()], np.zeros(2)).max() <= 2
