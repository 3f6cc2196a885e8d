"""Many starts: the best maximum is kept, the modes are counted, and data sets stay on their own.

Compiling is what takes time here, so most tests share one model and the shapes of its data.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import mlekit as mle
from mlekit.engine import multistart as modes_
from mlekit.engine import single
from mlekit.engine.modes import Modes
from mlekit.likelihood import ragged as collection_
from mlekit.likelihood.ragged import from_arrays, from_groups
from mlekit.models.model import as_model
from tests.helpers.models import Counted

KEY = jax.random.key(0)
STARTS = 40
#: Three clusters, so far apart that each has a maximum.
PLACES = np.array([-20.0, -19.5, -20.2, 0.0, 0.3, -0.2, 0.1, 30.0, 30.4, 29.8])
#: The same ones, moved and stretched.
SETS = np.stack([PLACES, PLACES + 25.0, 0.2 * PLACES, 1.5 * PLACES, -PLACES])


@Counted
def cauchy(place: Any, x: Any) -> Any:
    """Cauchy noise, and no density at all where the place lies far away."""
    return jnp.where(jnp.abs(place) < 60, -jnp.log1p((x - place) ** 2), -jnp.inf)


def maxima(x: np.ndarray, weights: Any = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """All local maxima of the Cauchy likelihood, best first, by a dense grid."""

    def loss(place: Any) -> Any:
        return np.sum(weights * np.log1p((x - np.asarray(place)[..., None]) ** 2), axis=-1)

    grid = np.linspace(x.min() - 1, x.max() + 1, 40_001)
    values = loss(grid)
    inside = np.flatnonzero((values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])) + 1
    near = [(grid[i - 1], grid[i + 1]) for i in inside]
    places = np.array([optimize.minimize_scalar(loss, bounds=pair, options={"xatol": 1e-12}).x for pair in near])
    order = np.argsort(loss(places))
    return places[order], -loss(places)[order]


def modes_of(fit: mle.Fit) -> Modes:
    assert fit.modes is not None
    return fit.modes


def keys_of(key: Any) -> Any:
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(STARTS))


def fit_one(x: np.ndarray = PLACES, init: Any = 30.0, key: Any = KEY, **options: Any) -> mle.Fit:
    return mle.fit(cauchy, init, x, starts=STARTS, key=key, **options)


def fit_sets(x: Any = SETS, init: Any = 30.0, key: Any = KEY, **options: Any) -> mle.Fit:
    return mle.fit_batch(cauchy, init, x, starts=STARTS, key=key, **options)


@pytest.fixture(scope="module")
def many() -> mle.Fit:
    return fit_one()


@pytest.fixture(scope="module")
def batch() -> mle.Fit:
    before = cauchy.traces
    mle.fit_batch(cauchy, 30.0, SETS)
    plain = cauchy.traces - before
    fits = fit_sets()
    # The search once more, in another shape, and the curvature around which starts are drawn.
    assert cauchy.traces - before - plain <= plain + 2
    return fits


def test_all_maxima_are_found_and_the_best_is_kept(many: mle.Fit) -> None:
    places, heights = maxima(PLACES)
    modes = modes_of(many)
    assert (len(places), modes.n_modes, modes.failed, modes.starts) == (3, 3, 0, STARTS)
    np.testing.assert_allclose(modes.params[:3], places, atol=1e-6)
    np.testing.assert_allclose(modes.log_likelihood[:3], heights, rtol=1e-12)
    assert np.all(np.isnan(modes.vector[3:]))
    assert np.all(np.isnan(modes.log_likelihood[3:]))
    assert not np.any(modes.count[3:])
    np.testing.assert_array_equal(modes.count[:3], np.bincount(modes.found))
    np.testing.assert_allclose(modes.reached, heights[np.asarray(modes.found)], rtol=1e-12)
    # From its start alone the fit ends elsewhere; and what is kept is a fit like any other.
    np.testing.assert_allclose(mle.fit(cauchy, 30.0, PLACES).params, places[modes.found[0]], atol=1e-6)
    assert modes.found[0] > 0
    plain = mle.fit(cauchy, places[0], PLACES)
    assert plain.modes is None
    np.testing.assert_allclose(many.params, places[0], atol=1e-6)
    np.testing.assert_allclose(many.covariance(), plain.covariance(), rtol=1e-9)


def test_starts_lie_where_it_is_said(many: mle.Fit) -> None:
    """Around the first maximum, in units of one observation's information; and each ends as a fit from there."""
    first = float(mle.fit(cauchy, 30.0, PLACES).params)
    square = (PLACES - first) ** 2
    unit = np.mean(2 * (1 - square) / (1 + square) ** 2) ** -0.5
    moves = unit * np.asarray(modes_.directions(keys_of(KEY)[1:], 1, float)).ravel()
    assert np.any(np.abs(first + moves) >= 60)
    while np.any(beyond := np.abs(first + moves) >= 60):
        moves = np.where(beyond, moves / 4, moves)
    ends = [float(mle.fit(cauchy, start, PLACES).params) for start in (30.0, *(first + moves))]
    modes = modes_of(many)
    np.testing.assert_allclose(modes.params[np.asarray(modes.found)], ends, rtol=1e-9, atol=1e-9)
    # Cauchy draws: half within a unit, one in sixteen beyond ten.
    e = np.asarray(modes_.directions(jax.random.split(KEY, 20_000), 3, float))
    np.testing.assert_allclose(np.mean(np.abs(e) < 1, axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(np.mean(np.abs(e) > 10, axis=0), 0.0635, atol=0.01)


def test_starts_step_back_to_where_a_search_can_begin(many: mle.Fit) -> None:
    assert not np.any(modes_of(many).status == mle.Status.nonfinite_start)
    # Where the first start is hopeless, others may still find the way.
    far = fit_one(init=60.0)
    assert modes_of(far).status.names()[0] == "nonfinite_start"
    assert f"{int(modes_of(far).failed)} nonfinite_start" in " ".join(repr(far).split())
    np.testing.assert_allclose(far.params, many.params, rtol=1e-9)


def test_one_start_is_the_plain_fit() -> None:
    plain, one = mle.fit(cauchy, 30.0, PLACES), mle.fit(cauchy, 30.0, PLACES, starts=1)
    for field in ("estimates", "standard_errors", "log_likelihood", "steps", "status"):
        np.testing.assert_array_equal(getattr(one._solution, field), getattr(plain._solution, field))
    modes = modes_of(one)
    assert (modes.starts, modes.count.tolist(), modes.found.tolist()) == (1, [1], [0])


def test_the_key_decides(many: mle.Fit) -> None:
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(fit_one())):
        np.testing.assert_array_equal(a, b)
    other = fit_one(key=jax.random.PRNGKey(5))
    assert np.any(modes_of(other).found != modes_of(many).found)
    np.testing.assert_allclose(other.params, many.params, rtol=1e-9)
    # A start does not depend on how many there are.
    few: Any = modes_.parse_starts(3, KEY, None)[0]
    np.testing.assert_array_equal(jax.random.key_data(few), jax.random.key_data(keys_of(KEY)[:3]))


def test_a_batch_is_as_one_by_one(batch: mle.Fit) -> None:
    assert {leaf.shape[0] for leaf in jax.tree.leaves(batch)} == {5}
    for i, x in enumerate(SETS):
        alone, among = fit_one(x), modes_of(batch[i])
        np.testing.assert_array_equal(among.found, modes_of(alone).found)
        np.testing.assert_array_equal(among.status.codes, modes_of(alone).status.codes)
        np.testing.assert_allclose(batch[i].params, alone.params, rtol=1e-9)
        np.testing.assert_allclose(among.reached, modes_of(alone).reached, rtol=1e-12)
        np.testing.assert_allclose(among.vector, modes_of(alone).vector, rtol=1e-9)
        np.testing.assert_allclose(among.errors, modes_of(alone).errors, rtol=1e-9)
        places, heights = maxima(x)
        np.testing.assert_allclose(batch[i].params, places[0], atol=1e-6)
        off = np.abs(among.log_likelihood[: among.n_modes, None] - heights[None])
        assert np.all(np.min(off, axis=1) < 1e-9)
    modes = modes_of(batch)
    assert set(modes.n_modes.tolist()) >= {2, 3}
    np.testing.assert_array_equal(modes_of(batch[np.arange(5) > 2]).count, modes.count[3:])
    np.testing.assert_array_equal(modes_of(batch[1:3]).params, modes.params[1:3])


def test_neighbours_never_matter(batch: mle.Fit) -> None:
    order = np.array([3, 0, 4, 1, 2])
    mixed = fit_sets(SETS[order])
    pairs = zip(jax.tree.leaves((mixed._solution, mixed._modes)), jax.tree.leaves((batch._solution, batch._modes)))
    for a, b in pairs:
        np.testing.assert_array_equal(a, np.asarray(b)[order])
    sick = SETS.copy()
    sick[0], sick[4] = np.nan, 0.0
    others = fit_sets(sick)
    assert others.status.names() == ["nonfinite_data", *["converged"] * 4]
    np.testing.assert_array_equal(others._solution.estimates[1:4], batch._solution.estimates[1:4])
    assert modes_of(others).failed.tolist() == [STARTS, 0, 0, 0, 0]


def test_another_key_never_traces() -> None:
    fit_one()
    fit_sets()
    before = cauchy.traces
    fit_one(PLACES + 1.0, init=20.0, key=jax.random.key(7))
    fit_sets(SETS + 1.0, init=20.0, key=jax.random.key(7))
    assert cauchy.traces == before


def test_a_function_draws_the_starts(many: mle.Fit, batch: mle.Fit) -> None:
    @Counted
    def draw(data: Any, key: Any) -> Any:
        return jnp.median(data) + 20 * jax.random.normal(key)

    def init(data: Any, key: Any) -> Any:
        return draw(data, key)

    fits, keys = fit_sets(init=init), keys_of(KEY)
    for i in (0, 3):
        starts = jnp.median(SETS[i]) + 20 * jax.vmap(jax.random.normal)(keys)
        ends = [float(mle.fit(cauchy, start, SETS[i]).log_likelihood) for start in starts]
        np.testing.assert_allclose(modes_of(fits).reached[i], ends, rtol=1e-12)
        np.testing.assert_allclose(modes_of(fit_one(SETS[i], init=init)).reached, ends, rtol=1e-12)
    before = draw.traces
    fit_sets(init=init, key=jax.random.key(7))
    assert draw.traces == before

    # A second argument with a default is no key.
    def scaled(data: Any, factor: float = 2.0) -> Any:
        return factor * data[0]

    given = mle.fit(cauchy, scaled, PLACES)
    np.testing.assert_allclose(given.params, mle.fit(cauchy, -40.0, PLACES).params, rtol=1e-9)


@pytest.mark.slow
def test_groups_with_weights_args_fixed_and_tied_parameters() -> None:
    """Also in other units: where starts lie and what they find is the same."""

    def density(p: Any, obs: Any, factor: Any) -> Any:
        return -jnp.log1p(((obs["x"] - factor * (p["place"] + p["twin"])) / p["unit"]) ** 2)

    lengths, rng = np.array([10, 4, 7]), np.random.default_rng(3)
    inside = np.arange(10) < lengths[:, None]
    weights = rng.integers(0, 4, size=(3, 10)).astype(float)[inside]
    x = np.where(weights > 0, SETS[[0, 1, 4]][inside], np.nan)  # of weight zero: never seen
    options: dict[str, Any] = {
        "args": 0.5,
        "weights": "w",
        "constraints": {"twin": mle.tied(to="place"), "unit": mle.fixed},
        "starts": 9,
        "key": KEY,
    }
    fits = []
    for unit in (1.0, 1e6):
        groups = mle.group_by({"key": np.repeat(np.arange(3), lengths), "x": unit * x, "w": weights}, "key")
        start = {"place": 10 * unit, "twin": 0.0, "unit": unit}
        fits.append(mle.fit_batch(density, start, groups, **options))
    modes = modes_of(fits[0])
    np.testing.assert_array_equal(modes_of(fits[1]).found, modes.found)
    np.testing.assert_allclose(fits[1].params["place"], 1e6 * fits[0].params["place"], rtol=1e-9)
    np.testing.assert_array_equal(modes.params["twin"], modes.params["place"])
    np.testing.assert_array_equal(modes.params["unit"][modes.count > 0], 1.0)
    assert "unit" not in str(modes_of(fits[0][0]))
    for i in range(3):
        own = (np.repeat(np.arange(3), lengths) == i) & (weights > 0)
        places, heights = maxima(x[own], weights[own])
        n_modes = int(modes.n_modes[i])
        nearest = np.argmin(np.abs(np.asarray(modes.log_likelihood[i, :n_modes, None]) - heights), axis=1)
        np.testing.assert_allclose(modes.params["place"][i, :n_modes], places[nearest], atol=1e-5)

    # A fixed parameter stays what the first start says, whatever a function draws.
    def draw(data: Any, key: Any) -> Any:
        return {"place": 10 * jax.random.normal(key), "twin": 0.0, "unit": 1 + jax.random.uniform(key)}

    drawn = mle.fit_batch(density, draw, groups, **options)
    expected = 1 + jax.random.uniform(jax.random.fold_in(KEY, 0))
    np.testing.assert_allclose(drawn.params["unit"], expected)
    np.testing.assert_allclose(modes_of(drawn).params["unit"][modes_of(drawn).count > 0], expected)


def test_a_long_data_set_takes_its_starts_in_turn(many: mle.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_one()
    monkeypatch.setattr(single, "LONG_SET", 5)
    before = cauchy.traces
    turns = fit_one()
    assert cauchy.traces == before
    np.testing.assert_array_equal(modes_of(turns).found, modes_of(many).found)
    np.testing.assert_allclose(modes_of(turns).vector, modes_of(many).vector, rtol=1e-9, atol=1e-12)


def test_nothing_to_move() -> None:
    fit = mle.fit(cauchy, 0.0, PLACES, constraints=mle.fixed, starts=3, key=KEY)
    assert modes_of(fit).count.tolist() == [3, 0, 0]
    assert "starts: 3, all of which found this maximum" in repr(fit)


def test_rows_of_a_piece_are_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.array([5, 0, 9, 2, 7])
    groups = mle.group_by({"key": np.repeat(np.arange(5), lengths), "x": np.arange(23.0)}, "key")
    model = as_model(cauchy)
    gathered = from_groups(model, None, groups, np.arange(4), None).repeated(6)
    ((chosen, sets),) = gathered.chunks(1, 16)
    assert (gathered.n_sets, int(sets.count)) == (24, 24)
    assert 23 <= len(sets.rows["x"]) <= 32
    for place, number in enumerate(chosen):
        begin, length = int(sets.offset[place]), int(sets.length[place])  # type: ignore[index]
        np.testing.assert_array_equal(sets.rows["x"][begin : begin + length], groups[int(number) // 6]["x"])
    whole = gathered.as_chunk()
    np.testing.assert_array_equal(whole.offset, np.repeat([0, 5, 14, 16], 6))
    np.testing.assert_array_equal(whole.length, np.repeat([5, 9, 2, 7], 6))
    # Of a joint model the sets of a piece are of similar length.
    pieces = list(dataclasses.replace(gathered, model=as_model(mle.joint(cauchy))).chunks(1, 16))
    assert [sorted(set(chosen // 6)) for chosen, _ in pieces] == [[0, 1, 3], [2]]
    assert [len(chosen) for chosen, _ in pieces] == [18, 6]
    # More starts than a piece holds: they are divided, and still no row comes twice in a piece.
    monkeypatch.setattr(collection_, "CHUNK_SETS", 4)
    pieces = list(from_arrays(model, None, PLACES[None], None, None).repeated(10).chunks(1, 2))
    assert np.concatenate([chosen for chosen, _ in pieces]).tolist() == list(range(10))
    assert 2 <= max(len(chosen) for chosen, _ in pieces) <= 4
    assert all(len(sets.rows) <= 16 for _, sets in pieces)
    pieces = list(from_arrays(model, None, SETS, None, None).repeated(2).chunks(1, 2))
    assert sorted(np.concatenate([chosen for chosen, _ in pieces])) == list(range(10))
    assert all(len(chosen) <= 4 and len(set(chosen // 2)) == len(chosen) / 2 for chosen, _ in pieces)


def test_inside_jit_and_vmap(batch: mle.Fit) -> None:
    mapped = jax.jit(jax.vmap(lambda x, key: fit_one(x, key=key), in_axes=(0, None)))(SETS, KEY)
    np.testing.assert_allclose(mapped.params, batch.params, rtol=1e-9)
    np.testing.assert_array_equal(mapped.modes.found, modes_of(batch).found)
    np.testing.assert_allclose(mapped.modes.vector, modes_of(batch).vector, rtol=1e-9)


def test_what_shows(many: mle.Fit, batch: mle.Fit, capsys: pytest.CaptureFixture[str]) -> None:
    modes = modes_of(many)
    counts = modes.count.tolist()
    rest = f"{counts[1] + counts[2]} found 2 others, the next 9.1 nats lower"
    assert f"starts: {STARTS}, of which {counts[0]} found this maximum, {rest}" in " ".join(repr(many).split())
    lines = repr(modes).splitlines()
    assert lines[0] == "Modes: 3"
    wanted = [[str(i), str(counts[i]), f"{modes.log_likelihood[i]:.4f}"] for i in range(3)]
    assert [row.split()[:3] for row in lines[-3:]] == wanted
    assert "<table" in modes._repr_html_()
    assert f"starts: {STARTS} a data set" in repr(batch)
    assert repr(batch.modes).startswith(f"Modes: 5 data sets\nstarts: {STARTS} a data set; the best maximum was")
    jax.jit(lambda fit: print(fit.modes))(many)
    assert "traced" in capsys.readouterr().out
    fit_sets(progress=True)
    assert f"{5 * STARTS}/{5 * STARTS}" in capsys.readouterr().err
    fit_one(progress=True)
    assert f"{STARTS - 1}/{STARTS - 1}" in capsys.readouterr().err


def test_errors() -> None:
    for starts in (0, -3, 2.0, True, "ten"):
        with pytest.raises(ValueError, match=r"starts must be a positive whole number, got"):
            mle.fit(cauchy, 0.0, PLACES, starts=starts, key=KEY)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"starts=5 .* need a key: key=jax.random.key\(0\)"):
        mle.fit_batch(cauchy, 0.0, SETS, starts=5)
    with pytest.raises(ValueError, match="key: it is there to draw starts with"):
        mle.fit(cauchy, 0.0, PLACES, key=KEY)
    for key in (0, "a", np.zeros(2), jax.random.split(KEY, 3)):
        with pytest.raises(TypeError, match=r"key must be one random key, such as jax.random.key\(0\); got"):
            mle.fit(cauchy, 0.0, PLACES, starts=2, key=key)

    def init(data: Any, key: Any) -> Any:
        return jax.random.choice(key, data)

    with pytest.raises(ValueError, match="init takes two arguments"):
        mle.fit(cauchy, init, PLACES)
