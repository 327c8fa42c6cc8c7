"""Files of vectors as fragments, (file, first row, last row), for `encode_ray`.

Shapes: n rows, d columns.

Not responsible for the formats that `formats.vectors` knows, nor for what becomes of the rows.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax.errors import BadInput, optional
from sigah_jax.files.regular import fingerprint, name_of, open_regular
from sigah_jax.formats.opened import reading_as
from sigah_jax.formats.parquet import list_rows, stored_lists
from sigah_jax.formats.vectors import Vectors, check_unchanged, open_vectors


class Fragment(NamedTuple):
    """Rows of one input, which become one file."""

    path: str
    facts: str  # what tells the input from a changed one, as JSON
    start: int
    stop: int
    name: str  # of the file of codes


class Source(NamedTuple):
    """An input that was opened."""

    vectors: Vectors
    ends: list[int]  # of its row groups, which are not cut; empty: it may be cut anywhere
    others: Callable[[int, int], Iterator]  # (start, stop) -> tables of the other columns, in order
    facts: dict  # what tells it from a changed one, for JSON
    check: Callable[[dict], None]  # raises BadInput unless its facts are these, and still so


def list_inputs(names: Iterable[str], output: Path) -> list[Path]:
    """Absolute paths; a directory becomes the files and Lance data sets in it, by name.

    The output is left out, and names that begin with a dot or an underscore, as readers of
    Parquet do.

    Raises:
        BadInput: a path that is missing, an empty directory, or one that holds something else.
    """
    paths = []
    for path in (Path(os.path.abspath(os.path.expanduser(name))) for name in names):
        if path.suffix == ".lance" or not path.is_dir():
            found = [path] if path.exists() else []
        else:
            inside = (p for p in sorted(path.iterdir()) if not p.name.startswith((".", "_")))
            found = [p for p in inside if p != Path(os.path.abspath(output))]
            for p in found:
                if p.suffix != ".lance" and not p.is_file():
                    kind = "a directory" if p.is_dir() else "not a file, or a link to a missing one"
                    raise BadInput(
                        f"--input: {p} is {kind}, and would be left out; move it out of {path}, "
                        "or name the inputs one by one"
                    )
        if not found:
            raise BadInput(f"--input: {path} is not a file or a directory of files; check the path")
        paths += found
    return paths


def plan(paths: list[Path], column: str, fragment_rows: int) -> tuple[list[Fragment], list[dict]]:
    """Cuts inputs into fragments.

    Args:
        fragment_rows: rows of a fragment; of a Parquet file, whole row groups that have as many
            at least. The last one of an input takes what is left.

    Returns:
        (fragments, what tells each input from a changed one, for JSON).
    """
    fragments, inputs = [], []
    for index, path in enumerate(paths):
        if _is_empty_parquet(path):
            continue
        v, ends, _, facts, _ = _open(path, column, None)
        inputs.append({"path": str(path)} | facts)
        n, start = v.shape[0], 0
        for end in ends or [*range(fragment_rows, n, fragment_rows), n]:
            if end - start >= fragment_rows or start < end == n:
                name = f"{index:05d}-{start:012d}.parquet"
                fragments.append(Fragment(str(path), json.dumps(facts), start, end, name))
                start = end
    if not fragments:
        raise BadInput("--input: all files are empty; check the paths")
    return fragments, inputs


def open_source(fragment: Fragment, column: str, d: int) -> Source:
    """Opens the input of a fragment.

    Raises:
        BadInput: it cannot be read, is not the one that was planned, has no such column, or
            vectors of another d.
    """
    facts = json.loads(fragment.facts)
    source = _open(Path(fragment.path), column, facts.get("version"))
    source.check(facts)
    found = source.vectors.shape[1]
    if found != d:
        raise BadInput(f"{fragment.path}: d={found}, this hasher was trained on d={d}")
    return source


def _open(path: Path, column: str, version: int | None) -> Source:
    if path.suffix == ".lance":
        return _open_lance(path, column, version)
    ends, others, parquet = [], _row_numbers, path.suffix.lower() == ".parquet"
    v = open_vectors(path, column if parquet else "")
    if parquet:
        ends, others = _row_groups(v, column)
    return Source(v, ends, others, fingerprint(v.file), partial(check_unchanged, v))


def _is_empty_parquet(path: Path) -> bool:
    """Whether it is a Parquet file without rows, as one of many may be."""
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet":
        return False
    file = open_regular(path)
    with reading_as("parquet", path):
        return pq.read_metadata(name_of(file)).num_rows == 0


def _row_numbers(start: int, stop: int) -> Iterator:
    import pyarrow as pa

    yield pa.table({"row": np.arange(start, stop, dtype=np.int64)})


def _row_groups(v: Vectors, column: str) -> tuple[list[int], Callable[[int, int], Iterator]]:
    """Where the row groups of a Parquet file end, and its other columns."""
    import pyarrow.parquet as pq

    with reading_as("parquet", v.path):
        f = pq.ParquetFile(name_of(v.file))
        names = _other_columns(v.path, f.schema_arrow.names, column)
        rows = (f.metadata.row_group(group).num_rows for group in range(f.num_row_groups))
        ends = list(itertools.accumulate(rows))

    def others(start: int, stop: int) -> Iterator:
        with reading_as("parquet", v.path):
            for group, end in enumerate(ends):
                if start < end <= stop:
                    yield f.read_row_group(group, columns=names)

    return ends, others if names else _row_numbers


def _open_lance(path: Path, column: str, version: int | None) -> Source:
    import pyarrow as pa

    lance = optional("lance", f"{path}: reading it", "ray")
    with reading_as("Lance", path):
        data = lance.dataset(str(path), version=version)
        names = _other_columns(path, data.schema.names, column)
        kind = stored_lists(path, data.schema.field(column).type)
        if not pa.types.is_fixed_size_list(kind):
            raise BadInput(f"{path}: column {column!r} is {kind}, expected lists of fixed size")
        shape, facts = (data.count_rows(), kind.list_size), _lance_facts(data)

    def rows(names: list[str], start: int, stop: int):
        with reading_as("Lance", path):
            return data.to_table(columns=names, offset=start, limit=stop - start)

    def read(start: int, stop: int) -> np.ndarray:
        lists = rows([column], start, stop)[column].combine_chunks()
        return list_rows(path, lists, kind.list_size, start)

    def others(start: int, stop: int) -> Iterator:
        yield rows(names, start, stop)

    def check(then: dict) -> None:
        with reading_as("Lance", path):
            same = _lance_facts(data) == then
        if not same:
            raise BadInput(f"{path}: was replaced while it was in use; start again")

    v = Vectors(path, shape, np.dtype(kind.value_type.to_pandas_dtype()), read, None, None)
    return Source(v, [], others if names else _row_numbers, facts, check)


def _lance_facts(data) -> dict:
    """The version of a Lance data set, and a hash of the names of its files, which never change."""
    names = json.dumps([fragment.metadata.to_json() for fragment in data.get_fragments()])
    return {"version": data.version, "files": hashlib.sha256(names.encode()).hexdigest()}


def _other_columns(path: Path, names: list[str], column: str) -> list[str]:
    """The names without that of the vectors, which must be there; BadInput if one is taken."""
    if column not in names:
        have = ", ".join(map(repr, names))
        raise BadInput(f"{path}: --column={column}: no such column; it has {have}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"{path}: has more than one column {twice!r}; rename all but one")
    if "code" in names:
        raise BadInput(f"{path}: has a column 'code', as the output's is called; rename it")
    return [name for name in names if name != column]
