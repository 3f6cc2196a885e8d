"""What is wrong with the parts of a composition is said in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from tests.models.compositions.parts import TWO, normal, normal_log_cdf, normal_log_density, pair

ROW = {"y": 1.0}
P = {"weights": np.ones(2) / 2, "components": TWO}
loose: Any = mle  # whose arguments are of wrong types
BAD: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "no bounds": (lambda: loose.censored(normal), ValueError, ["censored", "lower, upper"]),
    "no distribution": (
        lambda: loose.truncated(normal_log_density, lower=0),
        ValueError,
        ["truncated", "log_cdf"],
    ),
    "no function": (lambda: loose.censored(3, lower=0), TypeError, ["log_density", "int"]),
    "no cdf": (lambda: loose.censored(normal, lower=0, log_cdf=3), TypeError, ["log_cdf", "int"]),
    "no survival": (lambda: loose.truncated(normal, lower=0, log_survival=3), TypeError, ["log_survival", "int"]),
    "joint": (lambda: loose.truncated(mle.joint(normal), lower=0), ValueError, ["truncated", "ONE", "joint"]),
    "other response": (
        lambda: loose.censored(normal, lower=0, response="t"),
        ValueError,
        ["'y'", "'t'", "leave out"],
    ),
    "bad response": (lambda: loose.censored(normal, lower=0, response=3), TypeError, ["response", "got 3"]),
    "bad bound": (lambda: loose.truncated(normal, upper=[1]), TypeError, ["truncated: upper", "number", "[1]"]),
    "no column": (lambda: loose.censored(normal, lower="z")(TWO, ROW), ValueError, ["lower='z'", "['y']"]),
    "wide bound": (
        lambda: loose.truncated(normal, lower=lambda obs: jnp.ones(2))([0.0, 1.0], ROW),
        ValueError,
        ["lower", "one number", "(2,)"],
    ),
    "no place": (
        lambda: loose.truncated(normal_log_density, lower=0, log_cdf=normal_log_cdf)([0.0, 1.0], (1.0, 2.0)),
        ValueError,
        ["tuple", "response=lambda obs: obs[0]"],
    ),
    "no name": (
        lambda: loose.censored(normal_log_density, lower=0, upper=1, response="y", log_cdf=normal_log_cdf)(
            0, (1.0,)
        ),
        ValueError,
        ["response='y'", "tuple"],
    ),
    "no leaf": (
        lambda: loose.censored(
            normal_log_density, lower=0, upper=1, response=lambda obs: obs["y"] + 1, log_cdf=normal_log_cdf
        )([0.0, 1.0], ROW),
        ValueError,
        ["response", "leaf"],
    ),
    "no components": (lambda: loose.mixture([]), ValueError, ["at least one"]),
    "what components": (lambda: loose.mixture(3), TypeError, ["components", "got 3"]),
    "what weights": (lambda: loose.mixture(pair, weights=0.5), TypeError, ["weights", "0.5"]),
    "weights": (lambda: loose.mixture(pair)(P | {"weights": np.ones(3)}, ROW), ValueError, ["(2,)", "(3,)"]),
    "no weights": (
        lambda: loose.mixture(pair)({"components": TWO}, ROW),
        ValueError,
        ["'weights'", "['components']"],
    ),
    "no parameters": (
        lambda: loose.mixture(pair)({"weights": 1.0}, ROW),
        ValueError,
        ["'components'", "['weights']"],
    ),
    "uneven rows": (
        lambda: loose.mixture(pair)(P | {"components": {"mean": np.zeros(2), "scale": np.ones(3)}}, ROW),
        ValueError,
        ["leading axis", "(2,), (3,)"],
    ),
    "no list": (lambda: loose.mixture([pair, pair])(P, ROW), ValueError, ["sequence of 2", "mean"]),
    "no dict": (lambda: loose.mixture({"a": pair})(P, ROW), ValueError, ["dict", "['a']"]),
    "what chance": (lambda: loose.zero_inflated(pair, 0.5), TypeError, ["chance", "0.5"]),
    "no chance": (
        lambda: loose.zero_inflated(pair, whole=False)({"mean": 0.0, "scale": 1.0}, ROW),
        ValueError,
        ["'chance'", "mean"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_errors(name: str) -> None:
    call, kind, words = BAD[name]
    with pytest.raises(kind) as raised:
        call()
    assert all(word in str(raised.value) for word in words), str(raised.value)
