"""The card of a fit: what its `repr` and a notebook show."""

from __future__ import annotations

import math

import numpy as np

from ..core.format.numbers import counted, likelihood, number
from ..core.format.renderers import BAD, DOUBTFUL, GOOD, HtmlRenderer, Renderer, TextRenderer
from ..engine.modes import starts_line
from ..inference.record import FitRecord
from ..solvers.choice import DENSE_CERTIFICATE
from .estimates import at_hand, spread
from .summary import draw_batch

ROWS = 12


def text(fit: FitRecord) -> str:
    """The card for a terminal."""
    return _draw(TextRenderer(), fit)


def html(fit: FitRecord) -> str:
    """The card for a notebook: the same, with colours; whatever the user named is escaped."""
    return _draw(HtmlRenderer(), fit)


def certificate_rows(fit: FitRecord) -> list[tuple[str, str, str, str]]:
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
    return [(name, shown, *_verdict(value, bool(ok))) for name, shown, value, ok in judged]


def _verdict(value: float, ok: bool) -> tuple[str, str]:
    if math.isnan(value):
        return "unknown", DOUBTFUL
    return ("ok", GOOD) if ok else ("not ok", BAD)


def _draw(out: Renderer, fit: FitRecord) -> str:
    if fit.batched:
        draw_batch(out, fit, spread(fit, ROWS))
    else:
        status, _, why = fit.message.partition(": ")
        out.title(f"Fit{_which(fit)}", status)
        out.paragraph(why[:1].upper() + why[1:])
        out.table(*at_hand(fit, ROWS).cells(["estimate", "standard_error"]))
        if bool(fit.converged) and fit.n_free > DENSE_CERTIFICATE:
            out.paragraph("Too many parameters to form a Hessian by default; fit.standard_errors() forms it.")
        out.paragraph(
            f"log-likelihood {likelihood(fit.log_likelihood)}, {counted(fit.n_obs, 'observation')}, "
            f"{counted(fit.n_free, 'free parameter')}, {counted(fit.steps, 'step')}, {fit.solver}"
        )
        out.marks("certificate", certificate_rows(fit))
    if fit._modes is not None:
        out.paragraph(starts_line(fit._modes))
    return out.render()


def _which(fit: FitRecord) -> str:
    """The name of the data set in its batch, if it was in one."""
    keys = fit.keys
    if keys is not None:
        return " of " + ", ".join(f"{name}={column[0]}" for name, column in zip(keys.column_names, keys.columns))
    return "" if fit._dataset.index is None else f" of data set {int(fit._dataset.index)}"
