"""What a status depends on beside the search: how many rows a data set has, and whether its numbers are finite."""

from __future__ import annotations

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Int

from .base import AbstractLikelihood


class DataFacts(eqx.Module):
    """What is known of a data set, or of many with a leading axis.

    Args:
        n_obs: number of observations, the sum of the weights.
        n_rows: number of rows that count.
        nonfinite: whether the data, weights included, hold NaN or an infinite value; false where nobody asked.
        beyond_powers: whether they hold numbers whose powers are infinite or vanish; likewise.
    """

    n_obs: Array | np.ndarray
    n_rows: Int[Array | np.ndarray, "..."]
    nonfinite: Bool[Array | np.ndarray, "..."]
    beyond_powers: Bool[Array | np.ndarray, "..."]


def facts(likelihood: AbstractLikelihood, asked: Bool[Array, ""]) -> DataFacts:
    """The facts of one data set; its numbers are looked at where `asked`."""
    return DataFacts(likelihood.n_obs, likelihood.n_rows, *likelihood.bad_numbers(asked))
