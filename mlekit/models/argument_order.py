"""The order of the first three arguments of a fit: log-density, start, data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.trees import is_array
from ..data.columns import is_table


def check_order(log_density: Any, start: Any, data: Any, name: str = "init") -> None:
    """A `TypeError` where these were passed in another order, as far as their kinds tell.

    A `ValueError` for names of unlike kinds in a dict, which JAX cannot sort.

    Args:
        log_density: the first argument.
        start: the second.
        data: the third.
        name: what the second is called.
    """
    for who, tree in ((name, start), ("data", data)):
        if isinstance(tree, dict) and len({isinstance(key, str) for key in tree}) > 1:
            raise ValueError(f"{who} has the names {', '.join(map(repr, tree))}; they must all be text")
    wanted = f"(log_density, {name}, data)"
    if not callable(log_density):
        for other, value in ((name, start), ("data", data)):
            if callable(value) and not is_table(value):
                raise TypeError(
                    f"the arguments are {wanted}, in this order; got a {type(log_density).__name__} as "
                    f"log_density, and a function as {other}: are they swapped?"
                )
    elif _single_numbers(data) and _has_rows(start):
        raise TypeError(
            f"the arguments are {wanted}, in this order; got single numbers as data, and rows as {name}: are they "
            "swapped?"
        )


def _single_numbers(tree: Any) -> bool:
    if is_table(tree):
        return False
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(
        isinstance(leaf, int | float) or (is_array(leaf) and not jnp.ndim(leaf)) for leaf in leaves
    )


def _has_rows(tree: Any) -> bool:
    if is_table(tree):
        return True
    return any(is_array(leaf) and jnp.ndim(leaf) for leaf in jax.tree.leaves(tree))
