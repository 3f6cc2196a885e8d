"""The profile likelihood of one parameter, or of two, beside Wald's approximation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import check_level
from ..inference.covariance import covariance
from ..inference.profile import curve as profiles
from ..inference.profile.curve import Profile
from ..results.fit import Fit
from .regions import WALD, contours, curve, limit
from .style import axes_for, check_single, legend, note, one_or_two, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def profile(
    what: Profile | Fit,
    names: str | Sequence[str] | None = None,
    *,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    r"""The profile likelihood with its region, and Wald's dashed beside it.

    $$\hat\ell - \ell_p(v) \le \tfrac12 \chi^2_{m, \text{level}} \qquad\text{and}\qquad
    (v - \hat\theta)^T V^{-1} (v - \hat\theta) \le \chi^2_{m, \text{level}}$$

    The more the two differ, the less is to be said for a standard error. Of one parameter the picture shows the
    curve of nats below the maximum, and where profile and Wald interval end; of two the regions of 50 % and of the
    level, with two degrees of freedom. Points without a proven maximum are left out and counted. Wald's is not
    there of an estimate at its bound.

    Args:
        what: a `mle.Profile` of one data set; or a single fit, of which `mle.profile` makes one.
        names: of a fit one of its `parameter_names`, or two of them; by default the first that is free.
        level: of the intervals and regions.
        ax: where to draw; by default on a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: a batch, a fit that did not converge, no such parameter, names beside a `mle.Profile`, which
            has its own, or a level outside (0, 1).

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> fit = mle.fit(lambda rate, x: jnp.log(rate) - rate * x, 1.0, jnp.array([1.0, 2.0, 6.0]),
        ...               constraints=mle.positive)
        >>> ax = mle.plot.profile(mle.profile(fit, "params", jnp.linspace(0.1, 1.0, 19)), ax=Figure().subplots())
        >>> print(ax.get_legend_handles_labels()[1])
        ['95% profile interval', 'profile', 'Wald']

    Source: Venzon and Moolgavkar 1988.
    """
    check_level(level)
    if not isinstance(what, Profile):
        check_single(what)
        what = profiles.profile(what, one_or_two(what, names))
    elif names is not None:
        raise ValueError(f"names are for a fit; this profile is that of {', '.join(what.names)}")
    if what.log_likelihood.ndim > len(what.names):
        raise ValueError("what holds profiles of a batch and this draws one: mle.profile(fits[i], name)")
    check_single(what.fit)
    where = places(what.fit, what.names)
    values = [np.asarray(one, float) for one in what.values]
    order = [np.argsort(one) for one in values]
    grid, drop = [one[i] for one, i in zip(values, order)], np.asarray(what.drop, float)[np.ix_(*order)]
    if not np.any(np.isfinite(drop)):
        raise ValueError(f"no point of this profile has a proven maximum: {what.status.counts()}")
    ax = axes_for(ax)
    best = np.asarray(what.fit._solution.estimates, float)[where]
    spread = np.asarray(covariance(what.fit), float)[np.ix_(where, where)]
    if len(where) == 1:
        curve(ax, grid[0], drop, best[0], level, ("profile", "profile interval"))
        if spread[0, 0] > 0:
            _wald(ax, grid[0], best[0], math.sqrt(spread[0, 0]), level)
        ax.set_xlabel(what.names[0])
    else:
        contours(ax, grid, drop, best, level, spread)
        ax.set(xlabel=what.names[0], ylabel=what.names[1])
    unproven = int(np.sum(np.isnan(drop)))
    note(
        ax,
        f"{unproven:,} of {drop.size:,} points not proven, left out" if unproven else "",
        "of a higher maximum than the fit's" if bool(what.better) else "",
        higher=len(where) == 2,
    )
    legend(ax, "best" if len(where) == 1 else "above")
    return ax


def _wald(ax: Axes, x: np.ndarray, best: float, error: float, level: float) -> None:
    """The parabola that a normal estimate would have, and the ends of its interval."""
    fine = np.interp(np.linspace(0, len(x) - 1, 201), np.arange(len(x)), x)
    ax.plot(fine, 0.5 * ((fine - best) / error) ** 2, **WALD, label="Wald")
    most = limit(level, 1)
    ends = best + math.sqrt(2 * most) * error * np.array([-1.0, 1.0])
    ax.plot(ends, [most, most], "s", color=WALD["color"], mfc="white", ms=5, zorder=4)
