"""Every constraint is a smooth one-to-one map onto its inside; one protocol, run over all of them."""

from __future__ import annotations

import functools

import distreqx.bijectors
import equinox as eqx
import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions.transforms as numpyro_transforms
import pytest
import scipy.special
from hypothesis import strategies as st

from mlekit.models import constraints as c

settings = hypothesis.settings(deadline=None, derandomize=True, max_examples=15, database=None)

# name -> (constraint, shape of the parameter, degrees of freedom of one element without leading axes)
CASES: dict[str, tuple[c.Constraint, tuple[int, ...], int]] = {
    "unconstrained": (c.unconstrained, (), 1),
    "positive": (c.positive, (3,), 3),
    "greater_than": (c.greater_than(-2.5), (3,), 3),
    "less_than": (c.less_than(10), (2, 2), 4),
    "interval": (c.interval(-1, 3.5), (3,), 3),
    "interval_array": (c.interval(np.array([0.0, -9.0]), np.array([0.5, 100.0])), (2,), 2),
    "unit_interval": (c.unit_interval, (), 1),
    "simplex": (c.simplex, (4,), 3),
    "ordered": (c.ordered, (4,), 4),
    "positive_definite": (c.positive_definite, (3, 3), 6),
    "correlation": (c.correlation, (3, 3), 3),
    "distreqx_sigmoid": (c.Bijector(distreqx.bijectors.Sigmoid()), (3,), 3),
    "numpyro_simplex": (c.Bijector(numpyro_transforms.StickBreakingTransform()), (4,), 3),
}
DTYPES = ["float32", "float64"]
every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@functools.cache
def compiled(name: str):
    """`forward` and `inverse` of a case, compiled once: eager mode would compile every operation."""
    constraint = CASES[name][0]
    return jax.jit(lambda free: constraint.forward(free)), jax.jit(lambda value: constraint.inverse(value))


def free_of(name: str, seed: int, dtype: str = "float64", leading: tuple[int, ...] = (), scale: float = 1.0):
    constraint, shape, _ = CASES[name]
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal(constraint.free_shape((*leading, *shape)))).astype(dtype)


def close(actual, wanted, dtype="float64", factor=1.0):
    tolerance = factor * (1e-9 if dtype == "float64" else 3e-4)
    np.testing.assert_allclose(np.asarray(actual), np.asarray(wanted), rtol=tolerance, atol=tolerance)


@every_case
@settings
@hypothesis.given(data=st.data())
def test_round_trips_both_ways_and_stays_inside(name, data):
    constraint, shape, _ = CASES[name]
    free = data.draw(hnp.arrays(float, constraint.free_shape(shape), elements=st.floats(-3, 3, width=32)))
    forward, inverse = compiled(name)
    value = np.asarray(forward(free))
    assert value.shape == shape
    close(inverse(value), free)
    close(forward(inverse(value)), value, factor=1e-3)
    assert constraint.problem(value) is None
    low, high = (np.broadcast_to(end, shape) for end in constraint.range(value))
    free_to_move = low < high  # the diagonal of a correlation matrix is a single point
    assert np.all(np.where(free_to_move, (low < value) & (value < high), low == value))


@every_case
@every_dtype
def test_keeps_the_dtype(name, dtype):
    constraint, _, _ = CASES[name]
    free = free_of(name, 0, dtype)
    forward, inverse = compiled(name)
    value = forward(free)
    back = inverse(value)
    ends = constraint.range(value)
    assert [str(x.dtype) for x in (value, back, *ends)] == [dtype] * 4
    assert not value.weak_type
    assert not back.weak_type
    close(back, free, dtype)
    assert constraint.problem(np.asarray(value)) is None


@every_case
def test_degrees_of_freedom_and_derivatives(name):
    constraint, shape, n_free = CASES[name]
    assert np.prod(constraint.free_shape(shape), dtype=int) == n_free
    forward, _ = compiled(name)

    @jax.jit
    def derivatives(free):
        slope = jax.jacfwd(constraint.forward)(free).reshape(-1, n_free)
        inverse_slope = jax.jacrev(constraint.inverse)(constraint.forward(free)).reshape(n_free, -1)
        return slope, inverse_slope, jax.jacfwd(jax.jacrev(constraint.forward))(free)

    free = free_of(name, 2)
    slope, inverse_slope, _ = map(np.asarray, derivatives(free))
    assert np.linalg.matrix_rank(slope) == n_free
    close(inverse_slope @ slope, np.eye(n_free), factor=10)
    step = 1e-5
    for i, direction in enumerate(np.eye(n_free)):
        move = step * direction.reshape(free.shape)
        difference = (np.asarray(forward(free + move)) - np.asarray(forward(free - move))) / (2 * step)
        np.testing.assert_allclose(slope[:, i], difference.ravel(), rtol=1e-6, atol=1e-7)

    for scale in (0.0, 40.0):
        if name.startswith("numpyro") and scale > 10:
            continue  # how far another library goes is its own affair
        slope, _, curvature = derivatives(scale * free)
        assert np.all(np.isfinite(slope)), "far out"
        assert np.all(np.isfinite(curvature)), "far out"


@every_case
def test_jit_equals_eager(name):
    constraint, shape, _ = CASES[name]
    forward, inverse = compiled(name)
    free = free_of(name, 4)
    value = forward(free)
    close(constraint.forward(free), value, factor=1e-4)
    close(constraint.inverse(value), inverse(value), factor=1e-3)
    assert jax.eval_shape(constraint.inverse, jax.ShapeDtypeStruct(shape, float)).shape == free.shape


@every_case
def test_leading_axes_equal_vmap_and_a_loop(name):
    constraint, shape, _ = CASES[name]
    leading = (2, 3)
    assert constraint.free_shape((*leading, *shape)) == (*leading, *constraint.free_shape(shape))
    free = free_of(name, 5, leading=leading)
    forward, inverse = compiled(name)
    value = forward(free)
    assert value.shape == (*leading, *shape)
    looped = np.stack([[forward(element) for element in row] for row in free])
    close(value, looped, factor=1e-4)
    close(jax.vmap(jax.vmap(forward))(free), looped, factor=1e-4)
    close(inverse(value), free)
    assert constraint.problem(np.asarray(value)) is None
    for end in constraint.range(value):
        assert np.broadcast_shapes(end.shape, value.shape) == value.shape


@every_case
def test_is_a_pytree_that_passes_through_jit(name):
    constraint, _, _ = CASES[name]
    free = free_of(name, 6)
    close(
        eqx.filter_jit(lambda rule, f: rule.forward(f))(constraint, free),
        constraint.forward(free),
        factor=1e-4,
    )


def test_scale_is_no_problem_of_a_covariance():
    scale = np.array([1e-6, 1.0, 1e6])
    value = np.outer(scale, scale) * (0.9 + 0.1 * np.eye(3))
    assert c.positive_definite.problem(value) is None
    back = c.positive_definite.forward(c.positive_definite.inverse(value))
    np.testing.assert_allclose(back, value, rtol=1e-13)
    value[0, 1] *= 1.001  # hidden by the largest entry, were the check not in units of each row
    assert "symmetric" in str(c.positive_definite.problem(value))


@every_dtype
def test_interval_is_exact_beside_both_bounds(dtype):
    free = jnp.asarray([-60.0, -30.0, 0.0, 30.0, 60.0], dtype)
    s = scipy.special.expit(np.asarray(free))
    rtol = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(c.interval(0, 2).forward(free)[:2], 2 * s[:2], rtol=rtol)
    np.testing.assert_allclose(c.interval(-2, 0).forward(free), -2 * s[::-1], rtol=rtol)
    np.testing.assert_allclose(jax.vmap(jax.grad(c.interval(0, 1).forward))(free), s * s[::-1], rtol=rtol)
    np.testing.assert_allclose(c.interval(0, 2).inverse(2 * s[:2]), free[:2], rtol=10 * rtol)


@settings
@hypothesis.given(
    low=st.floats(-1e6, 1e6, width=32),
    width=st.floats(2.0**-10, 1e6, width=32),
    free=st.floats(-1e4, 1e4, width=32),
    dtype=st.sampled_from(DTYPES),
)
def test_interval_never_overshoots(low, width, free, dtype):
    hypothesis.assume(low < low + width)
    value = np.asarray(c.interval(low, low + width).forward(jnp.asarray(free, dtype)))
    assert np.asarray(low, dtype) <= value <= np.asarray(low + width, dtype)
    assert np.all(
        np.asarray(c.interval(low, low + width).forward(jnp.asarray([-np.inf, np.inf]))) == (low, low + width)
    )


@pytest.mark.parametrize("d", [1, 2, 5, 8])
@every_dtype
def test_positive_definite_against_numpy(d, dtype):
    rng = np.random.default_rng(d)
    root = np.tril(rng.standard_normal((d, d)), -1) + np.diag(rng.uniform(0.5, 2, d))
    free = (root + np.diag(np.log(np.diag(root)) - np.diag(root)))[np.tril_indices(d)]
    value = jax.jit(c.positive_definite.forward)(jnp.asarray(free, dtype))
    close(value, root @ root.T, dtype)
    close(jax.jit(c.positive_definite.inverse)(value), free, dtype, factor=10)
    assert np.array_equal(value, value.T)
    close(np.linalg.cholesky(np.asarray(value)), root, dtype, factor=10)


@pytest.mark.parametrize("d", [2, 6])
def test_correlation_against_numpyro(d):
    free = 1.5 * np.random.default_rng(d).standard_normal((3, d * (d - 1) // 2))
    root = jax.jit(lambda f: numpyro_transforms.CorrCholeskyTransform()(f))(free)
    value = jax.jit(c.correlation.forward)(free)
    close(value, root @ root.swapaxes(-1, -2))
    assert np.array_equal(value, value.swapaxes(-1, -2))
    assert np.array_equal(np.diagonal(value, axis1=-2, axis2=-1), np.ones((3, d)))
    assert np.all(np.linalg.eigvalsh(value) > 0)
    close(jax.jit(c.correlation.inverse)(value), free, factor=100)


def test_correlation_keeps_its_digits_near_one():
    """Of two variables it is tanh, whose inverse loses nothing that the matrix still holds."""
    r = 1 - 2.0**-40
    close(c.correlation.inverse(np.asarray([[1.0, r], [r, 1.0]])), np.arctanh([r]), factor=1e-4)
    far = c.correlation.forward(jnp.full(10, 300.0))
    assert np.all(np.isfinite(far) & (abs(far) <= 1))


def test_other_maps_against_scipy_and_numpyro():
    free = np.random.default_rng(0).standard_normal((5, 3))
    close(c.positive.forward(free), np.exp(free))
    close(c.simplex.forward(free), scipy.special.softmax(np.pad(free, [(0, 0), (0, 1)]), axis=-1))
    close(c.ordered.forward(free), numpyro_transforms.OrderedTransform()(jnp.asarray(free)))
    close(c.unit_interval.forward(free), distreqx.bijectors.Sigmoid().forward(jnp.asarray(free)))


def test_range_of_a_matrix_is_that_of_each_element():
    low, high = c.correlation.range(np.eye(2))
    assert np.array_equal(low, [[1, -1], [-1, 1]])
    assert np.all(np.asarray(high) == 1)
    low, high = c.positive_definite.range(np.eye(2))
    assert np.array_equal(low, [[0, -np.inf], [-np.inf, 0]])
    assert np.all(np.isposinf(high))
