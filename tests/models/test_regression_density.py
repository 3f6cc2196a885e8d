"""Regressions: a prediction and a family make a log-density with score and information."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

import mlekit as mle
from mlekit.models import families
from mlekit.models.regression import regression
from mlekit.models.regression_density import Regression
from tests.helpers.models import Counted
from tests.helpers.regressions import CASES, linear, log_linear, synthetic


def parts_of(model: mle.Model) -> Regression:
    assert model.regression is not None
    return model.regression


def test_pieces_make_the_score_and_the_expected_information():
    data = synthetic()
    model = regression(log_linear("dispersion"), families.negative_binomial, response="count")
    parts = parts_of(model)
    assert mle.Model(lambda params, obs: 0.0).regression is None
    params = {"coef": jnp.array([1.0, 0.4, -0.3]), "dispersion": jnp.array(0.5)}
    obs = {name: jnp.asarray(column)[3] for name, column in data.items()}
    vector, tree = parts.predictions(params, obs), jax.jacobian(parts.predictions)(params, obs)
    jacobian = np.column_stack([tree["coef"], tree["dispersion"]])

    @jax.jit
    @jax.vmap
    def at(count):
        here = {**obs, "count": count}
        whole, score = jax.value_and_grad(model.log_density)(params, here)
        value, slope = jax.value_and_grad(parts.from_predictions)(vector, here)
        return whole, jnp.append(score["coef"], score["dispersion"]), value, slope

    whole, score, value, slope = map(np.asarray, at(jnp.arange(400)))
    np.testing.assert_allclose(value, whole, rtol=1e-13)
    np.testing.assert_allclose(slope @ jacobian, score, rtol=1e-12, atol=1e-12)
    exact = jacobian.T @ parts.information(vector, obs) @ jacobian
    np.testing.assert_allclose(np.einsum("n,ni,nj", np.exp(whole), score, score), exact, rtol=1e-9, atol=1e-12)


def test_other_args_vectors_and_single_numbers():
    def by_hand(params, obs):
        return st.norm.logpdf(obs[0], params[0] + 2 * obs[1], params[1])

    params, obs = jnp.array([0.3, 1.5]), (jnp.array(0.7), jnp.array(-1.0))
    model = regression(lambda p, o, args: jnp.stack([p[0] + args * o[1], p[1]]), families.normal, lambda o: o[0])
    assert model(params, obs, 2) == pytest.approx(by_hand(params, obs), rel=1e-14)
    assert parts_of(model).log_cdf(params, obs, 2) == pytest.approx(st.norm.logcdf(0.7, -1.7, 1.5), rel=1e-13)
    one = regression(lambda rate, o: rate, families.poisson, lambda o: o)
    np.testing.assert_allclose(one(3.0, 2), st.poisson.logpmf(2, 3.0), rtol=1e-14)


def test_predictions_promote_as_jax_does():
    parts = parts_of(regression(lambda p, obs: (p["a"], 1), families.normal))
    assert parts.predictions({"a": jnp.float32(2)}, {}).dtype == jnp.float32
    assert parts.predictions({"a": jnp.float64(2)}, {}).dtype == jnp.float64
    assert parts({"a": jnp.float32(2)}, {"y": jnp.asarray(1)}).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32, np.float64])
def test_simulated_counts_keep_their_dtype(dtype):
    model = regression(lambda p, obs: p * obs["x"], families.poisson)
    obs = {"x": jnp.array(2.0), "y": jnp.asarray(4, dtype)}
    assert model.simulate is not None
    draw = model.simulate(jax.random.key(2), 3.0, obs)
    assert draw["y"].dtype == dtype
    assert draw["x"] is obs["x"]
    assert sorted(draw) == ["x", "y"]


def test_simulated_responses_of_other_shapes_of_obs():
    key = jax.random.key(2)
    model = regression(lambda p, obs: (p, 1.0), families.normal, lambda obs: obs[1])
    first, second = parts_of(model).simulate(key, 0.0, (jnp.array(1.0), jnp.array(5, jnp.int32)))
    assert first == 1.0
    assert second.dtype == jnp.float64  # a draw that is not whole is no integer
    certain = parts_of(regression(lambda p, obs: p, families.bernoulli))
    yes = certain.simulate(key, 50.0, {"y": jnp.array(False)})["y"]
    assert yes.dtype == bool
    assert yes
    odd = regression(lambda p, obs: (p, 1.0), families.normal, lambda obs: 2 * obs)
    with pytest.raises(ValueError, match="pick a leaf of obs"):
        parts_of(odd).simulate(key, 0.0, jnp.array(1.0))


def test_regression_is_traced_once_however_often_it_is_made():
    predict = Counted(lambda params, obs: jnp.exp(params["level"]))
    traces = []
    for start in (0.0, 1.0):
        mle.fit(regression(predict, families.poisson), {"level": start}, {"y": np.array([2, 0, 3, 1])})
        traces.append(predict.traces)
    assert traces[0] == traces[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3, families.normal), "predict must be a function"),
        ((linear, "normal"), r"one of mle.families.normal, .*inverse_gaussian; it got 'normal'"),
        ((linear, families.Normal), "a class: call it first"),
        ((linear, families.binomial), "a class: call it first"),
        ((linear, families.normal, 3), "response must be the name of a column"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(TypeError, match=words):
        regression(*arguments)


@pytest.mark.parametrize(
    ("predict", "error", "words"),
    [
        (lambda p, obs: p, ValueError, r"mean and scale, 2 numbers, for mle.families.normal; it returned .*\(\)"),
        (lambda p, obs: (p, p, p), ValueError, "2 numbers, for mle.families.normal; it returned 3 numbers of"),
        (lambda p, obs: jnp.ones(3), ValueError, r"it returned shape \(3,\)"),
        (lambda p, obs: (p, jnp.ones(3)), ValueError, r"returned 2 numbers of shapes \(\), \(3,\)"),
        (lambda p, obs: {"mean": p}, TypeError, "mean and scale, 2 numbers"),
        (lambda p, obs: None, TypeError, "it returned None"),
    ],
)
def test_wrong_predictions_are_shown(predict, error, words):
    with pytest.raises(error, match=words):
        mle.fit(regression(predict, families.normal), 0.0, {"y": np.ones(5)})


def test_missing_columns_are_named():
    data = {"x": np.ones(5), "z": np.ones(5)}
    with pytest.raises(ValueError, match=r"response='y' is not a column of obs, which has \['x', 'z'\]"):
        mle.fit(regression(lambda p, obs: p, families.poisson), 1.0, data)
    with pytest.raises(ValueError, match="trials='n' is not a column"):
        mle.fit(regression(lambda p, obs: p, families.binomial("n"), "x"), 1.0, data)
    with pytest.raises(ValueError, match="obs is no dict of columns"):
        mle.fit(regression(lambda p, obs: p, families.poisson), 1.0, np.ones(5))
    with pytest.raises(ValueError, match=r"one number an observation; .* shape \(2,\)"):
        mle.fit(regression(lambda p, obs: p, families.poisson), 1.0, {"y": np.ones((5, 2))})


def test_families_say_what_they_take():
    with pytest.raises(TypeError, match="normal takes mean and scale, 2 numbers; it got 1"):
        families.normal.log_density(1.0, 2.0)
    with pytest.raises(TypeError, match=r"family.bind\(obs\)"):
        families.binomial(trials="n").log_density(1, 0.5)
    assert np.isnan(families.binomial(2.5).log_density(1, 0.5))
    assert len(families.NAMES) == len(CASES)
    for name in families.NAMES:
        assert hasattr(families, name.partition("(")[0])
