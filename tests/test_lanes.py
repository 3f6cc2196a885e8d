"""Many data sets: the same as one by one, whatever shares the batch, with memory bounded by a piece."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

import mlekit as mle
from mlekit.engine import lanes as lanes_
from mlekit.engine.chunks import accounting
from mlekit.inference.record import objective
from mlekit.likelihood import in_memory as likelihood_
from mlekit.likelihood import ragged as collection_
from mlekit.likelihood.ragged import from_groups, power_of_two, round_up
from mlekit.models.model import as_model

from .marks import mostly_slow
from .models import RULES, START, least_squares, line, line_data

RNG = np.random.default_rng(7)
LENGTHS = np.concatenate([np.array([60, 3, 17, 1, 0, 33]), RNG.integers(4, 60, size=34)])
PADDED = {k: np.where(np.arange(60) < LENGTHS[:, None], v, np.nan) for k, v in line_data(60, 40, seed=2).items()}


def fit_padded(**options: Any) -> mle.Fit:
    return mle.fit_batch(line, START, PADDED, lengths=LENGTHS, constraints=RULES, **options)


@pytest.fixture(scope="module")
def ragged() -> mle.Fit:
    return fit_padded()


def test_ragged_sets_are_their_own_rows(ragged: mle.Fit) -> None:
    """Padding is NaN here and must never be seen."""
    for i, n in enumerate(LENGTHS):
        if n < 3:
            assert str(ragged[i].status) == "too_few_observations"
            assert np.isnan(float(ragged.standard_errors()["slope"][i]))
        elif n > 3:
            best = least_squares({k: v[i, :n] for k, v in PADDED.items()})
            assert str(ragged[i].status) == "converged"
            np.testing.assert_allclose([ragged.params[k][i] for k in best], list(best.values()), rtol=1e-9)
    np.testing.assert_array_equal(ragged.n_obs, LENGTHS)


def test_groups_and_padded_sets_agree(ragged: mle.Fit) -> None:
    key = np.repeat(np.arange(40), LENGTHS)
    inside = np.arange(60) < LENGTHS[:, None]
    order = RNG.permutation(len(key))
    table = {"key": key[order], **{k: v[inside][order] for k, v in PADDED.items()}}
    fits = mle.fit_batch(line, START, mle.group_by(table, "key"), constraints=RULES)
    present = np.flatnonzero(LENGTHS)
    np.testing.assert_array_equal(fits.keys["key"], present)
    np.testing.assert_array_equal(fits._solution.status, np.asarray(ragged._solution.status)[present])
    sure = np.asarray(fits.converged)
    np.testing.assert_allclose(fits.params["sigma"][sure], ragged.params["sigma"][present][sure], rtol=1e-9)
    np.testing.assert_allclose(fits.covariance()[sure], ragged.covariance()[present][sure], rtol=1e-6, atol=1e-12)
    one = fits[5]
    data = mle.group_by(table, "key")[5]
    np.testing.assert_allclose(
        one.contributions(), [line(one.params, {k: v[i] for k, v in data.items()}) for i in range(len(data["x"]))]
    )
    assert one.contributions().shape == (LENGTHS[present[5]],)
    np.testing.assert_allclose(np.sum(one.scores(), axis=0), 0, atol=1e-7)
    wide = fits.contributions()
    assert wide.shape == (len(present), 60)
    np.testing.assert_allclose(wide[5, : len(data["x"])], one.contributions(), rtol=1e-12)
    assert not np.any(wide[5, len(data["x"]) :])
    np.testing.assert_allclose(np.sum(wide, axis=1)[sure], fits.log_likelihood[sure], rtol=1e-12)
    picked = fits[sure]
    assert len(picked) == sure.sum()
    np.testing.assert_array_equal(picked.keys["key"], present[sure])
    np.testing.assert_allclose(picked[-3:].covariance(), fits.covariance()[sure][-3:], rtol=1e-9, atol=1e-14)


def test_composition_never_matters(ragged: mle.Fit) -> None:
    """Bit for bit, in any order, with other neighbours, even sick ones."""
    order = RNG.permutation(40)
    shuffled = mle.fit_batch(
        line, START, {k: v[order] for k, v in PADDED.items()}, lengths=LENGTHS[order], constraints=RULES
    )
    np.testing.assert_array_equal(
        np.asarray(shuffled._solution.estimates), np.asarray(ragged._solution.estimates)[order]
    )
    np.testing.assert_array_equal(
        np.asarray(shuffled._solution.standard_errors), np.asarray(ragged._solution.standard_errors)[order]
    )
    np.testing.assert_array_equal(shuffled.steps, np.asarray(ragged.steps)[order])
    sick = {k: v.copy() for k, v in PADDED.items()}
    sick["y"][0], sick["x"][5, :7] = 0.0, np.nan
    others = mle.fit_batch(line, START, sick, lengths=LENGTHS, constraints=RULES)
    assert str(others[5].status) == "nonfinite_data"
    healthy = ~np.isin(np.arange(40), [0, 5])
    np.testing.assert_array_equal(
        np.asarray(others._solution.estimates)[healthy], np.asarray(ragged._solution.estimates)[healthy]
    )


@pytest.mark.parametrize(
    "solver",
    [mle.Newton(), *(pytest.param(solver, marks=pytest.mark.slow) for solver in (mle.BFGS(), optax.adam(0.1)))],
    ids=["newton", "bfgs", "adam"],
)
def test_few_lanes_many_sets(solver: Any) -> None:
    sets = line_data(30, 23, seed=4)
    fits = mle.fit_batch(line, START, sets, constraints=RULES, solver=solver, lanes=4)
    assert fits.status.counts() == {"converged": 23}
    for i in (0, 11, 22):
        best = least_squares({k: v[i] for k, v in sets.items()})
        np.testing.assert_allclose([fits.params[k][i] for k in best], list(best.values()), rtol=1e-9)


def test_pieces_join_in_order(monkeypatch: pytest.MonkeyPatch, ragged: mle.Fit) -> None:
    monkeypatch.setattr(collection_, "CHUNK_SETS", 8)
    monkeypatch.setattr(collection_, "CHUNK_ROWS", 128)
    fits = fit_padded()
    np.testing.assert_array_equal(fits._solution.status, ragged._solution.status)
    sure = np.asarray(ragged.converged)
    np.testing.assert_allclose(fits._solution.estimates[sure], ragged._solution.estimates[sure], rtol=1e-9)
    np.testing.assert_allclose(fits.covariance()[sure], ragged.covariance()[sure], rtol=1e-6, atol=1e-12)


def test_memory_is_bounded_by_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """No array on the device grows with the number of sets: each piece has one fixed shape."""
    monkeypatch.setattr(collection_, "CHUNK_SETS", 64)
    monkeypatch.setattr(collection_, "CHUNK_ROWS", 1024)
    lengths = RNG.integers(1, 30, size=1000)
    groups = mle.group_by({"key": np.repeat(np.arange(1000), lengths), **line_data(int(lengths.sum()))}, "key")
    gathered = from_groups(as_model(line), None, groups, np.arange(1000), None)
    shapes = set()
    seen: list[np.ndarray] = []
    for chosen, sets in gathered.chunks(3, 16):
        shapes.add((jax.tree.leaves(sets.rows)[0].shape, sets.offset.shape, sets.longest, sets.block))
        seen.append(chosen)
        i = len(chosen) // 2
        begin, length = int(sets.offset[i]), int(sets.length[i])  # type: ignore[index]
        np.testing.assert_array_equal(sets.rows["x"][begin : begin + length], groups[int(chosen[i])]["x"])
    ((rows,), (n_sets,), longest, block) = shapes.pop()
    assert not shapes
    # Rounded up to four binary digits, an eighth at most.
    assert rows <= 1024 * 9 / 8 + 30
    assert (n_sets, longest, block) == (64, 32, 8)
    # Many parameters: fewer sets a piece, so that the Hessians stay bounded too.
    monkeypatch.setattr(collection_, "CHUNK_HESSIANS", 16 * 1000**2)
    assert {sets.n_sets for _, sets in gathered.chunks(1000, 16)} == {16}
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(1000))


def test_a_long_data_set_costs_its_own_lane() -> None:
    """One set of 2,000 rows among 63 of 8, on four lanes: the short ones pass by while it is read."""
    lengths = np.full(64, 8)
    lengths[10] = 2000
    table = {"key": np.repeat(np.arange(64), lengths), **line_data(int(lengths.sum()), seed=3)}
    groups = mle.group_by(table, "key")
    with accounting() as account:
        fits = mle.fit_batch(line, START, groups, constraints=RULES, lanes=4)
    assert fits.status.counts() == {"converged": 64}
    steps = np.asarray(fits.steps)
    blocks = -(-lengths // 8) * steps
    # One block of each lane at a time, for as many turns as the long set has blocks; 63 others took part of them,
    # or were another piece. Had lanes waited for each other, every step of all 64 would have taken its 250 blocks.
    assert 4 * 8 * blocks[10] <= account.rows < 1.1 * 4 * 8 * blocks[10]
    assert account.rows < 0.1 * 8 * 250 * steps.sum()


@pytest.mark.slow
def test_sets_far_shorter_than_their_padding() -> None:
    """A piece has room for a block of rows, however few rows there are in all."""
    data = line_data(60, 1)
    fits = mle.fit_batch(line, START, data, lengths=np.array([4]), constraints=RULES)
    best = least_squares({k: v[0, :4] for k, v in data.items()})
    np.testing.assert_allclose([fits.params[k][0] for k in best], list(best.values()), rtol=1e-9)


def test_the_lanes_account_for_what_they_do() -> None:
    sets = line_data(25, 4, seed=5)
    with accounting() as account:
        fits = mle.fit_batch(line, START, sets, constraints=RULES, lanes=2)
    free_at = [0, 0]
    for steps in np.asarray(fits.steps):  # every lane takes the next set as soon as it is free
        lane = int(np.argmin(free_at))
        free_at[lane] += int(steps)
    assert account.rows == 2 * 25 * max(free_at)


@pytest.mark.parametrize(
    "solver", [mle.Newton(), pytest.param(mle.BFGS(), marks=pytest.mark.slow)], ids=["newton", "bfgs"]
)
def test_stragglers_finish_in_few_lanes(solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many lanes, sets that take long move over to few: the same numbers, in the same order."""
    monkeypatch.setattr(lanes_, "MANY_LANES", 16)
    monkeypatch.setattr(lanes_, "LONG_SEARCH", 7)
    monkeypatch.setattr(lanes_, "FEWER", 8)
    sets = line_data(30, 50, seed=8)
    starts = {"intercept": np.zeros(50), "slope": np.ones(50), "sigma": np.ones(50)}
    starts["sigma"][[3, 31, 44]] = 1e-4  # far off: these take more steps
    options: dict[str, Any] = {"init_axis": 0, "constraints": RULES, "solver": solver}
    with accounting() as account:
        fits = mle.fit_batch(lambda p, o: line(p, o), starts, sets, lanes=32, **options)
    steps = np.asarray(fits.steps)
    assert np.all(np.asarray(fits.converged))
    assert steps[[3, 31, 44]].min() > 7
    plain = mle.fit_batch(line, starts, sets, lanes=8, **options)
    np.testing.assert_array_equal(steps, plain.steps)
    np.testing.assert_allclose(fits._solution.estimates, plain._solution.estimates, rtol=1e-12)
    if solver == mle.Newton():
        # All lanes never run as long as the longest search takes.
        assert account.rows < 30 * 32 * steps.max()


@pytest.mark.parametrize("n_devices", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_all_local_devices_work(n_devices: int) -> None:
    """Pieces go to every device, and one compiled program serves them all."""
    script = """
        import jax, numpy as np
        jax.config.update("jax_enable_x64", True)
        import mlekit as mle
        from tests.models import RULES, START, Counted, line, line_data
        sets, lengths = line_data(30, 200), np.random.default_rng(0).integers(5, 31, 200)
        density = Counted(line)
        fits = mle.fit_batch(density, START, sets, lengths=lengths, constraints=RULES, lanes=8)
        traces = density.traces
        again = mle.fit_batch(density, START, sets, lengths=lengths, constraints=RULES, lanes=8)
        assert density.traces == traces <= 6, density.traces
        covariance = np.diagonal(np.asarray(fits.covariance()), axis1=1, axis2=2)
        assert np.allclose(np.sqrt(covariance), fits._solution.standard_errors, rtol=1e-8)
        print(len(jax.local_devices()), fits.status.counts(), np.asarray(fits._solution.estimates).tobytes().hex())
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={n_devices}"},
    )
    assert run.returncode == 0, run.stderr
    devices, counts, numbers = run.stdout.split("\n")[0].rsplit(" ", 1)[0].split(" ", 1) + run.stdout.split()[-1:]
    assert (devices, counts) == (str(n_devices), "{'converged': 200}")
    sets, lengths = line_data(30, 200), np.random.default_rng(0).integers(5, 31, 200)
    here = mle.fit_batch(line, START, sets, lengths=lengths, constraints=RULES, lanes=8)
    there = np.frombuffer(bytes.fromhex(numbers)).reshape(200, 3)
    np.testing.assert_allclose(there, here._solution.estimates, rtol=1e-12)


@pytest.mark.slow
def test_init_of_each_set() -> None:
    sets = line_data(30, 6, seed=9)
    starts = {"intercept": np.linspace(-1, 1, 6), "slope": np.full(6, 2.0), "sigma": np.linspace(0.5, 2, 6)}
    shared = mle.fit_batch(line, START, sets, constraints=RULES)
    own = mle.fit_batch(line, starts, sets, init_axis=0, constraints=RULES)
    np.testing.assert_allclose(own._solution.estimates, shared._solution.estimates, rtol=1e-9)
    held = mle.fit_batch(line, starts, sets, init_axis=0, constraints=RULES | {"intercept": mle.fixed})
    np.testing.assert_array_equal(held.params["intercept"], starts["intercept"])
    one = mle.fit(
        line,
        {k: v[2] for k, v in starts.items()},
        {k: v[2] for k, v in sets.items()},
        constraints=RULES | {"intercept": mle.fixed},
    )
    np.testing.assert_allclose(held[2].params["slope"], one.params["slope"], rtol=1e-10)

    def guess(data: Any) -> Any:
        return {"intercept": jnp.mean(data["y"]), "slope": 0.0, "sigma": jnp.std(data["y"])}

    called = mle.fit_batch(line, guess, sets, constraints=RULES)
    np.testing.assert_allclose(called._solution.estimates, shared._solution.estimates, rtol=1e-9)
    groups = mle.group_by({"key": np.repeat([0, 1, 2], [5, 20, 40]), **line_data(65)}, "key")
    grouped = mle.fit_batch(line, guess, groups, constraints=RULES)
    for i in range(3):
        best = least_squares(groups[i])
        np.testing.assert_allclose([grouped.params[k][i] for k in best], list(best.values()), rtol=1e-9)
        np.testing.assert_allclose(
            mle.fit(line, guess, groups[i], constraints=RULES).params["slope"], best["slope"], rtol=1e-9
        )
    # A start that fails for one set is that set's status.
    bad = {k: v.copy() for k, v in sets.items()}
    bad["y"][1] = 3.0
    statuses = mle.fit_batch(line, guess, bad, constraints=RULES).status.names()
    assert statuses[1] == "nonfinite_start"
    assert set(statuses[:1] + statuses[2:]) == {"converged"}


@pytest.mark.slow
def test_an_empty_set_with_weights_at_the_end() -> None:
    """Its rows would begin where the arrays of its piece end."""
    x, weights = np.arange(24.0).reshape(3, 8), np.ones((3, 8))
    fits = mle.fit_batch(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, x, weights=weights, lengths=[8, 8, 0])
    assert [str(status) for status in fits.status] == ["converged", "converged", "too_few_observations"]
    np.testing.assert_allclose(fits.params[:2], [3.5, 11.5], rtol=1e-12)


@pytest.mark.slow
def test_weights_repeat_rows() -> None:
    sets = line_data(20, 3, seed=6)
    weights = RNG.integers(0, 4, size=(3, 20)).astype(float)
    sets["y"][weights == 0] = np.nan  # of weight zero: never seen
    fits = mle.fit_batch(line, START, sets, weights=weights, constraints=RULES)
    table = {"key": np.repeat(np.arange(3), 20), "w": weights.ravel(), **{k: v.ravel() for k, v in sets.items()}}
    groups = mle.group_by(table, "key")
    grouped = mle.fit_batch(line, START, groups, weights="w", constraints=RULES)
    for i in range(3):
        repeated = {k: np.repeat(v[i], weights[i].astype(int)) for k, v in sets.items()}
        plain = mle.fit(line, START, repeated, constraints=RULES)
        for fit in (
            fits[i],
            grouped[i],
            mle.fit(line, START, {k: v[i] for k, v in sets.items()}, weights=weights[i], constraints=RULES),
        ):
            np.testing.assert_allclose(fit._solution.estimates, plain._solution.estimates, rtol=1e-9)
            np.testing.assert_allclose(fit._solution.standard_errors, plain._solution.standard_errors, rtol=1e-9)
            np.testing.assert_allclose(fit.covariance(), plain.covariance(), rtol=1e-8, atol=1e-14)
            assert float(fit.n_obs) == weights[i].sum()
            np.testing.assert_allclose(fit.bic, plain.bic, rtol=1e-12)
    np.testing.assert_allclose(grouped.covariance(), fits.covariance(), rtol=1e-9, atol=1e-14)
    # Contributions are unweighted, and a row that does not count is still its own.
    for contributions in (fits.contributions(), grouped.contributions()):
        np.testing.assert_array_equal(np.isnan(contributions), weights == 0)


def test_weights_that_count_nothing() -> None:
    data = line_data()
    names = [
        str(mle.fit(line, START, data, weights=weights, constraints=RULES).status)
        for weights in (np.full(40, np.nan), np.zeros(40), np.where(np.arange(40) == 7, np.nan, 1.0))
    ]
    assert names == ["nonfinite_data", "too_few_observations", "nonfinite_data"]


def autoregression(params: Any, data: Any) -> Any:
    previous = jnp.concatenate([jnp.zeros(1), data["x"][:-1]])
    z = (data["x"] - params["phi"] * previous) / params["sigma"]
    return -0.5 * z**2 - jnp.log(params["sigma"]) - 0.5 * jnp.log(2 * jnp.pi)


@pytest.mark.slow
def test_series_of_unequal_length() -> None:
    lengths = np.array([50, 7, 23, 12])
    x = np.where(np.arange(50) < lengths[:, None], np.cumsum(RNG.normal(size=(4, 50)), axis=1), np.inf)
    model = mle.joint(autoregression)
    start, rules = {"phi": 0.0, "sigma": 1.0}, {"sigma": mle.positive}
    fits = mle.fit_batch(model, start, {"x": x}, lengths=lengths, constraints=rules)
    assert fits.status.counts() == {"converged": 4}
    for i, n in enumerate(lengths):
        now, before = x[i, :n], np.concatenate([[0.0], x[i, : n - 1]])
        phi = now @ before / (before @ before)
        np.testing.assert_allclose(fits.params["phi"][i], phi, rtol=1e-9)
        np.testing.assert_allclose(fits.params["sigma"][i], np.sqrt(np.mean((now - phi * before) ** 2)), rtol=1e-9)
    single = mle.fit(model, start, {"x": x[2, :23]}, constraints=rules)
    np.testing.assert_allclose(
        fits.covariance("sandwich")[2], single.covariance("sandwich"), rtol=1e-7, atol=1e-12
    )
    assert fits.scores().shape == (4, 50, 2)


def test_inside_jit() -> None:
    sets = line_data(15, 5, seed=8)
    plain = mle.fit_batch(line, START, sets, constraints=RULES)

    @jax.jit
    def inside(data: Any, lengths: Any) -> Any:
        fits = mle.fit_batch(line, START, data, lengths=lengths, constraints=RULES)
        return fits, fits.covariance(), fits[1:3].params, fits.intervals()

    fits, covariance, some, _ = inside(sets, np.full(5, 15))
    np.testing.assert_allclose(fits._solution.estimates, plain._solution.estimates, rtol=1e-12)
    np.testing.assert_allclose(covariance, plain.covariance(), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(some["slope"], plain.params["slope"][1:3], rtol=1e-12)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(plain)} == {5}
    taken = jax.tree.map(lambda leaf: leaf[3], plain)
    np.testing.assert_allclose(taken.covariance(), plain.covariance()[3], rtol=1e-9, atol=1e-14)


def test_a_large_data_set_in_blocks() -> None:
    """More rows than a block: the same numbers as all at once."""
    data = line_data(150_000)
    fit = mle.fit(line, START, data, constraints=RULES)
    best = least_squares(data)
    assert objective(fit).likelihood.rows == 150_000
    np.testing.assert_allclose([fit.params[k] for k in best], list(best.values()), rtol=1e-9)
    weights = np.ones(150_000)
    weights[::7] = 0
    data["y"][::7] = np.nan
    weighted = mle.fit(line, START, data, weights=weights, constraints=RULES, solver=optax.lbfgs())
    best = least_squares({k: np.delete(v, np.s_[::7]) for k, v in data.items()})
    np.testing.assert_allclose([weighted.params[k] for k in best], list(best.values()), rtol=1e-9)


def test_a_sample_may_mislead_but_never_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its blocks are like the others, of one kind, or without a maximum: the answer is the same."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(120_000, 3))
    y = (rng.random(120_000) < 1 / (1 + np.exp(-(x @ [0.5, -1.0, 0.0] - 0.5)))).astype(float)

    def density(params: Any, obs: Any) -> Any:
        logit = params[0] + jnp.dot(obs["x"], params[1:])
        return obs["y"] * logit - jax.nn.softplus(logit)

    def fit(order: np.ndarray, **options: Any) -> mle.Fit:
        return mle.fit(density, np.zeros(4), {"x": x[order], "y": y[order]}, **options)

    orders = [np.arange(120_000), np.argsort(y), np.argsort(x @ [0.5, -1.0, 0.0] + 4 * y)]
    sampled = [fit(order) for order in orders]
    counted = fit(orders[0], weights=np.ones(120_000))
    monkeypatch.setattr(likelihood_, "SAMPLE_BLOCKS", 10**9)
    jax.clear_caches()
    alone = fit(orders[0])
    assert int(sampled[0].steps) != int(alone.steps)
    for one in [*sampled, counted]:
        assert str(one.status) == "converged"
        np.testing.assert_allclose(
            one.params, alone.params, rtol=0, atol=1e-9 * float(alone.standard_errors().min())
        )
        np.testing.assert_allclose(one.standard_errors(), alone.standard_errors(), rtol=1e-8)
        assert float(one.certificate.decrement) < 1e-9


@pytest.mark.slow
def test_a_large_data_set_without_a_maximum() -> None:
    rows = np.linspace(-1, 1, 120_000)
    separated = mle.fit(
        lambda p, obs: -jax.nn.softplus((1 - 2 * obs["y"]) * (p[0] + p[1] * obs["x"])),
        np.zeros(2),
        {"x": rows, "y": (rows > 0.1) * 1.0},
    )
    assert str(separated.status) == "unbounded"
    # The second block alone differs, and is not in the sample, which has no maximum.
    rare = np.zeros(120_000)
    rare[4_096:8_192:100] = 1.0
    fit = mle.fit(lambda p, y: -jax.nn.softplus((1 - 2 * y) * p), 0.0, rare)
    assert str(fit.status) == "converged"
    np.testing.assert_allclose(fit.params, np.log(rare.mean() / (1 - rare.mean())), rtol=1e-10)


@pytest.mark.parametrize("solver", mostly_slow([None, mle.Scoring(), mle.BFGS()], None), ids=str)
def test_a_large_data_set_in_few_steps(solver: Any) -> None:
    """Wherever the steps end, what is reported was seen on all rows."""
    data = line_data(120_000)
    start, rules = {"intercept": 1.0, "slope": 1.0, "sigma": 3.0}, {"sigma": mle.positive}
    values = []
    for max_steps in (1, 2, 5, 9, 10, 11, 12, 14, 100):
        fit = mle.fit(line, start, data, constraints=rules, solver=solver, max_steps=max_steps)
        assert str(fit.status) in ("max_steps", "converged", "stalled")
        np.testing.assert_allclose(fit.log_likelihood, mle.log_likelihood(line, fit.params, data), rtol=1e-12)
        values.append(float(fit.log_likelihood))
    assert str(fit.status) == "converged"
    assert values[0] < values[-1] == pytest.approx(max(values), rel=1e-12)


def test_rows_outside_the_sample_may_forbid_its_maximum() -> None:
    """An uniform distribution's kin: the second block, which is not in the sample, has the only large value."""
    x = np.random.default_rng(5).gamma(2.0, 1.0, 120_000)
    x[4_097] = 60.0

    def density(rate: Any, obs: Any) -> Any:  # of an odds that must stay below one
        return jnp.log(rate) + jnp.log1p(-rate * obs / 70.0)

    def alone(rate: float) -> float:
        return -float(np.sum(np.log(rate) + np.log1p(-rate * x / 70.0)))

    fit = mle.fit(density, 0.5, x, constraints=mle.positive)
    best = optimize.minimize_scalar(
        alone, bounds=(1e-3, 70 / 60 - 1e-9), method="bounded", options={"xatol": 1e-12}
    )
    assert np.isnan(density(1.5, x[4_097]))
    assert str(fit.status) == "converged"
    np.testing.assert_allclose(fit.params, best.x, rtol=1e-6)


@pytest.mark.slow
def test_a_regression_keeps_the_precision_of_its_start() -> None:
    """float64 data, weights and blocks beside float32 parameters."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(12, 40))
    data = {"x": x, "y": rng.poisson(np.exp(0.3 + 0.5 * x)).astype(float)}
    model = mle.regression(lambda p, obs: jnp.exp(p["a"] + p["b"] * obs["x"]), mle.families.poisson)
    start = {"a": jnp.float32(0.0), "b": jnp.float32(0.0)}
    exact = mle.fit_batch(model, {"a": 0.0, "b": 0.0}, data)
    for options in ({}, {"weights": np.ones((12, 40))}, {"lengths": np.full(12, 40)}, {"solver": mle.Scoring()}):
        fits = mle.fit_batch(model, start, data, **options)
        assert fits.params["b"].dtype == jnp.float32
        assert fits.status.counts() == {"converged": 12}
        np.testing.assert_allclose(fits.params["b"], exact.params["b"], rtol=2e-3)


@pytest.mark.slow
def test_a_finished_fit_inside_jit() -> None:
    """What was fitted outside is known to no trace, and gives the same inside one."""
    data = line_data(30, 5, seed=1)
    fits = mle.fit_batch(line, START, data, constraints=RULES)
    one = mle.fit(line, START, {k: v[0] for k, v in data.items()}, constraints=RULES)
    for fit in (one, fits):
        inside = jax.jit(lambda factor, fit=fit: factor * fit.covariance("sandwich"))(2.0)
        np.testing.assert_allclose(inside, 2 * fit.covariance("sandwich"), rtol=1e-12)


@pytest.mark.slow
def test_pieces_in_threads_keep_the_precision_of_their_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads do not inherit what was chosen for one of them."""
    monkeypatch.setattr(collection_, "CHUNK_SETS", 64)
    with jax.enable_x64(False):
        small = {k: v.astype(np.float32) for k, v in line_data(30, 200, seed=5).items()}
        fits = mle.fit_batch(line, START, small, constraints=RULES)
        assert fits.params["slope"].dtype == fits.log_likelihood.dtype == jnp.float32
        assert fits.status.counts() == {"converged": 200}
        one = mle.fit_batch(line, START, {k: v[150:151] for k, v in small.items()}, constraints=RULES)
        np.testing.assert_allclose(fits.params["slope"][150], one.params["slope"][0], rtol=1e-5)


def test_random_keys_among_args() -> None:
    """Typed keys are arrays that only JAX can hold."""
    key = jax.random.key(3)
    x = np.random.default_rng(0).normal(size=(4, 20))
    density = lambda mean, x, key: -0.5 * (x - mean - jax.random.normal(key)) ** 2  # noqa: E731
    fits = mle.fit_batch(density, 0.0, x, args=key)
    np.testing.assert_allclose(fits.params, x.mean(axis=1) - jax.random.normal(key), rtol=1e-10)
    spread = np.sum((x - x.mean(axis=1, keepdims=True)) ** 2, axis=1) / 20**2
    np.testing.assert_allclose(fits[[2, 0]].covariance("sandwich").ravel(), spread[[2, 0]], rtol=1e-8)


def test_powers_of_two() -> None:
    assert [power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 1023, 1024, 1025)] == [1, 1, 2, 4, 4, 8, 1024, 1024, 2048]
    assert [round_up(n) for n in (1, 5, 8, 200, 300, 1000, 1025)] == [1, 8, 8, 256, 320, 1024, 1152]


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
