"""What differs with where rows lie is asked of one kind of object, behind `Fit.data`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle

ROWS = {"x": np.arange(1.0, 9.0), "w": np.tile([1.0, 2.0], 4), "key": np.repeat([0, 1], 4)}


def log_density(rate: Any, obs: Any) -> Any:
    return jnp.log(rate) - rate * obs["x"]


def fitted(kind: str, weighted: bool) -> mle.Fit:
    weights: Any = "w" if weighted else None
    rules: Any = {"constraints": mle.positive, "max_steps": 50}
    if kind == "groups":
        return mle.fit_batch(log_density, 1.0, mle.group_by(ROWS, "key"), weights=weights, **rules)
    columns = {name: jnp.asarray(column) for name, column in ROWS.items()}
    if kind == "arrays":
        weights = columns["w"] if weighted else None
        return mle.fit(log_density, 1.0, columns, weights=weights, **rules)
    data: Any = mle.open_table(ROWS) if kind == "disk" else mle.shard(columns)
    return mle.fit(log_density, 1.0, data, weights=weights, **rules)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", ["arrays", "groups", "disk", "shards"])
def test_a_dataset_says_what_it_is(kind: str, weighted: bool) -> None:
    fit = fitted(kind, weighted)
    dataset, batched = fit._dataset, fit.batched
    kinds = {"arrays": dict, "groups": mle.Groups, "disk": mle.Table, "shards": mle.Shards}
    assert isinstance(fit.data, kinds[kind])
    assert dataset.weighted is weighted
    assert (fit.weights is not None) is (weighted and kind == "arrays")
    assert dataset.at_hand is (kind in ("arrays", "groups"))
    assert dataset.longest(batched) == (4 if batched else 8)
    assert dataset.padded is False
    assert (dataset.keys is not None) is (kind == "groups")
    assert sorted(dataset.template) == [*(["key"] if kind != "groups" else []), "w", "x"]
    one = dataset if not batched else fit[1]._dataset
    rate = np.asarray(fit.params)[1] if batched else fit.params
    rows = slice(4, 8) if batched else slice(None)
    weights = ROWS["w"][rows] if weighted else 1.0
    np.testing.assert_allclose(1 / rate, np.sum(weights * ROWS["x"][rows]) / np.sum(weights * np.ones(one.rows)))
    likelihood = one.likelihood(fit.model, None, 1)
    wanted = np.sum(weights * (np.log(rate) - rate * ROWS["x"][rows]))
    np.testing.assert_allclose(likelihood.log_likelihood(jnp.asarray(rate)), wanted, rtol=1e-12)


def test_fingerprints_tell_rows_from_others() -> None:
    one, two = (mle.fit(log_density, 1.0, {"x": jnp.arange(1.0, n)}, max_steps=1) for n in (4.0, 5.0))
    assert one._dataset.fingerprint == mle.fit(log_density, 1.0, {"x": jnp.arange(1.0, 4.0)})._dataset.fingerprint
    assert one._dataset.fingerprint != two._dataset.fingerprint


def test_labels_of_shards_are_refused() -> None:
    shards = fitted("shards", False)
    with pytest.raises(
        ValueError, match=r"clusters: labels need all rows in one place, .* fit them without mle\.shard"
    ):
        shards.covariance("sandwich", clusters="key")


def test_a_dataset_is_indexed_with_its_fits() -> None:
    fits = fitted("groups", False)
    assert fits[1].keys["key"].to_pylist() == [1]
    assert fits[np.array([1, 0])].keys["key"].to_pylist() == [1, 0]
    stacked = mle.fit_batch(
        log_density, 1.0, {"x": jnp.asarray(ROWS["x"]).reshape(2, 4)}, constraints=mle.positive
    )
    assert jax.tree.leaves(stacked[0].data)[0].shape == (4,)
    np.testing.assert_array_equal(stacked._dataset.index, [0, 1])
