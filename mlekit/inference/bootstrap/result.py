"""The result of a bootstrap: its spread, its intervals, and how it prints."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ...core.checks import check_choice, check_level
from ...core.format.numbers import count, counted, number, uncertain
from ...core.format.renderers import TextRenderer
from ...core.status import Status, StatusArray
from ..arviz import check_one_data_set, draws_tree
from ..record import FitRecord
from ..wald import quantile
from .intervals import METHODS, ends


class Bootstrap(eqx.Module):
    """Refits to data drawn anew, made by `mle.bootstrap`.

    Args:
        vector: the estimates of each, in natural units, shape `(replicates, k)`; NaN where a refit failed.
        errors: their standard errors.
        status: why each refit ended.
        acceleration: for BCa intervals, shape `(k,)`; `None` where the model gives no scores.
        fit: the fit that was resampled.
        kind: how.
    """

    vector: Float[Array, "... replicates k"]
    errors: Float[Array, "... replicates k"]
    status: StatusArray
    acceleration: Float[Array, "... k"] | None
    fit: FitRecord
    kind: str = eqx.field(static=True)

    @property
    def params(self) -> PyTree:
        """The estimates of all refits, a PyTree like `init` whose leaves have a leading axis of replicates."""
        return self.fit.parameters.tree(self.vector)

    @property
    def replicates(self) -> int:
        """Number of refits."""
        return self.vector.shape[-2]

    @property
    def failed(self) -> Int[Array, "..."]:
        """Number of refits that found no proven maximum; they count in nothing else."""
        return jnp.sum(self.status.codes != Status.converged, axis=-1)

    @property
    def bias(self) -> PyTree:
        """The mean of the refits less the estimate, a PyTree like `params` of the fit."""
        return self.fit.parameters.tree(jnp.nanmean(self.vector, axis=-2) - self.fit._solution.estimates)

    def covariance(self) -> Float[Array, "... k k"]:
        """The covariance of the refits over `parameter_names`."""
        fine = ~jnp.any(jnp.isnan(self.vector), axis=-1, keepdims=True)
        count = jnp.sum(fine, axis=-2, keepdims=True)
        mean = jnp.nanmean(self.vector, axis=-2, keepdims=True)
        off = jnp.where(fine, self.vector - mean, 0.0)
        return jnp.swapaxes(off, -1, -2) @ off / (count - 1).astype(off.dtype)

    def standard_errors(self) -> PyTree:
        """The standard deviations of the refits, a PyTree like `params`."""
        return self.fit.parameters.tree(jnp.nanstd(self.vector, axis=-2, ddof=1))

    def intervals(self, level: float = 0.95, method: str = "percentile") -> PyTree:
        r"""Confidence intervals, a PyTree like `params` of `(lower, upper)`.

        Args:
            level: confidence level, between 0 and 1.
            method: `percentile`, the quantiles of the refits; `basic`, these mirrored at the estimate; `bca`,
                quantiles corrected for bias and for how the standard error changes, with the acceleration
                $\sum u_i^3 / 6 (\sum u_i^2)^{3/2}$ from the influence $u_i$ of each observation; or
                `studentized`, from the refits' own standard errors. (Efron 1987; Davison and Hinkley 1997.)

        Returns:
            A pair of numbers in place of every parameter; fixed ones are their own intervals.

        Raises:
            ValueError: another method, a level outside (0, 1), or `bca` for a model without scores.
        """
        lower, upper = map(self.fit.parameters.tree, self.ends(level, method))
        return jax.tree.map(lambda a, b: (a, b), lower, upper)

    def ends(self, level: float, method: str) -> tuple[Float[Array, "... k"], Float[Array, "... k"]]:
        """Both ends of `intervals` as vectors over `parameter_names`; arguments as in `intervals`."""
        check_choice(method, METHODS, "method")
        check_level(level)
        if method == "bca" and self.acceleration is None:
            raise ValueError("method='bca' wants scores, and the joint model returns a scalar, not contributions")
        solution, z = self.fit._solution, quantile(level, self.vector.dtype)
        refits, fixed = (self.vector, self.errors, self.acceleration), np.array(self.fit.fixed)
        return ends(refits, solution.estimates, solution.standard_errors, fixed, z, method)

    def to_arviz(self, *, log_likelihood: bool | None = None) -> Any:
        """The refits of a single fit as ArviZ reads them, without those that failed.

        Args:
            log_likelihood: as in `Fit.to_arviz`; contributions are those of the observations as they were.

        Raises:
            ValueError: the bootstrap of a batch, or as in `Fit.to_arviz`.
        """
        check_one_data_set(self.vector.ndim > 2)
        about = (
            "refits of a maximum-likelihood estimate to data drawn anew (a bootstrap): no prior, and no posterior "
            "distribution"
        )
        vector = np.asarray(self.vector)
        fine = vector[~np.isnan(vector).any(axis=-1)]
        more = {"bootstrap": self.kind, "failed_refits": int(self.failed)}
        return draws_tree(self.fit, fine, log_likelihood, about, **more)

    def __repr__(self) -> str:
        if isinstance(self.vector, jax.core.Tracer):
            return f"Bootstrap(<traced>, kind={self.kind!r})"
        return bootstrap_text(self)


def bootstrap_text(draws: Bootstrap) -> str:
    """The bootstrap as a table: estimate, bias and standard error of each parameter, and the failures."""
    out = TextRenderer()
    many = draws.vector.ndim > 2
    failed, replicates = np.asarray(draws.failed), draws.replicates
    out.title(f"Bootstrap ({draws.kind}): {count(replicates)} replicates" + " a data set" * many)
    if many:
        whole = count(replicates * failed.size)
        out.paragraph(f"{counted(failed.size, 'data set')}; {count(failed.sum())} of {whole} refits failed")
        return out.render()
    reasons = {name: n for name, n in draws.status.counts().items() if name != "converged"}
    text = f"{count(int(failed))} refits failed" + (
        f" ({', '.join(f'{n} {name}' for name, n in reasons.items())})" * bool(reasons)
    )
    out.paragraph(f"{text}, {count(replicates - int(failed))} count")
    vector = np.asarray(draws.vector)
    fine = ~np.any(np.isnan(vector), axis=1)
    best = np.asarray(draws.fit._solution.estimates)
    rows = []
    for i, name in enumerate(draws.fit.parameter_names):
        if draws.fit.fixed[i] or fine.sum() < 2:
            rows.append([name, number(best[i]), "", "fixed" if draws.fit.fixed[i] else ""])
            continue
        error = vector[fine, i].std(ddof=1)
        bias = vector[fine, i].mean() - best[i]
        rows.append([name, uncertain(best[i], error), number(bias, 2), number(error, 4)])
    out.table(rows, ["", "estimate", "bias", "std. error"], ["left", "decimal", "decimal", "decimal"])
    return out.render()
