"""Search of a base of codes by vectors: `sigah_jax.search`.

Queries come as vectors, so that nobody compares codes of the two hash functions the wrong way
round, and stay real. A search has up to three stages, each of which ranks what the one before left:
both codes of a query rank all rows, synthetic features some, and vectors, where they are at hand,
fewer. Shapes: Q queries, n base rows, W packed bytes, d columns, k neighbours.

Not responsible for how neighbours are found (`retrieval`) nor for files (`sigah_jax.search`).
"""

import contextlib
import operator
from collections.abc import Iterator

import numpy as np

from sigah_jax.devices import parallel
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.encoder.inputs import (
    as_array,
    have_distances,
    numeric,
    packed_codes,
    refuse_bad,
)
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import asymmetric, both, gaps, hamming, topk
from sigah_jax.retrieval import rerank as reranking

CANDIDATES = 1000
OVERSAMPLE = 10
BY = ("synthetic", "both", "hamming", "projection")
ENGINES = ("auto", *parallel.ENGINES)


@parallel.default_settings()
def search(
    h: Hasher,
    queries: np.ndarray,
    packed: np.ndarray,
    k: int,
    *,
    by: str = "synthetic",
    candidates: int = CANDIDATES,
    rerank: np.ndarray | None = None,
    oversample: int = OVERSAMPLE,
    missing: np.ndarray = (),
    only: np.ndarray | None = None,
    engine: str = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest base rows of each query, by their codes; ties go to the lower id.

    Args:
        queries: `[Q, d]` vectors.
        packed: `[n, W] u1`, what `h.encode` made of the base; also a memory map.
        k: from 1 to the number of rows that have a code; with `only`, of those of its rows.
        by: "synthetic": the `candidates` nearest by both codes of the query are ranked by
            ‖β z - ẑ‖², see `Hasher.query_features`. The others rank all rows: "both", by both
            codes, see `retrieval.both`; "hamming", by the query's own code alone, as a store does;
            "projection", by both real projections, see `Hasher.both_projections`.
        candidates: how many rows of each query are ranked by synthetic features, 1 or more. Fewer
            than k, or than `oversample` k with `rerank`, count as so many.
        rerank: `[n, d]`, the vectors that the codes are of: the `oversample` k nearest are ranked
            by them. Also a memory map.
        oversample: how many times k rows are ranked by `rerank`, 1 or more.
        missing: `[m]` whole numbers, rising: base rows that have no code and are never found.
        only: the rows among which neighbours are searched, the cost being that of so many: `[s]`
            distinct row numbers, in any order; or `[n] bool`, False for what is filtered out or
            deleted.
        engine: "cpu", "accelerator" or "auto", which fits the devices; by projection "auto" alone.

    Returns:
        D `[Q, k]` and I `[Q, k] i64`, sorted by (distance, id). D is f32: ‖β z - ẑ‖², with `rerank`
        the distance of `rerank.rerank` by the metric of `h`, which is squared Euclidean, 1 - cos
        or -q·x, by projection the weighted Hamming distance; or i32: bits that differ, for both
        codes 2 H(Q, b) + H(S, b).

    Raises:
        BadInput: arguments that do not fit one another, rows that are not finite.
        TypeError: k, `candidates` or `oversample` is not a whole number, or h is not a Hasher.
    """
    queries = asked(h, queries)
    if by not in BY:
        raise BadInput(f"by={by!r}: expected one of {', '.join(BY)}")
    if engine not in ENGINES:
        raise BadInput(f"engine={engine!r}: expected one of {', '.join(ENGINES)}")
    if by == "projection" and engine != "auto":
        raise BadInput(f"engine={engine!r}: search by projection has one engine; leave it out")
    k, counts = operator.index(k), {"candidates": candidates, "oversample": oversample}
    for name, count in counts.items():
        if operator.index(count) < 1:
            raise BadInput(f"{name}={count}: expected 1 or more")
    packed, missing, subset = checked(h, packed, missing, only)
    rows = len(packed) - len(missing) if subset is None else len(subset)
    of = "" if only is None else " of `only`"
    if not rows:
        raise BadInput(f"packed: there is nothing to find, no row{of} has a code")
    if not 1 <= k <= rows:
        raise BadInput(f"k={k}: expected 1 to {rows}, the rows{of} that have a code")
    if rerank is not None:
        rerank = vectors_of(h, rerank, len(packed))
    with naming("queries"):
        if by == "projection":
            seen = h.both_projections(queries)
        else:
            seen = h.encode_queries(queries) if by == "hamming" else h.both_codes(queries)
    engine = parallel.engine(engine)

    def nearest(chunk: slice, k: int) -> tuple[np.ndarray, np.ndarray]:
        def find(cb: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            if by == "projection":
                return asymmetric.by_projection(seen[chunk], cb, k)
            way = hamming.search if by == "hamming" else both.search
            return way(seen[chunk], cb, k, engine)

        return gaps.search(find, packed, missing, k, subset)

    if rerank is None and by != "synthetic":
        return nearest(slice(0, len(queries)), k)
    last = k if rerank is None else min(rows, k * oversample)  # found by codes
    first = min(rows, max(candidates, last)) if by == "synthetic" else last
    d, ids = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for chunk in topk.query_chunks(len(queries), first):  # as `hamming.search` would cut them
        distances, found = nearest(chunk, first)
        if by == "synthetic":
            z = h.query_features(queries[chunk])
            with naming("queries"):
                refuse_bad(queries, chunk.start, have_distances(z))
            distances, found = asymmetric.by_feature(z, packed, found, last, h.decode)
        if rerank is not None:
            refuse_long(h, queries, chunk)
            with naming("rerank"):
                distances, found = reranking.rerank(queries[chunk], rerank, found, k, h.metric)
        d[chunk], ids[chunk] = distances, found
    return d, ids


def asked(h: Hasher, queries: np.ndarray) -> np.ndarray:
    """The queries of a search as an array, if h can encode them; otherwise BadInput.

    Raises:
        TypeError: h is something else than a hasher, such as the path of one.
    """
    if not isinstance(h, Hasher):
        kind = type(h).__name__
        raise TypeError(f"h: {kind}, expected a Hasher; `sigah_jax.load(path)` reads one")
    with naming("queries"):
        return h.check(queries)


def checked(
    h: Hasher, packed: np.ndarray, missing: np.ndarray, only: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The base of a search as arrays, if its parts fit one another; otherwise BadInput.

    Returns:
        codes `[n, W] u1`, missing rows `[m] i64`, and the rows of `only` that have a code,
        `[s] i64`, rising, or None for all.
    """
    packed = packed_codes(packed, h.bits)
    missing = np.asarray(as_array(missing, "missing"))
    if missing.size and not np.issubdtype(missing.dtype, np.integer):
        raise BadInput(f"missing: {missing.dtype}, expected whole numbers")
    missing = missing.astype(np.int64)
    if missing.ndim != 1 or (np.diff(missing, prepend=-1, append=len(packed)) < 1).any():
        raise BadInput(f"missing: expected rising numbers of the {len(packed)} rows of codes")
    if only is None:
        return packed, missing, None
    with naming("only"):
        only = np.asarray(as_array(only, "row numbers"))
        return packed, missing, gaps.subset(only, len(packed), missing)


def vectors_of(h: Hasher, rerank: np.ndarray, rows: int) -> np.ndarray:
    """The vectors of so many codes as an array; BadInput for another shape."""
    rerank = as_array(rerank, "rerank")
    if rerank.shape != (rows, h.d):
        raise BadInput(f"rerank: {list(rerank.shape)}, but there are {rows} codes of {h.d} columns")
    if not numeric(rerank):
        raise BadInput(f"rerank: {rerank.dtype}, expected integers or floats; convert them")
    return rerank


def refuse_long(h: Hasher, queries: np.ndarray, chunk: slice) -> None:
    """BadInput for a query of the chunk that is too long for a distance in float32.

    Cosine compares directions, and inner products are finite for longer queries.
    """
    if h.metric.name == "l2":
        with naming("queries"), np.errstate(over="ignore"):
            good = have_distances(np.asarray(queries[chunk], np.float32))
            refuse_bad(queries, chunk.start, good)


@contextlib.contextmanager
def naming(argument: str) -> Iterator[None]:
    """Puts an argument before the reason why its rows cannot be used."""
    try:
        yield
    except BadInput as e:
        raise BadInput(f"{argument}: {e}") from e
