"""Densities and bijectors of other packages serve as they are."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import distreqx.bijectors
import distreqx.distributions
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
from numpyro.distributions import transforms

import mlekit as mle
from tests.helpers.interop import LOG_GAMMA, faithful, fitted, numbers, same, tfp, with_own
from tests.helpers.marks import mostly_slow
from tests.helpers.models import START, Counted, line, line_data


def test_importing_mlekit_imports_none_of_them() -> None:
    names = "optimistix numpyro distreqx tensorflow_probability xarray arviz pandas polars"
    code = f"import sys, mlekit; assert not set('{names}'.split()) & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


SLEEP = {"a": 3.0, "b": 0.2, "shape": 10.0}


@functools.cache
def geyser(library: str) -> tuple[Any, int, int]:
    """Numbers of a fit, of the same under `jit`, and of a batch; and how often they were traced."""

    def sleep(params: Any, obs: Any) -> Any:
        rate = params["shape"] * jnp.exp(-params["a"] - params["b"] * obs["eruptions"])
        return LOG_GAMMA[library](obs["waiting"], params["shape"], rate)

    density = Counted(sleep)
    data = {name: faithful()[name].to_numpy() for name in faithful()}
    fit = functools.partial(mle.fit, density, SLEEP, constraints={"shape": mle.positive})
    alone = fit(data)
    once = density.traces
    fit({**data, "waiting": 1.01 * data["waiting"]})
    again = density.traces
    jitted = jax.jit(lambda data: fit(data).params)(data)
    halves = {name: column.reshape(2, -1) for name, column in data.items()}
    batch = mle.fit_batch(density, SLEEP, halves, constraints={"shape": mle.positive})
    assert bool(alone.converged)
    assert bool(jnp.all(batch.converged))
    return (numbers(alone), jitted, numbers(batch)), once, again


@pytest.mark.parametrize("library", mostly_slow([name for name in LOG_GAMMA if name != "by hand"], "jax", "tfp"))
def test_densities_of_other_packages_equal_one_written_by_hand(library: str) -> None:
    found, once, again = geyser(library)
    same(found, geyser("by hand")[0])
    assert once == again == geyser("by hand")[1]


tfb = tfp.bijectors
BIJECTORS: list[tuple[str, Callable[[], Any]]] = [
    ("positive", tfb.Softplus),
    ("unit", distreqx.bijectors.Sigmoid),
    ("simplex", tfb.SoftmaxCentered),
    ("ordered", transforms.OrderedTransform),
]
MORE_BIJECTORS: list[tuple[str, Callable[[], Any]]] = [
    # TFP's shift of the diagonal is in float32.
    ("covariance", lambda: tfb.Chain([tfb.CholeskyOuterProduct(), tfb.FillScaleTriL(diag_shift=None)])),
    ("positive", lambda: tfb.Chain([tfb.Scale(jnp.asarray(2.0)), tfb.Softplus()])),
    (
        "positive",
        lambda: transforms.ComposeTransform([transforms.ExpTransform(), transforms.AffineTransform(0, 2)]),
    ),
    ("unit", lambda: tfb.Sigmoid(low=np.float64(0), high=np.float64(1))),
    ("simplex", transforms.StickBreakingTransform),
    ("ordered", tfb.Ascending),
    ("covariance", lambda: numpyro.distributions.biject_to(numpyro.distributions.constraints.positive_definite)),
    ("correlation", lambda: tfb.Chain([tfb.CholeskyOuterProduct(), tfb.CorrelationCholesky()])),
]


@pytest.mark.parametrize(
    ("name", "bijector"),
    [*BIJECTORS, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in MORE_BIJECTORS)],
)
def test_bijectors_of_other_packages_equal_own_constraints(name: str, bijector: Callable[[], Any]) -> None:
    fit, found = fitted(name, bijector)
    assert bool(fit.converged), fit.message
    assert fit.n_free == with_own(name)[0].n_free
    same(found, with_own(name)[1])


@pytest.mark.slow
def test_a_bijector_with_arrays_serves_a_batch() -> None:
    sets = line_data(n_sets=3)
    scaled = tfb.Chain([tfb.Scale(jnp.asarray(2.0)), tfb.Softplus()])
    fits = [mle.fit_batch(line, START, sets, constraints={"sigma": rule}) for rule in (mle.positive, scaled)]
    same(numbers(fits[0]), numbers(fits[1]))
