"""`Fit`: what was found, with thin methods that call the floors below."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from . import pieces
from .certificate import Certificate
from .collection import from_arrays, from_groups
from .compilation import Compiled, Held
from .groups import Groups
from .inference import criteria, delta, each, information, intervals
from .likelihood import Likelihood, block_rows
from .loop import Solution
from .model import Model
from .modes import Modes
from .objective import Objective
from .parameters import Parameters
from .status import ADVICE, Status, StatusArray
from .trees import is_array, repeat, shared

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from .report.summary import Summary


def make_fit(
    solution: Solution,
    parameters: Parameters,
    model: Model,
    *,
    solver: str,
    n_sets: int | None = None,
    **parts: Any,
) -> Fit:
    """A `Fit` of its parts.

    Args:
        solution: what was found.
        parameters: the parameters; fixed values with a leading axis of sets in a batch.
        model: the model.
        solver: name of the solver.
        n_sets: number of data sets of a batch, whose arrays shared by all sets get a leading axis.
        parts: the other fields.
    """
    tree = (parameters.with_values((None,) * len(parameters.leaves)), model)
    arrays, rest = eqx.partition(tree, is_array)
    args = parts.pop("args", None)
    if n_sets is not None:
        arrays, args = jax.tree.map(lambda leaf: repeat(leaf, n_sets), (arrays, args))
    values = eqx.tree_at(lambda pair: pair[0].values, arrays, parameters.values, is_leaf=lambda x: x is None)
    return Fit(solution=solution, arrays=values, structure=Held(rest), args=args, solver=solver, **parts)


class Fit(eqx.Module):
    """A maximum-likelihood fit, or a batch of them; made by `mle.fit` and `mle.fit_batch`.

    A PyTree of arrays; those of a batch all have a leading axis of data sets. `len(fits)` counts the data
    sets, `fits[i]`, `fits[mask]` and `fits[a:b]` select them.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> def log_density(params, x):
        ...     return jnp.log(params["rate"]) - params["rate"] * x
        >>> fit = mle.fit(log_density, {"rate": 1.0}, jnp.array([0.5, 1.5, 1.0, 3.0]),
        ...               constraints={"rate": mle.positive})
        >>> fit.status, round(float(fit.params["rate"]), 4), round(float(fit.standard_errors()["rate"]), 4)
        (converged, 0.6667, 0.3333)
    """

    solution: Solution
    arrays: PyTree  # those of the parameters and of the model,
    structure: Held  # and all else that makes them up
    data: PyTree  # arrays, or groups out of JAX's sight
    weights: Array | None
    lengths: Array | None
    args: PyTree
    index: Array | None  # which data set of the batch
    solver: str = eqx.field(static=True)
    weight_column: str | None = eqx.field(static=True, default=None)
    optima: Modes | None = None  # without `params`, whose tree may hold what is no array

    @property
    def parameters(self) -> Parameters:
        """How the parameters map to the free vector."""
        return eqx.combine(self.arrays, self.structure.it)[0]

    @property
    def model(self) -> Model:
        """The log-density with its companions."""
        return eqx.combine(self.arrays, self.structure.it)[1]

    # What was found.

    @property
    def params(self) -> PyTree:
        """The estimates in natural units, a PyTree like `init`."""
        return self.parameters.tree(self.solution.vector)

    @property
    def log_likelihood(self) -> Float[Array, "..."]:
        """The log-likelihood at the estimates: the sum, in nats."""
        return self.solution.log_likelihood

    @property
    def n_obs(self) -> Array:
        """Number of observations: the sum of the weights."""
        return self.solution.n_obs

    @property
    def n_free(self) -> int:
        """Number of free parameters: fixed and tied ones do not count."""
        return self.parameters.n_free

    @property
    def steps(self) -> Array:
        """Steps that were taken."""
        return self.solution.steps

    @property
    def status(self) -> StatusArray:
        """Why the fit ended: compares with `mle.Status` and prints as a name."""
        return StatusArray(self.solution.status)

    @property
    def converged(self) -> Bool[Array, "..."]:
        """Whether the maximum is proven."""
        return self.solution.status == Status.converged

    @property
    def message(self) -> Any:
        """Why the fit ended and what to try next: a sentence, or an array of them."""
        if self.batched:
            self._need_one_axis()
            sentences = {int(status): f"{status.name}: {ADVICE[status]}" for status in Status}
            return np.array([sentences[int(code)] for code in np.asarray(self.solution.status)], dtype=object)
        status = Status(int(self.solution.status))
        text = f"{status.name}: {ADVICE[status]}"
        if status in (Status.unbounded, Status.not_identified):
            strong = [n for n, w in self.certificate.weak_direction.items() if abs(float(w)) > 0.1]
            if strong:
                text += f" Weak direction: {', '.join(strong)}."
        return text

    @property
    def certificate(self) -> Certificate:
        """The second-order proof."""
        found = self.solution
        return Certificate(
            found.decrement,
            found.gradient_norm,
            found.min_eigenvalue,
            found.condition_number,
            found.weak,
            self.parameter_names,
        )

    @property
    def modes(self) -> Modes | None:
        """The maxima that many starts found, and how many found which; `None` without `starts=`."""
        if self.optima is None:
            return None
        return dataclasses.replace(self.optima, params=self.parameters.tree(self.optima.vector))

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """One flat name a scalar parameter, fixed and tied ones included, in the order of the leaves."""
        return self.parameters.names

    @property
    def fixed(self) -> tuple[bool, ...]:
        """For each of `parameter_names`, whether it kept the value it started with."""
        return tuple(leaf.is_fixed for leaf in self.parameters.leaves for _ in range(leaf.size))

    @property
    def aic(self) -> Array:
        """Akaike's information criterion."""
        return criteria.aic(self.log_likelihood, self.n_free)

    @property
    def aicc(self) -> Array:
        """Akaike's information criterion with the correction for small samples."""
        return criteria.aicc(self.log_likelihood, self.n_free, self.n_obs)

    @property
    def bic(self) -> Array:
        """Schwarz's information criterion."""
        return criteria.bic(self.log_likelihood, self.n_free, self.n_obs)

    # The batch.

    @property
    def batched(self) -> bool:
        """Whether this is a batch of fits."""
        return jnp.ndim(self.solution.status) > 0

    @property
    def n_sets(self) -> int:
        """Number of data sets."""
        return self.solution.status.shape[0] if self.batched else 1

    @property
    def keys(self) -> Any:
        """The keys of the data sets, a pyarrow Table of one row each; `None` without `mle.group_by`."""
        if not isinstance(self.data, Held):
            return None
        import pyarrow

        return self.data.it.keys.take(pyarrow.array(np.atleast_1d(np.asarray(self.index))))

    def __len__(self) -> int:
        if not self.batched:
            raise TypeError("a single fit has no length; only a batch of fits does")
        return self.n_sets

    def __getitem__(self, index: Any) -> Fit:
        if not self.batched:
            raise TypeError("a single fit cannot be indexed; only a batch of fits can")
        if isinstance(index, int | np.integer) and not -self.n_sets <= index < self.n_sets:
            raise IndexError(f"data set {index} is out of range: the batch holds {self.n_sets}")
        if not isinstance(index, int | slice | jax.core.Tracer):
            index = np.asarray(index)
            index = index.astype(int) if not index.size else index
        return jax.tree.map(lambda leaf: leaf[index], self)

    # The pieces every test is made of.

    def contributions(self) -> Float[Array, "... n_obs"]:
        """Log-density of every observation at the estimates, unweighted; zero where a ragged batch is padded."""
        return self._each(each.contributions(self._width), self.solution.free)

    def scores(self) -> Float[Array, "... n_obs n_free"]:
        """Gradient of every contribution with respect to the free vector; zero where a ragged batch is padded."""
        return self._each(each.scores(self._width), self.solution.free)

    def information(self, kind: str = "observed") -> Float[Array, "... n_free n_free"]:
        """The information of the data set about the free vector.

        Args:
            kind: `observed`, the negative Hessian of the log-likelihood, or `opg`, the outer product of scores.

        Raises:
            ValueError: another kind.
        """
        _known(kind, ("observed", "opg"))
        return self._each(each.information(kind), self.solution.free)

    def covariance(self, kind: str = "observed", clusters: Any = None) -> Float[Array, "... k k"]:
        """The covariance of the estimates over `parameter_names`, in natural units.

        Through constraints by the exact delta method; fixed parameters have variance zero, and a fit that did
        not converge has NaN.

        Args:
            kind: `observed`, `opg` or `sandwich`.
            clusters: one label an observation, for the cluster-robust sandwich of a single fit.

        Raises:
            ValueError: another kind, or clusters of the wrong length, for another kind or for a batch.
        """
        _known(kind, information.KINDS)
        if not self.n_free:
            k = len(self.parameter_names)
            return jnp.zeros((*self.status.shape, k, k), self.solution.vector.dtype)
        value: Any = self.solution.free
        if clusters is not None:
            value = (value, self._cluster_numbers(kind, clusters))
        matrix = self._each(each.covariance(kind, clusters is not None), value)
        return jnp.where(self.converged[..., None, None], matrix, jnp.nan)

    def standard_errors(self, kind: str = "observed", clusters: Any = None) -> PyTree:
        """The standard errors in natural units, a PyTree like `params`.

        Args:
            kind: as in `covariance`.
            clusters: as in `covariance`.
        """
        return self.parameters.tree(self._errors(kind, clusters))

    def intervals(self, level: float = 0.95, method: str = "wald") -> PyTree:
        """Confidence intervals, a PyTree like `params` of `(lower, upper)`.

        Args:
            level: confidence level, between 0 and 1.
            method: `wald`, symmetric in natural units, or `wald-free`, made on a scale without edges and mapped
                back, so that it never leaves the constraint.

        Raises:
            ValueError: another method, or a level outside (0, 1).
        """
        lower, upper = self._bounds(level, method)
        pair = lambda a, b: (a, b)  # noqa: E731
        return jax.tree.map(pair, self.parameters.tree(lower), self.parameters.tree(upper))

    def estimate(self, fn: Callable[[PyTree], Any], kind: str = "observed") -> delta.Estimate:
        r"""Any function of the parameters, with its uncertainty by the delta method.

        $$\widehat{\mathrm{cov}}\, g(\hat\theta) = G V G^T, \qquad G = \partial g / \partial \theta$$

        Args:
            fn: function of `params` that returns a PyTree of arrays.
            kind: as in `covariance`.

        Returns:
            `Estimate(value, standard_error, covariance)`.

        Example:
            >>> import jax.numpy as jnp, mlekit as mle
            >>> density = lambda params, x: jnp.log(params["rate"]) - params["rate"] * x
            >>> fit = mle.fit(density, {"rate": 1.0}, jnp.array([0.5, 1.5, 1.0, 3.0]),
            ...               constraints={"rate": mle.positive})
            >>> mean = fit.estimate(lambda params: 1 / params["rate"])
            >>> print(f"{mean.value:.3f} ± {mean.standard_error:.3f}")
            1.500 ± 0.750
        """
        matrix = self.covariance(kind)

        def one(vector: Array, spread: Array, parameters: Parameters) -> delta.Estimate:
            return delta.estimate(fn, vector, spread, parameters)

        over = eqx.filter_vmap(one) if self.batched else one
        return over(self.solution.vector, matrix, self.parameters)

    # How it shows.

    def summary(self, level: float = 0.95) -> Summary:
        """A table of the estimates: prints in a terminal, shows in a notebook, turns into LaTeX and pandas.

        Args:
            level: confidence level of the Wald intervals.
        """
        from .report.summary import Summary

        return Summary(self, level)

    def to_arrow(self) -> pyarrow.Table:
        """One row a data set: keys, estimates, `<name>_se`, `log_likelihood`, `status`, `steps`, `n_obs`."""
        from .report.frames import to_arrow

        return to_arrow(self)

    def to_pandas(self) -> pandas.DataFrame:
        """The table of `to_arrow` as a pandas data frame."""
        return self.to_arrow().to_pandas()

    def __repr__(self) -> str:
        if isinstance(self.solution.status, jax.core.Tracer):
            return f"Fit(<traced>, parameters={', '.join(self.parameter_names)})"
        from .report.card import text

        return text(self)

    def _repr_html_(self) -> str:
        from .report.card import html

        return html(self)

    # How the methods reach the data.

    @property
    def objective(self) -> Objective:
        """The objective of a single fit: its likelihood on the free scale."""
        data, weights = self.data, self.weights
        if isinstance(data, Held):
            groups: Groups = data.it
            data = jax.tree.map(jnp.asarray, groups[int(self.index)])  # type: ignore[arg-type]
            weights = None if self.weight_column is None else data[self.weight_column]
        block = block_rows(data, self.parameters.n_free)
        likelihood = Likelihood(self.model, data, weights, self.args, length=self.lengths, block=block)
        return Objective(likelihood, self.parameters)

    def _need_one_axis(self) -> None:
        shape = self.status.shape
        if len(shape) > 1:
            raise ValueError(f"this batch has axes {shape}; index or reshape it to one axis of data sets first")

    @property
    def _width(self) -> int:
        """Rows of the longest data set."""
        if isinstance(self.data, Held):
            return int(np.max(self.data.it.lengths[np.asarray(self.index)]))
        return jnp.shape(jax.tree.leaves(self.data)[0])[1 if self.batched else 0]

    def _each(self, fn: Callable[[Objective, Any], Any], value: Any) -> Any:
        """`fn(objective, value)` for the data set, or for each of the batch."""
        if not self.batched:
            return _apply(fn, self.objective, value)
        self._need_one_axis()
        if not self.n_sets:
            raise ValueError("this batch holds no data sets, so there is nothing to compute from them")
        own = (self.model, self.args)
        model, args = jax.tree.map(lambda leaf: leaf[0] if is_array(leaf) else leaf, own)
        if isinstance(self.data, Held):
            groups: Groups = self.data.it
            collection = from_groups(groups, np.asarray(self.index), self.weight_column, args)
        else:
            collection = from_arrays(self.data, self.weights, self.lengths, args)
        return pieces.map_sets(fn, collection, model, self.parameters, value, None if shared(own) else own)

    def _errors(self, kind: str = "observed", clusters: Any = None) -> Float[Array, "... k"]:
        if kind == "observed" and clusters is None:
            return self.solution.errors
        return jnp.sqrt(jnp.diagonal(self.covariance(kind, clusters), axis1=-2, axis2=-1))

    def _bounds(self, level: float, method: str) -> tuple[Array, Array]:
        _known(method, ("wald", "wald-free"), "method")
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {level!r}")
        vector, errors = self.solution.vector, self._errors()
        if method == "wald":
            return intervals.wald(vector, errors, level)
        over = eqx.filter_vmap(Parameters.ranges) if self.batched else Parameters.ranges
        low, high = over(self.parameters, vector)
        return intervals.wald_free(vector, errors, low, high, level)

    def _cluster_numbers(self, kind: str, clusters: Any) -> Array:
        if kind != "sandwich":
            raise ValueError(f"clusters go with kind='sandwich', got kind={kind!r}")
        if self.batched:
            raise ValueError(
                "clusters need a single fit; index the batch: fits[i].covariance('sandwich', clusters)"
            )
        rows = self.objective.likelihood.rows
        labels = np.asarray(clusters)
        if labels.shape != (rows,):
            raise ValueError(f"clusters must hold one label an observation, shape ({rows},); got {labels.shape}")
        return jnp.asarray(np.unique(labels, return_inverse=True)[1])


@Compiled
def _apply(fn: Callable[[Objective, Any], Any], objective: Objective, value: Any) -> Any:
    return fn(objective, value)


def _known(kind: str, kinds: tuple[str, ...], name: str = "kind") -> None:
    if kind not in kinds:
        raise ValueError(f"{name} must be one of {', '.join(kinds)}; got {kind!r}")
