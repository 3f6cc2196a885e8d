"""Functions of vectors at infinities, zeros, NaN and the smallest numbers; and beside JAX's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlekit.native.functions import FUNCTIONS
from mlekit.native.unsupported import Unsupported

from .functions_helper import DTYPES, Native

INF, NAN = np.inf, np.nan
TINY = 5e-324  #: stands for the smallest number of the precision
#: Arguments, and values there
Pairs = tuple[tuple[float, float], ...]
#: Of arguments, the values that C99 (annex F) gives, or the limit.
SPECIALS: dict[str, Pairs] = {
    "acos": (
        (1.0, 0.0),
        (2.0, NAN),
        (-2.0, NAN),
        (INF, NAN),
    ),
    "acosh": (
        (1.0, 0.0),
        (0.5, NAN),
        (-5.0, NAN),
        (INF, INF),
        (-INF, NAN),
    ),
    "asin": (
        (-0.0, -0.0),
        (2.0, NAN),
        (-2.0, NAN),
        (TINY, TINY),
    ),
    "asinh": (
        (-0.0, -0.0),
        (INF, INF),
        (-INF, -INF),
        (TINY, TINY),
    ),
    "atan": (
        (-0.0, -0.0),
        (INF, np.pi / 2),
        (-INF, -np.pi / 2),
        (TINY, TINY),
    ),
    "atanh": (
        (-0.0, -0.0),
        (1.0, INF),
        (-1.0, -INF),
        (2.0, NAN),
        (INF, NAN),
        (TINY, TINY),
    ),
    "bessel_i0e": (
        (0.0, 1.0),
        (-0.0, 1.0),
        (INF, 0.0),
        (-INF, 0.0),
    ),
    "bessel_i1e": (
        (0.0, 0.0),
        (-0.0, -0.0),
        (INF, 0.0),
        (-INF, -0.0),
    ),
    "cbrt": (
        (-0.0, -0.0),
        (INF, INF),
        (-INF, -INF),
        (8.0, 2.0),
        (-27.0, -3.0),
    ),
    "cos": (
        (0.0, 1.0),
        (-0.0, 1.0),
        (INF, NAN),
        (-INF, NAN),
    ),
    "cosh": (
        (0.0, 1.0),
        (INF, INF),
        (-INF, INF),
    ),
    "digamma": (
        (0.0, -INF),
        (-0.0, INF),
        (-1.0, NAN),
        (-2.0, NAN),
        (INF, INF),
        (-INF, NAN),
    ),
    "erf": (
        (-0.0, -0.0),
        (INF, 1.0),
        (-INF, -1.0),
        (TINY, TINY),
    ),
    "erf_inv": (
        (-0.0, -0.0),
        (1.0, INF),
        (-1.0, -INF),
        (2.0, NAN),
        (-INF, NAN),
        (TINY, TINY),
    ),
    "erfc": (
        (0.0, 1.0),
        (INF, 0.0),
        (-INF, 2.0),
    ),
    "exp": (
        (0.0, 1.0),
        (-0.0, 1.0),
        (INF, INF),
        (-INF, 0.0),
        (TINY, 1.0),
    ),
    "exp2": (
        (0.0, 1.0),
        (INF, INF),
        (-INF, 0.0),
        (3.0, 8.0),
        (-3.0, 0.125),
    ),
    "expm1": (
        (0.0, 0.0),
        (-0.0, -0.0),
        (INF, INF),
        (-INF, -1.0),
        (TINY, TINY),
        (-TINY, -TINY),
    ),
    "lgamma": (
        (0.0, INF),
        (-0.0, INF),
        (1.0, 0.0),
        (2.0, 0.0),
        (-1.0, INF),
        (-7.0, INF),
        (INF, INF),
        (-INF, INF),
    ),
    "log": (
        (0.0, -INF),
        (-0.0, -INF),
        (1.0, 0.0),
        (-1.0, NAN),
        (-TINY, NAN),
        (INF, INF),
        (-INF, NAN),
    ),
    "log1p": (
        (0.0, 0.0),
        (-0.0, -0.0),
        (-1.0, -INF),
        (-2.0, NAN),
        (INF, INF),
        (-INF, NAN),
        (TINY, TINY),
        (-TINY, -TINY),
    ),
    "logistic": (
        (0.0, 0.5),
        (-0.0, 0.5),
        (INF, 1.0),
        (-INF, 0.0),
    ),
    "rsqrt": (
        (0.0, INF),
        (-0.0, -INF),
        (-1.0, NAN),
        (INF, 0.0),
        (4.0, 0.5),
    ),
    "sin": (
        (0.0, 0.0),
        (-0.0, -0.0),
        (INF, NAN),
        (-INF, NAN),
        (TINY, TINY),
        (-TINY, -TINY),
    ),
    "sinh": (
        (-0.0, -0.0),
        (INF, INF),
        (-INF, -INF),
        (TINY, TINY),
    ),
    "sqrt": (
        (-0.0, -0.0),
        (-1.0, NAN),
        (INF, INF),
    ),
    "square": (
        (-0.0, 0.0),
        (-INF, INF),
    ),
    "tan": (
        (-0.0, -0.0),
        (INF, NAN),
        (TINY, TINY),
    ),
    "tanh": (
        (0.0, 0.0),
        (-0.0, -0.0),
        (INF, 1.0),
        (-INF, -1.0),
        (TINY, TINY),
        (-TINY, -TINY),
    ),
}
#: The same of orders of `polygamma`.
ORDERS: dict[int, Pairs] = {
    1: (
        (0.0, INF),
        (-0.0, INF),
        (-3.0, INF),
        (INF, 0.0),
        (-INF, NAN),
    ),
    2: (
        (0.0, -INF),
        (-0.0, INF),
        (-3.0, NAN),
        (INF, -0.0),
        (-INF, NAN),
    ),
    3: (
        (0.0, INF),
        (-1.5, NAN),
        (INF, 0.0),
    ),
}
TWO = {"atan2": np.arctan2, "pow": np.power, "rem": np.fmod}


def same(found: np.ndarray, wanted: Any) -> np.ndarray:
    """Where numbers are equal, signs of zeros included, or both none."""
    wanted = np.asarray(wanted, found.dtype)
    return (found == wanted) & (np.signbit(found) == np.signbit(wanted)) | np.isnan(found) & np.isnan(wanted)


def check(emit: Callable[..., Any], table: Pairs, dtype: Any) -> None:
    least = np.finfo(dtype).smallest_subnormal

    def numbers(values: Any) -> np.ndarray:
        values = [*values]
        return np.array([np.copysign(least, v) if abs(v) == TINY else dtype(v) for v in values], dtype)

    x, wanted = (numbers([*each, NAN]) for each in zip(*table))
    found = Native(emit, 1, dtype)(x)
    assert same(found, wanted).all(), [(a, b, c) for a, b, c in zip(x, found, wanted) if not same(b, c)]


def test_every_function_has_special_values() -> None:
    assert {*SPECIALS, *TWO, "polygamma"} == {*FUNCTIONS}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECIALS)
def test_special_values(name: str, dtype: Any) -> None:
    check(FUNCTIONS[name], SPECIALS[name], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
def test_special_values_of_polygamma(order: int, dtype: Any) -> None:
    check(lambda lanes, x: FUNCTIONS["polygamma"](lanes, lanes.constant(order), x), ORDERS[order], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TWO)
def test_special_values_of_two_operands(name: str, dtype: Any) -> None:
    """Beside those of the C library."""
    info = np.finfo(dtype)
    values = [0.0, 1.0, 2.0, 0.5, 3.0, 2.5, 2.0**40, INF, info.max, info.smallest_subnormal]
    some = np.array([*values, *(-v for v in values), NAN], dtype)
    x, y = (each.ravel() for each in np.meshgrid(some, some))
    with np.errstate(all="ignore"):
        wanted = TWO[name](x, y)
        found = Native(FUNCTIONS[name], 2, dtype)(x, y)
        near = np.isfinite(wanted) & (abs(found - wanted) <= 2 * np.spacing(abs(wanted)))
    wrong = ~(same(found, wanted) | near & (np.signbit(found) == np.signbit(wanted)))
    assert not wrong.any(), [*zip(x[wrong], y[wrong], found[wrong], wanted[wrong])]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_jax(name: str) -> None:
    """Names and operands are its primitives'."""
    primitive = getattr(jax.lax, f"{name}_p")
    x = jnp.linspace(1.1 if name == "acosh" else 0.05, 0.95 if name in ("asin", "acos", "atanh") else 3.0, 37)
    x = x / 4 if name == "erf_inv" else x
    y = jnp.linspace(2.0, -2.0, 37)
    keywords = {"accuracy": None} if name in ACCURATE else {}
    if name == "polygamma":
        wanted = primitive.bind(jnp.full_like(x, 1.0), x)
        found = Native(lambda lanes, x: FUNCTIONS[name](lanes, lanes.constant(1), x), 1, np.float64)(x)
    elif name in TWO:
        found, wanted = Native(FUNCTIONS[name], 2, np.float64)(x, y), primitive.bind(x, y)
    else:
        found, wanted = Native(FUNCTIONS[name], 1, np.float64)(x), primitive.bind(x, **keywords)
    np.testing.assert_allclose(found, np.asarray(wanted), rtol=1e-12, atol=1e-14)


#: Primitives with a parameter that says how accurate they must be.
ACCURATE = {
    "cbrt",
    "cos",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "logistic",
    "rsqrt",
    "sin",
    "sqrt",
    "tan",
    "tanh",
}


@pytest.mark.parametrize("order", [0.0, 1.5, 9.0, -1.0])
def test_orders_that_are_not_written(order: float) -> None:
    with pytest.raises(Unsupported, match="polygamma of an order"):
        Native(lambda lanes, x: FUNCTIONS["polygamma"](lanes, lanes.constant(order), x), 1, np.float64)


def test_an_order_that_is_not_constant() -> None:
    with pytest.raises(Unsupported, match="polygamma of an order"):
        Native(FUNCTIONS["polygamma"], 2, np.float64)
