"""Information criteria."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp


def aic(log_likelihood: Any, n_free: int) -> Any:
    r"""$-2\ell + 2k$ (Akaike 1974)."""
    return -2 * log_likelihood + 2 * n_free


def aicc(log_likelihood: Any, n_free: int, n_obs: Any) -> Any:
    r"""AIC plus $2k(k+1)/(n-k-1)$ for small samples; infinite where $n \le k + 1$ (Hurvich and Tsai 1989)."""
    rest = n_obs.astype(log_likelihood.dtype) - n_free - 1
    extra = 2 * n_free * (n_free + 1) / jnp.where(rest > 0, rest, 1)
    return aic(log_likelihood, n_free) + jnp.where(rest > 0, extra, jnp.inf)


def bic(log_likelihood: Any, n_free: int, n_obs: Any) -> Any:
    r"""$-2\ell + k \log n$ (Schwarz 1978)."""
    return -2 * log_likelihood + n_free * jnp.log(n_obs.astype(log_likelihood.dtype))
