"""Digests of models: what tells them apart, and what older files already hold."""

from types import SimpleNamespace

from mlekit.core.digest import digest_of


def test_attributes_of_users_tell_by_their_names() -> None:
    """Only the leaf of parameters has an attribute that digests know by its former name."""

    class Leaf:
        def __init__(self, **attributes: int) -> None:
            vars(self).update(attributes)

    assert digest_of(SimpleNamespace(frozen=1)) != digest_of(SimpleNamespace(held=1))
    assert digest_of(SimpleNamespace(frozen=1, held=2)) != digest_of(SimpleNamespace(frozen=3, held=2))
    assert digest_of(Leaf(frozen=1)) != digest_of(Leaf(held=2))
