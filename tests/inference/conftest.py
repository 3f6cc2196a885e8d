"""Fits that several tests of hypotheses compare."""

import pytest

import mlekit as mle
from tests.inference.hypotheses import full_fit, null_fit


@pytest.fixture(scope="module")
def full() -> mle.Fit:
    return full_fit()


@pytest.fixture(scope="module")
def null() -> mle.Fit:
    return null_fit()
