"""Digests of models: what tells them apart, and what older files already hold."""

from types import SimpleNamespace

import pytest

import mlekit as mle
from mlekit.core import digest
from mlekit.core.digest import digest_of, holds_own


def test_attributes_of_users_tell_by_their_names() -> None:
    """Only the leaf of parameters has an attribute that digests know by its former name."""

    class Leaf:
        def __init__(self, **attributes: int) -> None:
            vars(self).update(attributes)

    assert digest_of(SimpleNamespace(frozen=1)) != digest_of(SimpleNamespace(held=1))
    assert digest_of(SimpleNamespace(frozen=1, held=2)) != digest_of(SimpleNamespace(frozen=3, held=2))
    assert digest_of(Leaf(frozen=1)) != digest_of(Leaf(held=2))


def test_functions_of_mlekit_are_known_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version may write them in other words; those of users are known by what they say."""
    model = mle.regression(lambda params, obs: params["mean"], mle.families.normal)
    mine = lambda params, obs: params["mean"]  # noqa: E731
    assert holds_own(model)
    assert not holds_own((mine, {"mean": 0.0}, mle.positive, mle.Newton()))
    before = digest_of(model), digest_of(mine)
    source = digest._source
    monkeypatch.setattr(digest, "_source", lambda f: source(f) + ("# reworded" if digest.is_own(f) else ""))
    assert (digest_of(model), digest_of(mine)) == before
    monkeypatch.setattr(digest, "_source", lambda f: source(f) + "# reworded")
    assert digest_of(mine) != before[1]
