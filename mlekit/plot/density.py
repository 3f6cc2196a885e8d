"""The fitted density over the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..core.compilation import Compiled
from ..inference.record import objective
from ..likelihood.base import AbstractLikelihood
from ..likelihood.in_memory import InMemoryLikelihood
from ..models.compositions.censored import Censored
from ..models.families.base import with_column
from ..results.fit import Fit
from .observations import column_of, observations, values_at_once
from .style import BARS, VERMILLION, axes_for, check_single, legend, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes


POINTS = 401
#: A histogram ends so many interquartile ranges beyond the quartiles, and what lies further out is counted.
FAR = 5.0
#: Whole numbers over a wider range than this show as a histogram.
WIDE = 60


def density(
    fit: Fit,
    column: str | None = None,
    *,
    bins: Any = None,
    values: Any = None,
    ax: Axes | None = None,
) -> Axes:
    r"""The density that was fitted, over a histogram of the data.

    $$\hat p(v) = \frac{1}{n} \sum_i w_i\, p(v \mid x_i, \hat\theta)$$

    averaged over the observations where it depends on their other columns $x_i$. Whole numbers show as bars of
    their observed shares, with points for the probabilities of the model; over a wide range as a histogram, too.
    Where some observations have a probability of their own, as the zeros of `mle.zero_inflated`, these are told in
    a remark, and the rest is drawn: both areas are the share of that rest.

    Args:
        fit: a single fit.
        column: the column whose density the model is: of a dict of columns one of its keys. By default the
            response of a `mle.regression`, or the only column there is.
        bins: of the histogram: their number or their edges, as in `numpy.histogram`. By default of the width of
            Freedman and Diaconis, within five interquartile ranges of the quartiles.
        values: where to evaluate the model, shape `(points,)`; by default evenly over the histogram.
        ax: where to draw; by default on a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: a batch, a fit that did not converge, a joint or censored model, no such column, or one that
            is not one number an observation.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> model = mle.regression(lambda params, obs: params["rate"], mle.families.poisson)
        >>> fit = mle.fit(model, {"rate": 1.0}, {"y": jnp.array([0, 1, 1, 2])}, constraints={"rate": mle.positive})
        >>> ax = mle.plot.density(fit, ax=Figure().subplots())
        >>> print([float(bar.get_height()) for bar in ax.patches], ax.get_lines()[0].get_ydata().round(3))
        [0.25, 0.5, 0.25] [0.368 0.368 0.184]

    Source: Freedman and Diaconis 1981 for the width of the bins.
    """
    from matplotlib.ticker import MaxNLocator

    check_single(fit)
    if fit.model.is_joint:
        raise ValueError("density: a joint model has no density of one observation; see its residuals, if any")
    if isinstance(fit.model.log_density, Censored):
        raise ValueError("density: censored observations are intervals, over which no density can be drawn")
    data, weights = observations(fit)
    place, name = _place(fit, data, column)
    x = np.asarray(_get(data, place))
    if x.ndim != 1:
        raise ValueError(f"density: an observation must be one number to be drawn; they have shape {x.shape[1:]}")
    integer, dtype = x.dtype.kind in "biu", np.dtype(int) if x.dtype.kind in "iu" else x.dtype
    counts = weights > 0
    fine = counts & np.isfinite(x)
    if not fine.any():
        raise ValueError("density: no observation is a finite number, so there is nothing to draw")
    missing, known = int(np.sum(counts & ~fine)), weights[fine].sum()
    atoms = fine & _atoms(fit, data)
    fine &= ~atoms
    if not fine.any():
        raise ValueError("density: every observation has a probability of its own, so there is no density to draw")
    share, zeros = weights[atoms].sum() / known, np.unique(x[atoms])
    x, weights = x[fine].astype(float), weights[fine]
    whole = integer or fit.model.atoms is True
    few = whole and bins is None and x.max() - x.min() < WIDE
    edges = _edges(x, weights, whole, few) if bins is None else np.histogram_bin_edges(x, bins)
    if values is None:
        values = _values(edges, whole)
    points = np.asarray(values)
    if points.ndim != 1 or not points.size:
        raise ValueError(f"values must be where to evaluate the density, shape (points,); got {points.shape}")
    if integer and np.any(points != np.round(points)):
        raise ValueError(f"values must be whole numbers, as {name} is; got {points}")
    model = _mean_density(objective(fit).likelihood, fit.params, points.astype(dtype), place)
    ax = axes_for(ax)
    heights = np.histogram(x, edges, weights=weights)[0] / known / np.diff(edges)
    if few:
        bars = ax.bar(edges[:-1] + 0.5, heights, 0.8, **BARS)
        bars[0].set_label("data")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.plot(points, model, "o", color=VERMILLION, ms=5, label="model")
    else:
        ax.stairs(heights, edges, fill=True, **BARS, label="data")
        ax.plot(points, model, color=VERMILLION, lw=1.8, label="model")
    beyond = int(np.sum((x < edges[0]) | (x > edges[-1])))
    remark = ""
    if share:
        chance = _mean_density(objective(fit).likelihood, fit.params, zeros, place, atoms=True).sum()
        remark = f"{share:.1%} are {', '.join(f'{zero:g}' for zero in zeros)}, by the model {chance:.1%}"
    note(
        ax,
        remark,
        f"{beyond:,} of {x.size:,} observations lie further out" if beyond else "",
        f"{missing:,} are not finite" if missing else "",
    )
    ax.set(xlabel=name, ylabel="share of observations" if few else "density")
    ax.set_ylim(bottom=0)
    legend(ax)
    return ax


def _place(fit: Fit, data: PyTree, column: str | None) -> tuple[Any, str]:
    """A function that picks the observed number from the data, and its name."""
    structure = fit.model.regression
    if structure is not None:
        response = structure.response
        if column not in (None, response):
            raise ValueError(f"column: the density is that of the response, {response!r}; got {column!r}")
        return response, response if isinstance(response, str) else "response"
    if column is not None:
        column_of(data, column, "column")
        return column, str(column)
    if isinstance(data, Mapping) and len(data) == 1:
        (only,) = data
        return only, str(only)
    if len(jax.tree.leaves(data)) > 1 or isinstance(data, Mapping):
        known = f"are {', '.join(map(str, data))}" if isinstance(data, Mapping) else "have no names"
        raise ValueError(f"column: say whose density the model is; the columns of the data {known}")
    return None, "observation"


def _atoms(fit: Fit, data: PyTree) -> np.ndarray:
    """Which observations have a probability where others have a density, as the zeros of `mle.zero_inflated`."""
    atoms = fit.model.atoms
    return np.asarray(jax.vmap(atoms)(data)) if callable(atoms) else np.asarray(False)


def _get(data: PyTree, place: Any) -> Array:
    if place is None:
        return jax.tree.leaves(data)[0]
    return jax.vmap(place)(data) if callable(place) else data[place]


def _put(obs: PyTree, place: Any, value: Array) -> PyTree:
    """The observation with another number in that place."""
    if place is None:
        return jax.tree.map(lambda _: value, obs)
    return with_column(obs, place, value, "density: response")


def _edges(x: np.ndarray, weights: np.ndarray, whole: bool, few: bool) -> np.ndarray:
    """Edges of the histogram; of whole numbers halfway between them."""
    order = np.argsort(x)
    rank = np.cumsum(weights[order]) / weights.sum()
    low, high = (float(x[order][np.searchsorted(rank, share)]) for share in (0.25, 0.75))
    begin, end = float(x.min()), float(x.max())
    if begin == end and not whole:
        begin, end = begin - 0.5, end + 0.5
    if few:
        return np.arange(begin - 0.5, end + 1)
    if high > low:
        begin, end = max(begin, low - FAR * (high - low)), min(end, high + FAR * (high - low))
    width = 2 * (high - low) * weights.sum() ** (-1 / 3)
    count = int(np.clip(np.ceil((end - begin) / width), 5, 100)) if width > 0 else 20
    if whole:
        step = max(1, round((end - begin) / count))
        return np.arange(np.ceil(begin) - 0.5, end + step, step)
    return np.linspace(begin, end, count + 1)


def _values(edges: np.ndarray, whole: bool) -> np.ndarray:
    """The points at which the model is drawn over a histogram."""
    if not whole:
        return np.linspace(edges[0], edges[-1], POINTS)
    numbers = np.arange(np.ceil(edges[0]) + 0.0, edges[-1])  # of which none is -0
    return numbers[:: max(1, len(numbers) // POINTS)]


def _mean_density(
    likelihood: AbstractLikelihood, params: PyTree, values: np.ndarray, place: Any, atoms: bool = False
) -> np.ndarray:
    if isinstance(likelihood, InMemoryLikelihood) and len(jax.tree.leaves(likelihood.data)) == 1:
        # Nothing differs between the rows once the value is put in.
        one = jax.tree.map(lambda leaf: leaf[:1], likelihood.data)
        likelihood = InMemoryLikelihood(likelihood.model, likelihood.args, one)
    found = _averaged(likelihood, params, jnp.asarray(values), place, values_at_once(likelihood), atoms)
    return np.asarray(found, float)


@Compiled
def _averaged(
    likelihood: AbstractLikelihood, params: PyTree, values: Array, place: Any, side_by_side: int, atoms: bool
) -> Float[Array, " points"]:
    """The density at each value, or the probability of `atoms`, averaged over the other columns; elsewhere NaN."""
    extra = () if likelihood.args is None else (likelihood.args,)
    dtype = jax.eval_shape(likelihood.contributions, params).dtype

    def at(value: Array) -> Array:
        def of_row(obs: PyTree) -> Array:
            there, is_atom = _put(obs, place, value), likelihood.model.atoms
            found = jnp.exp(likelihood.model(params, there, *extra))
            return jnp.where(is_atom(there) == atoms, found, jnp.nan) if callable(is_atom) else found

        def block(data: PyTree, weights: Array | None) -> Array:
            found = jax.vmap(of_row)(data)
            return jnp.sum(found if weights is None else jnp.where(weights > 0, weights * found, 0.0))

        return likelihood.total(block, jnp.zeros((), dtype)) / likelihood.n_obs

    return jax.lax.map(at, values, batch_size=side_by_side)
