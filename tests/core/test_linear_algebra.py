"""Linear algebra of many small problems at once."""

from __future__ import annotations

import subprocess
import sys

import jax
import numpy as np
import pytest

from mlekit.core.eigen import eigh


@pytest.mark.parametrize("k", [1, 2, 5, 6, 7, 10, 12])
def test_small_eigenvalue_problems_against_numpy(k: int) -> None:
    """Definite, indefinite, with equal eigenvalues, and singular ones; 12 go to LAPACK."""
    rng = np.random.default_rng(k)
    a = rng.normal(size=(40, k, k))
    a = a @ a.transpose(0, 2, 1)
    a[:10] -= k * np.eye(k)
    a[10:20] = np.eye(k)
    a[20:30] = a[20:30, :, :1] @ a[20:30, :, :1].transpose(0, 2, 1)
    values, vectors = jax.jit(jax.vmap(eigh))(a)
    size = np.max(np.abs(a), axis=(1, 2), keepdims=True) * k
    np.testing.assert_allclose(values / size[:, 0], np.linalg.eigvalsh(a) / size[:, 0], rtol=0, atol=1e-14)
    again = vectors * values[:, None] @ vectors.transpose(0, 2, 1)
    np.testing.assert_allclose(again / size, a / size, rtol=0, atol=1e-13)
    np.testing.assert_allclose(vectors.transpose(0, 2, 1) @ vectors, np.tile(np.eye(k), (40, 1, 1)), atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("k", [6, 20])
def test_linear_algebra_of_many_parameters_never_waits_for_itself(k: int) -> None:
    """Stacks of matrices, dealt out by LAPACK to the threads it runs on, once kept all of them waiting."""
    script = f"""
import jax; jax.config.update("jax_enable_x64", True)
import numpy as np, mlekit as mle
from jax.scipy.stats import norm
rng = np.random.default_rng(0)
x = rng.normal(size=(600, 40, {k})); y = x.sum(-1) + rng.normal(size=(600, 40))
density = lambda params, obs: norm.logpdf(obs["y"], obs["x"] @ params["coef"], params["scale"])
fits = mle.fit_batch(density, {{"coef": np.ones({k}), "scale": 1.0}}, {{"x": x, "y": y}},
                     constraints={{"scale": mle.positive}})
print(fits.status.counts())
"""
    # A process of its own, as a thread that waits for ever cannot be stopped.
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "{'converged': 600}"
