"""Quantisers of faiss at an exact number of bytes a row: what codes of real queries compete with.

A name and a number of bytes give a key of faiss's `index_factory`. All that is stored of a row
counts, the two factors of RaBitQ too. Each is used as its makers use it:

* `opq`, `opq_all`: product quantiser after a learned rotation, of 8 columns a byte or of all;
* `rq`: residual quantiser, whose rows are decoded and searched exactly, since tables of it take
  more bytes than its codes;
* `rabitq`, `sqtqmse1`, `sqtqmse2`: RaBitQ, queries of 8 bits, and the codes of TurboQuant, one and
  two bits a column, after PCA and a random rotation, or a random rotation to more columns;
* `sq8`: int8 of the leading principal components, a byte each.

Rows are centred, and divided by the root of their mean squared norm: TurboQuant's levels are those
of rows of norm 1, and the others rank as without it. Shapes: n rows, N base rows, Q queries, d
columns, k neighbours.

Not responsible for binary codes (`methods`) nor for metrics (`retrieval.real_queries`).
"""

import functools
from typing import NamedTuple

import numpy as np

from sigah_jax.errors import BadInput, BitsRefused
from sigah_jax.process.blas import faiss
from sigah_jax.retrieval.real_queries import Way

NAMES = ("opq", "opq_all", "rq", "rabitq", "sqtqmse1", "sqtqmse2", "sq8")
RANDOM = ("opq", "opq_all", "rq")  # fitted by a draw of rows; of the others one seed says all
RQ_ROWS = 20_000  # that a residual quantiser is trained on; more are no better and take long
OPQ_ROWS = 65_536  # the same of product quantisers, as faiss would draw them
CENTROIDS = 256  # of a byte
RABITQ_BYTES = 8  # of its two factors
QUERY_BITS = 8  # of RaBitQ
RQ_COLUMNS = 128  # principal components that a residual quantiser keeps at least
BLOCK = 1 << 16  # rows encoded at once


class Quantiser(NamedTuple):
    """A trained quantiser; `index` holds the codes of the rows that were added."""

    name: str
    index: faiss.Index
    centre: np.ndarray  # [d] f32
    scale: float


def fit(name: str, seed: int, xt: np.ndarray, bits: int) -> Quantiser:
    """Trains on the rows `[n, d]`, of which those in `RANDOM` take a part by the seed.

    Raises:
        BitsRefused: there is none of that many bits for d columns.
        BadInput: fewer training rows than centroids.
    """
    n, d = xt.shape
    index = faiss.index_factory(d, factory_key(name, bits, d))
    if name in RANDOM:
        if n < CENTROIDS:
            raise BadInput(f"{name}: {n} training rows, expected at least {CENTROIDS}")
        most = RQ_ROWS if name == "rq" else OPQ_ROWS
        xt = xt[np.random.default_rng(seed).permutation(n)[:most]]
    if name == "rabitq":
        faiss.downcast_index(index.index).qb = QUERY_BITS
    centre = xt.mean(0, dtype=np.float64).astype(np.float32)
    norms = np.linalg.norm(xt - centre, axis=1)
    scale = 1 / max(np.sqrt(np.mean(norms**2, dtype=np.float64)), np.finfo(np.float32).tiny)
    quantiser = Quantiser(name, index, centre, float(scale))
    _train(index, _scaled(quantiser, xt))
    if 8 * index.sa_code_size() != bits:
        raise ValueError(f"{name}: codes of {index.sa_code_size()} bytes in place of {bits} bits")
    return quantiser


def _train(index: faiss.Index, x: np.ndarray) -> None:
    """Trains as faiss does, but without a line for each clustering of few rows."""
    chained = isinstance(index, faiss.IndexPreTransform)
    code = faiss.downcast_index(index.index if chained else index)
    first = faiss.downcast_VectorTransform(index.chain.at(0)) if chained else None
    clustered = [getattr(code, part) for part in ("pq", "rq") if hasattr(code, part)]
    if isinstance(first, faiss.OPQMatrix):
        own = faiss.ProductQuantizer(first.d_out, first.M, 8)  # which faiss does not keep alive
        first.pq = own
        clustered.append(own)
    for part in clustered:
        part.cp.min_points_per_centroid = 1
    index.train(x)
    if isinstance(first, faiss.OPQMatrix):
        first.pq = None


def factory_key(name: str, bits: int, d: int) -> str:
    """The key of `index_factory` for rows of d columns; BitsRefused where there is none."""
    size = bits // 8
    if bits % 8:
        raise BitsRefused(f"{name}: {bits} bits are not whole bytes")
    if name in ("opq", "opq_all"):
        columns = -(-d // size) * size  # all, and zeros that make the parts equal
        if size > d:
            raise BitsRefused(f"{name}: {size} parts need as many columns, there are {d}")
        if name == "opq":
            if 8 * size >= columns:
                raise BitsRefused(f"opq: 8 columns a byte are all {d} columns; see opq_all")
            columns = 8 * size
        return f"OPQ{size}_{columns},PQ{size}x8"
    if name == "rq":
        columns = max(RQ_COLUMNS, 8 * size)
        return f"PCA{columns},RQ{size}x8" if columns < d else f"RQ{size}x8"
    if name == "sq8":
        if size > d:
            raise BitsRefused(f"sq8: {size} bytes need as many columns, there are {d}")
        return f"PCA{size},SQ8"
    if name == "rabitq" and size <= RABITQ_BYTES:
        raise BitsRefused(f"rabitq: its factors alone take {RABITQ_BYTES} bytes")
    columns, code = {
        "rabitq": (8 * (size - RABITQ_BYTES), "RaBitQ"),
        "sqtqmse1": (8 * size, "SQtqmse1"),
        "sqtqmse2": (4 * size, "SQtqmse2"),
    }[name]
    turn = "PCAR" if columns < d else "RR"
    return f"{turn}{columns},{code}"


def add(quantiser: Quantiser, x: np.ndarray) -> None:
    """Encodes rows `[n, d]` after those that the quantiser holds."""
    for start in range(0, len(x), BLOCK):
        quantiser.index.add(_scaled(quantiser, x[start : start + BLOCK]))


def search(quantiser: Quantiser, xq: np.ndarray, k: int) -> np.ndarray:
    """Ids `[Q, k]` of the rows it holds that are nearest to queries `[Q, d]`, by the codes alone.

    The search is faiss's on the codes; a residual quantiser decodes all rows in each search.
    """
    index = _decoded(quantiser.index) if quantiser.name == "rq" else quantiser.index
    return index.search(_scaled(quantiser, xq), k)[1]


def way(quantiser: Quantiser, xq: np.ndarray) -> Way:
    """The search of all rows that it holds by queries `[Q, d]`, and their ranking.

    The ranking is by distance to decoded rows, but RaBitQ's is by its own estimate. It is that of
    `search` except for rounding and for codes of more columns than d, whose decoding takes away a
    part of the error.
    """
    queries, index = _scaled(quantiser, xq), quantiser.index
    held = index if quantiser.name == "rabitq" else _decoded(index)

    def distances(part: slice) -> np.ndarray:
        limits, d, ids = held.range_search(queries[part], np.inf)
        shape = len(limits) - 1, held.ntotal
        out = np.empty(shape, np.float32)
        np.put_along_axis(out, ids.reshape(shape), d.reshape(shape), 1)
        return out

    return Way(distances, functools.partial(search, quantiser, xq))


def _decoded(index: faiss.Index) -> faiss.Index:
    decoded = faiss.IndexFlatL2(index.d)
    decoded.add(index.reconstruct_n(0, index.ntotal))
    return decoded


def _scaled(quantiser: Quantiser, x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((x - quantiser.centre) * quantiser.scale, np.float32)
