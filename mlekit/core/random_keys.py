"""Random keys: what counts as one, and one for each data set."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt32


def is_key(key: Any) -> bool:
    """Whether this is one random key, typed or not."""
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
    """What the key of data set `index` is made of: plain numbers, which may lie on the host."""
    one = lambda key: jax.random.bits(key, (2,), jnp.uint32)  # noqa: E731
    if index is None:
        return one(key)
    if jnp.ndim(index) == 0:
        return one(jax.random.fold_in(key, index))
    return jax.vmap(lambda i: one(jax.random.fold_in(key, i)))(index)


def from_seed(seed: UInt32[Array, "2"]) -> PRNGKeyArray:
    """The key."""
    return jax.random.wrap_key_data(jnp.asarray(seed), impl="threefry2x32")
