"""Measures one method on given rows: its codes' recall, bytes and time, alone and re-ranked.

SiGAH is trained, or resumes; its peers are fitted. All encode the base and search it by the same
queries. Shapes: n base rows, Q queries, d columns, K bits, W packed bytes, k neighbours.

Not responsible for which methods are measured (`sigah_jax.measure`) nor for how a table or plot
looks (`report.measured`).
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax.baselines import quantisers
from sigah_jax.baselines.methods import METHODS
from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import parallel
from sigah_jax.encoder import searching
from sigah_jax.errors import BitsRefused
from sigah_jax.report import measured
from sigah_jax.retrieval import codes, euclidean, hamming, neighbours, real_queries, rerank
from sigah_jax.run import rundir
from sigah_jax.training import evaluate
from sigah_jax.training.run import run


class Search(NamedTuple):
    """What is asked of every method."""

    data: Dataset
    k: int
    oversample: int  # oversample · k rows are re-ranked, at most n
    truth: np.ndarray  # [Q, k], the true k nearest of each query
    engine: str
    block_rows: int  # encoded at once


def encoded(encode: Callable[[np.ndarray], np.ndarray], search: Search) -> tuple[np.ndarray, float]:
    """The codes of the base and the seconds that encoding takes, without compilation."""
    encode(search.data.xb[: search.block_rows])
    start = time.monotonic()
    cb = encode(search.data.xb)
    return cb, time.monotonic() - start


def found_by(
    alone: Callable[[int], np.ndarray], reranked: Callable[[], np.ndarray], search: Search
) -> dict[str, measured.Found]:
    """Recall and time of two searches.

    Args:
        alone: how many are wanted -> `[Q, k]` ids, by the codes alone.
        reranked: `[Q, k]` ids, of the nearest by the codes the nearest by their vectors.
    """
    found = {}
    for name, find in (("alone", lambda: alone(search.k)), ("reranked", reranked)):
        ids, milliseconds = real_queries.timed(find, len(search.data.xq))
        share = neighbours.recall(search.data.xq, search.data.xb, ids, search.truth)
        found[name] = measured.Found(share, milliseconds)
    return found


def found_and_reranked(
    alone: Callable[[int], np.ndarray], search: Search
) -> dict[str, measured.Found]:
    """`found_by` where any search finds the candidates."""
    xq, xb = search.data.xq, search.data.xb
    count = min(len(xb), search.k * search.oversample)
    return found_by(alone, lambda: rerank.rerank(xq, xb, alone(count), search.k)[1], search)


def exact(search: Search) -> measured.Row:
    """The vectors themselves as float32, searched one by one: what codes are compared with."""
    data = search.data
    find = lambda: euclidean.knn(data.xq, data.xb, search.k, search.engine)  # noqa: E731
    found = {"alone": measured.Found(1.0, real_queries.timed(find, len(search.data.xq))[1])}
    row_bytes = 4 * (data.xb.shape[1] - data.metric.added)
    return measured.Row("vectors", "vectors", row_bytes, 0.0, 0.0, found)


def sigah(config, workdir: Path, cache: Path, search: Search) -> list[measured.Row]:
    """SiGAH by Hamming distance and in stages; trains in `workdir`, or resumes.

    Of a training that was resumed no seconds are known, for they would be those of a part.
    """
    data, fresh, start = search.data, not workdir.exists(), time.monotonic()
    h = run(config, workdir, cache, lambda: data).euclidean  # as the rows of `data` are
    fit_secs = time.monotonic() - start if fresh else None
    rundir.claim_data(workdir, data.hashes)  # of a finished training `run` compares no rows
    cb, encode_secs = encoded(h.encode, search)
    find = functools.partial(searching.search, h, data.xq, cb, engine=search.engine)
    stages = found_by(
        lambda k: find(k)[1],
        lambda: find(search.k, rerank=data.xb, oversample=search.oversample)[1],
        search,
    )
    bits = found_and_reranked(lambda k: find(k, by="hamming")[1], search)
    costs = cb.shape[1], fit_secs, encode_secs
    return [
        measured.Row("bits", "sigah", *costs, bits),
        measured.Row("codes", "sigah_stages", *costs, stages),
    ]


def baseline(method: str, config, bits: int, search: Search) -> measured.Row:
    """A baseline by Hamming distance; without values where it cannot have so many bits."""
    start = time.monotonic()
    try:
        params = evaluate.fit_baseline(config, method, search.data.xt, bits)
    except BitsRefused as e:
        return measured.Row("bits", method, codes.packed_bytes(bits), None, 0.0, {}, str(e))
    fit_secs = time.monotonic() - start
    packed = evaluate.packed(METHODS[method].project)
    encode = functools.partial(parallel.map_rows(packed, config.eval.block_rows), params)
    cb, encode_secs = encoded(encode, search)

    def alone(k: int) -> np.ndarray:
        return hamming.search(encode(search.data.xq), cb, k, search.engine)[1]

    found = found_and_reranked(alone, search)
    return measured.Row("bits", method, cb.shape[1], fit_secs, encode_secs, found)


def quantiser(method: str, config, bits: int, search: Search) -> measured.Row:
    """A quantiser of equal bytes by real-valued queries; without values where there is none."""
    start = time.monotonic()
    try:
        trained = quantisers.fit(method, config.seed, search.data.xt, bits)
    except BitsRefused as e:
        return measured.Row("codes", method, codes.packed_bytes(bits), None, 0.0, {}, str(e))
    fit_secs, start = time.monotonic() - start, time.monotonic()
    quantisers.add(trained, search.data.xb)
    encode_secs = time.monotonic() - start
    alone = functools.partial(quantisers.search, trained, search.data.xq)
    found = found_and_reranked(alone, search)
    return measured.Row("codes", method, bits // 8, fit_secs, encode_secs, found)


def opq(config, bits: int, search: Search) -> measured.Row:
    """The better form of OPQ, by the code alone; it is named by what both are forms of."""
    forms = [quantiser(form, config, bits, search) for form in ("opq", "opq_all")]
    there = [row for row in forms if row.found]
    best = max(there, key=lambda row: row.found["alone"].recall, default=forms[1])
    return best._replace(method="opq")
