"""Tables into ragged groups: from a frame to the columns of each data set, without a loop over groups.

pyarrow is imported where it is used, so that `import mlekit` does not pay for it.
"""

from __future__ import annotations

import dataclasses
import difflib
import operator
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

ACCEPTED = "an xarray Dataset, a pyarrow Table or RecordBatch, a polars or pandas DataFrame, or a dict of columns"


class NoNumbersError(ValueError, TypeError):
    """A column that holds something else: a table of the wrong value, and a column of the wrong type.

    Args:
        message: what to say.
        name: which column.
        kind: what it holds.
    """

    def __init__(self, message: str, name: str, kind: Any) -> None:
        super().__init__(message)
        self.name, self.kind = name, kind


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
    values = {name: as_numbers(name, source[name]) for name in _chosen(columns, source, by)}
    keys = [_encode(name, source[name]) for name in by]
    code = _combine(keys)
    # A stable sort keeps the rows of a group in order. NumPy sorts 16-bit codes by radix: many times faster.
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


def table_columns(
    table: Any, columns: str | Sequence[str] | None = None, *, drop: str | Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The numeric columns of a table as arrays, copied only where they must be.

    Integers, floats and booleans keep their dtype. Nulls become NaN, which makes integers and booleans
    float64. Decimals become float64, and lists of fixed length `k` an array of shape `(n_rows, k)`.

    Args:
        table: as in `group_by`.
        columns: names to convert; all unless given.
        drop: names to leave out.

    Returns:
        Name to array of shape `(n_rows, ...)`, in the order asked for.

    Raises:
        TypeError: `table` is none of the above.
        ValueError: an unknown or repeated name; an empty table; a column that is not numeric; columns of
            different lengths.

    Example:
        >>> table_columns({"name": ["a", "b"], "x": [1, None]}, drop="name")
        {'x': array([ 1., nan])}
    """
    source = _open(table)
    return {n: as_numbers(n, source[n]) for n in _chosen(columns, source, chosen_names(drop, source, "drop"))}


def is_table(obj: Any) -> bool:
    """Whether `obj` is a pyarrow, polars or pandas table; a dict is not, it is a PyTree of arrays already.

    Example:
        >>> import pyarrow as pa
        >>> is_table(pa.table({"x": [1]})), is_table({"x": [1]})
        (True, False)
    """
    # The Arrow stream is spoken by single columns as well; only tables have a schema or columns. Asking the
    # type runs no property of the object, and needs none of the table packages.
    kind = type(obj)
    return hasattr(kind, "__arrow_c_stream__") and (hasattr(kind, "schema") or hasattr(kind, "columns"))


def is_dataset(obj: Any) -> bool:
    """Whether `obj` is an xarray Dataset; nobody has one without importing xarray.

    Example:
        >>> import xarray
        >>> is_dataset(xarray.Dataset()), is_dataset({"x": [1]})
        (True, False)
    """
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(obj, xarray.Dataset)


def _open(table: Any) -> dict[str, Any]:
    """Name to column, as the table holds it: a column that nobody asks for is never converted."""
    if is_dataset(table):  # which is a mapping as well
        pairs = _variables(table)
    elif isinstance(table, Mapping):
        pairs = [(str(name), column) for name, column in table.items()]
    elif is_table(table) and hasattr(table, "iloc"):  # pandas
        pairs = [(str(name), table.iloc[:, i]) for i, name in enumerate(table.columns)]
    elif is_table(table) and hasattr(table, "get_columns"):  # polars
        pairs = [(column.name, column) for column in table.get_columns()]
    elif is_table(table):
        import pyarrow as pa

        arrow = pa.table(table)
        pairs = list(zip(arrow.column_names, arrow.columns))
    else:
        kind = f"{type(table).__module__}.{type(table).__qualname__}"
        cure = "; call .collect() first" if hasattr(table, "collect") else ""
        raise TypeError(f"table: got {kind}, want {ACCEPTED}{cure}.")
    source: dict[str, Any] = {}
    for name, column in pairs:
        if name in source:
            raise ValueError(f"table: several columns are called {name!r}, want a name of its own for each.")
        if isinstance(column, str) or getattr(column, "ndim", 1) == 0 or not hasattr(column, "__len__"):
            raise ValueError(f"table: column {name!r} is {column!r}, want one entry a row.")
        source[name] = column
    rows = [len(column) for column in source.values()]
    if not any(rows):
        raise ValueError(f"table: got no {'rows' if rows else 'columns'}, want at least one.")
    odd = next((i for i, n in enumerate(rows) if n != rows[0]), 0)
    if odd:
        a, b = pairs[0][0], pairs[odd][0]
        raise ValueError(f"table: {a!r} has {rows[0]:,} rows and {b!r} {rows[odd]:,}, want the same of both.")
    return source


def _variables(dataset: Any) -> list[tuple[str, Any]]:
    """Variables and coordinates of a Dataset as columns, one entry a row."""
    dims = {name: frozenset(variable.dims) for name, variable in dataset.data_vars.items()}
    if len(set(dims.values())) == 1:
        frame = dataset.to_dataframe().reset_index()
        return [(str(name), frame[name]) for name in frame]
    shared = frozenset.intersection(*dims.values()) if dims else frozenset()
    if len(shared) != 1:
        shown = ", ".join(f"{name!r} has {dataset[name].dims}" for name in dims) or "it has no variables"
        raise ValueError(
            f"table: variables of an xarray Dataset want the same dimensions, or one that all share; {shown}."
        )
    (rows,) = shared
    columns = {**dataset.data_vars, **{k: c for k, c in dataset.coords.items() if c.dims == (rows,)}}
    return [(str(name), column.transpose(rows, ...).to_numpy()) for name, column in columns.items()]


def chosen_names(names: str | Sequence[str], source: Iterable[str], argument: str) -> tuple[str, ...]:
    """The names as a tuple; a `ValueError` for one that is unknown or named twice, a `TypeError` for no names."""
    if not isinstance(names, Iterable):
        raise TypeError(f"{argument}: got a {type(names).__name__}, want a column name or a sequence of names.")
    chosen = (names,) if isinstance(names, str) else tuple(names)
    if not chosen and argument != "drop":
        raise ValueError(f"{argument}: got no name, want at least one of {_listed(source)}.")
    for name in chosen:
        _check_known(name, source, argument)
        if chosen.count(name) > 1:
            raise ValueError(f"{argument}: {name!r} is named twice, want each column once.")
    return chosen


def _chosen(
    columns: str | Sequence[str] | None, source: Mapping[str, Any], left_out: Sequence[str]
) -> Sequence[str]:
    if columns is not None:
        return chosen_names(columns, source, "columns")
    chosen = [name for name in source if name not in left_out]
    if not chosen:
        raise ValueError(f"columns: nothing is left beside {_listed(left_out)}, want at least one column.")
    return chosen


def _check_known(name: Any, known: Iterable[str], argument: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name), list(known))
        nearest = f"; nearest: {_listed(near)}" if near else ""
        raise ValueError(f"{argument}: there is no {name!r}{nearest}; want one of {_listed(known)}.")


def _listed(names: Iterable[str], most: int = 20) -> str:
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:most]) + (f" and {len(quoted) - most} more" if len(quoted) > most else "")


def _arrow(name: str, column: Any, argument: str) -> Any:
    """The column as a pyarrow ChunkedArray of plain (not dictionary-encoded) values."""
    import pyarrow as pa

    try:
        if hasattr(column, "__arrow_c_stream__"):  # pyarrow, polars, pandas
            arrow = pa.chunked_array(column)
        else:
            if not isinstance(column, list | tuple | pa.Array | np.ma.MaskedArray):
                column = np.asarray(column)
                column = column.astype(column.dtype.newbyteorder("="), copy=False)
            arrow = pa.chunked_array([pa.array(column, from_pandas=True)])
        if not pa.types.is_dictionary(arrow.type):
            return arrow
        chunks = []
        for chunk in arrow.chunks:  # by hand, because pyarrow cannot decode a dictionary of string views
            values = chunk.dictionary
            values = values.cast(pa.large_string()) if pa.types.is_string_view(values.type) else values
            chunks.append(values.take(chunk.indices))
        return pa.chunked_array(chunks)
    except (pa.ArrowException, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"{argument}: {name!r} is no column of one type: {error}.") from None


def as_numbers(name: str, column: Any) -> np.ndarray:
    """The column as an array of integers, floats or booleans, NaN where it was null."""
    dtype = getattr(column, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf" and not np.ma.isMaskedArray(column):
        return np.asarray(column).astype(dtype.newbyteorder("="), copy=False)  # JAX refuses swapped bytes
    import pyarrow as pa

    arrow = _arrow(name, column, "columns")
    shape: tuple[int, ...] = (len(arrow),)
    while pa.types.is_fixed_size_list(arrow.type) and arrow.null_count == 0:
        shape += (arrow.type.list_size,)
        arrow = pa.chunked_array([chunk.flatten() for chunk in arrow.chunks], type=arrow.type.value_type)
    kind = arrow.type
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        arrow = arrow.cast(pa.float64())
    elif pa.types.is_boolean(kind) and arrow.null_count:
        arrow = arrow.cast(pa.int8())  # pyarrow would make objects of booleans with nulls
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        held = f"{kind} with nulls" if pa.types.is_fixed_size_list(kind) else kind
        cure = "encode it as numbers, or leave it out with columns=[...]"
        raise NoNumbersError(f"columns: {name!r} holds {held}, want numbers; {cure}.", name, held)
    return arrow.to_numpy().reshape(shape)


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
