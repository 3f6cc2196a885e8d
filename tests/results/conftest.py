"""Fits that are reported in several ways."""

import pytest

from tests.results.reported import many_fits, odd_fit, precise_fit, separated_fit


@pytest.fixture(scope="module")
def fit():
    return precise_fit()


@pytest.fixture(scope="module")
def odd():
    return odd_fit()


@pytest.fixture(scope="module")
def separated():
    return separated_fit()


@pytest.fixture(scope="module")
def fits():
    return many_fits()
