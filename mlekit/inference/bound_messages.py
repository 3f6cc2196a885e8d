"""Bounds in words: estimates that lie on them, and open ones that a fit runs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array

from ..core.format.numbers import number
from ..models.constraints import Constraint
from ..models.parameters import Parameters

#: A parameter has run to an edge that is nearer than this share of its size, or of the way between two edges.
NEAR = 1e-2
#: Parameters that are named.
NAMED = 4


def at_bounds(parameters: Parameters, estimates: Array, multiplier: Array | None) -> str:
    """A sentence about the estimates of a single fit that lie on their bounds, after a blank; empty without any.

    Args:
        parameters: the parameters.
        estimates: in natural units.
        multiplier: of the active bound of each entry of the free vector, `None` without closed constraints.
    """
    if multiplier is None:
        return ""
    nats, vector = np.asarray(parameters.at_bounds(multiplier, np.nan)), np.asarray(estimates)
    places = np.flatnonzero(~np.isnan(nats))
    if not places.size:
        return ""
    named = [
        f"{parameters.names[i]} = {number(vector[i])}, "
        + (f"{number(nats[i], 3)} nats per unit beyond" if nats[i] else "with a multiplier of zero")
        for i in places[:NAMED]
    ]
    named += [f"{places.size - NAMED} more"] if places.size > NAMED else []
    one = places.size == 1
    where, them = ("At its bound", "it") if one else ("At their bounds", "them")
    own = "its own interval is that" if one else "their own intervals are those"
    return f" {where}: {'; '.join(named)}. Errors of the others take {them} as fixed; {own} of method='profile'."


def at_infinite(parameters: Parameters, free: Array, multiplier: Array | None) -> str:
    """A sentence about bounds of a single fit on which the log-likelihood is infinite, after a blank, or nothing.

    Args:
        parameters: the parameters.
        free: the free vector.
        multiplier: of the active bound of each entry, `None` without closed constraints.
    """
    if multiplier is None or parameters.box is None:
        return ""
    names = parameters.names_with(np.asarray(parameters.box.infinite_at(free, multiplier)))
    if not names:
        return ""
    lies = "lies on its bound" if len(names) == 1 else "lie on their bounds"
    return f" The log-likelihood is infinite where {' and '.join(names[:NAMED])} {lies}."


def at_edges(parameters: Parameters, estimates: Array, weak: Sequence[str]) -> str:
    """A sentence that names the closed constraint of a parameter which ran to its open edge, after a blank.

    Args:
        parameters: the parameters.
        estimates: where the search stopped, in natural units.
        weak: names of the parameters that run away.
    """
    vector = np.asarray(estimates)
    low, high = (np.asarray(end) for end in parameters.ranges(estimates))
    closed: dict[str, list[str]] = {}
    i = 0
    for leaf in parameters.leaves:
        for name in leaf.names():
            gap = min(vector[i] - low[i], high[i] - vector[i])
            width = high[i] - low[i] if np.isfinite(high[i] - low[i]) else max(1.0, abs(vector[i]))
            rule = leaf.constraint.closed_form if isinstance(leaf.constraint, Constraint) else ""
            if name in weak and rule and gap < NEAR * width:
                closed.setdefault(rule, []).append(name)
            i += 1
    return "".join(
        f" {' and '.join(names[:NAMED])} ran to the edge: {rule} lets the estimate lie on it, where the "
        "log-likelihood is finite there."
        for rule, names in closed.items()
    )
