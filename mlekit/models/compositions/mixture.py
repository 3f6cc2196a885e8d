"""Mixtures: observations from one of several distributions, not known which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...core.dtypes import common_dtype
from ...core.trees import is_array
from ..model import Model
from .checks import independent, of_params
from .distribution import Response, guarded, own_response, with_companions
from .log_probability import shares
from .weighted_sum import Weighted


class Mixture(Weighted):
    """The log-density of a mixture: the `log_density` of what `mle.mixture` returns.

    Args:
        components: one model a component; or a single one, which stands for as many as its parameters have rows.
        names: of the components, if they have names.
        alike: whether one model stands for all components.
        weights: the key of the weights in `params`, or a function that predicts them.
    """

    components: tuple[Model, ...]
    names: tuple[str, ...] | None
    alike: bool
    weights: str | Callable[..., Any]

    @property
    def response(self) -> Response:
        """The response that the components name, if they agree."""
        first, *others = (own_response(model) for model in self.components)
        return first if all(other == first for other in others) else None

    @property
    def atoms(self) -> bool | Callable[[Any], Any] | None:
        """The atoms of all components."""
        of_components = [model.atoms for model in self.components]
        if None in of_components:
            return None
        if all(atoms is True for atoms in of_components):
            return True
        if not any(of_components):
            return False
        flag = lambda atoms, obs: jnp.asarray(atoms(obs) if callable(atoms) else atoms)  # noqa: E731
        return lambda obs: jnp.any(jnp.stack([flag(atoms, obs) for atoms in of_components]))

    def responsibilities(self, params: PyTree, obs: PyTree, *args: Any) -> Float[Array, " k"]:
        r"""The probability of each component, given one observation.

        $$r_k = \frac{w_k\, p_k(x)}{\sum_j w_j\, p_j(x)}$$

        Args:
            params: parameters of the mixture.
            obs: one observation.
            args: further arguments of the model, if any.

        Returns:
            Shape `(K,)`, in the order of the components; NaN where none of them allows the observation.
        """
        return shares(*self._terms("log_density", params, obs, args))

    def simulate(self, key: PRNGKeyArray, params: PyTree, obs: PyTree, *args: Any) -> PyTree:
        """The observation drawn anew: first the component, then from it."""
        component_key, key = jax.random.split(key)
        parts = self._parts(params)
        weights = of_params(self.weights, params, obs, args, "the weights of a mixture")
        k = jax.random.categorical(component_key, jnp.log(weights))
        if self.alike:
            rows, rest = eqx.partition(parts, is_array)
            part = eqx.combine(jax.tree.map(lambda row: jnp.asarray(row)[k], rows), rest)
            return _present(self.components[0].simulate)(key, part, obs, *args)
        draws = [_present(model.simulate)(key, part, obs, *args) for model, part in zip(self.components, parts)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves)[k], *draws)

    def _terms(self, name: str, params: PyTree, obs: PyTree, args: tuple[Any, ...]) -> tuple[Array, Array]:
        logs = self._of_components(params, lambda model, part: guarded(model, name, part, obs, args))
        return self._weights(params, obs, args, logs), logs

    def _weights(self, params: PyTree, obs: PyTree, args: tuple[Any, ...], logs: Array) -> Array:
        weights = jnp.asarray(of_params(self.weights, params, obs, args, "the weights of a mixture"))
        if weights.shape != logs.shape:
            raise ValueError(
                f"the weights of a mixture must have one entry a component, shape {logs.shape}; "
                f"they have shape {weights.shape}"
            )
        return weights.astype(common_dtype(weights, logs))

    def _of_components(self, params: PyTree, fn: Callable[[Model, PyTree], Array]) -> Float[Array, " k"]:
        """`fn(component, its parameters)` of every component."""
        parts = self._parts(params)
        if not self.alike:
            return jnp.stack([fn(model, part) for model, part in zip(self.components, parts)])
        rows, rest = eqx.partition(parts, is_array)
        return jax.vmap(lambda row: fn(self.components[0], eqx.combine(row, rest)))(rows)

    def _parts(self, params: PyTree) -> PyTree:
        """The parameters of all components: one tree with a leading axis, or a list of trees."""
        parts = of_params("components", params, None, (), "the parameters of the components")
        if self.alike:
            shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(parts) if is_array(leaf)]
            if not shapes or len({shape[:1] for shape in shapes}) > 1 or () in shapes:
                raise ValueError(
                    'params["components"]: every leaf must have a leading axis of components, of one length; '
                    f"the shapes are {shapes}"
                )
            return parts
        if self.names is None:
            fits = isinstance(parts, Sequence) and len(parts) == len(self.components)
            wanted = f"a sequence of {len(self.components)}, in the order of the components"
        else:
            fits = isinstance(parts, Mapping) and set(parts) == set(self.names)
            wanted = f"a dict with the keys {list(self.names)}"
        if not fits:
            raise ValueError(f'params["components"] must be {wanted}; got {jax.tree.map(jnp.shape, parts)}')
        return parts if self.names is None else [parts[name] for name in self.names]


def mixture(
    components: Any,
    *,
    weights: str | Callable[..., Any] = "weights",
) -> Model:
    r"""A model of observations that stem from one of $K$ components, and it is not known which.

    $$\log p(x) = \log \sum_{k=1}^K w_k\, p_k(x \mid \theta_k)$$

    Components of one kind have the same likelihood in any order, and one that shrinks onto a single observation
    has no bound: start `mle.fit` from several places (`starts=`), and bound scales from below.

    Args:
        components: one log-density, `mle.Model` or `mle.regression` for all components, whose parameters have a
            leading axis of length $K$ on every leaf; or a list of different ones, with a list of their parameters;
            or a dict of them, with a dict of their parameters. The parameters of the mixture are
            `{"weights": ..., "components": ...}`.
        weights: the key of the weights in `params`, shape `(K,)`, best under the constraint `mle.simplex`; or
            `weights(params, obs)` (with args `weights(params, obs, args)`), which predicts them: a mixture of
            experts.

    Returns:
        A `mle.Model` with the companions that all components have. Its `log_density` has
        `responsibilities(params, obs)`, the probability of each component given the observation, shape `(K,)`.

    Raises:
        ValueError: no components, a joint model, and while tracing, parameters that do not fit the components.
        TypeError: a component or `weights` is not what it should be.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> normal = mle.regression(lambda params, obs: (params["mean"], params["sd"]), mle.families.normal)
        >>> model = mle.mixture(normal)
        >>> data = {"y": jnp.array([1.8, 2.0, 2.1, 2.3, 4.0, 4.3, 4.4, 4.5, 4.6, 4.8])}
        >>> init = {"weights": jnp.ones(2) / 2, "components": {"mean": jnp.array([1.0, 5.0]), "sd": jnp.ones(2)}}
        >>> rules = {"weights": mle.simplex, "components": {"sd": mle.positive}}
        >>> fit = mle.fit(model, init, data, constraints=rules)
        >>> print(fit.params["weights"].round(3), fit.params["components"]["mean"].round(3))
        [0.4 0.6] [2.05  4.433]

        The probability of the first component, for new observations:

        >>> found = fit.predict(model.log_density.responsibilities, {"y": jnp.array([2.0, 3.0, 3.1])})
        >>> print(found.value[:, 0].round(3))
        [1.    0.927 0.06 ]
    """
    if not (isinstance(weights, str) or callable(weights)):
        raise TypeError(
            f"mixture: weights must be a key of params, or a function weights(params, obs); got {weights!r}"
        )
    if not (callable(components) or isinstance(components, Sequence | Mapping)):
        raise TypeError(
            f"mixture: components must be a log-density, or a list or a dict of them; got {components!r}"
        )
    names = tuple(components) if isinstance(components, Mapping) else None
    alike = callable(components)
    listed = [components] if alike else list(components.values() if names is not None else components)
    if not listed:
        raise ValueError("mixture wants at least one component")
    models = tuple(independent(component, "mixture") for component in listed)
    density = Mixture(models, names, alike, weights)
    return with_companions(density, models)


def _present(companion: Callable[..., Any] | None) -> Callable[..., Any]:
    """A companion that the model is known to have."""
    assert companion is not None
    return companion
