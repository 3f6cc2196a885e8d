"""Fits in files: what was saved comes back, in whichever version; what is no fit is refused."""

from __future__ import annotations

import functools
import json
import zipfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.scipy.stats import norm

import mlekit as mle
from mlekit.inference.covariance import errors
from tests.helpers.marks import mostly_slow

RNG = np.random.default_rng(0)
TABLE = {
    "place": np.repeat(["b", "a", "c"], [30, 40, 25]),
    "x": RNG.normal(size=95),
    "y": RNG.normal(size=95),
    "w": RNG.integers(1, 3, size=95).astype(float),
}
START = {"slope": 0.0, "sd": 1.0}
RULES = {"sd": mle.positive}
#: Written by the first version; never to be written again.
KEPT = Path(__file__).parent / "format_1.fit"


def log_density(params: Any, obs: Any) -> Any:
    return norm.logpdf(obs["y"], params["slope"] * obs["x"], params["sd"])


def with_args(params: Any, obs: Any, args: Any) -> Any:
    return log_density(params, obs) - args["penalty"] * params["slope"] ** 2


ROWS = {name: TABLE[name] for name in ("x", "y")}
SETS = {name: column[:90].reshape(3, 30) for name, column in ROWS.items()}
BAD = {"x": SETS["x"], "y": np.array([[np.nan], [1.0], [1.0]]) * SETS["y"]}


class Line(eqx.Module):
    slope: Any
    sd: Any
    label: str = eqx.field(static=True, default="line")


def line_density(line: Line, obs: Any) -> Any:
    return log_density({"slope": line.slope, "sd": line.sd}, obs)


def single(**options: Any) -> mle.Fit:
    return mle.fit(log_density, START, ROWS, constraints=RULES, **options)


@functools.cache
def like() -> mle.Fit:
    return single(max_steps=1)


FITS = {
    "single": lambda: (single(weights=TABLE["w"]), like()),
    "starts_and_history": lambda: (single(starts=3, key=jax.random.key(0), history=True), like()),
    "batch": lambda: (mle.fit_batch(log_density, START, SETS, constraints=RULES, lengths=[30, 20, 7]), like()),
    "failures": lambda: (mle.fit_batch(log_density, START, BAD, constraints=RULES, lengths=[9, 0, 1]), like()),
    "groups": lambda: (
        mle.fit_batch(log_density, START, mle.group_by(TABLE, "place"), constraints=RULES, weights="w"),
        like(),
    ),
    "module": lambda: 2 * (mle.fit(line_density, Line(0.0, 1.0), ROWS, constraints=Line(None, mle.positive)),),
    "args": lambda: 2 * (mle.fit_batch(with_args, START, SETS, constraints=RULES, args={"penalty": 0.1}),),
}


@functools.cache
def pair(name: str) -> tuple[mle.Fit, mle.Fit]:
    return FITS[name]()


@pytest.mark.parametrize("name", mostly_slow(FITS, "starts_and_history", "groups", "failures"))
def test_what_was_saved_comes_back(name: str, tmp_path: Path) -> None:
    fit, similar = pair(name)
    fit.save(tmp_path / "it")
    again = mle.load(tmp_path / "it", like=similar)
    assert [path.name for path in tmp_path.iterdir()] == ["it"], "nothing else is left there"
    assert str(jax.tree.structure(again.params)) == str(jax.tree.structure(fit.params))
    for found, wanted in zip(jax.tree.leaves(again), jax.tree.leaves(fit), strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype
    assert repr(again) == repr(fit)
    pd.testing.assert_frame_equal(again.to_pandas(), fit.to_pandas(), check_exact=True)
    np.testing.assert_array_equal(again.covariance("sandwich"), fit.covariance("sandwich"))
    if fit.keys is not None:
        assert again.keys.equals(fit.keys)


def test_arrays_that_all_sets_share_are_written_once(tmp_path: Path) -> None:
    fit, similar = pair("args")
    many = jax.tree.map(lambda leaf: leaf, fit)
    penalty = np.broadcast_to(np.zeros(100_000), (3, 100_000))
    many = eqx.tree_at(lambda fit: fit.args["penalty"], many, penalty)
    similar = eqx.tree_at(lambda fit: fit.args["penalty"], similar, penalty)
    many.save(tmp_path / "it")
    assert 800_000 < (tmp_path / "it").stat().st_size < 900_000


def test_without_data(tmp_path: Path) -> None:
    for name in ("single", "groups"):
        fit, _ = pair(name)
        fit.save(tmp_path / name, data=False)
        again = mle.load(tmp_path / name, like=fit)
        np.testing.assert_array_equal(again.scores(), fit.scores())
        with zipfile.ZipFile(tmp_path / name) as archive:
            stored = {kind["name"] for kind in json.loads(archive.read("header.json"))["arrays"]}
        assert not any(name.startswith(".data") for name in stored)
    other = mle.fit(log_density, START, {**ROWS, "y": ROWS["y"] + 1e-9}, constraints=RULES, max_steps=1)
    with pytest.raises(ValueError, match="without its data, and those of like are others"):
        mle.load(tmp_path / "single", like=other)


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it"
    pair("single")[0].save(path)
    fitted = functools.partial(mle.fit, data=ROWS, max_steps=1)
    wrong = {
        "parameter_names": fitted(log_density, {"slope": 0.0, "sd": 1.0, "more": 0.0}, constraints=RULES),
        "fixed": fitted(log_density, START, constraints={"sd": mle.fixed}),
        "estimates": fitted(log_density, START, constraints={"sd": mle.greater_than(0.1)}),
        "log-likelihood": fitted(lambda p, obs: log_density(p, obs) - 0.001, START, constraints=RULES),
        "only one of them has": fitted(with_args, START, constraints=RULES, args={"penalty": 0.0}),
    }
    for message, similar in wrong.items():
        with pytest.raises(ValueError, match=f"^like: .*{message}"):
            mle.load(path, like=similar)
    with pytest.raises(TypeError, match="like must be a Fit"):
        mle.load(path, like=log_density)  # type: ignore[type-var]


def test_files_of_the_first_version_are_read_for_ever() -> None:
    fit = mle.load(KEPT, like=like())
    assert np.all(fit.converged)
    assert fit.keys["place"].to_pylist() == ["a", "b", "c"]
    fresh = pair("groups")[0]
    np.testing.assert_allclose(fit._solution.estimates, fresh._solution.estimates, rtol=1e-9)
    np.testing.assert_allclose(errors(fit, "sandwich"), errors(fresh, "sandwich"), rtol=1e-9)


def rewritten(source: Path, target: Path, change: Any, drop: str = "") -> None:
    """A copy of a file whose header was changed, or without one of its members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "header.json":
                content = json.dumps(change(json.loads(content))).encode()
            if name != drop:
                new.writestr(name, content)


class Bomb:
    """What would be run if anything were unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("code in a file was run",))


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path, other = tmp_path / "it", tmp_path / "other"
    pair("groups")[0].save(path)
    whole = path.read_bytes()

    def refused(message: str = "holds no fit, or one that is damaged") -> None:
        with pytest.raises(ValueError, match=message):
            mle.load(other, like=like())

    for content in (b"", b"no archive", whole[: len(whole) // 2], whole[200:]):
        other.write_bytes(content)
        refused()
    for place in np.random.default_rng(0).integers(0, len(whole), 150):  # one bit turned somewhere
        other.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            again = mle.load(other, like=like())
        except ValueError:
            continue
        np.testing.assert_array_equal(again._solution.estimates, pair("groups")[0]._solution.estimates)
    rewritten(path, other, lambda header: header | {"format": 2})
    refused("of format 2, and this version of mlekit reads formats up to 1")
    headers: list[Any] = [{}, [], {"format": "one"}, {"format": 1}]
    for header in headers:
        rewritten(path, other, lambda _, header=header: header)
        refused()
    for member in ("header.json", "arrays/3.npy", "keys.arrow"):
        rewritten(path, other, lambda header: header, drop=member)
        refused()
    rewritten(path, other, lambda header: header, drop="arrays/0.npy")
    with zipfile.ZipFile(other, "a") as archive, archive.open("arrays/0.npy", "w") as file:
        np.lib.format.write_array(file, np.array([Bomb()], object), allow_pickle=True)
    refused("Object arrays cannot be loaded")
    with pytest.raises(FileNotFoundError):
        mle.load(tmp_path / "nowhere", like=like())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "it"
    pair("single")[0].save(path)
    before = path.read_bytes()

    def full(*args: Any, **options: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("numpy.lib.format.write_array", full)
    with pytest.raises(OSError, match="disk full"):
        pair("groups")[0].save(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["it"]


def test_precision_and_traces(tmp_path: Path) -> None:
    path = tmp_path / "it"
    pair("single")[0].save(path)
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        mle.load(path, like=like())
    with jax.enable_x64(False):
        rows = {name: jnp.asarray(column, jnp.float32) for name, column in ROWS.items()}
        fit = mle.fit(log_density, START, rows, constraints=RULES)
        fit.save(path)
        assert mle.load(path, like=fit)._solution.estimates.dtype == jnp.float32
        with pytest.raises(
            ValueError, match=r"estimates are float64, and those in .* float32: fit the same model"
        ):
            mle.load(path, like=like())
        # A number of Python's is of no precision, though NumPy writes 64 bits.
        scaled = mle.fit(lambda mean, x, scale: -scale * (x - mean) ** 2, 0.0, jnp.arange(4.0), args=0.5)
        scaled.save(path)
        assert mle.load(path, like=scaled).params == 1.5
    with pytest.raises(ValueError, match="known only to a trace"):
        jax.jit(lambda fit: fit.save(path))(pair("single")[0])


@pytest.mark.standard_promotion
def test_foreign_kinds_of_numbers(tmp_path: Path) -> None:
    """NumPy has no name for them, and files of NumPy's none either."""
    args = {"penalty": jnp.asarray(0.5, jnp.bfloat16), "key": jax.random.key(5)}
    fit = mle.fit(with_args, START, ROWS, constraints=RULES, args=args)
    fit.save(tmp_path / "it")
    again = mle.load(tmp_path / "it", like=fit).args
    assert again["penalty"].dtype == jnp.bfloat16
    assert again["penalty"] == 0.5
    assert again["key"] == args["key"]
