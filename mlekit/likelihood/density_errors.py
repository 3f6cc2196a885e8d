"""What is wrong with a log-density that cannot be called, or that returns no number, in words."""

from __future__ import annotations

import inspect
import os
import traceback
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core.checks import INSIDE, first_line
from ..models.model import Model

#: Beginnings of what Python and JAX say of a lookup in something that has no such names or places.
LOOKUPS = (
    "JAX does not support string indexing",
    "tuple indices must be",
    "list indices must be",
    "string indices must be",
    "Too many indices",
    "tuple index out of range",
    "list index out of range",
)
#: What JAX raises of a number that it traces, and what the log-density did with it.
PYTHON_ONLY: dict[type[Exception], str] = {
    jax.errors.TracerBoolConversionError: "decides in Python, as `if` does, by a number that JAX traces: use "
    "jnp.where, with a finite value on both sides",
    jax.errors.TracerArrayConversionError: "hands a number that JAX traces to NumPy or SciPy: use jax.numpy and "
    "jax.scipy",
    jax.errors.ConcretizationTypeError: "makes a Python number of one that JAX traces, as float(), int() and the "
    "module math do: use jax.numpy",
}
#: In the names of files that were installed.
INSTALLED = f"{os.sep}site-packages{os.sep}"


def check_returned(out: Any, who: str) -> None:
    """A `TypeError` for what is no number: most often `None`, where `return` was forgotten."""
    if out is None:
        raise TypeError(f"{who} returned None: is its `return` missing? It must return a log-density, a number")
    if isinstance(out, tuple | list | dict | str):
        raise TypeError(f"{who} must return numbers, log-densities; it returned a {type(out).__name__}")


def explain_failed_call(error: Exception, model: Model, given: tuple[PyTree, ...]) -> None:
    """An error in words in place of one that the log-density raised, if it is of the common ones.

    Args:
        error: what it raised.
        model: the model.
        given: the parameters, the observation, and perhaps `args`.

    Raises:
        ValueError: a name that is not there.
        TypeError: a lookup in a tree that has no names, another number of arguments, or Python's and NumPy's own
            arithmetic with numbers that JAX traces.
        AttributeError: an attribute of a dict.
    """
    for kind, text in PYTHON_ONLY.items():
        if isinstance(error, kind):
            raise TypeError(f"log_density {text}{_place(error)}") from error
    if isinstance(error, AttributeError) and any(error.obj is tree and isinstance(tree, dict) for tree in given):
        raise AttributeError(f"log_density reads .{error.name} of a dict: write [{error.name!r}]") from error
    fn: Any = getattr(model.log_density, "contributions", model.log_density)
    if isinstance(error, KeyError):
        raise ValueError(_missing_name(error.args[0] if error.args else "", *given[:2])) from error
    if isinstance(error, TypeError) and not _takes(fn, given):
        raise TypeError(_wrong_arguments(fn, given)) from error
    if str(error).startswith(LOOKUPS):
        raise TypeError(
            f"log_density is called as log_density(params, obs), in this order, and a lookup fails "
            f"({first_line(error)}): params is {_described(given[0])}, obs is {_described(given[1])}"
        ) from error


def _missing_name(name: Any, params: PyTree, obs: PyTree) -> str:
    trees = {"obs": obs, "params": params}
    dicts = {who: tree for who, tree in trees.items() if isinstance(tree, dict)}
    known = "; ".join(f"{who} has {sorted(map(str, tree))}" for who, tree in dicts.items())
    text = f"log_density looks up {name!r} and there is no such name: {known}"
    if len(dicts) == 2 and (name in obs) != (name in params):
        who, other = ("obs", "params") if name in obs else ("params", "obs")
        text += (
            f". It is {who} that has {name!r}, and {other} was asked: log_density(params, obs) gets the "
            "parameters first, the observation second"
        )
    elif isinstance(obs, dict) and not isinstance(name, str) and str(name) in obs:
        text += f". Columns of a table are called by text: obs['{name}']"
    return text


def _takes(fn: Any, given: tuple[PyTree, ...]) -> bool:
    try:
        inspect.signature(fn).bind(*given)
    except TypeError:
        return False
    except ValueError:  # no signature is known
        return True
    return True


def _wrong_arguments(fn: Any, given: tuple[PyTree, ...]) -> str:
    called = "log_density(params, obs)" if len(given) == 2 else "log_density(params, obs, args)"
    text = f"log_density{inspect.signature(fn)} is called as {called}"
    if len(given) == 2 and isinstance(given[1], tuple):
        return f"{text}: obs is one tuple of {len(given[1])}; take it apart inside, as in `x, y = obs`"
    if len(given) == 3:
        return f"{text}: give it a third argument, or leave out args="
    return f"{text}: further arrays come as one third argument, with args=, or are closed over"


def _place(error: Exception) -> str:
    """The line of the user's code that an error comes from, after a blank; empty if it is not known."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not one.filename.startswith(INSIDE) and INSTALLED not in one.filename]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _described(tree: PyTree) -> str:
    if isinstance(tree, dict):
        return f"a dict with {sorted(map(str, tree))}"
    if isinstance(tree, tuple | list):
        return f"a {type(tree).__name__} of {len(tree)}"
    if len(jax.tree.leaves(tree)) == 1 and jax.tree.leaves(tree)[0] is tree:
        shape = jnp.shape(tree)
        return f"an array of shape {shape}" if shape else "a single number"
    return f"a {type(tree).__name__}"
