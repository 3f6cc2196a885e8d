"""Groups of the rows of a table: the columns of each data set, without a loop over groups.

pyarrow is imported where it is used, so that `import mlekit` does not pay for it.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from ..core.dtypes import widened
from .columns import _arrow, _check_known, _chosen, _open, as_numbers, chosen_names


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Groups:
    """Rows of a table sorted into groups, each one a data set; made by `group_by`.

    Group `i` owns the rows `offsets[i]` to `offsets[i] + lengths[i]` of every column. `groups[i]` gives them,
    and `len(groups)` is `n_sets`. The arrays are read-only, and equality and hash are those of the object,
    because it is carried as static data through JAX.

    Args:
        keys: pyarrow Table of the key columns, `n_sets` rows.
        columns: name to flat array, shape `(n_rows, ...)`, the rows of a group side by side.
        offsets: first row of each group, shape `(n_sets,)`.
        lengths: number of rows of each group, shape `(n_sets,)`.
        by: names of the key columns.

    Example:
        >>> groups = group_by({"plane": ["b", "a", "b"], "delay": [1.0, 2.0, 3.0]}, by="plane")
        >>> groups
        Groups(2 groups by plane; 3 rows, 1 to 2 a group, median 1.5; columns delay)
        >>> groups[1]
        {'delay': array([1., 3.])}
        >>> groups.keys["plane"].to_pylist()
        ['a', 'b']
    """

    keys: Any
    columns: dict[str, np.ndarray]
    offsets: Int64[np.ndarray, " n_sets"]
    lengths: Int64[np.ndarray, " n_sets"]
    by: tuple[str, ...]

    def __post_init__(self) -> None:
        for array in (self.offsets, self.lengths, *self.columns.values()):
            array.flags.writeable = False

    @property
    def n_rows(self) -> int:
        """Number of rows of all groups together."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        i, n = operator.index(index), len(self)
        if not -n <= i < n:
            raise IndexError(f"index: got {i}, want -{n} to {n - 1}; there are {n} groups.")
        rows = slice(self.offsets[i], self.offsets[i] + self.lengths[i])
        return {name: column[rows] for name, column in self.columns.items()}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Any) -> Groups:
        """The chosen groups, in the order asked for; a group may be taken more than once.

        Args:
            indices: integers, shape `(n_taken,)`, negative ones counting from the end; a mask of booleans,
                shape `(n_sets,)`; or a slice.

        Returns:
            Groups that own a copy of their rows.

        Raises:
            IndexError: an index out of range, or a mask that is not of shape `(n_sets,)`.

        Example:
            >>> groups = group_by({"plane": ["b", "a", "b"], "delay": [1.0, 2.0, 3.0]}, by="plane")
            >>> groups.take(groups.lengths >= 2)
            Groups(1 group by plane; 2 rows, 2 to 2 a group, median 2; columns delay)
        """
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            indices = np.atleast_1d(indices) if indices.size else indices.astype(np.int64)
        chosen = np.arange(len(self))[indices]
        lengths = self.lengths[chosen]
        offsets = np.cumsum(lengths) - lengths
        # Row r of the result lies as far behind its group's start as it did in the original.
        rows = np.repeat(self.offsets[chosen] - offsets, lengths) + np.arange(lengths.sum())
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Groups(self.keys.take(chosen), columns, offsets, lengths, self.by)

    def where(self, /, **values: Any) -> Int64[np.ndarray, " n_found"]:
        """Indices of the groups whose keys have these values.

        Args:
            **values: key column to one value; `None` or NaN finds the group of null keys. Keys not
                mentioned may have any value.

        Returns:
            Ascending indices, shape `(n_found,)`; empty when no group fits.

        Raises:
            ValueError: a name that is no key, or a value that the key's type cannot hold.

        Example:
            >>> groups = group_by({"plane": ["b", "a", "b"], "delay": [1.0, 2.0, 3.0]}, by="plane")
            >>> groups.where(plane="b")
            array([1])
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        found = np.ones(len(self), bool)
        for name, value in values.items():
            _check_known(name, self.by, "where")
            key = self.keys[name]
            try:
                wanted = pa.array(np.asarray([value]), from_pandas=True).cast(key.type)[0]
            except (pa.ArrowException, NotImplementedError, TypeError, ValueError):
                raise ValueError(f"where: {name!r} is {value!r}, want a value of type {key.type}.") from None
            equal = pc.equal(key, wanted) if wanted.is_valid else key.is_null()
            found &= equal.fill_null(False).to_numpy()
        return np.flatnonzero(found)

    def __repr__(self) -> str:
        sizes = "none"
        if len(self):
            median = f"{np.median(self.lengths):,.1f}".removesuffix(".0")
            sizes = f"{self.lengths.min():,} to {self.lengths.max():,} a group, median {median}"
        found = f"{len(self):,} group{'s' * (len(self) != 1)} by {', '.join(self.by)}"
        rows = f"{self.n_rows:,} row{'s' * (self.n_rows != 1)}"
        return f"Groups({found}; {rows}, {sizes}; columns {', '.join(self.columns)})"


def group_by(table: Any, by: str | Sequence[str], columns: str | Sequence[str] | None = None) -> Groups:
    """Sort a table's rows into groups, one data set for every combination of keys that occurs.

    Groups come in the order of their keys, null keys last; nothing is dropped, so null (or NaN) keys form a
    group of their own. Within a group the rows keep the table's order.

    Args:
        table: a pyarrow Table or RecordBatch, a polars or pandas frame, or a dict of columns, `n_rows` long; or
            an xarray Dataset, whose coordinates are columns too: one row for every combination of its dimensions,
            or where the variables share a single one, for every place along that.
        by: the key column or columns: text, integers, floats, booleans, dates, categories.
        columns: the columns the model reads; all but `by` unless given. Converted as in `table_columns`.

    Returns:
        `Groups` with `n_sets` groups and `n_rows` rows.

    Raises:
        TypeError: `table` is none of the above.
        ValueError: an unknown, repeated or missing name; an empty table; a column that is not numeric; a key
            that cannot be sorted; columns of different lengths.

    Example:
        >>> group_by({"a": [1, 1, 2], "b": ["x", "y", "x"], "y": [1.0, 2.0, 3.0]}, by=["a", "b"])
        Groups(3 groups by a, b; 3 rows, 1 to 1 a group, median 1; columns y)
    """
    import pyarrow as pa

    source = _open(table)
    by = chosen_names(by, source, "by")
    values = {name: widened(as_numbers(name, source[name])) for name in _chosen(columns, source, by)}
    keys = [_encode(name, source[name]) for name in by]
    code = _combine(keys)
    # A stable sort keeps the rows of a group in order. NumPy sorts 16-bit codes by radix, many times faster.
    order = np.argsort(code.astype(np.min_scalar_type(int(code.max()))), kind="stable")
    sorted_code = code[order]
    offsets = np.concatenate([[0], np.flatnonzero(sorted_code[1:] != sorted_code[:-1]) + 1]).astype(np.int64)
    lengths = np.diff(offsets, append=len(order))
    first = order[offsets]
    key_columns = [
        distinct.take(pa.array(ranks[first], mask=ranks[first] == len(distinct))) for ranks, distinct in keys
    ]
    flat = {name: column[order] for name, column in values.items()}
    return Groups(pa.table(key_columns, names=list(by)), flat, offsets, lengths, by)


def _encode(name: str, column: Any) -> tuple[Int64[np.ndarray, " n_rows"], Any]:
    """Rank of each row's key among the distinct keys, null as the last rank; and those keys, sorted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    arrow = _arrow(name, column, "by")
    if pa.types.is_null(arrow.type):
        arrow = arrow.cast(pa.string())
    try:
        encoded = arrow.dictionary_encode().unify_dictionaries()
        values = encoded.chunk(0).dictionary
        # The packages differ in their types of text, and not every type can be sorted.
        if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
            values = values.cast(pa.string())
        elif pa.types.is_float16(values.type):
            values = values.cast(pa.float32())
        if pa.types.is_floating(values.type):  # NaN is one more null, and -0 is 0
            values = pc.add(values, pa.scalar(0.0, values.type))
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        distinct = values.unique().drop_null()
        distinct = distinct.take(pc.sort_indices(distinct))
    except (pa.ArrowException, NotImplementedError):
        wanted = "a key that can be sorted: text, numbers, booleans or dates"
        raise ValueError(f"by: {name!r} holds {arrow.type}, want {wanted}.") from None
    ranks = pc.index_in(values, value_set=distinct).fill_null(len(distinct)).to_numpy()
    ranks = np.append(ranks, len(distinct)).astype(np.int64)  # the last entry serves null rows, whose index is -1
    index = [chunk.indices.fill_null(-1).to_numpy() for chunk in encoded.chunks]
    return ranks[np.concatenate(index)], distinct


def _combine(keys: Sequence[tuple[np.ndarray, Any]]) -> Int64[np.ndarray, " n_rows"]:
    """One code a row that orders rows by the first key, then the second, and so on."""
    code, size = keys[0][0], len(keys[0][1]) + 1
    for ranks, distinct in keys[1:]:
        radix = len(distinct) + 1
        if size * radix > np.iinfo(np.int64).max:
            occurring, code = np.unique(code, return_inverse=True)  # as many as there are rows at most
            size = len(occurring)
        code, size = code * radix + ranks, size * radix
    return code
