"""The profile of a backend's devices, and what follows from it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from mlekit.core import devices
from mlekit.likelihood.base import block_rows


def test_the_profile_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores in (1, 5):
        monkeypatch.setenv("NPROC", str(cores))
        found = devices.profile()
        assert found.on_host
        assert found.rounds == found.workers == devices.rounds(None) == devices.workers(None) == cores
        assert found.decoding_threads == (cores > 2)


def test_the_profile_of_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "profile", lambda: devices._profile("gpu", 5))
    assert (devices.rounds(None), devices.workers(None)) == (2, 1)
    rows = {"x": np.zeros((1 << 20, 3))}
    assert block_rows(rows, 5, 1 << 30) == (1 << 26) // 8
    assert block_rows(rows, 5, 1 << 20) == 0
    assert mle.open_table(rows).block_rows == (1 << 27) // (3 * jnp.zeros(()).dtype.itemsize)
    assert devices.placed(rows["x"][:2]).shape == (2, 3)


def test_blocks_of_a_cpu_fit_into_a_cache() -> None:
    rows = {"x": np.zeros((1 << 20, 3))}
    assert [block_rows(rows, n_free, 1 << 20) for n_free in (5, 125, 5_000)] == [1 << 12, 1 << 11, 256]
