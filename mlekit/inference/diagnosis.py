"""Remarks on a fit: why it failed, estimates at bounds, parameters that move together, a model in doubt."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..core.eigen import eigh
from ..core.format.numbers import counted, number, share
from ..core.linear_algebra import root_of_inverse
from ..core.status import ADVICE, Status, StatusArray
from ..core.trees import traced
from ..engine.backend import NOT_KNOWN, SearchedBy
from ..engine.certificate import WEAK, Certificate
from ..likelihood.objective import Objective
from .evaluate import evaluate, has_contributions
from .information import in_natural_units, information
from .record import FitRecord

#: Two informations disagree strongly where they differ in some direction by this factor, and by so many times the
#: root of the number of observations more, as a sample from the model itself hardly ever does.
FACTOR, NOISE = 2.0, 20.0


class Diagnosis(eqx.Module):
    """The findings of `Fit.diagnose`; prints as sentences.

    Args:
        least: least eigenvalue of the outer product of the scores, measured by the observed information: one, to
            the precision of the sample, if the model is right.
        largest: the largest.
        factor: by what factor the sandwich changes the standard error of each parameter, shape `(k,)`.
        disagree: whether the two informations disagree strongly, so that the model is in doubt.
        certificate: that of the fit.
        status: why the fit ended.
        cause: of a single fit, the first row that is not finite, or the exception, in words; else nothing.
        bounds: of a single fit, the estimates that lie on their bounds, or what they ran to the edge of, in words.
        searched_by: which backend ran the search, and why not the native one.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, jnp.array([1.0, 2.0, 6.0]))
        >>> fit.diagnose().factor.round(2)  # the observations vary more than the density says
        Array([2.16], dtype=float64)
    """

    least: Float[Array, "..."]
    largest: Float[Array, "..."]
    factor: Float[Array, "... k"]
    disagree: Bool[Array, "..."]
    certificate: Certificate
    status: StatusArray
    cause: str = eqx.field(static=True, default="")
    bounds: str = eqx.field(static=True, default="")
    searched_by: SearchedBy = eqx.field(static=True, default=NOT_KNOWN)

    @property
    def remarks(self) -> tuple[str, ...]:
        """A sentence for everything that is worth one; none where all is well."""
        return diagnosis_remarks(self)

    def __repr__(self) -> str:
        if isinstance(self.least, jax.core.Tracer):
            return "Diagnosis(<traced>)"
        lines = self.remarks or ("Nothing to remark.",)
        return "\n".join((*lines, self.searched_by.words)).rstrip("\n")


def diagnose(fit: FitRecord) -> Diagnosis:
    """`Fit.diagnose`."""
    nothing = jnp.full_like(fit.log_likelihood, jnp.nan)
    least = largest = nothing
    factor = jnp.full_like(fit._solution.estimates, jnp.nan)
    if fit.n_free and has_contributions(fit):
        least, largest, factor = evaluate(fit, _agreement, fit._solution.free)
    if_proven = lambda value: jnp.where(fit.converged, value, jnp.nan)  # noqa: E731
    least, largest = if_proven(least), if_proven(largest)
    n_obs = jnp.asarray(fit.n_obs, nothing.dtype)
    limit = FACTOR + NOISE / jnp.sqrt(n_obs)
    # Where parameters are many beside the observations, eigenvalues spread by themselves (Marchenko and Pastur).
    crowd = jnp.sqrt(fit.n_free / n_obs)
    above, below = limit * (1 + crowd) ** 2, jnp.maximum(1 - crowd, 0.0) ** 2 / limit
    told = not (fit.batched or traced(fit._solution))
    return Diagnosis(
        least=least,
        largest=largest,
        factor=jnp.where(fit.converged[..., None], factor, jnp.nan),
        disagree=(largest > above) | (least < below),
        certificate=fit.certificate,
        status=fit.status,
        cause=fit.cause if told else "",
        bounds=(fit.bounds_in_words if fit.converged else fit.edges_in_words) if told else "",
        searched_by=fit._searched_by,
    )


def _agreement(objective: Objective, free: Array) -> tuple[Array, Array, Array]:
    root = root_of_inverse(information(objective, free, "observed"))
    known = jnp.all(jnp.isfinite(root))
    root = jnp.where(known, root, 0.0)
    middle = root.T @ information(objective, free, "opg") @ root
    values, _ = eigh(middle)
    plain, robust = (
        jnp.diagonal(in_natural_units(objective, free, root @ m @ root.T))
        for m in (jnp.eye(len(free), dtype=free.dtype), middle)
    )
    factor = jnp.sqrt(robust / jnp.where(plain > 0, plain, jnp.nan))
    least, largest, factor = (jnp.where(known, found, jnp.nan) for found in (values[0], values[-1], factor))
    return least, largest, factor


def diagnosis_remarks(found: Diagnosis) -> tuple[str, ...]:
    """A sentence for each thing that is worth one."""
    if np.ndim(found.least):
        return _remarks_on_batch(found)
    remarks, status = [], Status(int(found.status))
    proof = found.certificate
    if status != Status.converged:
        remarks.append(f"{status.name}: {ADVICE[status]}{found.cause}{found.bounds}")
    elif found.bounds:
        remarks.append(found.bounds.strip())
    if float(proof.condition_number) > WEAK:
        remarks.append(
            f"{proof.words}: the data say little of this direction (condition number "
            f"{number(proof.condition_number, 2)})."
        )
    if bool(found.disagree):
        factor = np.asarray(found.factor)
        off = np.abs(np.log(np.where(factor > 0, factor, 1.0)))
        i = int(np.argmax(off))
        worst = f"of {proof.names[i]} {number(factor[i], 2)} times as large"
        remarks.append(
            "The observed information and the outer product of the scores disagree strongly, so the model is in "
            f'doubt: kind="sandwich" makes the standard error {worst}.'
        )
    return tuple(remarks)


def _remarks_on_batch(found: Diagnosis) -> tuple[str, ...]:
    doubtful, weak = np.asarray(found.disagree), np.asarray(found.certificate.condition_number) > WEAK
    whole, remarks = doubtful.size, []
    for name, n in found.status.counts().items():
        if name != Status.converged.name:
            remarks.append(f"{counted(n, 'data set')} ({share(n, whole)}): {name}; fits[i].message.")
    if found.certificate.multiplier is not None:
        held = np.any(~np.isnan(found.certificate.multiplier), axis=-1) & (found.status == Status.converged)
        if n := int(held.sum()):
            remarks.append(
                f"{counted(n, 'data set')} ({share(n, whole)}): some estimates lie on their bounds; "
                "fits[i].diagnose()."
            )
    if np.any(weak):
        n = int(weak.sum())
        remarks.append(
            f"{counted(n, 'data set')} ({share(n, whole)}): some parameters move together; fits[i].diagnose()."
        )
    if np.any(doubtful):
        n = int(doubtful.sum())
        remarks.append(
            f"{counted(n, 'data set')} ({share(n, whole)}): the observed information and the outer product of the "
            'scores disagree strongly, so the model is in doubt; kind="sandwich" holds anyway.'
        )
    return tuple(remarks)
