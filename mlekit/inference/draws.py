"""Draws from the asymptotic normal distribution of the estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PyTree, UInt32

from ..arguments import check_count
from ..compilation import Compiled
from ..keys import from_seed, need_key, seeds
from ..linear_algebra import eigh, singular_below
from ..parameters import Parameters
from .covariance import errors
from .each import index, need_one_axis

if TYPE_CHECKING:
    from ..result import Fit


def draws(fit: Fit, key: Any, n: int = 1000, kind: str = "observed", **options: Any) -> PyTree:
    r"""Draws from the asymptotic normal distribution of the estimates, made where there are no constraints.

    $$\theta_i = \theta(z_i), \qquad z_i \sim N(\hat z, V_z)$$

    with $\hat z$ the free vector and $V_z$ its covariance, so that no draw leaves a constraint. Fixed parameters
    keep their value, and tied ones are equal in every draw.

    Args:
        fit: a fit, or a batch of fits.
        key: random key, such as `jax.random.key(0)`; what a data set draws depends on the key and on its number
            in the batch alone.
        n: number of draws.
        kind: of the covariance, as in `Fit.covariance`.
        options: further arguments of `Fit.covariance`.

    Returns:
        A PyTree like `params` whose leaves have a leading axis of draws, behind that of the data sets in a batch.
        NaN where the fit did not converge, and where there is no covariance of that kind.

    Raises:
        ValueError: no key, less than one draw, or as `Fit.covariance`.
        TypeError: `key` is no random key.

    Example:
        How many times as often the first of two events happens, a ratio that is far from normal:

        >>> import jax, jax.numpy as jnp, mlekit as mle
        >>> density = lambda rates, waits: jnp.sum(jnp.log(rates) - rates * waits)
        >>> waits = jnp.array([[1.0, 4.0], [3.0, 2.0], [2.0, 9.0]])
        >>> fit = mle.fit(density, jnp.ones(2), waits, constraints=mle.positive)
        >>> rates = draws(fit, jax.random.key(0), 4000)
        >>> rates.shape, bool(jnp.all(rates > 0))
        ((4000, 2), True)
        >>> print(jnp.quantile(rates[:, 0] / rates[:, 1], jnp.array([0.1, 0.9])).round(1))
        [0.9 7.4]
    """
    return fit.parameters.tree(vectors(fit, key, n, kind, **options))


def vectors(fit: Fit, key: Any, n: int, kind: str = "observed", **options: Any) -> Float[Array, "... n k"]:
    """The draws as vectors over `parameter_names`; arguments as in `draws`."""
    need_key(key, "draws")
    check_count(n, "n")
    need_one_axis(fit)
    if kind == "expected" and fit.model.regression is None:
        key, options["key"] = jax.random.split(key)
    matrix = fit.covariance(kind, **options)
    return _drawn(seeds(key, index(fit)), fit.solution.free, matrix, fit.parameters, int(n), fit.batched)


@Compiled
def _drawn(words: Array, free: Array, matrix: Array, parameters: Parameters, n: int, batched: bool) -> Array:
    def one(words: UInt32[Array, "2"], free: Array, matrix: Array, parameters: Parameters) -> Array:
        normal = jax.random.normal(from_seed(words), (n, free.size), free.dtype)
        moved = free + normal @ _root(matrix, parameters.jacobian(free))
        return jax.vmap(parameters.natural_vector)(moved)

    return (eqx.filter_vmap(one) if batched else one)(words, free, matrix, parameters)


def _root(matrix: Float[Array, "k k"], jacobian: Float[Array, "k n_free"]) -> Float[Array, "n_free n_free"]:
    r"""What turns rows of standard normal numbers into rows of covariance $V_z$, where $V = J V_z J^T$.

    Free parameters follow from the natural ones, so the columns of $J$ are independent and there is one $V_z$. The
    root is symmetric in units of the errors, and so the same on every machine.
    """
    if not jacobian.shape[1]:  # every parameter is fixed
        return jnp.zeros((0, 0), matrix.dtype)
    error = errors(matrix)
    unit = 1 / jnp.where(error > 0, error, 1.0)
    q, r = jnp.linalg.qr(jacobian * unit[:, None])
    back = solve_triangular(r, q.T * unit)
    spread = back @ matrix @ back.T
    size = errors(spread)
    known = jnp.all(jnp.isfinite(spread)) & jnp.all(jnp.isfinite(size))
    scale = jnp.where(known & (size > 0), size, 1.0)
    safe = jnp.where(known, spread / scale[:, None] / scale, jnp.eye(len(size), dtype=spread.dtype))
    values, directions = eigh(safe)
    # A sum over few clusters has no spread in some directions, but one below zero is none.
    known &= jnp.all(values > -singular_below(len(size), spread.dtype))
    root = (directions * jnp.sqrt(jnp.maximum(values, 0.0))) @ directions.T
    return jnp.where(known, root * scale, jnp.nan)
