"""Parquet: a vector is a list of numbers in a column of lists, or a tensor of fixed shape.

Shapes: n rows, d columns.

Not responsible for the choice by file name (`vectors`).
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.files.regular import check_memory, name_of
from sigah_jax.formats.opened import Opened, by_piece, choose, library, reading_as


def open_parquet(f: BinaryIO, path: Path, dataset: str) -> Opened:
    """A column of lists of d numbers each, `[n, d]`; keeps the last decoded row group."""
    pa, pq = library("pyarrow", path), library("pyarrow.parquet", path)
    with reading_as("parquet", path):
        file = pq.ParquetFile(name_of(f), page_checksum_verification=True)
        schema = file.schema_arrow
        columns = {c.name: c.type for c in schema if _is_list_of_numbers(pa.types, c.type)}
        plain = sum(_is_number(pa.types, c.type) for c in schema)
        if plain and not columns:
            raise BadInput(
                f"{path}: has {plain} columns of numbers and none of lists; each vector must be "
                "one list in a column of lists, write them so or as .npy"
            )
        name = choose(path, {c: str(t) for c, t in columns.items()}, dataset)
        if schema.names.count(name) > 1:
            raise BadInput(f"{path}: has more than one column {name!r}; rename all but one")
        dtype = np.dtype(stored_lists(path, columns[name]).value_type.to_pandas_dtype())
        meta = file.metadata
        rows = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
        if sum(rows) != meta.num_rows:
            raise BadInput(f"{path}: is damaged, its counts of rows do not agree; get it again")
        d = _first_length(path, file, name) if meta.num_rows else 0
        check_memory(path, max(rows, default=0) * d * dtype.itemsize)
    ends = np.cumsum(rows, dtype=np.int64).tolist()

    def decode(group: int) -> np.ndarray:
        start = ends[group] - rows[group]
        with reading_as("parquet", path):
            chunks = file.read_row_group(group, columns=[name]).column(name).chunks
        parts = []
        for chunk in chunks:
            parts.append(list_rows(path, chunk, d, start).astype(dtype, copy=False))
            start += len(chunk)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return Opened((int(meta.num_rows), d), dtype, by_piece(path, ends, d, dtype, decode), None)


def stored_lists(path: Path, kind):
    """The type of the lists that a column of some type holds; those of a tensor are its rows."""
    axes = getattr(kind, "permutation", None)
    if axes and list(axes) != sorted(axes):
        raise BadInput(
            f"{path}: holds tensors with their axes permuted ({axes}); store them by rows"
        )
    return getattr(kind, "storage_type", kind)


def _first_length(path: Path, f, name: str) -> int:
    """How many numbers the first list of a column holds that is not null."""
    for batch in f.iter_batches(1, columns=[name]):
        lists = batch.column(name)
        lengths = getattr(lists, "storage", lists).value_lengths().drop_null()
        if len(lengths) and not lengths[0].as_py():
            raise BadInput(f"{path}: the first list of {name!r} is empty; repair or remove it")
        if len(lengths):
            return lengths[0].as_py()
    raise BadInput(f"{path}: all rows of {name!r} are null; name another column, or get it again")


def _is_list_of_numbers(types, kind) -> bool:
    kind = getattr(kind, "storage_type", kind)  # Ray Data and pandas write tensors
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_number(types, kind.value_type)
    return False


def _is_number(types, kind) -> bool:
    return types.is_integer(kind) or types.is_floating(kind)


def list_rows(path: Path, lists, d: int, first: int) -> np.ndarray:
    """`[len(lists), d]` of an arrow array of lists, whose first is row `first` of the file.

    Floats that are null, and lists of them, are NaN; integers have none, and are refused.
    """
    lists = getattr(lists, "storage", lists)  # of an extension type
    there = lists.is_valid().to_numpy(zero_copy_only=False)
    wrong = there & (lists.value_lengths().to_numpy(zero_copy_only=False) != d)
    if wrong.any():
        row = int(wrong.argmax())
        raise BadInput(
            f"{path}: row {first + row} holds {lists[row].as_py()!r:.60}, expected a list of {d} "
            "numbers as in the rows before; repair or remove it"
        )
    values = lists.flatten()  # without the lists that are null
    holes = ~there
    holes[there] = values.is_null().to_numpy(zero_copy_only=False).reshape(-1, d).any(1)
    x = values.to_numpy(zero_copy_only=False).reshape(-1, d)
    if not holes.any():
        return x
    if np.dtype(values.type.to_pandas_dtype()).kind != "f":
        raise BadInput(f"{path}: row {first + holes.argmax()} holds null; repair or remove it")
    out = np.full((len(lists), d), np.nan, x.dtype)
    out[there] = x
    return out
