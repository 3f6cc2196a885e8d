"""The style of all pictures: colours that print, an Axes to draw on, and checks of what is drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..inference.covariance import errors
from ..inference.record import FitRecord
from ..results.fit import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Of the palette of Okabe and Ito, which colour-blind readers can tell apart, and print in different greys.
BLUE, ORANGE, VERMILLION, GREY, INK = "#0072B2", "#E69F00", "#D55E00", "#8C8C8C", "#222222"
#: For areas: blue, a fifth and half of it on white paper.
PALE, MIDDLE = "#CCE3F0", "#80B8D8"
#: What bars of data look like.
BARS: dict[str, Any] = {"facecolor": "#D9D9D9", "edgecolor": GREY, "lw": 0.8}
DASHED: Any = (0, (5, 2.5))
#: Colours and markers of several things side by side: neighbours differ in both, and in their grey.
SERIES = ((BLUE, "o"), (VERMILLION, "s"), (INK, "^"), (ORANGE, "D"), ("#56B4E9", "v"), ("#009E73", "P"))
#: Beyond so many points a file holds their picture, not each of them.
MANY = 2_000
#: Letters of small print that go beside one another.
LINE = 60


def axes_for(ax: Axes | None, width: float = 5.0, height: float = 3.5) -> Axes:
    """The Axes that were given, as they are; or those of a new figure, of this size in inches."""
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
        ax.spines[["top", "right"]].set_visible(False)
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be one matplotlib Axes, got {type(ax).__name__}")
    return ax


def legend(ax: Axes, loc: Any = "best") -> None:
    """A legend without a frame; `above` the picture if nothing in it must be hidden."""
    place: dict[str, Any] = {"loc": loc}
    if loc == "above":
        labels = ax.get_legend_handles_labels()[1]
        columns = len(labels) if sum(len(label) + 5 for label in labels) <= LINE else 1
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": columns, "columnspacing": 1.2}
    ax.legend(**place, frameon=False, fontsize="small", handlelength=1.8, borderaxespad=0.3)


def note(ax: Axes, *remarks: str, higher: bool = False) -> None:
    """Remarks in small print above the right end of the picture, or of a legend there; empty ones are left out."""
    text = textwrap.fill("; ".join(filter(None, remarks)), LINE)
    if text:
        ax.set_title(text, loc="right", fontsize="small", color=INK, pad=22 if higher else 6)


def check_single(fit: Any, proven: bool = True) -> None:
    """An error unless this is a single fit, and one that converged."""
    check_fit(fit)
    if fit.batched:
        raise ValueError(f"fit holds {fit.n_sets:,} data sets and this draws one: pass fits[i]")
    if proven and not bool(fit.converged):
        raise ValueError(f"the fit did not converge, so there is no maximum to draw; {fit.message}")


def check_fit(fit: Any, argument: str = "fit") -> None:
    """A `TypeError` unless this is a `Fit`."""
    if not isinstance(fit, Fit):
        raise TypeError(f"{argument} must be what mle.fit returns, got {type(fit).__name__}")


def places(fit: FitRecord, names: Sequence[str]) -> list[int]:
    """Positions of parameters among `parameter_names`; a `ValueError` where there is none of that name."""
    for name in names:
        if name not in fit.parameter_names:
            raise ValueError(f"there is no parameter {name!r}; there are {', '.join(fit.parameter_names)}")
    return [fit.parameter_names.index(name) for name in names]


def free_names(fit: FitRecord) -> list[str]:
    """The parameters that move by themselves: neither fixed, nor tied, nor the diagonal of a correlation."""
    still = {name for name, error in zip(fit.parameter_names, np.asarray(errors(fit))) if error == 0}
    tied = {name for leaf in fit.parameters.leaves for name in leaf.names() if leaf.tied_to is not None}
    moving = [name for name in fit.parameter_names if name not in still | tied]
    if not moving:
        raise ValueError("every parameter of this fit is fixed, so there is nothing to draw")
    return moving


def one_or_two(fit: Fit, names: str | Sequence[str] | None) -> tuple[str, ...]:
    """One parameter or two; by default the first that is free."""
    chosen = (names,) if isinstance(names, str) else tuple(free_names(fit)[:1] if names is None else names)
    if len(chosen) not in (1, 2) or len(set(chosen)) < len(chosen):
        raise ValueError(f"names must be one parameter or two different ones, got {names!r}")
    places(fit, chosen)
    return chosen


def percent(level: float) -> str:
    """A level in words: `95%`."""
    return f"{100 * level:.10g}%"


def around(values: Any, spare: float = 0.06) -> tuple[float, float]:
    """Limits of an axis that holds all finite values, with some room on either side."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    low, high = float(known.min()), float(known.max())
    margin = spare * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin
