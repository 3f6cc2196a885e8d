r"""Learned features: a network trained through the maximum-likelihood fit that uses its features.

$$\min_\phi \; -\frac{1}{n} \sum_{i \in B} \log p\!\left(y_i \mid f_\phi(x_i), \hat\theta(\phi)\right), \qquad
\hat\theta(\phi) = \arg\max_\theta \sum_{i \in A} \log p(y_i \mid f_\phi(x_i), \theta)
- \frac{\lambda}{2} \lVert \theta \rVert^2$$

The head $\hat\theta$ is a logistic regression with a ridge, fitted anew to part $A$ at every step and judged on
part $B$; its derivative with respect to the features is that of the maximum, not of the search. The task: is a
handwritten digit odd? (Bertinetto, Henriques, Torr and Vedaldi 2019; digits: Alpaydin and Kaynak 1998.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from sklearn.datasets import load_digits

import mlekit as mle

RIDGE = 1.0
STEPS = 150
OPTIMISER = optax.adam(1e-2)


def odd_digits() -> list[dict[str, np.ndarray]]:
    """Images of 8 x 8 pixels in three parts: to fit heads, to train features, and to test both."""
    images, digits = load_digits(return_X_y=True)
    shuffled = np.random.default_rng(0).permutation(len(digits))
    parts = np.split(shuffled, [600, 1200])
    return [{"x": images[rows] / 16.0, "y": digits[rows] % 2.0} for rows in parts]


def network(key: Key[Array, ""]) -> eqx.nn.MLP:
    """Three features of an image, untrained."""
    return eqx.nn.MLP(64, 3, width_size=16, depth=2, activation=jnp.tanh, key=key)


def log_density(head: Any, obs: Any) -> Float[Array, ""]:
    """Of one label, given its features."""
    logit = head["intercept"] + head["slopes"] @ obs["x"]
    return obs["y"] * logit - jax.nn.softplus(logit)


def fitted_head(data: Any) -> Any:
    """The logistic regression with a ridge, of which every observation bears its share."""
    n_obs, n_features = data["x"].shape

    def penalised(head: Any, obs: Any) -> Float[Array, ""]:
        return log_density(head, obs) - RIDGE / (2 * n_obs) * jnp.sum(head["slopes"] ** 2)

    return mle.argmax(penalised, {"intercept": 0.0, "slopes": jnp.zeros(n_features)}, data)


def seen_through(features: Callable[[Array], Array], data: Any) -> dict[str, Array]:
    """The data with features instead of images."""
    return {"x": jax.vmap(features)(data["x"]), "y": data["y"]}


def loss(features: Callable[[Array], Array], fitting: Any, judging: Any) -> Float[Array, ""]:
    """Minus the mean log-density of one part of the data, under the head fitted to another one."""
    head = fitted_head(seen_through(features, fitting))
    return -jnp.mean(jax.vmap(log_density, (None, 0))(head, seen_through(features, judging)))


def accuracy(features: Callable[[Array], Array], fitting: Any, judging: Any) -> Float[Array, ""]:
    """Which share of labels that head gets right."""
    head, seen = fitted_head(seen_through(features, fitting)), seen_through(features, judging)
    return jnp.mean((head["intercept"] + seen["x"] @ head["slopes"] > 0) == (seen["y"] == 1))


@eqx.filter_jit
def step(features: eqx.nn.MLP, state: Any, fitting: Any, judging: Any) -> tuple[eqx.nn.MLP, Any, Array]:
    """One step of Adam: the network, the optimiser's state, and the loss before."""
    value, slope = eqx.filter_value_and_grad(loss)(features, fitting, judging)
    move, state = OPTIMISER.update(slope, state)
    return eqx.apply_updates(features, move), state, value


def trained(features: eqx.nn.MLP, fitting: Any, judging: Any) -> tuple[eqx.nn.MLP, Float[Array, " steps"]]:
    """The network after training, and the losses on the way."""
    state, losses = OPTIMISER.init(eqx.filter(features, eqx.is_array)), []
    for _ in range(STEPS):
        features, state, value = step(features, state, fitting, judging)
        losses.append(value)
    return features, jnp.stack(losses)


def main() -> None:
    """The accuracy of the same head on pixels and on learned features."""
    jax.config.update("jax_enable_x64", True)
    fitting, judging, test = odd_digits()
    features, losses = trained(network(jax.random.key(0)), fitting, judging)
    print(f"loss: {losses[0]:.4f} before training, {losses[-1]:.4f} after {STEPS} steps")
    for name, view in (("64 pixels", lambda pixels: pixels), ("3 learned features", features)):
        print(f"accuracy on untouched digits, {name}: {100 * accuracy(view, fitting, test):.1f} %")


if __name__ == "__main__":
    main()
