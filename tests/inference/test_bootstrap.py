"""The bootstrap against closed forms, SciPy's and the covariances that it should agree with."""

from __future__ import annotations

import tracemalloc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.scipy.stats import norm

import mlekit as mle
from mlekit.inference.bootstrap import resample
from mlekit.likelihood import ragged as ragged_
from tests.helpers.marks import mostly_slow
from tests.helpers.models import logistic

RNG = np.random.default_rng(8)
KEY = jax.random.key(5)
REPLICATES = 4000
#: Four standard errors of the standard deviation of so many normal draws, which are 1 / sqrt(2 * 4000) = 1.1 %.
MONTE_CARLO = 4 / np.sqrt(2 * REPLICATES)
X = RNG.gamma(1.5, size=30)
CLUSTERS = np.arange(30) // 3
#: Bootstrap quantiles of the mean of 30 skewed numbers, in its standard errors: at a density of 0.06 two such runs
#: differ by sqrt(2 * 0.025 * 0.975 / 4000) / 0.06 = 0.06; three and a half of these.
QUANTILE = 0.2


def location(mean: Any, obs: Any) -> Any:
    """A mean with known noise: its fit is the weighted mean."""
    return norm.logpdf(obs["x"], mean, 1.0)


def draw(key: Any, mean: Any, obs: Any) -> Any:
    return {"x": mean + jax.random.normal(key)}


MODEL = mle.Model(location, simulate=draw)


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return mle.fit(MODEL, 0.0, {"x": X})


@pytest.fixture(scope="module")
def draws(fit: mle.Fit) -> mle.Bootstrap:
    return mle.bootstrap(fit, KEY, REPLICATES)


# The mean, known in closed form -------------------------------------------------------------------


def test_resampled_mean(draws: mle.Bootstrap) -> None:
    error = X.std() / np.sqrt(30)
    np.testing.assert_allclose(draws.standard_errors(), error, rtol=MONTE_CARLO)
    np.testing.assert_allclose(draws.covariance(), [[float(draws.standard_errors()) ** 2]], rtol=1e-10)
    assert abs(float(draws.bias)) < 4 * error / np.sqrt(REPLICATES)
    np.testing.assert_allclose(draws.bias, draws.params.mean() - X.mean(), rtol=1e-8)
    assert draws.params.shape == (REPLICATES,)
    assert draws.replicates == REPLICATES
    assert int(draws.failed) == 0
    # The third moment of the resampled means is that of the data over n squared.
    skew = scipy.stats.skew(X) / np.sqrt(30)
    assert abs(scipy.stats.skew(np.asarray(draws.params)) - skew) < 4 * np.sqrt(6 / REPLICATES)
    text = repr(draws)
    assert "Bootstrap (nonparametric): 4,000 replicates" in text
    assert "0 refits failed, 4,000 count" in text


@pytest.mark.parametrize("method", ["percentile", "basic", "bca"])
def test_intervals_against_scipy(draws: mle.Bootstrap, method: str) -> None:
    theirs = scipy.stats.bootstrap(
        (X,), np.mean, n_resamples=REPLICATES, method=method, rng=np.random.default_rng(1), confidence_level=0.95
    )
    ours = np.array(draws.intervals(0.95, method))
    error = X.std() / np.sqrt(30)
    assert np.all(np.abs(ours - np.array(theirs.confidence_interval)) < QUANTILE * error), (ours, theirs)
    if method == "bca":
        # The acceleration is the jackknife's, to the last digits for a mean.
        left = (X.sum() - X) / 29
        off = left.mean() - left
        np.testing.assert_allclose(
            np.asarray(draws.acceleration), [np.sum(off**3) / (6 * np.sum(off**2) ** 1.5)], rtol=1e-9
        )


def test_intervals_are_these_quantiles(draws: mle.Bootstrap) -> None:
    """From the same refits, to the last digits."""
    values, best = np.asarray(draws.params), float(draws.fit.params)
    low, high = np.quantile(values, [0.05, 0.95])
    np.testing.assert_allclose(draws.intervals(0.9), (low, high), rtol=1e-12)
    np.testing.assert_allclose(draws.intervals(0.9, "basic"), (2 * best - high, 2 * best - low), rtol=1e-12)
    # The noise is taken for known, so all standard errors are the same and the pivot is no other.
    np.testing.assert_allclose(draws.intervals(0.9, "studentized"), (2 * best - high, 2 * best - low), rtol=1e-9)
    shift = scipy.stats.norm.ppf(np.mean(values < best))
    moved = shift + scipy.stats.norm.ppf([0.05, 0.95])
    shares = scipy.stats.norm.cdf(shift + moved / (1 - float(draws.acceleration[0]) * moved))  # type: ignore[index]
    np.testing.assert_allclose(draws.intervals(0.9, "bca"), np.quantile(values, shares), rtol=1e-12)


@pytest.mark.slow
def test_exponential_weights(fit: mle.Fit) -> None:
    """Shares are Dirichlet, so the variance of the weighted mean is that of the data over n + 1."""
    draws = mle.bootstrap(fit, KEY, REPLICATES, "weights")
    np.testing.assert_allclose(draws.standard_errors(), X.std() / np.sqrt(31), rtol=MONTE_CARLO)


def test_simulated_data(fit: mle.Fit) -> None:
    """Noise of size one, whatever the data say of it: the inverse of the expected information."""
    draws = mle.bootstrap(fit, KEY, REPLICATES, "parametric")
    np.testing.assert_allclose(draws.standard_errors(), 1 / np.sqrt(30), rtol=MONTE_CARLO)
    assert scipy.stats.kstest((draws.params - fit.params) * np.sqrt(30), "norm").pvalue > 0.001


def test_whole_clusters(fit: mle.Fit) -> None:
    """Of the clustered sandwich, within the Monte Carlo error: clusters of one size, and a mean."""
    draws = mle.bootstrap(fit, KEY, REPLICATES, "cluster", clusters=CLUSTERS)
    np.testing.assert_allclose(
        draws.standard_errors(), fit.standard_errors("sandwich", clusters=CLUSTERS), rtol=MONTE_CARLO
    )
    off = X.reshape(10, 3).sum(1) - 3 * X.mean()
    np.testing.assert_allclose(
        np.asarray(draws.acceleration), [np.sum(off**3) / (6 * np.sum(off**2) ** 1.5)], rtol=1e-9
    )
    labels = np.array([f"firm {c}" for c in CLUSTERS])
    again = mle.bootstrap(fit, KEY, REPLICATES, "cluster", clusters=labels)
    np.testing.assert_array_equal(again.vector, draws.vector)
    # Each refit holds each cluster as a whole: it is a mean of ten of the cluster means.
    tenths = np.asarray(draws.params) * 10
    means = X.reshape(10, 3).mean(1)
    assert tenths.min() >= 10 * means.min()
    assert tenths.max() <= 10 * means.max()


@pytest.mark.slow
def test_weights_are_repeated_rows() -> None:
    """A row of weight three is three rows: as many draws, each of them as likely."""
    weights = np.array([3.0, 1.0, 0.0, 2.0, 4.0, 1.0, 2.0, 3.0])
    x = X[:8]
    draws = mle.bootstrap(mle.fit(MODEL, 0.0, {"x": x}, weights=weights), KEY, REPLICATES)
    long = np.repeat(x, weights.astype(int))
    np.testing.assert_allclose(draws.standard_errors(), long.std() / np.sqrt(16), rtol=MONTE_CARLO)
    plain = mle.bootstrap(mle.fit(MODEL, 0.0, {"x": long}), jax.random.key(6), REPLICATES)
    assert scipy.stats.ks_2samp(np.asarray(draws.params), np.asarray(plain.params)).pvalue > 0.001
    np.testing.assert_allclose(np.asarray(draws.acceleration), np.asarray(plain.acceleration), rtol=1e-9)


# Which numbers are drawn --------------------------------------------------------------------------

LENGTHS = np.array([9, 4, 12, 7])
SETS = RNG.normal(size=(4, 12))
PADDED = np.where(np.arange(12) < LENGTHS[:, None], SETS, np.nan)


@pytest.fixture(scope="module")
def ragged() -> mle.Fit:
    return mle.fit_batch(MODEL, 0.0, {"x": PADDED}, lengths=LENGTHS)


@pytest.mark.parametrize(
    "kind", mostly_slow(["nonparametric", "weights", "cluster", "parametric"], "nonparametric")
)
def test_draws_depend_on_key_and_number_alone(ragged: mle.Fit, kind: str) -> None:
    labels = np.arange(12) // 2
    clusters = np.tile(labels, (4, 1)) if kind == "cluster" else None
    many = mle.bootstrap(ragged, KEY, 50, kind, clusters=clusters)
    assert many.vector.shape == (4, 50, 1)
    again = mle.bootstrap(ragged, KEY, 50, kind, clusters=clusters)
    np.testing.assert_array_equal(many.vector, again.vector)
    other = mle.bootstrap(ragged, jax.random.key(9), 50, kind, clusters=clusters)
    # Few rows have few means, some of which come up again.
    assert np.mean(np.asarray(other.vector == many.vector)) < 0.2
    alone = mle.bootstrap(ragged[1], KEY, 50, kind, clusters=None if clusters is None else labels)
    np.testing.assert_allclose(alone.vector, many.vector[1], rtol=1e-12)
    order = np.array([3, 1, 0, 2])
    shuffled = mle.bootstrap(ragged[order], KEY, 50, kind, clusters=clusters)
    np.testing.assert_allclose(shuffled.vector, np.asarray(many.vector)[order], rtol=1e-12)
    # What is drawn of set 1 comes from its four rows.
    if kind == "nonparametric":
        counts = np.asarray(many.vector[1, :, 0]) * 4
        choices = np.array([four for four in np.ndindex(5, 5, 5, 5) if sum(four) == 4]) @ PADDED[1, :4]
        assert np.all(np.min(np.abs(counts[:, None] - choices), axis=1) < 1e-9)


@pytest.mark.slow
def test_groups_draw_as_padded_sets_do(ragged: mle.Fit) -> None:
    inside = np.arange(12) < LENGTHS[:, None]
    key, place = np.repeat(np.arange(4), LENGTHS), np.concatenate([np.arange(n) // 2 for n in LENGTHS])
    groups = mle.group_by({"key": key, "x": PADDED[inside], "firm": place}, "key")
    fits = mle.fit_batch(MODEL, 0.0, groups)
    for kind in ("nonparametric", "cluster"):
        clusters, name = (np.tile(np.arange(12) // 2, (4, 1)), "firm") if kind == "cluster" else (None, None)
        padded = mle.bootstrap(ragged, KEY, 50, kind, clusters=clusters)
        grouped = mle.bootstrap(fits, KEY, 50, kind, clusters=name)
        np.testing.assert_allclose(grouped.vector, padded.vector, rtol=1e-12)
        one = mle.bootstrap(fits[2], KEY, 50, kind, clusters=name)
        np.testing.assert_allclose(one.vector, padded.vector[2], rtol=1e-12)
    with pytest.raises(ValueError, match="names of columns"):
        mle.bootstrap(fits, KEY, 50, "cluster", clusters=np.arange(32))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nonparametric", "parametric"])
def test_memory_is_bounded_by_the_piece(ragged: mle.Fit, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers in pieces of few rows, which split the replicates of one data set."""
    whole = mle.bootstrap(ragged, KEY, 50, kind)
    sizes = []
    original = ragged_.from_arrays if kind == "parametric" else ragged_.RaggedBatch

    def seen(*args: Any, **options: Any) -> Any:
        made = original(*args, **options)
        sizes.append(len(jax.tree.leaves(made.rows)[0]))
        return made

    monkeypatch.setattr(resample, "from_arrays" if kind == "parametric" else "RaggedBatch", seen)
    for module in (resample, ragged_):
        monkeypatch.setattr(module, "CHUNK_ROWS", 256)
    pieces = mle.bootstrap(ragged, KEY, 50, kind)
    np.testing.assert_allclose(pieces.vector, whole.vector, rtol=1e-12)
    assert len(sizes) > 4
    # Lengths are rounded up to the next power of two at most.
    assert max(sizes) <= 2 * 256


@pytest.mark.slow
def test_large_weights_need_no_large_memory() -> None:
    """Rows that stand for a million observations are drawn as counts, not one by one."""
    heavy = mle.fit(MODEL, 0.0, {"x": X[:4]}, weights=np.full(4, 2.5e5))
    tracemalloc.start()
    draws = mle.bootstrap(heavy, KEY, 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Four standard errors of these fifty.
    np.testing.assert_allclose(draws.standard_errors(), X[:4].std() / 1e3, rtol=4 / np.sqrt(100))
    assert peak < 50e6


# Failures and refusals ----------------------------------------------------------------------------


def test_failures_are_counted_and_left_out() -> None:
    """A slope on ten observations, often separated when drawn anew."""
    x = np.column_stack([np.ones(10), np.linspace(-1, 1, 10)])
    y = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1.0])
    fit = mle.fit(logistic, np.zeros(2), {"x": x, "y": y})
    with pytest.warns(UserWarning, match=r"refits failed \(.*unbounded.*\) and are left out"):
        draws = mle.bootstrap(fit, KEY, 500)
    failed = int(draws.failed)
    assert 25 < failed < 475
    gone = np.asarray(draws.status != "converged")
    assert gone.sum() == failed == sum(n for name, n in draws.status.counts().items() if name != "converged")
    np.testing.assert_array_equal(np.isnan(np.asarray(draws.vector)).all(1), gone)
    kept = np.asarray(draws.params)[~gone]
    np.testing.assert_allclose(draws.standard_errors(), kept.std(0, ddof=1), rtol=1e-10)
    np.testing.assert_allclose(draws.covariance(), np.cov(kept.T), rtol=1e-10)
    np.testing.assert_allclose(draws.bias, kept.mean(0) - np.asarray(fit.params), rtol=1e-8)
    np.testing.assert_allclose(draws.intervals()[0], np.quantile(kept, 0.025, axis=0), rtol=1e-12)
    assert f"{failed} refits failed" in repr(draws)
    assert f"{500 - failed} count" in repr(draws)
    # With weights on all observations none of these is lost.
    assert int(mle.bootstrap(fit, KEY, 500, "weights").failed) == 0


def test_a_fit_without_maximum_has_no_refits(ragged: mle.Fit) -> None:
    sick = mle.fit_batch(MODEL, 0.0, {"x": np.where(np.arange(4)[:, None] == 2, np.nan, PADDED)}, lengths=LENGTHS)
    draws = mle.bootstrap(sick, KEY, 50)
    assert draws.failed.tolist() == [0, 0, 50, 0]
    assert np.all(np.isnan(np.asarray(draws.vector)[2]))
    assert np.all(np.isnan(np.stack(draws.intervals())[:, 2]))
    healthy = mle.bootstrap(ragged, KEY, 50)
    others = np.array([0, 1, 3])
    np.testing.assert_array_equal(np.asarray(draws.vector)[others], np.asarray(healthy.vector)[others])


def test_intervals_of_a_fit(fit: mle.Fit) -> None:
    found = fit.intervals(0.9, "bootstrap", key=KEY, replicates=REPLICATES)
    np.testing.assert_array_equal(found, mle.bootstrap(fit, KEY, REPLICATES).intervals(0.9))
    found = fit.intervals(0.9, "bootstrap", key=KEY, replicates=50, kind="cluster", clusters=CLUSTERS)
    expected = mle.bootstrap(fit, KEY, 50, "cluster", clusters=CLUSTERS).intervals(0.9)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="needs a key"):
        fit.intervals(method="bootstrap")


@pytest.mark.slow
def test_fixed_and_vector_parameters() -> None:
    density = lambda p, x: jnp.sum(norm.logpdf(x, p["mean"], p["sd"]))  # noqa: E731
    x = RNG.normal(size=(20, 2))
    fit = mle.fit(density, {"mean": np.zeros(2), "sd": 1.0}, x, constraints={"sd": mle.fixed})
    draws = mle.bootstrap(fit, KEY, 1000)
    assert draws.params["mean"].shape == (1000, 2)
    np.testing.assert_array_equal(draws.params["sd"], 1.0)
    # Four standard errors of these thousand.
    np.testing.assert_allclose(draws.standard_errors()["mean"], x.std(0) / np.sqrt(20), rtol=4 / np.sqrt(2000))
    for method in ("percentile", "basic", "bca", "studentized"):
        found = draws.intervals(method=method)
        np.testing.assert_array_equal(found["sd"], 1.0)
        assert np.all(np.asarray(found["mean"][0]) < np.asarray(found["mean"][1]))


def autoregression(phi: Any, data: Any) -> Any:
    return jnp.concatenate([jnp.zeros(1), norm.logpdf(data["x"][1:], phi * data["x"][:-1])])


def simulate_path(key: Any, phi: Any, data: Any) -> Any:
    noise = jax.random.normal(key, data["x"].shape)
    step = lambda last, new: (phi * last + new, phi * last + new)  # noqa: E731
    return {"x": jax.lax.scan(step, jnp.zeros(()), noise)[1]}


@pytest.mark.slow
def test_joint_models() -> None:
    """Their observations are drawn as a whole path or reweighted, and never shuffled."""
    series = {"x": np.asarray(simulate_path(jax.random.key(2), 0.5, {"x": jnp.zeros(200)})["x"])}
    fit = mle.fit(mle.Model(mle.joint(autoregression), simulate=simulate_path), 0.0, series)
    for kind, clusters in (("nonparametric", None), ("cluster", np.arange(200))):
        with pytest.raises(ValueError, match="those of a joint model depend on one another"):
            mle.bootstrap(fit, KEY, 50, kind, clusters=clusters)
    draws = mle.bootstrap(fit, KEY, 1000, "parametric")
    # The asymptotic variance (1 - phi^2) / n, right to about 1 / n, beside four standard errors of these thousand.
    expected = np.sqrt((1 - float(fit.params) ** 2) / 200)
    np.testing.assert_allclose(draws.standard_errors(), expected, rtol=4 / np.sqrt(2000) + 0.02)
    weighted = mle.bootstrap(fit, KEY, 1000, "weights")
    # Weighted squares of scores beside their plain sum: the same to first order in 1 / n.
    np.testing.assert_allclose(weighted.standard_errors(), fit.standard_errors("sandwich"), rtol=0.15)
    scalar = mle.fit(mle.joint(lambda phi, data: jnp.sum(autoregression(phi, data))), 0.0, series)
    with pytest.raises(ValueError, match="scalar"):
        mle.bootstrap(scalar, KEY, 50, "weights")


def test_what_is_refused(fit: mle.Fit, draws: mle.Bootstrap) -> None:
    with pytest.raises(ValueError, match="kind"):
        mle.bootstrap(fit, KEY, 50, "jackknife")
    with pytest.raises(TypeError, match="key must be one random key"):
        mle.bootstrap(fit, 0, 50)
    for replicates in (1, 2.5, True):
        with pytest.raises(ValueError, match="replicates must be a whole number"):
            mle.bootstrap(fit, KEY, replicates)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind='cluster' wants clusters="):
        mle.bootstrap(fit, KEY, 50, "cluster")
    with pytest.raises(ValueError, match="clusters go with kind='cluster'"):
        mle.bootstrap(fit, KEY, 50, clusters=CLUSTERS)
    with pytest.raises(ValueError, match="one label an observation"):
        mle.bootstrap(fit, KEY, 50, "cluster", clusters=CLUSTERS[:5])
    with pytest.raises(ValueError, match="clusters of one kind"):
        mle.bootstrap(fit, KEY, 50, "cluster", clusters=[CLUSTERS, CLUSTERS])
    with pytest.raises(ValueError, match="method"):
        draws.intervals(method="normal")
    with pytest.raises(ValueError, match="level"):
        draws.intervals(1.5)
    with pytest.raises(ValueError, match="has no simulate"):
        mle.bootstrap(mle.fit(location, 0.0, {"x": X}), KEY, 50, "parametric")
    with pytest.raises(ValueError, match="no use for weights"):
        mle.bootstrap(mle.fit(MODEL, 0.0, {"x": X}, weights=np.ones(30)), KEY, 50, "parametric")
    with pytest.raises(ValueError, match="does not run under jit"):
        jax.jit(lambda fit: mle.bootstrap(fit, KEY, 50).vector)(fit)


@pytest.mark.slow
def test_searches_that_cannot_begin_where_the_influence_leads() -> None:
    """A precision moves by half of itself with one more outlier, and so below zero with two."""
    x = jnp.append(jnp.linspace(0.5, 1.5, 11), 10.0)
    fit = mle.fit(lambda precision, x: 0.5 * jnp.log(precision) - 0.5 * precision * x**2, 0.1, x)
    draws = mle.bootstrap(fit, KEY, 500)
    assert np.any(np.asarray(draws.vector) < 0.4 * float(fit.params))  # starts at 2 - 1 / 0.4 estimates and below
    assert draws.failed == 0
    # The same model by its variance, where the influence leads right to the maximum.
    fit = mle.fit(lambda variance, x: -0.5 * jnp.log(variance) - 0.5 * x**2 / variance, 8.0, x)
    np.testing.assert_allclose(1 / draws.vector, mle.bootstrap(fit, KEY, 500).vector, rtol=1e-9)


def test_nothing_to_refit_where_every_parameter_is_fixed() -> None:
    fit = mle.fit(location, 3.0, {"x": X}, constraints=mle.fixed)
    draws = mle.bootstrap(fit, KEY, 20)
    np.testing.assert_array_equal(draws.vector, np.full((20, 1), 3.0))
    np.testing.assert_array_equal(fit.influence(), np.zeros((30, 1)))
    assert draws.standard_errors() == 0
    assert draws.failed == 0


def test_float32_stays_float32() -> None:
    draws = mle.bootstrap(mle.fit(location, jnp.float32(0), {"x": X.astype(np.float32)}), KEY, 50)
    assert draws.vector.dtype == np.float32
    assert draws.failed == 0
