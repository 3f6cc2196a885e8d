"""Sums whose rounding errors are carried along."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mlekit.core import compensated_sum


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_compensated_sums(dtype: Any) -> None:
    """Terms of which each is lost by itself, whole numbers, and what is not finite."""
    small = float(jnp.finfo(dtype).eps) / 4

    def add(i: Any, sums: Any) -> Any:
        return compensated_sum.add(
            sums, (jnp.asarray(small, dtype), jnp.asarray(1), jnp.where(i == 5, jnp.inf, 1.0))
        )

    zero = (jnp.ones((), dtype), jnp.asarray(0), jnp.zeros(()))
    found = compensated_sum.total(jax.jit(lambda: jax.lax.fori_loop(0, 4096, add, compensated_sum.begin(zero)))())
    assert found[0] == 1 + 4096 * small
    assert found[1] == 4096
    assert found[2] == jnp.inf
