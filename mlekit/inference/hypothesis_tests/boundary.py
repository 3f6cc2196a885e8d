r"""Hypotheses at the edge of what parameters may be: mixtures of chi-square distributions.

Where $m$ of $d$ tested parameters lie on bounds under the hypothesis, the distribution of the likelihood-ratio
statistic is that of

$$\sum_{i=0}^m w_i\, \chi^2_{d - m + i}$$

with the chances $w_i$ that the projection of a normal vector onto the cone of what is allowed has $i$ entries off
their bounds. (Chernoff 1954; Self and Liang 1987; Shapiro 1988 for the weights.)
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

from ...core.compilation import Compiled
from ...core.linear_algebra import inverse
from ...core.trees import is_array, tracing
from ...likelihood.objective import Objective
from ...models.constraints import unconstrained
from ...models.parameters import Parameters, lay_out
from ..evaluate import evaluate
from ..information import information
from ..record import FitRecord
from .result import HypothesisTest, chi_square_tail

#: So many parameters on bounds at most: the weights are sums over all subsets of them.
MOST = 8
#: Points of the lattice for orthants in more than three dimensions, where there is no formula.
POINTS = 4096


def on_bounds(restricted: FitRecord, full: FitRecord) -> dict[int, int]:
    """The parameters that the hypothesis puts on an end of what the full model lets them be.

    They are those that are free in the full model, and fixed in the restricted one at such a value. Fits of models
    with other parameters say nothing about it.

    Returns:
        By their places 1 for those on a lower end, and -1 for those on an upper one.
    """
    if restricted.parameter_names != full.parameter_names or tracing(restricted._solution.estimates):
        return {}
    vectors = np.asarray(restricted._solution.estimates).reshape(-1, len(full.parameter_names))
    vector = jnp.asarray(vectors[0])
    parameters = jax.tree.map(lambda leaf: leaf[0] if full.batched and is_array(leaf) else leaf, full.parameters)
    low, high = (np.asarray(end) for end in parameters.ranges(vector))
    sides = np.where(vectors <= low, 1, np.where(vectors >= high, -1, 0))
    side = sides[0]
    tested = np.asarray(restricted.fixed) & ~np.asarray(full.fixed)
    if np.any((sides != side) & tested):
        raise ValueError(
            "the hypothesis lies on a bound in some data sets alone: test these and the others apart, as "
            "fits[mask], or say boundary="
        )
    return {int(place): int(side[place]) for place in np.flatnonzero((side != 0) & tested)}


def mixture_weights(restricted: FitRecord, full: FitRecord, ends: dict[int, int]) -> Float[Array, "... m1"]:
    r"""The weights $w_0, \dots, w_m$ of a hypothesis that puts parameters on bounds.

    Args:
        restricted: the fit of the smaller model, whose estimates the information is taken at.
        full: the fit of the larger one.
        ends: as `on_bounds` gives them; the other parameters of the full model are free.

    Raises:
        ValueError: more than `MOST` of them.
    """
    m = len(ends)
    if m > MOST:
        raise ValueError(
            f"the hypothesis puts {m} parameters on bounds, and the distribution is worked out for up to {MOST}; "
            "simulate it: mle.bootstrap(restricted, key, kind='parametric')"
        )
    if m == 1:
        return halves(full.log_likelihood)
    leaves = restricted.parameters.split(restricted.params)
    weights = _Weights(_without_bounds(full.parameters, list(ends)), tuple(ends.items()))
    found: Array = evaluate(restricted, weights, leaves)
    return found


def halves(like: Float[Array, "..."]) -> Float[Array, "... 2"]:
    """The weights of a single parameter on a bound."""
    return jnp.full((*like.shape, 2), 0.5, like.dtype)


@Compiled
def tail(statistic: Float[Array, "..."], df: int, weights: Float[Array, "... m1"]) -> Float[Array, "..."]:
    """The chance that the mixture exceeds a statistic.

    Args:
        statistic: the statistic.
        df: how many parameters are tested, those on bounds included.
        weights: as `mixture_weights` gives them.
    """
    m = weights.shape[-1] - 1
    tails = [chi_square_tail(statistic, jnp.full_like(statistic, df - m + i)) for i in range(m + 1)]
    return jnp.sum(jnp.stack(tails, axis=-1) * weights, axis=-1)


def at_boundary(statistic: Array, df: int, weights: Array, name: str, hypothesis: str) -> HypothesisTest:
    """A test of `df` parameters, some of them on bounds, whose statistic is distributed as a mixture."""
    degrees = jnp.full_like(statistic, df)
    p_value = tail(statistic, df, weights.astype(statistic.dtype))
    return HypothesisTest(statistic, degrees, p_value, name, hypothesis, mixture_text(df, weights))


def mixture_text(df: int, weights: Float[Array, "... m1"]) -> str:
    """The mixture in words."""
    m = weights.shape[-1] - 1
    if m == 1:
        return f"half chi-square({df - 1}) and half chi-square({df})"
    names = [f"chi-square({df - m + i})" for i in range(m + 1)]
    if weights.ndim > 1 or tracing(weights):
        return f"mixture of {', '.join(names)}"
    return " + ".join(f"{float(weight):.3f} {name}" for weight, name in zip(weights, names))


def _without_bounds(parameters: Parameters, places: Sequence[int]) -> Parameters:
    """The parameters with the leaves at these places in natural units, and none of them in a box."""
    names = {parameters.names[place] for place in places}
    leaves = [
        dataclasses.replace(leaf, constraint=unconstrained) if names & set(leaf.names()) else leaf
        for leaf in parameters.leaves
    ]
    placed, n_free = lay_out(leaves)
    return dataclasses.replace(parameters, leaves=tuple(placed), n_free=n_free, active=None)


class _Weights(eqx.Module):
    """The weights of one data set, given the leaves of the restricted estimates."""

    full: Parameters
    ends: tuple[tuple[int, int], ...] = eqx.field(static=True)

    def __call__(self, objective: Objective, leaves: list[Array]) -> Float[Array, " m1"]:
        parameters = self.full.with_values(self.full.fixed_leaves(leaves))
        free = parameters.free(parameters.join(leaves))
        covariance = inverse(information(Objective(objective.likelihood, parameters), free, "observed"))
        places, side = (np.array(part) for part in zip(*self.ends))
        rows = parameters.jacobian(free)[places] * side[:, None].astype(free.dtype)
        return cone_weights(rows @ covariance @ rows.T)


def cone_weights(covariance: Float[Array, "m m"]) -> Float[Array, " m1"]:
    r"""The chances $w_i$ that $z \sim N(0, V)$, projected onto the positive orthant, has $i$ positive entries.

    $$w_i = \sum_{|S| = i} P(V_{CC}^{-1} z_C \le 0)\, P(z_S - V_{SC} V_{CC}^{-1} z_C > 0)$$

    with $C$ the entries not in $S$; both vectors are independent of each other. (Kudo 1963.)

    Args:
        covariance: $V$.
    """
    m = len(covariance)
    weights = [jnp.zeros((), covariance.dtype) for _ in range(m + 1)]
    for size in range(m + 1):
        for chosen in itertools.combinations(range(m), size):
            rest = [i for i in range(m) if i not in chosen]
            inside, outside = np.array(chosen, int), np.array(rest, int)
            precision = inverse(covariance[np.ix_(outside, outside)]) if rest else jnp.zeros((0, 0))
            across = covariance[np.ix_(inside, outside)]
            given = covariance[np.ix_(inside, inside)] - across @ precision @ across.T
            weights[size] += orthant(precision) * orthant(given)
    found = jnp.stack(weights)
    return found / jnp.sum(found)  # which is one but for the lattice


def orthant(covariance: Float[Array, "m m"]) -> Float[Array, ""]:
    """The chance that all entries of a normal vector with mean zero are positive.

    By Sheppard's formula up to three dimensions, beyond by integration over one variable after another on a
    lattice (Genz 1992), to some four digits.
    """
    m, dtype = len(covariance), covariance.dtype
    scale = jnp.sqrt(jnp.diagonal(covariance))
    correlation = covariance / scale[:, None] / scale[None, :]
    if m <= 3:
        pairs = [jnp.arcsin(jnp.clip(correlation[i, j], -1.0, 1.0)) for i in range(m) for j in range(i)]
        angles = jnp.sum(jnp.stack(pairs)) if pairs else jnp.zeros((), dtype)
        return 0.5**m + angles * (0.0 if m < 2 else 0.5 ** (m - 1) / jnp.pi)
    root = jnp.linalg.cholesky(correlation)
    primes = np.array([2, 3, 5, 7, 11, 13, 17, 19][: m - 1])
    steps = (np.arange(1, POINTS + 1)[:, None] * np.sqrt(primes)) % 1.0
    lattice = jnp.asarray(np.abs(2 * steps - 1), dtype)

    def of_point(uniform: Array) -> Array:
        chance, drawn = jnp.ones((), dtype), jnp.zeros((0,), dtype)
        for i in range(m):
            least = ndtr(-jnp.sum(root[i, :i] * drawn) / root[i, i])
            chance = chance * (1 - least)
            if i < m - 1:
                drawn = jnp.append(drawn, ndtri(least + uniform[i] * (1 - least)))
        return chance

    return jnp.mean(jax.vmap(of_point)(lattice))
