"""Data sets as `Dataset(xt, xv, xb, xq)`: what is trained on, chosen by, searched and asked.

Shapes: d columns; nt, nv, nb, nq, na rows.

Not responsible for ground truth: `retrieval.neighbours`.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sigah_jax.data import benchmarks, mnist, tiny100k
from sigah_jax.data.directory import data_directory
from sigah_jax.data.row_checks import (
    check_directions,
    check_finite,
    check_precision,
    warn_of_outliers,
)
from sigah_jax.data.sources import command_for
from sigah_jax.errors import BadInput
from sigah_jax.files.cache import content_hash
from sigah_jax.files.regular import check_memory
from sigah_jax.formats.vectors import read_file
from sigah_jax.retrieval.metric import L2, Metric, base_rows, longest, queries_of
from sigah_jax.retrieval.metric import of as metric_of

BLOCK_ROWS = 8192  # converted at once


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Four sets of feature vectors, f32, finite as their squared norms are.

    They are what `retrieval.metric` makes of the rows that were given: all that is computed of them
    is Euclidean. Of l2, a base that a raw format holds as float32 stays a memory map, unless test
    queries were held out of it: then it is copied.
    """

    xt: np.ndarray  # [nt, d] training set; validation searches it
    xv: np.ndarray  # [nv, d] validation queries, carved from the training split: choose by these
    xb: np.ndarray  # [nb, d] base, which test queries search
    xq: np.ndarray  # [nq, d] test queries: looked at once, at the end
    image_shape: tuple[int, ...]  # (height, width) if rows are grey images, else ()
    origin: str  # where it came from and what was carved, for people
    warning: str = ""  # returned by `warn_of_outliers` for the training rows
    metric: Metric = L2  # which these rows went through
    xa: np.ndarray | None = None  # [na, d] training queries, if they are not the rows of xt

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Of the rows of each part that there is, which are read once for it."""
        parts = {part: getattr(self, part) for part in ("xt", "xv", "xb", "xq", "xa")}
        return {part: content_hash([x]) for part, x in parts.items() if x is not None}


def load_dataset(config) -> Dataset:
    """The data set that `config.data` names.

    Raises:
        BadInput: a missing or bad file, or one to hold queries out of that exceeds memory; rows as
            in `check_finite` and `check_precision`; too few rows.
    """
    data = config.data
    root = data_directory(data.dir)
    if data.name == "mnist":
        shape = (mnist.SIDE, mnist.SIDE)
        return assemble(mnist.load_images(), None, None, data, "MNIST, embedded", shape)
    if data.name == "tiny100k":
        x, origin = tiny100k.load_tiny100k(root / "tiny100k", root / "cifar")
        return assemble(x, None, None, data, origin)
    if data.name == "vectors":
        return load_files(data)
    parts = benchmarks.load_benchmark(data.name, root, command_for(data.name, data.dir))
    return assemble(parts.base, parts.queries, parts.learn, data, parts.origin)


def load_files(data) -> Dataset:
    """The files `data.base` and, where given, `data.queries`, `.train` and `.queries_train`.

    An array inside an HDF5, MAT or parquet file is named after a colon: `my.hdf5:train`.
    """
    base = read_file(data.base)
    if not data.queries:  # some rows are held out, and the others copied
        rows = min(len(base), data.max_rows or len(base))
        check_memory(Path(data.base), 4 * rows * base.shape[1])
    names = data.queries, data.train, data.queries_train
    queries, learn, asked = others = [read_file(name) if name else None for name in names]
    for name, x in zip(names, others, strict=True):
        if x is not None and x.shape[1] != base.shape[1]:
            raise BadInput(
                f"{name}: {x.shape[1]} columns, but {data.base} has {base.shape[1]}; "
                "all files must come from one model"
            )
    return assemble(base, queries, learn, data, data.base, asked=asked)


def assemble(
    base: np.ndarray,
    queries: np.ndarray | None,
    learn: np.ndarray | None,
    data,
    origin: str,
    image_shape: tuple[int, ...] = (),
    asked: np.ndarray | None = None,
) -> Dataset:
    """A data set out of its parts; what is not given is drawn at random by `data.split_seed`.

    Without queries, `data.test_queries` rows leave the base and become test queries. The
    training pool is `learn`, or the base where there is none; `data.val_queries` of its rows
    become validation queries, and `data.train_rows` of the others, or all, the training set. Of
    training queries, where they are given, validation queries are taken in place of rows.

    Args:
        base: `[n, d]`; queries: `[nq, d]`; learn: `[nl, d]`; asked: `[na, d]`, training queries;
            any real dtype.
        data: `config.data`.
        origin: where the parts come from.

    Raises:
        BadInput: too few rows, rows as in `check_finite` and `check_precision`, or of zeros that
            have no cosine.
    """
    for x, file, part in (
        (base, data.base, "base"),
        (queries, data.queries, "queries"),
        (learn, data.train, "training rows"),
        (asked, data.queries_train, "training queries"),
    ):
        if x is not None:
            name = file or f"{data.name}, {part}"
            check_finite(x, name)
            check_precision(x, name)
            if data.metric == "cosine":
                check_directions(x, name)
    generator = np.random.default_rng(data.split_seed)
    rows = np.arange(len(base))  # of its file
    if queries is None:
        order = generator.permutation(len(base))
        order = order[: data.max_rows] if data.max_rows else order
        enough(len(order), 2 * data.test_queries, "rows", "data.test_queries")
        rows = order[data.test_queries :]
        queries, base = base[order[: data.test_queries]], base[rows]
        origin += f", {data.test_queries} random rows held out as test queries"
    elif data.max_rows:
        base = base[: data.max_rows]
    pool, name = (base, data.base) if learn is None else (learn, data.train)
    asking, what = (pool, "training rows") if asked is None else (asked, "training queries")
    enough(len(asking), 2 * data.val_queries, what, "data.val_queries")
    order = generator.permutation(len(asking))
    chosen, drawn = np.split(order, [data.val_queries])
    validation, xa = asking[chosen], None
    if asked is not None:
        xa, drawn = asked[np.sort(drawn)], generator.permutation(len(pool))
    drawn = np.sort(drawn[: data.train_rows] if data.train_rows else drawn)
    # what will be encoded: the base, and of `fit`, which has none, all rows that it was given
    length = max(longest(base), longest(pool)) if data.metric == "ip" else 0.0
    metric = metric_of(data.metric, length)
    xb, xt = (points(base_rows, metric, x) for x in (base, pool[drawn]))
    xq, xv = (points(queries_of, metric, x) for x in (queries, validation))
    xa = None if xa is None else points(queries_of, metric, xa)
    warning = warn_of_outliers(xt, rows[drawn] if learn is None else drawn, name or data.name)
    return Dataset(xt, xv, xb, xq, image_shape, origin, warning, metric, xa)


def points(make: Callable, metric: Metric, x: np.ndarray) -> np.ndarray:
    """`metric.base_rows` or `metric.queries_of` of all rows, f32; of l2 the same array if it is."""
    if metric == L2:
        return np.asarray(x, np.float32)
    made = np.empty((len(x), x.shape[1] + metric.added), np.float32)
    for start in range(0, len(x), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        made[block] = make(metric, x[block])
    return made


def enough(rows: int, wanted: int, what: str, field: str) -> None:
    """Raises BadInput if a draw would take more than half of the rows."""
    if rows < wanted:
        raise BadInput(f"config.{field}: {rows} {what} are too few, expected at least {wanted}")
