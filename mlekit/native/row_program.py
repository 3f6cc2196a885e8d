"""The sums of a model over the rows of a data set, ready to be written as code."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import jax
import numpy as np

from . import rules
from .arrays import Array, small
from .derivatives import RowTerms, Terms
from .emit import count_uses
from .functions import FUNCTIONS
from .interpreter import MOST_NODES, Interpreter
from .loops import SIZES
from .nodes import DATA, PARAMETERS, TYPES
from .row_graph import RowGraph
from .row_sums import RowSums, row_sums
from .unsupported import Unsupported

assert rules.__all__  # the rules are known once they are imported


@dataclasses.dataclass(frozen=True)
class Column:
    """A number of every row, as it lies in the user's arrays.

    Args:
        leaf: which array.
        element: which number of its row.
        type: NumPy's name of its type.
    """

    leaf: int
    element: int
    type: str


def type_name(dtype: Any) -> str:
    """NumPy's name of a type.

    Raises:
        Unsupported: there is no native code for such numbers.
    """
    name = str(dtype.name) if isinstance(dtype, np.dtype) else str(dtype)
    if name not in TYPES:
        raise Unsupported(f"numbers of type {name}")
    return name


class RowProgram:
    """Sums over rows of loss, gradient and matrix, as a graph in its normal form.

    Args:
        terms: makes the terms of one row.
        n_free: number of parameters.
        dtype: the precision.
        settings: PyTree of shapes and dtypes of what else the terms depend on, the same for all rows of a set.
        obs: PyTree of those of a row.
        most_nodes: nodes of the graph at most, and entries of its matrix.
    """

    def __init__(
        self, terms: Terms, n_free: int, dtype: Any, settings: Any, obs: Any, most_nodes: int = MOST_NODES
    ) -> None:
        self.n_free, self.type = n_free, np.dtype(dtype).name
        self.graph = graph = RowGraph()
        interpreter = Interpreter(graph, FUNCTIONS, most_nodes=most_nodes)
        z = small((n_free,), (graph.input(("free", i), self.type, PARAMETERS) for i in range(n_free)))
        self.settings: list[tuple[int, int, str]] = []
        given: list[Array] = []
        for leaf, one in enumerate(jax.tree.leaves(settings)):
            type, size = type_name(one.dtype), math.prod(one.shape)
            first = len(self.settings)
            self.settings += [(leaf, i, type) for i in range(size)]
            nodes = (graph.input(("setting", first + i), type, PARAMETERS) for i in range(size))
            given.append(small(one.shape, nodes))
        self.columns: list[Column] = []
        row: list[Array] = []
        for leaf, one in enumerate(jax.tree.leaves(obs)):
            type, size = type_name(one.dtype), math.prod(one.shape)
            first = len(self.columns)
            self.columns += [Column(leaf, i, type) for i in range(size)]
            row.append(small(one.shape, (graph.input(("column", first + i), type, DATA) for i in range(size))))
        if n_free * (n_free + 1) // 2 > most_nodes:
            raise Unsupported(f"a matrix of more than {most_nodes:,} entries")
        found: RowTerms = terms(interpreter, z, given, row)
        self.has_matrix = found.matrix is not None
        self.n_obs = graph.input("n_obs", self.type, PARAMETERS)
        self.n_row_nodes = len(graph.reach(found.all))
        self.sums: RowSums = row_sums(graph, found.all, self.n_obs, [i > n_free for i in range(len(found.all))])
        self.uses: Counter[int] = count_uses(graph, [*self.sums.outputs, *self.sums.columns, *self.sums.outer])

    @property
    def column_sizes(self) -> list[int]:
        """Bytes of an element of each column that the cores need."""
        return [SIZES[node.type] for node in self.sums.columns]

    @property
    def has_row_loop(self) -> bool:
        """True if an evaluation looks at rows."""
        return bool(self.sums.cores)

    def entries(self) -> list[tuple[str, list[int]]]:
        """Where each output goes: `loss`, `gradient` or `matrix`, and its places there, two off the diagonal."""
        k = self.n_free
        out: list[tuple[str, list[int]]] = [("loss", [0]), *(("gradient", [i]) for i in range(k))]
        if self.has_matrix:
            for i in range(k):
                out += [("matrix", [i * k + j] if i == j else [i * k + j, j * k + i]) for j in range(i, k)]
        return out

    def statistics(self) -> dict[str, int]:
        """How large it is."""
        both = [n for n in self.graph.reach(self.sums.cores) if n.depends == PARAMETERS | DATA]
        return {
            "row_nodes": len(both),
            "sums": len(self.sums.cores),
            "data_sums": len(self.sums.data),
            "columns": len(self.sums.columns),
            "nodes": len(self.graph.reach(self.sums.outputs)),
        }
