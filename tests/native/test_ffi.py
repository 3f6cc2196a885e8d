"""Native fits inside `jax.jit`: the bits of a direct call."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlekit.engine.native_kernels import step_kernel
from mlekit.native import derivatives, fits
from mlekit.native.ffi import FitCall
from mlekit.native.fit_arguments import Argument
from mlekit.native.fit_kernel import FitKernel
from mlekit.native.row_program import RowProgram
from mlekit.solvers import Newton

pytestmark = pytest.mark.standard_promotion

SETS, ROWS = 19, 25


def loss(free: Any, settings: Any, x: Any) -> Any:
    z = (x - free[0]) * jnp.exp(-free[1])
    return settings["nu"] * jnp.log1p(z * z) + free[1]


@pytest.mark.parametrize("weighted", [False, True])
def test_bits_are_those_of_a_direct_call(weighted: bool) -> None:
    rng, vector = np.random.default_rng(2), jax.ShapeDtypeStruct((2,), np.float64)
    number = jax.ShapeDtypeStruct((), np.float64)
    settings = {"nu": number}
    program = RowProgram(derivatives.exact(loss, vector, settings, number), 2, np.float64, settings, number)
    solver = Newton()
    kernel = FitKernel(program, step_kernel(solver, 2, np.float64, True, False), weighted, False)
    x, weights = rng.normal(size=SETS * ROWS), rng.integers(0, 3, SETS * ROWS).astype(float)
    states = jax.vmap(solver.init)(jnp.zeros((SETS, 2)))
    leaves = [np.asarray(leaf).reshape(SETS, -1) for leaf in jax.tree.leaves(states)]
    floats = np.concatenate([leaf for leaf in leaves if leaf.dtype == np.float64], axis=1)
    integers = np.concatenate([leaf for leaf in leaves if leaf.dtype != np.float64], axis=1).astype(np.int32)
    nu = rng.uniform(2, 3, (SETS, 1))
    arguments = {
        Argument.weights: weights,
        Argument.offsets: np.arange(SETS) * ROWS,
        Argument.lengths: np.full(SETS, ROWS),
        Argument.order: np.arange(SETS)[::-1].copy(),
        Argument.n_obs: weights.reshape(SETS, -1).sum(1) if weighted else np.full(SETS, float(ROWS)),
        Argument.settings: nu,
        Argument.max_steps: np.full(SETS, 100, np.int32),
        Argument.tolerance: np.array([1e-9]),
        Argument.floats: floats.copy(),
        Argument.integers: integers.copy(),
        Argument.points: np.zeros((SETS, 2)),
    }
    call = FitCall(kernel, 1, ROWS, settings_per_set=True)
    got = jax.jit(lambda x, given: call([x], given))(x, arguments)
    sets = fits.DataSets(
        leaves=[x],
        weights=weights if weighted else None,
        offsets=arguments[Argument.offsets],
        lengths=arguments[Argument.lengths],
        n_obs=arguments[Argument.n_obs],
        settings=nu,
        extra=None,
        floats=floats,
        integers=integers,
        points=arguments[Argument.points],
        max_steps=arguments[Argument.max_steps],
        tolerance=1e-9,
    )
    fits.run(kernel, sets, np.arange(SETS))
    np.testing.assert_array_equal(got[0], floats)
    np.testing.assert_array_equal(got[1], integers)
    assert np.isfinite(floats).any()
