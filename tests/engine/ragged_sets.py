"""Data sets of many lengths, padded with NaN."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import mlekit as mle
from tests.helpers.models import RULES, START, line, line_data

RNG = np.random.default_rng(7)
LENGTHS = np.concatenate([np.array([60, 3, 17, 1, 0, 33]), RNG.integers(4, 60, size=34)])
PADDED = {k: np.where(np.arange(60) < LENGTHS[:, None], v, np.nan) for k, v in line_data(60, 40, seed=2).items()}


def fit_padded(**options: Any) -> mle.Fit:
    return mle.fit_batch(line, START, PADDED, lengths=LENGTHS, constraints=RULES, **options)


@functools.cache
def ragged_fit() -> mle.Fit:
    return fit_padded()
