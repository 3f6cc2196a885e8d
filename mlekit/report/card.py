"""The card of a fit: what its `repr` and a notebook show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..solvers import DENSE_CERTIFICATE
from .estimates import at_hand, spread
from .numbers import count, counted, likelihood, number, share, uncertain
from .pens import BAD, DOUBTFUL, GOOD, WIDTH, HtmlPen, Pen, TextPen
from .summary import draw_batch

if TYPE_CHECKING:
    from ..modes import Modes
    from ..result import Fit

ROWS = 12
#: Modes shown; and what each takes of a line beside its estimates, which take at least so much.
MODES, ASIDE, CELL = 12, 44, 9
#: Log-likelihoods closer than this many nats, or this share, count as the same in a sentence.
LEVEL, LEVEL_SHARE = 1e-3, 1e-6


def text(fit: Fit) -> str:
    """The card for a terminal."""
    return _draw(TextPen(), fit)


def html(fit: Fit) -> str:
    """The card for a notebook: the same, with colours; whatever the user named is escaped."""
    return _draw(HtmlPen(), fit)


def marks(fit: Fit) -> list[tuple[str, str, str, str]]:
    """The certificate of a single fit, `(name, value, verdict, tone)` for each of its numbers.

    The verdict on the decrement and the gradient is the solver's own where it proved the maximum; elsewhere
    they are measured against the usual tolerance. A condition number beyond the root of the precision
    leaves fewer than half the digits in the standard errors, proven maximum or not.
    """
    proof = fit.certificate
    decrement, gradient = float(proof.decrement), float(proof.gradient_norm)
    least, condition = float(proof.min_eigenvalue), float(proof.condition_number)
    proven = bool(fit.converged)
    eps = np.finfo(proof.decrement.dtype).eps
    tolerance = 1e-9 if eps < 1e-10 else 1e-5
    # The gradient as nats at stake, were the scaled information the identity.
    at_stake = 0.5 * float(fit.n_obs) * gradient**2
    judged = [
        ("decrement", number(decrement, 2), decrement, proven or decrement <= tolerance),
        ("gradient", number(gradient, 2), gradient, proven or at_stake <= tolerance),
        ("least eigenvalue", number(least, 3), least, least > 0 and (proven or math.isfinite(decrement))),
        ("condition number", number(condition, 3), condition, condition < eps**-0.5),
    ]
    return [(name, shown, *_verdict(value, ok)) for name, shown, value, ok in judged]


def _verdict(value: float, ok: bool) -> tuple[str, str]:
    if math.isnan(value):
        return "unknown", DOUBTFUL
    return ("ok", GOOD) if ok else ("not ok", BAD)


def _draw(pen: Pen, fit: Fit) -> str:
    if fit.batched:
        draw_batch(pen, fit, spread(fit, ROWS))
    else:
        status, _, why = fit.message.partition(": ")
        pen.title(f"Fit{_which(fit)}", status)
        pen.paragraph(why[:1].upper() + why[1:])
        pen.marks("certificate", marks(fit))
        pen.table(*at_hand(fit, ROWS).cells(["estimate", "standard_error"]))
        if bool(fit.converged) and fit.n_free > DENSE_CERTIFICATE:
            pen.paragraph(
                "Standard errors of so many parameters take a dense Hessian, for which fit.standard_errors() asks."
            )
        pen.paragraph(
            f"log-likelihood {likelihood(fit.log_likelihood)}, {counted(fit.n_obs, 'observation')}, "
            f"{counted(fit.n_free, 'free parameter')}, {counted(fit.steps, 'step')}, {fit.solver}"
        )
    if fit.optima is not None:
        pen.paragraph(starts_line(fit.optima))
    return pen.done()


def modes_text(modes: Modes) -> str:
    """The modes for a terminal: a table of one data set's, a sentence on those of a batch."""
    return _draw_modes(TextPen(), modes)


def modes_html(modes: Modes) -> str:
    """The same for a notebook."""
    return _draw_modes(HtmlPen(), modes)


def _draw_modes(pen: Pen, modes: Modes) -> str:
    if modes.count.ndim > 1:
        pen.title(f"Modes: {counted(modes.count[..., 0].size, 'data set')}")
    else:
        pen.title(f"Modes: {int(modes.n_modes)}")
    pen.paragraph(starts_line(modes))
    if modes.count.ndim == 1 and modes.n_modes:
        _table_of_modes(pen, modes)
    return pen.done()


def _table_of_modes(pen: Pen, modes: Modes) -> None:
    whole, level = int(modes.n_modes), np.asarray(modes.log_likelihood)
    vector, errors = np.asarray(modes.vector), np.asarray(modes.errors)
    below = level[0] - level
    below = np.where(below > 100 * np.finfo(level.dtype).eps * abs(level[0]), below, 0.0)
    moving = np.flatnonzero(np.any(errors[:whole] > 0, axis=0))
    room = np.cumsum([max(len(modes.names[j]), CELL) + 2 for j in moving]) <= WIDTH - ASIDE
    shown = moving[: max(1, int(room.sum()))]
    rows = [
        [
            str(i),
            count(modes.count[i]),
            likelihood(level[i]),
            number(below[i], 3) if i else "",
            *(uncertain(vector[i, j], errors[i, j]) for j in shown),
        ]
        for i in range(min(whole, MODES))
    ]
    headers = ["", "starts", "log-likelihood", "below", *(modes.names[j] for j in shown)]
    pen.table(rows, headers, ["right", "right", "right", *["decimal"] * (1 + len(shown))])
    hidden = [
        f"{left:,} more {thing}{'s' * (left > 1)}"
        for left, thing in ((whole - len(rows), "mode"), (len(moving) - len(shown), "parameter"))
        if left
    ]
    if hidden:
        pen.paragraph(f"... and {', '.join(hidden)}")


def starts_line(modes: Modes) -> str:
    """How many starts found what, in one sentence."""
    if modes.count.ndim > 1:
        return _starts_of_batch(modes)
    starts, counts = modes.starts, [int(one) for one in np.asarray(modes.count) if one]
    failures = {name: n for name, n in modes.status.counts().items() if name != "converged"}
    reasons = ", ".join(f"{n} {name}" for name, n in failures.items())
    if not counts:
        return f"starts: {count(starts)}, of which none found a proven maximum ({reasons})"
    if counts[0] == starts:
        return f"starts: {count(starts)}, {'all of which' if starts > 1 else 'which'} found this maximum"
    parts = [f"{count(counts[0])} found this maximum"]
    level = np.asarray(modes.log_likelihood)
    margin = LEVEL + LEVEL_SHARE * abs(level[0])
    if len(counts) > 1:
        low = level[0] - level[1]
        height = f"{number(low, 2)} nats lower" if low > margin else "just as high"
        which = (
            f"found {len(counts) - 1} others, the next {height}" if len(counts) > 2 else f"another one {height}"
        )
        parts.append(f"{count(sum(counts[1:]))} {which}")
    if failures:
        ahead = int(np.sum((np.asarray(modes.found) < 0) & (np.asarray(modes.reached) > level[0] + margin)))
        text = f"{count(sum(failures.values()))} failed ({reasons})"
        parts.append(text + f" and {count(ahead)} of these came higher" * bool(ahead))
    return f"starts: {count(starts)}, of which {', '.join(parts)}"


def _starts_of_batch(modes: Modes) -> str:
    counts = np.asarray(modes.count).reshape(-1, modes.starts)
    whole, best = len(counts), counts[:, 0]
    text = f"starts: {count(modes.starts)} a data set"
    if not np.any(best):
        return f"{text}, of which none found a proven maximum" if whole else text
    several, once = (int(np.sum(mask)) for mask in (np.sum(counts > 0, axis=1) > 1, best == 1))
    text += f"; the best maximum was found by {count(np.median(best[best > 0]))} of them at the median"
    if modes.starts > 1:
        text += f", by a single one in {counted(once, 'data set')} ({share(once, whole)})"
    return f"{text}; {counted(several, 'data set')} ({share(several, whole)}) have more than one maximum"


def _which(fit: Fit) -> str:
    """Which data set of a batch this was, if it was one."""
    keys = fit.keys
    if keys is not None:
        return " of " + ", ".join(f"{name}={column[0]}" for name, column in zip(keys.column_names, keys.columns))
    return "" if fit.index is None else f" of data set {int(fit.index)}"
