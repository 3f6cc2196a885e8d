"""Why a test of a single fit has no verdict, in words; empty for batches, whose fits say it one by one."""

from __future__ import annotations

from jaxtyping import Array

from ...core.trees import tracing
from ..record import FitRecord


def in_words(fit: FitRecord) -> bool:
    """Whether there is a single fit whose numbers are known."""
    return not (fit.batched or tracing(fit._solution))


def not_converged(fit: FitRecord, called: str = "the fit") -> str:
    """That a fit did not converge, and what would help at the edge of a constraint."""
    edges = fit.edges_in_words.rstrip(".")
    return f"{called} did not converge: {fit.status}" + (f";{edges}" if edges else "")


def of_pair(restricted: FitRecord, full: FitRecord) -> str:
    """Why two fits have no likelihood ratio."""
    if not (in_words(restricted) and in_words(full)):
        return ""
    for fit, called in ((restricted, "the fit of the restricted model"), (full, "the fit of the full model")):
        if not fit.converged:
            return not_converged(fit, called)
    return "the full model reaches less than the restricted one, so it has not found its maximum"


def of_profile(fit: FitRecord, status: Array, hypothesis: str) -> str:
    """Why a parameter cannot be held at a value; `status` is that of the fit with it held."""
    if not in_words(fit):
        return ""
    return not_converged(fit) if not fit.converged else f"the fit with {hypothesis} did not converge: {status}"


def of_bounds(fit: FitRecord) -> str:
    """Why Wald's test does not hold."""
    if not in_words(fit):
        return ""
    if not fit.converged:
        return not_converged(fit)
    on_bounds = [name for name, held in zip(fit.parameter_names, fit._at_bound) if held]
    if not on_bounds:
        return "the restrictions have no covariance of full rank"
    lie, them = ("lies on its bound", "it") if len(on_bounds) == 1 else ("lie on their bounds", "each")
    return (
        f"{' and '.join(on_bounds)} {lie}, where Wald's test does not hold; there is fit.significance(name) for "
        f"{them}, and mle.likelihood_ratio_test"
    )
