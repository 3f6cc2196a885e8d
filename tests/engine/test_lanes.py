"""Lanes: few run many data sets to their ends, with memory bounded by a piece."""

from __future__ import annotations

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

import mlekit as mle
from mlekit.engine import lanes as lanes_
from mlekit.engine.chunks import accounting
from mlekit.likelihood import ragged as collection_
from mlekit.likelihood.ragged import from_groups, power_of_two, round_up
from mlekit.models.model import as_model
from tests.engine.ragged_sets import RNG, fit_padded, ragged_fit
from tests.helpers.models import RULES, START, least_squares, line, line_data
from tests.helpers.processes import STRICT, environment


@pytest.fixture(scope="module")
def ragged() -> mle.Fit:
    return ragged_fit()


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
        fits = mle.fit_batch(line, START, groups, constraints=RULES, lanes=4, backend="xla")
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
        fits = mle.fit_batch(line, START, sets, constraints=RULES, lanes=2, backend="xla")
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
        from tests.helpers.models import RULES, START, Counted, line, line_data
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
        [sys.executable, *STRICT, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=environment(devices=n_devices),
    )
    assert run.returncode == 0, run.stderr
    devices, counts, numbers = run.stdout.split("\n")[0].rsplit(" ", 1)[0].split(" ", 1) + run.stdout.split()[-1:]
    assert (devices, counts) == (str(n_devices), "{'converged': 200}")
    sets, lengths = line_data(30, 200), np.random.default_rng(0).integers(5, 31, 200)
    here = mle.fit_batch(line, START, sets, lengths=lengths, constraints=RULES, lanes=8)
    there = np.frombuffer(bytes.fromhex(numbers)).reshape(200, 3)
    np.testing.assert_allclose(there, here._solution.estimates, rtol=1e-12)


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


def test_powers_of_two() -> None:
    assert [power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 1023, 1024, 1025)] == [1, 1, 2, 4, 4, 8, 1024, 1024, 2048]
    assert [round_up(n) for n in (1, 5, 8, 200, 300, 1000, 1025)] == [1, 8, 8, 256, 320, 1024, 1152]
