"""The path of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..results.fit import Fit
from .style import BLUE, DASHED, VERMILLION, axes_for, check_single, legend, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Roundings of a log-likelihood below which a difference means nothing.
NOISE = 8


def history(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """The path of a search: nats below its highest point, and the decrement, after each step.

    Both are in nats, on a logarithmic axis: what was still to gain, and what the search thought was still to gain.
    Where a decrement is not known, and where rounding hides what was left to gain, there is a gap.

    Args:
        fit: a single fit made with `history=True`. It need not have converged; its status is shown then.
        ax: where to draw; by default on a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: a batch, or a fit without a history.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from matplotlib.figure import Figure
        >>> fit = mle.fit(lambda rate, x: jnp.log(rate) - rate * x, 1.0, jnp.array([1.0, 2.0, 6.0]),
        ...               constraints=mle.positive, history=True)
        >>> below, decrement = mle.plot.history(fit, ax=Figure().subplots()).get_lines()
        >>> print(below.get_ydata()[0].round(4))  # the start is at -9, the maximum at -3 (1 + log 3)
        2.7042
    """
    from matplotlib.ticker import MaxNLocator

    check_single(fit, proven=False)
    path = fit.history
    if path is None:
        raise ValueError("this fit has no history: call mle.fit(..., history=True)")
    steps, height, decrement = (
        np.asarray(part, float) for part in (path.steps, path.log_likelihood, path.decrement)
    )
    best = np.nanmax(np.append(height[np.isfinite(height)], float(fit.log_likelihood)))
    ax = axes_for(ax)
    converged = bool(fit.converged)
    top = "the maximum" if converged else "the highest point"
    noise = NOISE * np.finfo(np.asarray(path.log_likelihood).dtype).eps * abs(best)
    below = np.where(np.isfinite(height) & (best - height > noise), best - height, np.nan)
    ax.plot(steps, below, color=BLUE, marker="o", ms=6, mfc="white", lw=1.4, label=f"below {top}")
    to_gain = np.where(np.isfinite(decrement) & (decrement > 0), decrement, np.nan)
    ax.plot(steps, to_gain, color=VERMILLION, marker="s", ms=3.5, lw=1.2, ls=DASHED, label="decrement")
    ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="nats")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    note(ax, "" if converged else f"not converged: {fit.status}")
    legend(ax)
    return ax
