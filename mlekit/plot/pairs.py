"""Bootstrap draws of the parameters, in pairs, beside Wald's ellipse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import check_level
from ..inference.bootstrap.bootstrap import Bootstrap
from ..inference.covariance import covariance
from .regions import WALD, ellipse, limit
from .style import BARS, BLUE, INK, MANY, around, axes_for, check_single, free_names, legend, note, percent, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: So many parameters by default.
MOST = 6


def pairs(draws: Bootstrap, names: Sequence[str] | None = None, *, level: float = 0.95, ax: Any = None) -> Any:
    r"""The estimates of bootstrap replicates in pairs, with the estimate and Wald's ellipse.

    $$(v - \hat\theta)^T V^{-1} (v - \hat\theta) = \chi^2_{2, \text{level}}, \qquad V = \mathrm{cov}(\hat\theta)$$

    Where the likelihood is nearly quadratic, about a share `level` of the replicates lies within the ellipse.
    There is none where one of both estimates lies on its bound. Failed replicates are left out and counted.

    Args:
        draws: what `mle.bootstrap` made of a single fit.
        names: two parameters for one picture of the pair; more for a triangle of pictures with a histogram of each
            on its diagonal. By default all that are free, six at most.
        level: of the ellipse.
        ax: where to draw; for a triangle an array of Axes, shape `(m, m)`. By default on a new figure.

    Returns:
        The Axes; of a triangle an object array of them, shape `(m, m)`, those above the diagonal invisible.

    Raises:
        ValueError: draws of a batch, a fit that did not converge, no replicate that did, no such parameter, less
            than two of them, an array of Axes of another shape, or a level outside (0, 1).

    Example:
        >>> import jax, jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> density = lambda p, x: -0.5 * ((x - p["mean"]) / p["sd"]) ** 2 - jnp.log(p["sd"])
        >>> fit = mle.fit(density, {"mean": 0.0, "sd": 1.0}, jnp.arange(9.0), constraints={"sd": mle.positive})
        >>> ax = mle.plot.pairs(mle.bootstrap(fit, jax.random.key(0), 50), ax=Figure().subplots())
        >>> print(ax.get_xlabel(), ax.get_ylabel(), ax.get_lines()[0].get_xdata().shape)
        mean sd (50,)
    """
    if not isinstance(draws, Bootstrap):
        raise TypeError(f"draws must be what mle.bootstrap returns, got {type(draws).__name__}")
    check_level(level)
    if draws.vector.ndim != 2:
        raise ValueError("draws are those of a batch and this draws one data set: mle.bootstrap(fits[i], key)")
    fit = draws.fit
    check_single(fit)
    chosen = free_names(fit)[:MOST] if names is None else [names] if isinstance(names, str) else list(names)
    where = places(fit, chosen)
    m = len(where)
    if m < 2 or len(set(where)) < m:
        raise ValueError(f"names must be two different parameters or more; got {', '.join(chosen)}")
    vector = np.asarray(draws.vector, float)[:, where]
    known = ~np.isnan(vector).any(axis=1)
    if not known.any():
        raise ValueError("no replicate converged, so there is nothing to draw")
    vector = vector[known]
    best = np.asarray(fit._solution.estimates, float)[where]
    spread = np.asarray(covariance(fit), float)[np.ix_(where, where)]
    failed = int(np.sum(~known))
    remark = f"{failed:,} of {known.size:,} replicates failed, left out" if failed else ""

    if m == 2:
        ax = axes_for(ax, 4.2, 4.0)
        _pair(ax, vector, best, spread, level)
        ax.set(xlabel=chosen[0], ylabel=chosen[1])
        note(ax, remark, higher=True)
        legend(ax, "above")
        return ax
    table = _table(ax, m)
    wide = math.sqrt(2 * limit(level, 2)) * np.sqrt(np.diag(spread))
    extents = [around(np.append(vector[:, i], best[i] + np.array([-1.0, 1.0]) * wide[i])) for i in range(m)]
    for i, j in zip(*np.tril_indices(m)):
        ax = table[i, j]
        if i == j:
            _histogram(ax, vector[:, i], best[i], math.sqrt(spread[i, i]))
        else:
            _pair(ax, vector[:, [j, i]], best[[j, i]], spread[np.ix_([j, i], [j, i])], level)
            ax.set_ylim(extents[i])
        ax.set_xlim(extents[j])
        ax.locator_params(nbins=4)
        ax.tick_params(labelsize="small", labelbottom=i == m - 1, labelleft=j == 0 < i)
        ax.set(xlabel=chosen[j] if i == m - 1 else "", ylabel=chosen[i] if j == 0 < i else "")
    pictures = [ax.get_legend_handles_labels() for ax in table[np.tril_indices(m, -1)]]
    handles, labels = max(pictures, key=lambda pair: len(pair[1]))
    table[0, -1].legend(handles, labels, loc="upper right", frameon=False, fontsize="small")
    note(table[0, -1], remark)
    return table


def _table(given: Any, m: int) -> np.ndarray:
    """Square array of Axes; those above the diagonal are switched off."""
    import matplotlib.pyplot as plt

    if given is None:
        size = max(4.5, 1.7 * m)
        _, given = plt.subplots(m, m, figsize=(size, size), layout="constrained")
        for ax in given.ravel():
            ax.spines[["top", "right"]].set_visible(False)
    table = np.asarray(given, dtype=object)
    if table.shape != (m, m):
        raise ValueError(
            f"ax must be an array of Axes of shape ({m}, {m}), one row a parameter; got {table.shape}"
        )
    for ax in table[np.triu_indices(m, 1)]:
        ax.set_axis_off()
    return table


def _pair(ax: Axes, vector: np.ndarray, best: np.ndarray, spread: np.ndarray, level: float) -> None:
    many = len(vector) > MANY
    dots: dict[str, Any] = {"ls": "", "mew": 0, "color": BLUE, "rasterized": many}
    ax.plot(*vector.T, marker="o", ms=2 if many else 3, alpha=0.25 if many else 0.45, label="replicate", **dots)
    if np.all(np.diag(spread) > 0):
        ax.plot(*ellipse(spread, best, level).T, **{**WALD, "lw": 1.8}, label=f"Wald {percent(level)}")
    ax.plot(*best[:, None], "P", color=INK, mec="white", mew=0.8, ms=8, ls="", label="estimate")


def _histogram(ax: Axes, values: np.ndarray, best: float, error: float) -> None:
    """The replicates of one parameter, and Wald's normal density."""
    ax.hist(values, "auto", density=True, histtype="stepfilled", **BARS)
    if error > 0:
        x = np.linspace(*around(values), 201)
        height = np.exp(-0.5 * ((x - best) / error) ** 2) / (error * math.sqrt(2 * math.pi))
        ax.plot(x, height, **WALD)
    ax.set(yticks=[], ylim=(0.0, None))
