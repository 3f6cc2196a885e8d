"""Many starts for one maximum: where they begin, which maximum is kept, and how many starts found which."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from . import lanes, pieces
from .alike import Alike
from .arguments import check_count
from .collection import Collection
from .compilation import Compiled
from .keys import is_key
from .linear_algebra import curvature_scale
from .loop import Solution
from .model import Model
from .objective import Objective
from .parameters import Parameters
from .solvers import DENSE_CERTIFICATE
from .status import Status, StatusArray
from .trees import is_array, numbers_as_arrays, repeat, where_rows

#: Estimates that differ by less than this many standard errors are those of one maximum.
NEAR = 0.1
#: Where a solver could not begin, a start moves towards the centre so many times, to this share of its distance.
RETREATS, RETREAT = 10, 0.25


class Modes(eqx.Module):
    """The maxima that many starts found: `Fit.modes` of a fit with `starts=`.

    Best first, those as high as one another in the order of the first start that found them. Arrays have as many
    entries as there were starts, and behind the last mode they are empty: NaN, and a count of zero. Those of a
    batch have a leading axis of data sets.

    Two starts found the same mode if both converged, their log-likelihoods agree to the tolerance and to rounding,
    and their estimates differ by less than a tenth of their standard errors. Modes that differ only in the order
    of interchangeable parts, such as the components of a mixture, count as several.

    Args:
        log_likelihood: of each mode, in nats, shape `(starts,)`; the first is the one that was kept.
        count: how many starts found it.
        vector: its scalar parameters in natural units, shape `(starts, k)`.
        errors: their standard errors.
        found: of each start, in their order, the number of the mode that it found; -1 where it found none.
        reached: of each start the log-likelihood where it ended.
        status: of each start why it ended.
        names: the names of the parameters.
        params: the estimates of the modes, a PyTree like `init` whose leaves have a leading axis of modes.

    Example:
        Three observations with Cauchy noise, two of them close to each other:

        >>> import jax, jax.numpy as jnp, mlekit as mle
        >>> density = lambda place, x: -jnp.log1p((x - place) ** 2)
        >>> fit = mle.fit(density, 8.0, jnp.array([0.0, 1.0, 9.0]), starts=20, key=jax.random.key(1))
        >>> print(fit.modes)
        Modes: 2
        starts: 20, of which ... found this maximum, ... another one 3.8 nats lower
        <BLANKLINE>
              starts    log-likelihood    below    params
        --  --------  ----------------  -------  --------
         0  ...                -4.7260            0.62...
         1  ...                -8.5236     3.80   8.74...
        >>> print(fit.modes.params[:2].round(2))
        [0.62 8.74]
    """

    log_likelihood: Float[Array, "... starts"]
    count: Int[Array, "... starts"]
    vector: Float[Array, "... starts k"]
    errors: Float[Array, "... starts k"]
    found: Int[Array, "... starts"]
    reached: Float[Array, "... starts"]
    status: StatusArray
    names: tuple[str, ...] = eqx.field(static=True)
    params: PyTree = None

    @property
    def starts(self) -> int:
        """Number of starts of a data set."""
        return self.count.shape[-1]

    @property
    def n_modes(self) -> Int[Array, "..."]:
        """Number of modes that were found."""
        return jnp.sum(self.count > 0, axis=-1)

    @property
    def failed(self) -> Int[Array, "..."]:
        """Number of starts that found no proven maximum."""
        return jnp.sum(self.found < 0, axis=-1)

    def __repr__(self) -> str:
        if isinstance(self.count, jax.core.Tracer):
            return f"Modes(<traced>, starts={self.starts})"
        from .report.card import modes_text

        return modes_text(self)

    def _repr_html_(self) -> str:
        from .report.card import modes_html

        return modes_html(self)


# What was asked for.


def asked(starts: Any, key: Any, init: Any) -> tuple[Array | None, Any]:
    """One key a start, or `None` where no starts are asked for; and `init`, as `Draws` if it takes a key.

    Raises:
        ValueError: `starts` is no positive whole number, or one of `starts` and `key` lacks the other.
        TypeError: `key` is no random key.
    """
    if starts is None:
        if key is not None:
            raise ValueError("key: it is there to draw starts with; say how many: starts=20, or leave it out")
        if takes_key(init):
            raise ValueError(
                "init takes two arguments, data and a key, so it draws starts: say how many and give a key, "
                "such as starts=20, key=jax.random.key(0)"
            )
        return None, init
    check_count(starts, "starts")
    if key is None:
        if starts > 1 or takes_key(init):
            raise ValueError(f"starts={starts} are drawn at random, so they need a key: key=jax.random.key(0)")
        key = jax.random.key(0)  # of no use with one start
    if not is_key(key):
        raise TypeError(f"key must be one random key, such as jax.random.key(0); got {key!r}")
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(starts))
    return keys, Draws(init, keys) if takes_key(init) else init


def takes_key(init: Any) -> bool:
    """Whether `init` is a function of the data and a key: one of two positional parameters without defaults."""
    if not callable(init) or isinstance(init, eqx.Module):
        return False
    try:
        parameters = inspect.signature(init).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) == 2


class Draws(eqx.Module):
    """`init(data, key)` for every key, as one function of the data: leaves with a leading axis of starts."""

    init: Callable[[PyTree, Array], PyTree]
    keys: Array

    def __call__(self, data: PyTree) -> PyTree:
        """The starts of one data set."""

        def one(key: Array) -> PyTree:
            return numbers_as_arrays(self.init(data, key))

        return eqx.filter_vmap(one)(self.keys)


def first(starts: PyTree, axis: int = 0) -> tuple[PyTree, PyTree]:
    """The first of drawn starts, and all others."""
    arrays, rest = eqx.partition(starts, is_array)
    index = (slice(None),) * axis
    one, others = (jax.tree.map(lambda leaf: leaf[(*index, at)], arrays) for at in (0, slice(1, None)))  # noqa: B023
    return eqx.combine(one, rest), eqx.combine(others, rest)


# Where the starts begin.


def _around(objective: Objective, value: tuple[Any, ...]) -> tuple[Array, ...]:
    """Starts of one data set around a centre: the leaves of their parameters with a leading axis of starts."""
    maximum, proven, leaves, directions = value
    parameters = objective.parameters
    dense = parameters.n_free <= DENSE_CERTIFICATE
    centre = jnp.where(proven, maximum, parameters.free(parameters.join(leaves)))
    unit = jnp.ones_like(centre)
    if dense:
        _, gradient, hessian = objective.hessian(centre)
        unit = 1 / curvature_scale(hessian, gradient)
        # Far from a maximum a parameter may have next to no influence, and then curvature says nothing.
        unit = jnp.where(proven, unit, jnp.minimum(unit, jnp.maximum(1.0, jnp.abs(centre))))

    def leaves_at(free: Array) -> tuple[Array, ...]:
        return tuple(parameters.split(parameters.natural(free)))

    def retreat(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        move, tries, _ = state
        there = parameters.free(parameters.join(list(leaves_at(centre + move))))
        found = objective.derivatives("hessian" if dense else "gradient", there)
        fine = jnp.all(jnp.array([jnp.all(jnp.isfinite(part)) for part in found]))
        return jnp.where(fine, move, RETREAT * move), tries + 1, fine

    def one(direction: Array) -> tuple[Array, ...]:
        first = (unit * direction, jnp.asarray(0), jnp.asarray(False))
        move, *_ = jax.lax.while_loop(lambda state: ~state[2] & (state[1] <= RETREATS), retreat, first)
        return leaves_at(centre + move)

    return jax.lax.map(one, directions)


def directions(keys: Array, n_free: int, dtype: Any) -> Float[Array, "starts n_free"]:
    """Draws from the Cauchy distribution that has no preferred direction, one for each key."""
    normal = jax.vmap(lambda key: jax.random.normal(key, (n_free + 1,), dtype))(keys)
    return normal[:, :-1] / jnp.abs(normal[:, -1:])


def draw(
    keys: Array,
    first: Solution,
    leaves: list[Array],
    collection: Collection | Alike,
    model: Model,
    parameters: Parameters,
) -> list[Array]:
    r"""Starts around the maximum that the first start found, or around that start where it found none.

    $$z_j = \hat z_j + \frac{e_j}{|e_0|}\, h_j^{-1/2}, \qquad e \sim N(0, 1)$$

    on the free scale, where $h_j$ is the curvature of the mean log-likelihood: the unit is the width that the
    information in one observation gives, so that nothing depends on the units of parameters or on how many
    observations there are. Half of the starts lie within about one unit in each direction and one in sixteen
    beyond ten: near enough to converge, or far enough to find what is elsewhere. All data sets share the same
    draws of $e$, so that none depends on what else is in the batch.

    Args:
        keys: one key a start.
        first: what the first start found in each data set.
        leaves: the leaves of its parameters, with a leading axis of sets.
        collection: the data sets.
        model: the model.
        parameters: how its parameters map to the free vector.

    Returns:
        The leaves of the starts' parameters, with leading axes of sets and of starts.
    """
    n_sets = collection.n_sets
    arrays, rest = eqx.partition(parameters.with_values((None,) * len(parameters.leaves)), is_array)
    each = eqx.combine(jax.tree.map(lambda leaf: repeat(leaf, n_sets), arrays), rest)
    each = each.with_values(parameters.fixed_leaves(leaves))
    steps = directions(keys, parameters.n_free, parameters.dtype)
    value = (first.free, first.status == Status.converged, list(leaves), repeat(steps, n_sets))
    return list(pieces.map_sets(_around, collection, model, each, value))


# What they found.


def best_of(
    keys: Array,
    first: Solution,
    leaves: list[Array],
    drawn: list[Array] | None,
    collection: Collection | Alike,
    model: Model,
    parameters: Parameters,
    tolerance: Float[Array, ""],
    solve: Callable[[Collection | Alike, list[Array]], Solution],
) -> tuple[Solution, Modes]:
    """The best of many starts for each data set, and the modes they found.

    Args:
        keys: one key a start.
        first: what the first start found in each data set.
        leaves: the leaves of its parameters, with a leading axis of sets.
        drawn: those of the other starts, with leading axes of sets and starts; `None` has them drawn.
        collection: the data sets.
        model: the model.
        parameters: how its parameters map to the free vector.
        tolerance: on the decrement, in nats.
        solve: finds the maxima of a collection of data sets from given starts.
    """
    n_sets, others = collection.n_sets, keys.shape[0] - 1
    every = jax.tree.map(lambda leaf: leaf[:, None], first)
    if others and not parameters.n_free:
        every = jax.tree.map(lambda leaf: jnp.repeat(leaf, 1 + others, axis=1), every)
    elif others:
        if drawn is None:
            drawn = draw(keys[1:], first, leaves, collection, model, parameters)
        # A fixed parameter is the same for all starts.
        shared = lambda leaf: jnp.broadcast_to(leaf[:, None], (n_sets, others, *leaf.shape[1:]))  # noqa: E731
        chosen = [
            shared(jnp.asarray(mine)) if leaf.is_fixed else jnp.asarray(new)
            for leaf, mine, new in zip(parameters.leaves, leaves, drawn)
        ]
        flat = [leaf.reshape(n_sets * others, *leaf.shape[2:]) for leaf in chosen]
        found = solve(collection.repeated(others), flat)
        every = jax.tree.map(
            lambda one, more: jnp.concatenate([one, more.reshape(n_sets, others, *more.shape[1:])], axis=1),
            every,
            found,
        )
    return _settle_all(every, tolerance, parameters.names)


@Compiled
def _settle_all(found: Solution, tolerance: Float[Array, ""], names: tuple[str, ...]) -> tuple[Solution, Modes]:
    status, reached, vector, errors = found.status, found.log_likelihood, found.vector, found.errors

    def one(i: Array) -> tuple[Array, Modes]:
        return settle(status[i], reached[i], vector[i], errors[i], tolerance, names)

    best, modes = lanes.for_each(one, status.shape[0], 256)
    return jax.tree.map(lambda leaf: jax.vmap(lambda mine, i: mine[i])(leaf, best), found), modes


def settle(
    status: Int[Array, " starts"],
    reached: Float[Array, " starts"],
    vector: Float[Array, "starts k"],
    errors: Float[Array, "starts k"],
    tolerance: Float[Array, ""],
    names: tuple[str, ...],
) -> tuple[Int[Array, ""], Modes]:
    """Which of one data set's starts came out best, and the modes among them.

    A proven maximum comes before any other end of a search, however high: a likelihood without bound, as that of
    a mixture has none where a component shrinks onto one observation, would win every time and mean nothing. Among
    starts that found the same mode the first is kept, so that rounding decides nothing.

    Args:
        status: how each start ended.
        reached: its log-likelihood there.
        vector: its estimates.
        errors: their standard errors.
        tolerance: on the decrement, in nats.
        names: the names of the parameters.
    """
    starts = status.shape[0]
    proven = status == Status.converged
    height = jnp.where(proven, reached, -jnp.inf)

    # Tiers of maxima as high as one another, and in each tier the order of the starts.
    downward = jnp.argsort(-height)
    level = height[downward]
    eps = jnp.finfo(height.dtype).eps
    noise = 10 * tolerance + 100 * eps * jnp.maximum(1.0, jnp.abs(level[0]))
    place = jnp.arange(starts)
    drop = (place > 0) & (jnp.roll(level, 1) - level > noise)
    order = jnp.argsort(jnp.cumsum(drop)[jnp.argsort(downward)], stable=True)
    tier = jnp.cumsum(drop)  # the same in either order

    real, estimates = proven[order], vector[order]
    reach = NEAR * errors[order] + 100 * eps * jnp.abs(estimates)

    def join(i: Array, leader: Array) -> Array:
        """Give the start at place `i` to the first mode it belongs to."""
        near = jnp.all(jnp.abs(estimates - estimates[i]) <= reach, axis=1) & real & (tier == tier[i])
        near &= (leader == place) & (place < i)
        return leader.at[i].set(jnp.min(jnp.where(near, place, i)))

    leader = jax.lax.fori_loop(0, starts, join, place)
    leads = (leader == place) & real
    number = jnp.where(real, (jnp.cumsum(leads) - 1)[leader], -1)
    there = place < jnp.sum(leads)
    # The start that stands for each mode, and then whatever is left.
    kept = order[jnp.argsort(~leads, stable=True)]

    def of_modes(values: Array) -> Array:
        return where_rows(there, values[kept], jnp.nan)

    # Without any proof the highest of all is kept, and its status tells what it is worth.
    highest = jnp.argmax(jnp.where(jnp.isfinite(reached), reached, -jnp.inf))
    return jnp.where(real[0], order[0], highest), Modes(
        log_likelihood=of_modes(reached),
        count=jnp.sum(number == place[:, None], axis=1),
        vector=of_modes(vector),
        errors=of_modes(errors),
        found=number[jnp.argsort(order)],
        reached=reached,
        status=StatusArray(status),
        names=names,
    )
