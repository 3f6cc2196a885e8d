"""`Fit`: a record of what was found, with methods that call the rooms below."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ..core.compilation import Static
from ..core.runtime_errors import Raised
from ..core.trees import is_array, repeat
from ..engine.backend import NOT_KNOWN, SearchedBy
from ..engine.history import History
from ..engine.modes import Modes
from ..engine.solution import Solution
from ..inference import (
    arviz,
    covariance,
    delta,
    diagnosis,
    draws,
    evaluate,
    influence,
    information,
    intervals,
    residuals,
)
from ..inference.expected_information import N_SIMULATIONS
from ..inference.hypothesis_tests import significance
from ..inference.hypothesis_tests.result import HypothesisTest
from ..inference.record import FitRecord
from ..likelihood.dataset import AbstractDataset
from ..models.model import Model
from ..models.parameters import Parameters
from ..models.written_order import WrittenOrder
from .files import save

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from .summary import Summary


def make_fit(
    solution: Solution,
    parameters: Parameters,
    model: Model,
    args: PyTree,
    dataset: AbstractDataset,
    *,
    solver: str,
    n_sets: int | None = None,
    modes: Modes | None = None,
    history: History | None = None,
    init: PyTree = None,
    lost: Raised | None = None,
    searched_by: SearchedBy = NOT_KNOWN,
) -> Fit:
    """A `Fit` of its parts.

    Args:
        solution: what was found.
        parameters: the parameters; fixed values with a leading axis of sets in a batch.
        model: the model.
        args: its third argument, or `None`.
        dataset: the data.
        solver: name of the solver.
        n_sets: number of data sets of a batch, whose arrays shared by all sets get a leading axis.
        modes: the maxima that many starts found.
        history: the path of the search.
        init: the start as the user wrote it, for the order of tables.
        lost: what data sets raised.
        searched_by: which backend ran the search.
    """
    tree = (parameters.with_values((None,) * len(parameters.leaves)), model)
    arrays, rest = eqx.partition(tree, is_array)
    if n_sets is not None:
        arrays, args = jax.tree.map(lambda leaf: repeat(leaf, n_sets), (arrays, args))
    values = eqx.tree_at(lambda pair: pair[0].values, arrays, parameters.values, is_leaf=lambda x: x is None)
    said = tuple(sorted((lost or {}).items()))
    order = WrittenOrder(init)
    return Fit(solution, values, Static(rest), dataset, args, solver, modes, history, order, said, searched_by)


class Fit(FitRecord):
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

    # Log-densities and derivatives at the estimates.

    def contributions(self) -> Float[Array, "... n_obs"]:
        """Log-density of every observation at the estimates, unweighted; zero where a ragged batch is padded."""
        return evaluate.contributions_of(self)

    def scores(self) -> Float[Array, "... n_obs n_free"]:
        """Gradient of every contribution with respect to the free vector; zero where a ragged batch is padded."""
        return evaluate.scores_of(self)

    def information(self, kind: str = "observed") -> Float[Array, "... n_free n_free"]:
        """The information of the data set about the free vector.

        Args:
            kind: `observed`, the negative Hessian of the log-likelihood; `expected`, its expectation under the
                model, for a `mle.regression` (`mle.expected_information` simulates it for other models); or
                `opg`, the outer product of scores.

        Raises:
            ValueError: another kind, or `expected` for another model.
        """
        return information.information_of(self, kind)

    def covariance(
        self,
        kind: str = "observed",
        clusters: Any = None,
        *,
        small_sample: str | None = None,
        lags: int | None = None,
        key: Any = None,
        n_simulations: int = N_SIMULATIONS,
    ) -> Float[Array, "... k k"]:
        r"""The covariance of the estimates over `parameter_names`, in natural units.

        $$V = J V_z J^T, \qquad V_z = I^{-1} \;\text{ or }\; I^{-1} M I^{-1}, \qquad
        J = \partial \theta / \partial z$$

        Through constraints by the exact delta method. Fixed parameters have variance zero, and so have estimates
        at their bounds, which those of the others take as fixed. A fit that did not converge has NaN; so has one
        whose information is not positive definite, with a warning that says why.

        Args:
            kind: `observed`, from the negative Hessian of the log-likelihood; `expected`, from its expectation,
                exact for a `mle.regression` and by simulation for a model that has `simulate`
                (`mle.expected_information` tells its Monte Carlo error, too); `opg`, from the outer product of
                scores; `sandwich`, which holds where the model is wrong (White 1982); `hac`, which besides allows
                for scores that are correlated over time, with Bartlett's weights (Newey and West 1987).
            clusters: for the sandwich, where only clusters of observations are independent: one label an
                observation, shape `(n_obs,)`, in a batch `(n_sets, n_obs)`; or the name of a column of the data.
                A list or table of several columns clusters in each of these ways (Cameron, Gelbach and Miller
                2011).
            small_sample: a factor for the sandwich and `hac`: `clusters` for $G/(G-1)$ with $G$ clusters, each
                observation its own if there are none; `regression` for $G/(G-1) \cdot (n-1)/(n-k)$. None by
                default.
            lags: for `hac`, at how many steps apart scores may be correlated.
            key: for `expected` by simulation, a random key.
            n_simulations: for `expected` by simulation, how many data sets to simulate.

        Raises:
            ValueError: another kind, an argument that does not go with the kind or lacks, clusters of another
                shape, or a model without the companion that the kind needs, which is named.

        Example:
            Days in which orders come in pairs, so that half of them tell nothing new:

            >>> import jax.numpy as jnp, mlekit as mle
            >>> density = lambda mean, x: -0.5 * (x - mean) ** 2
            >>> fit = mle.fit(density, 0.0, jnp.array([1.0, 1.0, 2.0, 2.0, 6.0, 6.0]))
            >>> print(fit.standard_errors("sandwich").round(3))
            0.882
            >>> print(fit.standard_errors("sandwich", clusters=[1, 1, 2, 2, 3, 3]).round(3))
            1.247
        """
        return covariance.covariance(
            self, kind, clusters, small_sample=small_sample, lags=lags, key=key, n_simulations=n_simulations
        )

    def standard_errors(self, kind: str = "observed", clusters: Any = None, **options: Any) -> PyTree:
        """The standard errors in natural units, a PyTree like `params`.

        The roots of the variances of `covariance`, but NaN for estimates at their bounds: no number tells how far
        such a one may be off. Their profile intervals do.

        Args:
            kind: as in `covariance`.
            clusters: as in `covariance`.
            options: as in `covariance`.
        """
        return self.parameters.tree(covariance.errors(self, kind, clusters, **options))

    def intervals(
        self,
        level: float = 0.95,
        method: str = "wald",
        *,
        kind: str = "observed",
        key: Any = None,
        replicates: int = 1000,
        **options: Any,
    ) -> PyTree:
        """Confidence intervals, a PyTree like `params` of `(lower, upper)`.

        Args:
            level: confidence level, between 0 and 1.
            method: `wald`, symmetric in natural units, even where that leaves the constraint; `wald-transformed`,
                made on a scale without edges and mapped back, or cut off at closed bounds, so that it never leaves
                the constraint; `profile`, where the profile likelihood has fallen by half a quantile of
                chi-square, or as far as a closed bound; or `bootstrap`, percentiles of refits to resampled data.
                Wald's intervals of estimates at their bounds are NaN.
            kind: of the standard errors of the Wald intervals, as in `covariance`; or of the bootstrap, as in
                `mle.bootstrap`.
            key: random key of the bootstrap, or of an information by simulation.
            replicates: how many data sets the bootstrap draws.
            options: further arguments of `covariance` or of `mle.bootstrap`.

        Raises:
            ValueError: another method, a level outside (0, 1), or arguments that the method has no use for.
        """
        options |= {"kind": kind, "key": key, "replicates": replicates}
        return intervals.intervals(self, level, method, **options)

    def estimate(self, fn: Callable[[PyTree], Any], kind: str = "observed", **options: Any) -> delta.Estimate:
        r"""Any function of the parameters, with its uncertainty by the delta method.

        $$\widehat{\mathrm{cov}}\, g(\hat\theta) = G V G^T, \qquad G = \partial g / \partial \theta$$

        Args:
            fn: function of `params` that returns a PyTree of arrays.
            kind: as in `covariance`.
            options: as in `covariance`.

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
        return delta.estimate_of(self, fn, kind, **options)

    def predict(
        self,
        fn: Callable[..., Any] | None = None,
        data: PyTree = None,
        *,
        level: float = 0.95,
        data_axis: int | None = None,
        kind: str = "observed",
        **options: Any,
    ) -> delta.Prediction:
        r"""A function of the parameters and of observations, old or new, with its uncertainty for each of them.

        $$\widehat{\mathrm{var}}\, g(\hat\theta, x_i) = G_i V G_i^T, \qquad
        G_i = \partial g(\theta, x_i) / \partial \theta$$

        Args:
            fn: `fn(params, obs)`, of a model with args `fn(params, obs, args)`: a PyTree of arrays for one
                observation. By default, for a `mle.regression`, its prediction, a dict by the names of the
                family's parameters.
            data: PyTree of arrays with a leading axis of observations, or a table.
            level: confidence level of the Wald intervals.
            data_axis: for a batch: `None` if all data sets share these observations, 0 if every leaf has a leading
                axis of data sets.
            kind: as in `covariance`.
            options: as in `covariance`.

        Returns:
            `Prediction(value, standard_error, lower, upper)`, each with a leading axis of observations.

        Raises:
            ValueError: no function for a model that is no regression, or leaves of different lengths.

        Example:
            >>> import jax.numpy as jnp, mlekit as mle
            >>> line = lambda params, obs: (params["a"] + params["b"] * obs["x"], 1.0)
            >>> data = {"x": jnp.array([0.0, 1.0, 2.0]), "y": jnp.array([0.0, 1.0, 1.0])}
            >>> fit = mle.fit(mle.regression(line, mle.families.normal), {"a": 0.0, "b": 0.0}, data)
            >>> ahead = fit.predict(lambda params, obs: line(params, obs)[0], {"x": jnp.array([1.0, 4.0])})
            >>> print(ahead.value.round(3), ahead.standard_error.round(3))
            [0.667 2.167] [0.577 2.198]
        """
        return delta.prediction_of(self, fn, data, level, data_axis, kind, **options)

    def influence(self) -> Float[Array, "... n_obs k"]:
        r"""Derivatives of the estimates with respect to the weight of each observation, in natural units.

        $$\frac{\partial \hat\theta}{\partial w_i} = J I^{-1} s_i$$

        exactly, by the implicit function theorem. Leaving observation $i$ out moves the estimates by about
        minus its weight times this (one step of Newton's method). Zero where a ragged batch is padded; NaN
        where the fit did not converge.

        Raises:
            ValueError: a joint model that returns a scalar.

        Example:
            >>> import jax.numpy as jnp, mlekit as mle
            >>> fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, jnp.array([1.0, 2.0, 6.0]))
            >>> print(fit.influence()[:, 0].round(3))
            [-0.667 -0.333  1.   ]

        Source: Cook 1986, *Assessment of Local Influence*.
        """
        return influence.influence_of(self)

    def significance(self, name: str, value: Any = None) -> HypothesisTest:
        r"""Likelihood-ratio test of one parameter at its bound, or at zero: `.z` is the significance.

        $$q = 2\,\big(\hat\ell - \max_{\theta:\ \theta_j = v} \ell(\theta)\big)$$

        Where $v$ is an end of the parameter's range, $q$ is distributed as half $\chi^2_0$ and half $\chi^2_1$,
        and $z = \sqrt q$; elsewhere as $\chi^2_1$.

        Args:
            name: one of `parameter_names`.
            value: $v$; by default the lower end of the parameter's range, the upper one where there is no lower
                one, zero where there is neither.

        Returns:
            `HypothesisTest`; NaN where a fit did not converge.

        Raises:
            ValueError: no such parameter, a fixed one, or one that shares a constraint with others.

        Example:
            Nine events where three are expected without a signal:

            >>> import jax.numpy as jnp, mlekit as mle
            >>> density = lambda signal, n: n * jnp.log(signal + 3.0) - signal
            >>> fit = mle.fit(density, 1.0, jnp.array([9.0]), constraints=mle.nonnegative)
            >>> test = fit.significance("params")
            >>> print(f"{test.z:.2f} {test.p_value:.4f}")
            2.79 0.0026

        Source: Cowan, Cranmer, Gross and Vitells 2011; Chernoff 1954.
        """
        return significance.significance(self, name, value)

    def draws(self, key: Any, n_draws: int = 1000, kind: str = "observed", **options: Any) -> PyTree:
        r"""Draws from the asymptotic normal distribution of the estimates, made where there are no constraints.

        $$\theta_i = \theta(z_i), \qquad z_i \sim N(\hat z, V_z)$$

        with $\hat z$ the free vector and $V_z$ its covariance, so that no draw leaves a constraint. Fixed
        parameters keep their value, and tied ones are equal in every draw.

        Args:
            key: random key, such as `jax.random.key(0)`; what a data set draws depends on the key and on its
                number in the batch alone.
            n_draws: number of draws.
            kind: of the covariance, as in `covariance`.
            options: further arguments of `covariance`.

        Returns:
            A PyTree like `params` whose leaves have a leading axis of draws, behind that of the data sets in a
            batch. NaN where the fit did not converge, and where there is no covariance of that kind.

        Raises:
            ValueError: no key, less than one draw, or as `covariance`.
            TypeError: `key` is no random key.

        Example:
            How many times as often the first of two events happens, a ratio that is far from normal:

            >>> import jax, jax.numpy as jnp, mlekit as mle
            >>> density = lambda rates, waits: jnp.sum(jnp.log(rates) - rates * waits)
            >>> waits = jnp.array([[1.0, 4.0], [3.0, 2.0], [2.0, 9.0]])
            >>> fit = mle.fit(density, jnp.ones(2), waits, constraints=mle.positive)
            >>> rates = fit.draws(jax.random.key(0), 4000)
            >>> rates.shape, bool(jnp.all(rates > 0))
            ((4000, 2), True)
            >>> print(jnp.quantile(rates[:, 0] / rates[:, 1], jnp.array([0.1, 0.9])).round(1))
            [0.9 7.4]
        """
        return self.parameters.tree(draws.vectors(self, key, n_draws, kind, **options))

    def pit(self, key: Any = None) -> Float[Array, "... n_obs"]:
        r"""The probability integral transform: the share of the fitted distribution below each observation.

        $$u_i = F(y_i \mid \hat\theta), \qquad \text{of whole numbers} \quad
        u_i = F(y_i) - v_i\, p(y_i), \quad v_i \sim U(0, 1)$$

        Uniform where the model is right, but for the estimation of its parameters. `mle.goodness_of_fit_test`
        tests that, `mle.plot.pit` draws it.

        Args:
            key: random key, for responses that are whole numbers, and for those that are zero with a probability;
                not for others. A `mle.regression` knows of which kind its responses are, and so does what
                `mle.truncated` and its like make of one; of any other model a key says that they are whole
                numbers.

        Returns:
            One number an observation, between 0 and 1; NaN where a ragged batch is padded, and where the fit did
            not converge.

        Raises:
            ValueError: a model without `log_cdf`, or whole numbers without a key.

        Example:
            >>> import jax.numpy as jnp, mlekit as mle
            >>> model = mle.regression(lambda rate, obs: rate, mle.families.exponential)
            >>> fit = mle.fit(model, 1.0, {"y": jnp.array([0.5, 1.0, 1.5])}, constraints=mle.positive)
            >>> print(fit.pit().round(3))
            [0.393 0.632 0.777]

        Source: Rosenblatt 1952; for whole numbers Dunn and Smyth 1996.
        """
        return residuals.pit(self, key)

    def residuals(self, key: Any = None) -> Float[Array, "... n_obs"]:
        r"""Quantile residuals: standard normal where the model is right, whatever its distribution is.

        $$r_i = \Phi^{-1}(u_i)$$

        with the shares $u_i$ of `pit`. `mle.plot.residuals` and `mle.plot.qq` draw them.

        Args:
            key: random key, for responses that are whole numbers, as in `pit`.

        Returns:
            One number an observation; NaN where a ragged batch is padded, and where the fit did not converge.

        Raises:
            ValueError: a model without `log_cdf`, or whole numbers without a key.

        Example:
            >>> import jax.numpy as jnp, mlekit as mle
            >>> model = mle.regression(lambda mean, obs: (mean, 2.0), mle.families.normal)
            >>> fit = mle.fit(model, 0.0, {"y": jnp.array([-3.0, 0.0, 3.0])})
            >>> print(fit.residuals().round(3))
            [-1.5  0.   1.5]

        Source: Dunn and Smyth 1996, *Randomized Quantile Residuals*.
        """
        return residuals.residuals(self, key)

    def diagnose(self) -> diagnosis.Diagnosis:
        """Remarks on a fit: why it failed, estimates at bounds, parameters that move together, a model in doubt.

        Returns:
            `Diagnosis`, which prints as sentences; `summary()` shows those of a single fit, too.
        """
        return diagnosis.diagnose(self)

    def to_arviz(
        self,
        key: Any,
        n_draws: int = 1000,
        kind: str = "observed",
        *,
        log_likelihood: bool | None = None,
        **options: Any,
    ) -> Any:
        """Draws of a single fit as ArviZ reads them: of the asymptotic normal distribution, not of a posterior.

        Args:
            key: random key, such as `jax.random.key(0)`.
            n_draws: number of draws.
            kind: of the covariance, as in `covariance`.
            log_likelihood: True to add the contribution of every observation at every draw, as `arviz.loo`
                wants it: `n_draws` times `n_obs` numbers. By default where the model has contributions and these
                are no more than 67 million numbers. Rows of frequency weight 3 appear three times.
            options: further arguments of `covariance`.

        Returns:
            An `xarray.DataTree`, or with ArviZ before 1.0 an `arviz.InferenceData`, of the groups `posterior` (the
            draws, one variable a leaf of `params`), `log_likelihood` and `observed_data`. Its attributes say that
            these are no draws from a posterior distribution.

        Raises:
            ValueError: a batch, contributions that the model lacks, weights that are no whole numbers where
                contributions are asked for, or as `draws`.

        Example:
            >>> import jax, jax.numpy as jnp, mlekit as mle
            >>> density = lambda params, x: jnp.log(params["rate"]) - params["rate"] * x
            >>> fit = mle.fit(density, {"rate": 1.0}, jnp.array([0.5, 1.5, 1.0, 3.0]), constraints=mle.positive)
            >>> tree = fit.to_arviz(jax.random.key(0), n_draws=500)
            >>> dict(tree["posterior"].sizes), dict(tree["log_likelihood"].sizes)
            ({'chain': 1, 'draw': 500}, {'chain': 1, 'draw': 500, 'obs_id': 4})
        """
        return arviz.of_fit(self, key, n_draws, kind, log_likelihood=log_likelihood, **options)

    def save(self, path: str | os.PathLike[str], *, data: bool = True) -> None:
        """Write the fit to a file that `mlekit.load` reads, in this version and in later ones.

        The file is a zip archive of plain arrays and a header of text. It holds no code, the log-density least of
        all. A file that was there is replaced once the new one is whole.

        Args:
            path: the file.
            data: True to write the data, too; without them, the same are wanted when the file is read.

        Raises:
            ValueError: a fit inside `jit` or `vmap`.

        Example:
            >>> import os, tempfile, jax.numpy as jnp, mlekit as mle
            >>> fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, jnp.array([1.0, 2.0]))
            >>> fit.save(os.path.join(tempfile.mkdtemp(), "mean.fit"))
        """
        save(self, path, data)

    # How it shows.

    def summary(self, level: float = 0.95, kind: str = "observed", **options: Any) -> Summary:
        """A table of the estimates: prints in a terminal, shows in a notebook, turns into LaTeX and pandas.

        Args:
            level: confidence level of the Wald intervals.
            kind: of the standard errors of a single fit, as in `covariance`.
            options: further arguments of `covariance`.
        """
        from .summary import Summary

        return Summary(self, level, kind, **options)

    def to_arrow(self) -> pyarrow.Table:
        """One row a data set: keys, estimates, `<name>_se`, `log_likelihood`, `status`, `steps`, `n_obs`."""
        from .frames import to_arrow

        return to_arrow(self)

    def to_pandas(self) -> pandas.DataFrame:
        """The table of `to_arrow` as a pandas data frame."""
        return self.to_arrow().to_pandas()

    def __repr__(self) -> str:
        if isinstance(self._solution.status, jax.core.Tracer):
            return f"Fit(<traced>, parameters={', '.join(self.parameter_names)})"
        from .card import text

        return text(self)

    def _repr_html_(self) -> str:
        from .card import html

        return html(self)
