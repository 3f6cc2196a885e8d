"""The kinds of covariance, one class each, for `Fit.covariance(kind=...)`.

All but the simulated one are $J V_z J^T$ with $V_z = I^{-1}$ for some information $I$, or a sandwich
$V_z = I^{-1} M I^{-1}$ with the observed information and a middle matrix $M$; $J$ is the derivative of the natural
parameters by the free vector.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core.checks import check_choice, check_count
from ..likelihood.objective import Objective
from . import expected_information
from .evaluate import encode_row_labels, evaluate_proven
from .expected_information import N_SIMULATIONS
from .information import in_natural_units, inverse
from .record import FitRecord
from .sandwich import SMALL_SAMPLE, clustered, of_series, robust


@dataclasses.dataclass(frozen=True)
class CovarianceOptions:
    """The arguments of `Fit.covariance` that only some kinds take."""

    clusters: Any = None
    small_sample: str | None = None
    lags: Any = None
    key: Any = None
    n_simulations: int = N_SIMULATIONS

    def specified(self) -> list[str]:
        """The names of those that are not at their defaults."""
        names = [name for name in ("clusters", "small_sample", "lags", "key") if getattr(self, name) is not None]
        return names if self.n_simulations == N_SIMULATIONS else [*names, "n_simulations"]


class AbstractCovarianceKind(eqx.Module):
    """A kind of covariance. To add one, write a subclass and put an instance of it into `KINDS`."""

    name: eqx.AbstractClassVar[str]  #: the value of `kind=` that chooses it
    #: The options that it takes; each with the end of the message "... goes with" for other kinds.
    takes: eqx.AbstractClassVar[Mapping[str, str]]

    @abc.abstractmethod
    def check(self, fit: FitRecord, options: CovarianceOptions) -> None:
        """A `ValueError` where an option that it takes is missing or wrong, or the fit does not suit."""

    @abc.abstractmethod
    def compute(self, fit: FitRecord, options: CovarianceOptions) -> Float[Array, "... k k"]:
        """The covariance in natural units; NaN where no maximum is proven. There are free parameters."""

    @abc.abstractmethod
    def why_missing(self, options: CovarianceOptions) -> str:
        """Why a proven maximum may have no covariance of this kind, as a warning says it."""


def check_taken(kind: AbstractCovarianceKind, options: CovarianceOptions) -> None:
    """A `ValueError` that names an option which this kind does not take."""
    for option in options.specified():
        if option not in kind.takes:
            raise ValueError(_goes_with(option, kind))


def _goes_with(option: str, kind: AbstractCovarianceKind) -> str:
    wanted = " or ".join(other.takes[option] for other in KINDS.values() if option in other.takes)
    verb = "go" if option in ("clusters", "lags") else "goes"
    return f"{option} {verb} with {wanted}, got kind={kind.name!r}"


class Observed(AbstractCovarianceKind):
    """The inverse of the negative Hessian of the log-likelihood."""

    name: ClassVar[str] = "observed"
    takes: ClassVar[Mapping[str, str]] = {}

    def check(self, fit: FitRecord, options: CovarianceOptions) -> None:
        """Any fit has one."""

    def compute(self, fit: FitRecord, options: CovarianceOptions) -> Float[Array, "... k k"]:
        """$J I^{-1} J^T$."""
        return _from_information(fit, self.name)

    def why_missing(self, options: CovarianceOptions) -> str:
        """The Hessian at the maximum."""
        return "the information is not positive definite"


class Expected(AbstractCovarianceKind):
    """The inverse of the expected information: exact for a regression, by simulation for other models."""

    name: ClassVar[str] = "expected"
    takes: ClassVar[Mapping[str, str]] = {
        "key": "kind='expected' of a model that simulates",
        "n_simulations": "a key and kind='expected' of a model that simulates",
    }

    def check(self, fit: FitRecord, options: CovarianceOptions) -> None:
        """Without a key nothing is simulated."""
        if options.key is None and "n_simulations" in options.specified():
            raise ValueError(_goes_with("n_simulations", self))

    def compute(self, fit: FitRecord, options: CovarianceOptions) -> Float[Array, "... k k"]:
        """$J I^{-1} J^T$."""
        if options.key is None and fit.model.regression is not None:
            return _from_information(fit, self.name)
        found = expected_information.by_simulation(fit, options.key, options.n_simulations)
        return jnp.where(fit.converged[..., None, None], found.covariance, jnp.nan)

    def why_missing(self, options: CovarianceOptions) -> str:
        """The expected information at the maximum."""
        return "the expected information is not positive definite"


class OuterProduct(AbstractCovarianceKind):
    r"""The inverse of the outer product of the scores, $\sum_i w_i s_i s_i^T$."""

    name: ClassVar[str] = "opg"
    takes: ClassVar[Mapping[str, str]] = {}

    def check(self, fit: FitRecord, options: CovarianceOptions) -> None:
        """A joint model without contributions says so by itself."""

    def compute(self, fit: FitRecord, options: CovarianceOptions) -> Float[Array, "... k k"]:
        """$J I^{-1} J^T$."""
        return _from_information(fit, self.name)

    def why_missing(self, options: CovarianceOptions) -> str:
        """The scores at the maximum."""
        return "the outer product of the scores is singular: there are too few different observations"


class Sandwich(AbstractCovarianceKind):
    r"""The sandwich, which holds where the model is wrong.

    Its middle is $M = \sum_i w_i s_i s_i^T$; of clusters $M = \sum_c s_c s_c^T$, where $s_c$ is the sum of the
    weighted scores of a cluster; of clusters in several ways their sum less that of those who share two ways, and
    so on. (White 1982; Liang and Zeger 1986; Cameron, Gelbach and Miller 2011.)
    """

    name: ClassVar[str] = "sandwich"
    takes: ClassVar[Mapping[str, str]] = {"clusters": "kind='sandwich'", "small_sample": "kind='sandwich'"}

    def check(self, fit: FitRecord, options: CovarianceOptions) -> None:
        """A known small-sample factor."""
        _check_small_sample(options)

    def compute(self, fit: FitRecord, options: CovarianceOptions) -> Float[Array, "... k k"]:
        """$J I^{-1} M I^{-1} J^T$."""
        free = fit._solution.free
        if options.clusters is None:
            return evaluate_proven(fit, robust(options.small_sample), free)
        labels = encode_row_labels(fit, options.clusters, "clusters")
        return evaluate_proven(fit, clustered(len(labels), options.small_sample), free, labels)

    def why_missing(self, options: CovarianceOptions) -> str:
        """The middle matrix at the maximum."""
        if options.clusters is None:
            return "the scores are not finite"
        return "the sum over clusters is not positive: there are too few clusters, or one alone"


class NeweyWest(AbstractCovarianceKind):
    r"""The sandwich of a series whose scores are correlated over time, with Bartlett's weights.

    Its middle is $M = \Gamma_0 + \sum_l (1 - l / (L + 1)) (\Gamma_l + \Gamma_l^T)$ with
    $\Gamma_l = \sum_t s_t s_{t-l}^T$. (Newey and West 1987.)
    """

    name: ClassVar[str] = "hac"
    takes: ClassVar[Mapping[str, str]] = {"lags": "kind='hac'", "small_sample": "kind='hac'"}

    def check(self, fit: FitRecord, options: CovarianceOptions) -> None:
        """A number of lags, a known small-sample factor, and no weights."""
        _check_small_sample(options)
        if options.lags is None:
            raise ValueError(
                "kind='hac' wants lags=, the number of lags whose correlation it allows for, such as lags=4"
            )
        if fit._dataset.weighted:
            raise ValueError("kind='hac' wants a series of single observations; it has no meaning with weights")
        check_count(options.lags, "lags", least=0)

    def compute(self, fit: FitRecord, options: CovarianceOptions) -> Float[Array, "... k k"]:
        """$J I^{-1} M I^{-1} J^T$."""
        lags = jnp.broadcast_to(jnp.asarray(options.lags), fit.status.shape)
        return evaluate_proven(fit, of_series(options.small_sample), (fit._solution.free, lags))

    def why_missing(self, options: CovarianceOptions) -> str:
        """The middle matrix at the maximum."""
        return "the sum over lags is not finite"


#: Every kind by its name.
KINDS: dict[str, AbstractCovarianceKind] = {
    kind.name: kind for kind in (Observed(), Expected(), OuterProduct(), Sandwich(), NeweyWest())
}


def _check_small_sample(options: CovarianceOptions) -> None:
    if options.small_sample is not None:
        check_choice(options.small_sample, SMALL_SAMPLE, "small_sample")


def _from_information(fit: FitRecord, kind: str) -> Float[Array, "... k k"]:
    """$J I^{-1} J^T$ with the information of this kind, where a maximum is proven."""
    return evaluate_proven(fit, _inverse_information(kind), fit._solution.free)


@functools.cache
def _inverse_information(kind: str) -> Callable[[Objective, Array], Array]:
    r"""$J I^{-1} J^T$ with the information of this kind."""
    return lambda objective, free: in_natural_units(objective, free, inverse(objective, free, kind))
