"""Compiled functions of arrays and of anything else, and how much work the compiler puts into them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from . import devices
from .trees import is_array, tracing

#: From so many rows on, a search takes far longer than the most thorough compilation.
THOROUGH_ROWS = 1 << 24
#: Halve the time a CPU's compiler takes, for code that is up to a third slower; not every JAX knows them.
QUICK: dict[str, bool | str] = {"xla_cpu_use_fusion_emitters": False}
#: Kernels, by their names in StableHLO, that wait for threads of the pool on which they run. One program always
#: leaves a thread free; with several at a time all threads may wait, for ever. Seen with jaxlib 0.10. For FFTs see
#: https://github.com/PyAutoLabs/PyAutoFit/issues/1530, which has the stacks, and the guard described in
#: https://github.com/openxla/xla/issues/46345; for LAPACK no issue was found. To be deleted, with `Program.alone`,
#: once no supported jaxlib hangs without it.
WAITING = ("@lapack", "stablehlo.fft")
#: Programs whose kernels are remembered; reading a program takes longer than many a fit.
REMEMBERED = 256


@jax.tree_util.register_static
class Static:
    """A static value in a PyTree: a node without leaves, equal to another one of an equal value."""

    def __init__(self, value: Any) -> None:
        self.value = value
        leaves, treedef = jax.tree.flatten(value)
        self._key = (treedef, tuple(leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class Compiled:
    """A function compiled for the shapes of its arrays and for all else that its arguments are made of.

    Unlike with `equinox.filter_jit`, a call does not wait for its result.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)

        def run(arrays: PyTree, rest: Static) -> tuple[PyTree, Static]:
            out, others = eqx.partition(fn(*eqx.combine(arrays, rest.value)), is_array)
            return out, Static(others)

        self._thorough = jax.jit(run)
        self._run = run
        self._waits: dict[Hashable, bool] = {}

    @functools.cached_property
    def _quick(self) -> Any:
        return jax.jit(self._run, compiler_options=QUICK) if _knows_quick() else self._thorough

    def __call__(self, *args: Any) -> Any:
        """The function's value; under a trace, a part of what is traced, which takes no options of its own."""
        arrays, rest = eqx.partition(args, is_array)
        out, others = (self._thorough if tracing(arrays) else self._quick)(arrays, Static(rest))
        return eqx.combine(out, others.value)

    def lower_and_compile(self, *args: Any, thorough: bool = False) -> Program:
        """The function compiled for arguments like these, to be called with such from any thread.

        Args:
            args: arguments, none of them traced; those parts that are no arrays are part of the program.
            thorough: whether the result will run for so long that a longer compilation pays.
        """
        arrays, others = eqx.partition(args, is_array)
        rest = Static(others)
        lowered = (self._thorough if thorough else self._quick).lower(arrays, rest)
        return Program(lowered.compile(), rest, self._alone(lowered, arrays, rest))

    def _alone(self, lowered: Any, arrays: PyTree, rest: Static) -> bool:
        """True if the program calls a kernel that waits for threads."""
        if not devices.profile().on_host:
            return False
        leaves, treedef = jax.tree.flatten(arrays)
        key = (treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves), rest)
        if key not in self._waits:
            if len(self._waits) == REMEMBERED:
                self._waits.clear()
            text = lowered.as_text()
            self._waits[key] = any(kernel in text for kernel in WAITING)
        return self._waits[key]


def computed_once(tree: Any) -> Any:
    """The same values, of which the whole numbers and booleans without axes are computed once for all their users.

    XLA computes what is cheap again in each of its kernels that needs it, and so a chain of decisions as often as
    there are kernels after it: that makes programs long, and their compilation. Products of matrices it never
    repeats, and one with the identity changes no whole number.

    Args:
        tree: any PyTree of arrays.
    """
    leaves, treedef = jax.tree.flatten(tree)
    chosen = [i for i, leaf in enumerate(leaves) if not leaf.ndim and not jnp.issubdtype(leaf.dtype, jnp.inexact)]
    together = jnp.stack([leaves[i].astype(jnp.int32) for i in chosen])
    for i, value in zip(chosen, jnp.eye(len(chosen), dtype=jnp.int32) @ together, strict=True):
        leaves[i] = value.astype(leaves[i].dtype)
    return jax.tree.unflatten(treedef, leaves)


class Program:
    """A compiled function for arguments like those that it was compiled for.

    Args:
        program: the executable of JAX.
        rest: the arguments that are no arrays.
        alone: whether no other program may run beside it: see `WAITING`.
    """

    def __init__(self, program: Any, rest: Static, alone: bool) -> None:
        self._program, self._rest, self.alone = program, rest, alone

    def __call__(self, *args: Any) -> Any:
        """The function's value."""
        out, known = self._program(eqx.filter(args, is_array), self._rest)
        return eqx.combine(out, known.value)


@functools.cache
def _knows_quick() -> bool:
    """True if this JAX runs on a CPU and knows the options."""
    if not devices.profile().on_host:
        return False
    try:
        jax.jit(lambda: 0, compiler_options=QUICK)()
    except jax.errors.JaxRuntimeError:
        return False
    return True
