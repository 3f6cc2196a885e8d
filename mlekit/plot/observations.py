"""The observations of a fit, as pictures want them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..inference.record import objective
from ..likelihood.base import AbstractLikelihood
from ..results.fit import Fit

#: Log-densities that are held at once.
HELD = 1 << 22


def observations(fit: Fit) -> tuple[Any, np.ndarray]:
    """The data of a single fit, a PyTree of arrays with a leading axis of rows, and the weight of each row."""
    likelihood = objective(fit).likelihood
    data, weights = likelihood.aligned()
    return data, np.ones(likelihood.rows) if weights is None else np.asarray(weights, float)


def values_at_once(likelihood: AbstractLikelihood) -> int:
    """At how many values a likelihood may be evaluated side by side, so that memory stays small."""
    return max(1, HELD * likelihood.n_blocks // likelihood.rows)


def column_of(data: Any, name: Any, argument: str) -> Any:
    """A column of the data by its name; a `ValueError` that says which there are."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{argument}={name!r} names a column, and the data have none: they are no dict")
    if name not in data:
        raise ValueError(f"{argument}={name!r} is no column of the data, which have {', '.join(map(str, data))}")
    if np.ndim(data[name]) != 1:
        raise ValueError(f"{argument}={name!r} must be one number an observation; it has {data[name].shape}")
    return data[name]
