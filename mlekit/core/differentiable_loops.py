"""Loops for reverse mode, which store their inputs alone and compute everything else again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

#: Before this version of JAX, the derivative of a reverse-mode derivative of a `scan` loses the rules of functions
#: with `custom_jvp` or `custom_vjp` in its body, and differentiates their code instead. Seen with 0.10.2; no issue
#: was found. To be deleted, with `RULES` and `check_rules`, when 0.12 is the oldest supported version.
RULES_SURVIVE = (0, 12)
#: The names of such functions in a jaxpr.
RULES = ("custom_jvp_call", "custom_vjp_call")


def checkpointed_map(fn: Callable[[Any], Any], values: PyTree, width: int) -> Any:
    """`fn` of every slice of the values, `width` of them at once.

    Args:
        fn: a function of one slice.
        values: arrays with a leading axis.
        width: how many slices at once, to spare memory; all of them where that could cost the second derivatives.
    """
    count = jnp.shape(jax.tree.leaves(values)[0])[0]
    if count <= width:
        return jax.vmap(fn)(values)
    if _has_rules(fn, jax.tree.map(lambda leaf: leaf[0], values)):
        return jax.checkpoint(jax.vmap(fn))(values)
    return jax.lax.map(jax.checkpoint(fn, prevent_cse=False), values, batch_size=width)


def checkpointed_sum(fn: Callable[[Any], Any], rows: PyTree, size: int, zero: Any) -> Any:
    """The sum of `fn` over blocks of rows.

    Args:
        fn: a function of one block.
        rows: arrays with a leading axis.
        size: rows of a block; all of them where that could cost the second derivatives.
        zero: the start of the sum, with the shapes and dtypes of the result.
    """
    count = jnp.shape(jax.tree.leaves(rows)[0])[0]
    full = count // size
    if _has_rules(fn, jax.tree.map(lambda leaf: leaf[:size], rows)):
        return jax.checkpoint(fn)(rows)

    def add_block(sums: Any, block: PyTree) -> tuple[Any, None]:
        return jax.tree.map(lambda s, p: s + p.astype(s.dtype), sums, fn(block)), None

    blocks = jax.tree.map(lambda leaf: leaf[: full * size].reshape(full, size, *leaf.shape[1:]), rows)
    sums, _ = jax.lax.scan(jax.checkpoint(add_block, prevent_cse=False), zero, blocks)
    if full * size < count:
        sums, _ = add_block(sums, jax.tree.map(lambda leaf: leaf[full * size :], rows))
    return sums


def check_rules(fn: Callable[..., Any], example: tuple[Any, ...]) -> None:
    """A `ValueError` where a loop would lose rules of a function, and with them its second derivatives."""
    if _has_rules(lambda both: fn(*both), example):
        raise ValueError(
            "data: where the log-density calls functions with derivatives of their own, as many special functions "
            "have, derivatives of a fit to a table on disk want JAX "
            f"{'.'.join(map(str, RULES_SURVIVE))} or later; or pass the rows as arrays"
        )


def _has_rules(fn: Callable[[Any], Any], example: PyTree) -> bool:
    """True if a loop would lose rules of the function."""
    if jax.__version_info__ >= RULES_SURVIVE:
        return False
    program = str(jax.make_jaxpr(fn)(example))
    return any(rule in program for rule in RULES)
