"""What constraints are made of, and what they say of a start that they do not hold."""

from __future__ import annotations

import distreqx.bijectors
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions.transforms as numpyro_transforms
import pytest

from mlekit.models import constraints as c


@pytest.mark.parametrize(
    ("constraint", "value", "wanted", "would_do"),
    [
        (c.unconstrained, np.nan, "finite", "0.0"),
        (c.positive, 0.0, "greater than 0", "1.0"),
        (c.positive, [1.0, -1.0], "greater than 0", "1.0"),
        (c.positive, np.inf, "finite", "1.0"),
        (c.positive, 0, "greater than 0", "1.0"),
        (c.greater_than(3), 3.0, "greater than 3", "4.0"),
        (c.less_than(-1), -1.0, "less than -1", "-2.0"),
        (c.less_than(1e20), 1e20, "less than 1e+20", "9.9e+19"),
        (c.interval(0, 4), 0.0, "between 0.0 and 4.0", "2.0"),
        (c.interval(0, 4), 4.0, "between 0.0 and 4.0", "2.0"),
        (c.interval(1, 1.00000002), 7.0, "between", "1.00000001"),
        (c.interval([0, 1], [1, 3]), [0.5, 3.0], "between [0., 1.] and [1., 3.]", "[0.5, 2. ]"),
        (c.unit_interval, np.float32(1), "between 0.0 and 1.0", "0.5"),
        (c.simplex, [0.5, 0.5, 0.0], "sum to 1", "1/3"),
        (c.simplex, [0.5, 0.6], "sum to 1", "1/2"),
        (c.simplex, [[0.5, 0.5], [0.5, 0.4]], "sum to 1", "1/2"),
        (c.ordered, [0.0, 0.0, 1.0], "increase", "[0., 1., 2.]"),
        (c.ordered, [np.nan, 0.0], "finite", "[0., 1.]"),
        (c.positive_definite, np.ones((2, 2)), "positive definite", "np.eye(2)"),
        (c.positive_definite, np.diag([1.0, 0.0]), "positive definite", "np.eye(2)"),
        (c.positive_definite, [[1.0, 0.5], [0.0, 1.0]], "symmetric", "np.eye(2)"),
        (c.positive_definite, np.full((3, 3), np.nan), "finite", "np.eye(3)"),
        (c.correlation, [[1.0, -1.0], [-1.0, 1.0]], "positive definite", "np.eye(2)"),
        (c.correlation, np.diag([1.0, 2.0]), "ones on the diagonal", "np.eye(2)"),
        (c.Bijector(numpyro_transforms.ExpTransform()), [1.0, 0.0], "can reach", "[1., 1.]"),
        (c.Bijector(distreqx.bijectors.Sigmoid()), 1.5, "can reach", "0.5"),
        (c.Bijector(numpyro_transforms.StickBreakingTransform()), [0.7, 0.7], "can reach", "[0.5, 0.5]"),
    ],
)
def test_an_edge_start_is_told_what_would_do(constraint, value, wanted, would_do):
    value = np.asarray(value)
    sentence = constraint.problem(value)
    assert sentence is not None
    assert sentence.startswith("must be finite; " if wanted == "finite" else "must ")
    assert wanted in sentence
    assert would_do in sentence.partition("; ")[2]
    if not isinstance(constraint, c.Bijector | c.Unconstrained):
        # The free array says the same thing in its own way, compiled too, and never raises.
        assert not np.all(np.isfinite(jax.jit(lambda v: constraint.inverse(v))(value)))


@pytest.mark.parametrize(
    ("constraint", "value"), [(c.simplex, np.ones((2, 1))), (c.correlation, np.ones((2, 1, 1)))]
)
def test_a_lone_share_or_variable_is_one(constraint, value):
    assert constraint.free_shape(value.shape) == (2, 0)
    assert constraint.problem(value) is None
    assert constraint.inverse(value).shape == (2, 0)
    assert np.array_equal(constraint.forward(np.ones((2, 0))), value)
    assert [np.all(end == 1) for end in constraint.range(value)] == [True, True]
    assert constraint.problem(2 * value) is not None


def test_a_start_may_be_integers_and_typed_with_seven_digits():
    assert c.positive.problem(np.asarray(2)) is None
    assert c.ordered.problem(np.asarray([1, 2, 5])) is None
    assert c.positive_definite.problem(2 * np.eye(2, dtype=int)) is None
    assert c.Bijector(numpyro_transforms.ExpTransform()).problem(np.asarray([2, 3])) is None
    assert c.simplex.problem(np.asarray([0.3333333, 0.3333333, 0.3333333])) is None
    assert np.all(np.isfinite(c.simplex.inverse(np.asarray([0.3333333, 0.3333333, 0.3333333]))))


@pytest.mark.parametrize(
    ("constraint", "shape", "message"),
    [
        (c.simplex, (), "simplex wants a last axis"),
        (c.simplex, (3, 0), "simplex wants a last axis"),
        (c.ordered, (), "ordered wants a last axis"),
        (c.positive_definite, (3,), "square matrices"),
        (c.positive_definite, (2, 3), r"square matrices .* \(2, 3\)"),
        (c.correlation, (2, 2, 1), "square matrices"),
        (c.interval([0, 0], [1, 2]), (3,), r"bounds of shape \(2,\)"),
        (c.greater_than([0, 0]), (), r"bounds of shape \(2,\)"),
        (c.less_than([[0], [1]]), (2,), r"bounds of shape \(2, 1\)"),
        (c.Bijector(numpyro_transforms.StickBreakingTransform()), (), r"shape \(\)"),
    ],
)
def test_a_shape_that_does_not_suit_is_a_sentence(constraint, shape, message):
    with pytest.raises(ValueError, match=message):
        constraint.free_shape(shape)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1, 1),
        (2, 1),
        (0, np.inf),
        (-np.inf, 0),
        (np.nan, 1),
        ([0, 1], 1),
        (-1e308, 1e308),
        (0, jnp.asarray(-1.0)),
    ],
)
def test_bounds_out_of_order_are_named(low, high):
    with pytest.raises(ValueError, match=r"interval\(low, high\) wants .* got"):
        c.interval(low, high)


def test_bounds_that_are_no_numbers_are_named():
    with pytest.raises(TypeError, match=r"interval\(low, high\) wants numbers or arrays; it got 'a'"):
        c.interval("a", 1.0)
    with pytest.raises(ValueError, match=r"less_than\(high\) wants finite numbers; it got None"):
        c.less_than(None)


def test_number_bounds_are_plain_floats_and_hash():
    for rule in (c.interval(np.float32(0), 1), c.interval(np.asarray(0), np.float64(1))):
        assert type(rule.low) is float
        assert type(rule.high) is float
        assert rule == c.unit_interval
        assert hash(rule) == hash(c.unit_interval)
    assert c.positive == c.greater_than(0)
    assert not eqx.filter(c.interval(0, 1), eqx.is_array).low
    assert len(jax.tree.leaves(c.interval([0, 1], 2))) == 2
    assert eqx.is_array(c.interval([0, 1], 2).low)


def test_bounds_may_be_traced_and_have_derivatives():
    def middle(high):
        rule = c.interval(0.0, high)
        assert rule.problem(np.ones(2)) is None
        assert "finite" in str(rule.problem(np.full(2, np.nan)))
        assert "greater than 0" in str(c.positive.problem(np.zeros(2)))  # known bounds are checked inside jit
        assert "reach" in str(c.Bijector(distreqx.bijectors.Sigmoid()).problem(np.ones(2)))
        return rule.forward(jnp.zeros(2))

    assert np.array_equal(jax.jit(middle)(jnp.asarray([2.0, 4.0])), [1, 2])
    assert np.array_equal(jax.jacfwd(middle)(jnp.asarray([2.0, 4.0])), 0.5 * np.eye(2))


def test_what_counts_as_a_constraint():
    foreign = distreqx.bijectors.Sigmoid()
    for obj in (c.positive, c.fixed, c.tied(to="scale"), foreign, numpyro_transforms.ExpTransform()):
        assert c.is_constraint(obj)
    for obj in (
        {},
        {"forward": 1, "inverse": 2},
        [],
        None,
        np.ones(2),
        jnp.ones(2),
        1.0,
        "fixed",
        c.Interval,
        np.exp,
    ):
        assert not c.is_constraint(obj)
    assert c.as_constraint(None) is c.unconstrained
    assert c.as_constraint(c.fixed) is c.fixed
    assert c.as_constraint(c.positive) is c.positive
    assert isinstance(c.as_constraint(foreign), c.Bijector)
    assert not isinstance(c.fixed, c.Constraint)
    assert not isinstance(c.tied("scale"), c.Constraint)
    for obj in ("positive", {"a": 1}, 3.0):
        with pytest.raises(TypeError, match="it got"):
            c.as_constraint(obj)
    with pytest.raises(TypeError, match="a class: call it first"):
        c.as_constraint(c.interval)


def test_markers_are_frozen_static_and_compare():
    assert c.tied(to="scale") == c.tied("scale")
    assert c.tied(to="scale") != c.tied(to="rate")
    assert jax.tree.leaves([c.fixed, c.tied("scale")]) == []
    with pytest.raises(TypeError, match="wants the name of a parameter"):
        c.tied(to=3)
