"""Random keys: a check, and one key for each data set."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt32


def is_key(key: Any) -> bool:
    """True for one random key, typed or not."""
    if not isinstance(key, jax.Array | np.ndarray):
        return False
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key.ndim == 0 if typed else key.dtype == jnp.uint32 and key.ndim == 1


def check_key(key: Any, who: str) -> None:
    """An error where no random key was given, or something else."""
    if key is None:
        raise ValueError(f"{who} draws at random, so it needs a key, such as key=jax.random.key(0)")
    if not is_key(key):
        raise TypeError(f"key must be one random key, such as jax.random.key(0); got {key!r}")


def seeds(key: PRNGKeyArray, index: Int[Array, "..."] | None) -> UInt32[Array, "... 2"]:
    """The seed of data set `index`, or of each: plain numbers, which may lie on the host, for `from_seed`."""
    seed_of = lambda key: jax.random.bits(key, (2,), jnp.uint32)  # noqa: E731
    if index is None:
        return seed_of(key)
    if jnp.ndim(index) == 0:
        return seed_of(jax.random.fold_in(key, index))
    return jax.vmap(lambda i: seed_of(jax.random.fold_in(key, i)))(index)


def from_seed(seed: UInt32[Array, "2"]) -> PRNGKeyArray:
    """The key of a seed."""
    return jax.random.wrap_key_data(jnp.asarray(seed), impl="threefry2x32")
