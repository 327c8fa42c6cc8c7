"""Search of a base of codes by vectors: `sigah_jax.search`.

Queries come as vectors, so that nobody compares codes of the two hash functions the wrong way
round. Shapes: Q queries, n base rows, W packed bytes, d columns, k neighbours.

Not responsible for how neighbours are found (`retrieval`) nor for files (`sigah_jax.search`).
"""

import contextlib
import operator
from collections.abc import Iterator

import numpy as np

from sigah_jax.devices import parallel
from sigah_jax.encoder.hasher import Hasher, as_array
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import asymmetric, both, codes, gaps, hamming, topk
from sigah_jax.retrieval import rerank as reranking

OVERSAMPLE = 10
BY = ("both", "hamming", "projection", "synthetic")
ENGINES = ("auto", "cpu", "accelerator")


@parallel.default_settings()
def search(
    h: Hasher,
    queries: np.ndarray,
    packed: np.ndarray,
    k: int,
    *,
    by: str = "both",
    rerank: np.ndarray | None = None,
    oversample: int = OVERSAMPLE,
    missing: np.ndarray = (),
    engine: str = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest base rows of each query, by their codes; exact, ties go to the lower id.

    Args:
        queries: `[Q, d]` vectors.
        packed: `[n, W] u1`, what `h.encode` made of the base; also a memory map.
        k: 1 to n, less the missing rows.
        by: "both": by both codes of the query, see `retrieval.both`. "hamming": by its own code
            alone, as a store does. "projection": the query stays real, and ranks by both of its
            projections, see `Hasher.both_projections`. "synthetic": the `oversample` k nearest
            by both codes are ranked by ‖z - ẑ‖², see `Hasher.features`.
        rerank: `[n, d]`, the vectors that the codes are of: the `oversample` k nearest are ranked
            by them. Also a memory map.
        oversample: how many times k candidates are ranked again, 1 or more.
        missing: `[m]` whole numbers, rising: base rows that have no code and are never found.
        engine: "cpu", "accelerator" or "auto", which fits the devices.

    Returns:
        D `[Q, k]` and I `[Q, k] i64`, sorted by (distance, id): i32, bits that differ, for both
        codes 2 H(Q, b) + H(S, b); for a real query f32, and with `rerank` squared Euclidean
        distances f32.

    Raises:
        BadInput: arguments that do not fit one another, rows that are not finite.
        TypeError: k or `oversample` is not a whole number.
    """
    with _naming("queries"):
        queries = h.check(queries)
    if by not in BY:
        raise BadInput(f"by={by!r}: expected one of {', '.join(BY)}")
    if by == "synthetic" and rerank is not None:
        raise BadInput("by='synthetic': the vectors of rerank say more; leave one of both out")
    if engine not in ENGINES:
        raise BadInput(f"engine={engine!r}: expected one of {', '.join(ENGINES)}")
    k, oversample = operator.index(k), operator.index(oversample)
    if oversample < 1:
        raise BadInput(f"oversample={oversample}: expected 1 or more")
    packed = as_array(packed, "codes")
    if packed.ndim != 2 or packed.dtype != np.uint8:
        raise BadInput(f"codes are {packed.dtype} {list(packed.shape)}: expected uint8 [n, W]")
    if packed.shape[1] != codes.packed_bytes(h.bits):
        raise BadInput(f"codes of {packed.shape[1]} bytes: this hasher's have {h.bits} bits")
    missing = np.asarray(missing, np.int64)
    if missing.ndim != 1 or (np.diff(missing, prepend=-1, append=len(packed)) < 1).any():
        raise BadInput(f"missing: expected rising numbers of the {len(packed)} rows of codes")
    rows = len(packed) - len(missing)
    if not 1 <= k <= rows:
        raise BadInput(f"k={k}: expected 1 to {rows}, the rows that have a code")
    if rerank is not None:
        rerank = as_array(rerank, "rerank")
        if rerank.shape != (len(packed), h.d):
            raise BadInput(
                f"rerank: {list(rerank.shape)}, but there are {len(packed)} codes of {h.d} columns"
            )
    with _naming("queries"):
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

        return gaps.search(find, packed, missing, k)

    if rerank is None and by != "synthetic":
        return nearest(slice(0, len(queries)), k)
    count = min(rows, k * oversample)
    d, ids = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for chunk in topk.query_chunks(len(queries), count):  # as `hamming.search` would cut them
        _, candidates = nearest(chunk, count)
        if rerank is None:
            z = h.features(queries[chunk])
            d[chunk], ids[chunk] = asymmetric.by_feature(z, packed, candidates, k, h.decode)
        else:
            with _naming("rerank"):
                d[chunk], ids[chunk] = reranking.rerank(queries[chunk], rerank, candidates, k)
    return d, ids


@contextlib.contextmanager
def _naming(argument: str) -> Iterator[None]:
    """Puts an argument before the reason why its rows cannot be used."""
    try:
        yield
    except BadInput as e:
        raise BadInput(f"{argument}: {e}") from e
