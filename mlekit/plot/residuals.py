"""Quantile residuals: in order or against anything, their distribution, and their quantiles."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import check_count, check_level
from ..results.fit import Fit
from .observations import column_of, observations
from .style import BARS, BLUE, DASHED, INK, MANY, PALE, axes_for, check_single, legend, note, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: The share of bars, or points, that a true model keeps within the lines.
INSIDE = 0.95


def residuals(fit: Fit, key: Any = None, *, against: Any = None, ax: Axes | None = None) -> Axes:
    r"""The quantile residuals of a fit, in order or against something else.

    $$r_i = \Phi^{-1}(F(y_i \mid x_i, \hat\theta))$$

    Of a true model they are standard normal whatever they are drawn against: no trend, no change of spread, and
    95 % of them between the dashed lines. Infinite ones are drawn as triangles at the edge.

    Args:
        fit: a single fit of a model with `log_cdf`, such as a `mle.regression`.
        key: random key, such as `jax.random.key(0)`, for responses that are whole numbers: as in `Fit.residuals`.
        against: the name of a column of the data, or numbers of shape `(n_obs,)`; by default the order of the
            observations.
        ax: where to draw; by default on a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: a batch, a fit that did not converge, a model without distribution function, whole numbers
            without a key, no such column, or numbers of another shape.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> line = lambda params, obs: (params["mean"], 1.0)
        >>> data = {"y": jnp.array([1.0, 2.0, 6.0])}
        >>> fit = mle.fit(mle.regression(line, mle.families.normal), {"mean": 0.0}, data)
        >>> ax = mle.plot.residuals(fit, against="y", ax=Figure().subplots())
        >>> print(ax.get_xlabel(), ax.get_lines()[0].get_ydata().round(6))
        y [-2. -1.  3.]

    Source: Dunn and Smyth 1996.
    """
    check_single(fit)
    data, weights = observations(fit)
    if against is None:
        x, label = np.arange(1, len(weights) + 1), "observation"
    elif isinstance(against, str):
        x, label = np.asarray(column_of(data, against, "against")), against
    else:
        x, label = np.asarray(against), "against"
        if x.shape != weights.shape:
            raise ValueError(f"against must hold one number an observation, {weights.shape}; got {x.shape}")
    found, fine, unknown = _known(np.asarray(fit.residuals(key), float), weights)
    x = x[fine]
    ax = axes_for(ax)
    many = len(x) > MANY
    dots: dict[str, Any] = {"ls": "", "color": BLUE, "rasterized": many, "mew": 0}
    ax.plot(x, found, marker="o", ms=2.5 if many else 4, alpha=0.35 if many else 0.8, **dots)
    band = NormalDist().inv_cdf(0.5 * (1 + INSIDE))
    ax.axhline(0.0, color=INK, lw=0.8)
    for line in (-band, band):
        ax.axhline(line, color=INK, lw=0.8, ls=DASHED)
    most = 1.08 * max(1.5 * band, np.max(np.abs(found[np.isfinite(found)]), initial=0.0))
    for sign, marker in ((-1, "v"), (1, "^")):
        beyond = x[found == sign * np.inf]
        if len(beyond):
            ax.plot(beyond, np.full(len(beyond), sign * most), marker, color=INK, ms=6, ls="", clip_on=False)
    ax.set(xlabel=label, ylabel="quantile residual", ylim=(-most, most))
    infinite = int(np.sum(np.isinf(found)))
    note(ax, unknown, f"{infinite:,} of {len(found):,} infinite, at the edge" if infinite else "")
    return ax


def pit(fit: Fit, key: Any = None, *, bins: Any = None, ax: Axes | None = None) -> Axes:
    r"""A histogram of the probability integral transform, with the band in which a true model's bars stay.

    $$u_i = F(y_i \mid x_i, \hat\theta)$$

    Of a true model these are uniform, and the count of each bar binomial: 95 % of the bars lie in the band. Bars
    that fall towards both ends say that the model's spread is too wide, bars that rise there that it is too
    narrow, a slope that its centre is off.

    Args:
        fit: a single fit of a model with `log_cdf`, such as a `mle.regression`.
        key: random key for responses that are whole numbers: as in `Fit.pit`.
        bins: number of bars, or their edges from 0 to 1. By default one for every twenty observations, at
            least five and at most twenty.
        ax: where to draw; by default on a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: as `residuals`; bins that are no edges from 0 to 1.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> line = lambda params, obs: (params["mean"], 1.0)
        >>> data = {"y": jnp.array([1.0, 2.0, 6.0])}
        >>> fit = mle.fit(mle.regression(line, mle.families.normal), {"mean": 0.0}, data)
        >>> ax = mle.plot.pit(fit, bins=2, ax=Figure().subplots())
        >>> print(ax.patches[0].get_data().values.round(3))  # two of three below one half
        [1.333 0.667]

    Source: Diebold, Gunther and Tay 1998.
    """
    from scipy.stats import binom

    check_single(fit)
    _, weights = observations(fit)
    u, fine, unknown = _known(np.asarray(fit.pit(key), float), weights)
    weights = weights[fine]
    edges = _shares(bins, len(u))
    width, whole = np.diff(edges), weights.sum()
    scale = whole * width
    low, high = (end / scale for end in binom.interval(INSIDE, round(whole), width))
    heights = np.histogram(u, edges, weights=weights)[0] / scale
    ax = axes_for(ax)
    ax.stairs(heights, edges, fill=True, **BARS, label="data")
    band = f"{percent(INSIDE)} band of each bar"
    ax.stairs(high, edges, baseline=low, fill=True, facecolor=(BLUE, 0.2), edgecolor=BLUE, lw=1.0, label=band)
    ax.plot([0.0, 1.0], [1.0, 1.0], color=BLUE, lw=1.4, ls=DASHED, label="uniform")
    ax.set(xlabel="probability integral transform", ylabel="density", xlim=(0, 1))
    ax.set_ylim(0.0, 1.3 * max(heights.max(), high.max()))
    legend(ax, "upper right")
    note(ax, unknown)
    return ax


def qq(fit: Fit, key: Any = None, *, level: float = 0.95, ax: Axes | None = None) -> Axes:
    r"""The quantile residuals, sorted, against the quantiles of a standard normal.

    $$r_{(i)} \quad\text{against}\quad \Phi^{-1}\!\left(\frac{i - 1/2}{n}\right), \qquad
    \Phi(r_{(i)}) \sim \mathrm{Beta}(i, n - i + 1)$$

    The band holds each point of a true model with the probability `level`, so that of many points a few lie
    outside; that parameters were estimated makes it a little too wide. Frequency weights count as so many
    observations.

    Args:
        fit: a single fit of a model with `log_cdf`, such as a `mle.regression`.
        key: random key for responses that are whole numbers: as in `Fit.residuals`.
        level: of the band, for each point.
        ax: where to draw; by default on a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: as `residuals`; a level outside (0, 1).

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> line = lambda params, obs: (params["mean"], 1.0)
        >>> data = {"y": jnp.array([6.0, 2.0, 1.0])}
        >>> fit = mle.fit(mle.regression(line, mle.families.normal), {"mean": 0.0}, data)
        >>> points = mle.plot.qq(fit, ax=Figure().subplots()).get_lines()[0]
        >>> print(points.get_xdata().round(3), points.get_ydata().round(6))
        [-0.967  0.     0.967] [-2. -1.  3.]

    Source: David and Nagaraja 2003, *Order Statistics*, for the band.
    """
    from scipy.special import betaincinv, ndtri

    check_level(level)
    check_single(fit)
    _, weights = observations(fit)
    found, fine, unknown = _known(np.asarray(fit.residuals(key), float), weights)
    order = np.argsort(found)
    found, weights = found[order], weights[fine][order]
    whole = weights.sum()
    middle = np.cumsum(weights) - 0.5 * weights
    x = ndtri(middle / whole)
    many = len(x) > MANY
    some = np.unique(np.searchsorted(x, np.linspace(x[0], x[-1], MANY))) if many else np.arange(len(x))
    before, after = middle[some] + 0.5, whole - middle[some] + 0.5
    low, high = (ndtri(betaincinv(before, after, share)) for share in (0.5 * (1 - level), 0.5 * (1 + level)))
    ax = axes_for(ax, 4.0, 4.0)
    ax.plot(x, found, "o", color=BLUE, ms=2.5 if many else 4, mew=0, rasterized=many, label="residuals", zorder=3)
    ax.fill_between(x[some], low, high, color=PALE, lw=0, label=f"{percent(level)} band of each point")
    ends = x[[0, -1]]
    ax.plot(ends, ends, color=INK, lw=0.8)
    ax.set(xlabel="standard normal quantile", ylabel="quantile residual")
    infinite = int(np.sum(np.isinf(found)))
    note(ax, unknown, f"{infinite:,} of {len(found):,} infinite, not shown" if infinite else "")
    legend(ax, "upper left")
    return ax


def _known(found: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """The numbers of rows that count, which rows these are, and a remark on those left out."""
    counts = weights > 0
    fine = counts & ~np.isnan(found)
    if not fine.any():
        raise ValueError("the distribution function is NaN at every observation, so there is nothing to draw")
    missing = int(counts.sum() - fine.sum())
    return found[fine], fine, f"{missing:,} of {counts.sum():,} are NaN, left out" if missing else ""


def _shares(bins: Any, count: int) -> np.ndarray:
    """Edges of the bars between 0 and 1."""
    if bins is None or np.ndim(bins) == 0:
        number = min(20, max(5, count // 20)) if bins is None else bins
        check_count(number, "bins")
        return np.linspace(0.0, 1.0, number + 1)
    edges = np.asarray(bins, float)
    if edges.ndim != 1 or edges.size < 2 or edges[0] != 0 or edges[-1] != 1 or not np.all(np.diff(edges) > 0):
        raise ValueError(f"bins must be the number of bars, or increasing edges from 0 to 1; got {bins!r}")
    return edges
