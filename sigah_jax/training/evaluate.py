"""Evaluation: encode base and queries, count distances, compute metrics; SiGAH and baselines.

Shapes: Q queries, N base rows, d columns, W packed bytes, K bits.

Not responsible for training.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import config_dict

from sigah_jax.baselines.methods import METHODS
from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import parallel
from sigah_jax.encoder import searching
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.errors import BitsRefused
from sigah_jax.files.cache import cached
from sigah_jax.model.keys import Purpose, key_for
from sigah_jax.retrieval import (
    asymmetric,
    both,
    codes,
    euclidean,
    histograms,
    metrics,
    neighbours,
)
from sigah_jax.retrieval.real_queries import QUERIES, Way, measure


def ground_truth(
    directory: Path, data: Dataset, queries: str, base: str, engine: str
) -> np.ndarray:
    """`neighbours.nearest_sets` of every relevance set, `[Q, k] i32`, kept in `directory`.

    Args:
        queries, base: the parts of the data set, "xq" and "xb" or "xv" and "xt".
    """
    xq, xb = getattr(data, queries), getattr(data, base)
    sizes = metrics.relevance_sizes(len(xb))
    return cached(
        directory,
        "ground_truth",
        [data.hashes[queries], data.hashes[base], *sizes],
        lambda: neighbours.nearest_sets(xq, xb, sizes, engine),
    )


def score(
    cq: np.ndarray,
    cb: np.ndarray,
    truth: np.ndarray,
    bits: int,
    engine: str,
    own_distance: Callable | None = None,
) -> tuple[dict[str, float], tuple[list, list]]:
    """Metrics of packed codes, and precision and recall at each radius (relevant = top 2 %).

    Args:
        cq: `[Q, W] u1`, or as `own_distance` takes it; cb: `[N, W] u1`.
        truth: `[Q, k] i32`, returned by `ground_truth`.
        own_distance: of a method; None is Hamming's. It has many radii, of which the curve
            shows K + 1.
    """
    sizes = metrics.relevance_sizes(len(cb))
    if own_distance:
        h = histograms.group_histograms(*own_distance(bits), cq, cb, truth, sizes)
    else:
        h = histograms.distance_histograms(cq, cb, truth, sizes, bits, engine)
    precision, recall = metrics.pr_curve(h.total, h.relevant[-1])
    shown = slice(None)
    if own_distance:
        shown = np.unique(np.searchsorted(recall, np.linspace(0, recall[-1], bits + 1)))
    return metrics.summary(h), (precision[shown].tolist(), recall[shown].tolist())


def real_queries(
    h: Hasher, xq: np.ndarray, xb: np.ndarray, cb: np.ndarray, truth: np.ndarray, engine: str
) -> dict[str, dict[str, float]]:
    """What `retrieval.real_queries.measure` finds of queries that stay real.

    By both projections; by synthetic features, for which the base is decoded in each search; and
    in the stages of `searching.search`, after whose candidates the other rows are ranked by both
    codes.

    Args:
        xq: `[Q, d]`; xb: `[N, d]`; cb: `[N, W] u1`, the codes of xb; truth: as there.
    """
    u, z = h.both_projections(xq), h.query_features(xq)
    w = np.asarray(both.weights(h.both_codes(xq), h.bits))
    z_hat = h.decode(cb)
    b, squared = np.asarray(codes.signs(cb, h.bits)), np.einsum("np,np->n", z_hat, z_hat)
    first = min(searching.CANDIDATES, len(cb))

    def find(x: np.ndarray, k: int) -> np.ndarray:
        return searching.search(h, x, cb, k, engine=engine)[1]

    def staged(part: slice) -> np.ndarray:
        d = first + 3 * h.bits - w[part] @ b.T  # `first` at least
        np.put_along_axis(d, find(xq[part], first), np.arange(first, dtype=d.dtype)[None], 1)
        return d

    ways = {
        "sigah_projection": Way(
            lambda part: -(u[part] @ b.T), lambda k: asymmetric.by_projection(u, cb, k)[1]
        ),
        "sigah_synthetic": Way(
            lambda part: squared - 2 * (z[part] @ z_hat.T),
            lambda k: euclidean.knn(z, h.decode(cb), k, engine)[1],
        ),
        "sigah_stages": Way(staged, lambda k: find(xq, k)),
    }
    return {name: measure(way, xq, xb, truth) for name, way in ways.items()}


def hasher_of(config, params: dict) -> Hasher:
    """The hasher of a state that is being trained; equal configs share what is compiled."""
    model = config_dict.FrozenConfigDict(config.model)
    return Hasher(model, params, block_rows=config.eval.block_rows)


def validation(h: Hasher, data: Dataset, truth: np.ndarray, engine: str) -> dict[str, float]:
    """Metrics of the validation queries against the training set, as `eval/…` rows."""
    values, _ = score(h.encode_queries(data.xv), h.encode(data.xt), truth, h.bits, engine)
    return {f"eval/{name}": value for name, value in values.items()}


def fit_baseline(config, method: str, xt: np.ndarray, bits: int) -> Any:
    """The parameters of a baseline, fitted on the rows; BitsRefused if it has no such codes."""
    return METHODS[method].fit(key_for(config.seed, Purpose.BASELINE), xt, bits)


def encode_baseline(
    params, method: str, data: Dataset, block_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Packed codes of the queries `[nq, W]` and of the base `[nb, W]` by a fitted baseline."""
    encode = parallel.map_rows(packed(METHODS[method].project), block_rows)
    return encode(params, data.xq), encode(params, data.xb)


@functools.cache  # one object for a method: see `parallel.pmap`
def packed(project: Callable) -> Callable:
    """`(params, x [B, d]) -> [B, W] u1`, the codes of a baseline's real projections."""
    return lambda params, x: codes.pack(project(params, x) > 0)


def both_distance(bits: int) -> tuple[Callable, int]:
    """The distance of `retrieval.both`, as `score` takes it."""
    return both.distances, 3 * bits + 1


def test(config, cache: Path, data: Dataset, hasher: Hasher) -> tuple[dict, dict, dict]:
    """Metrics, precision-recall curves and seconds of SiGAH and the baselines on test queries.

    The seconds are those of the codes, of base and queries; of a baseline with its fit, and of both
    codes of the queries alone.

    A baseline that cannot have that many bits has no metrics and no curve; a table says "n/a".
    Rankings of real queries, of the first `QUERIES`, have no curve: their radii are not Hamming's.
    Beside their metrics stands `encode_secs`, the seconds of encoding the base.

    Args:
        cache: directory of the ground truth.
    """
    engine = parallel.engine(config.engine)
    truth = ground_truth(cache, data, "xq", "xb", engine)
    bits = config.model.bits
    values, curves, seconds = {}, {}, {}

    def add(method: str, cq: np.ndarray, cb: np.ndarray, start: float, own=None) -> None:
        seconds[method] = round(time.monotonic() - start, 3)
        values[method], curves[method] = score(cq, cb, truth, bits, engine, own)

    start = time.monotonic()
    cb = hasher.encode(data.xb)
    encode_secs = round(time.monotonic() - start, 3)  # with compilation
    add("sigah", hasher.encode_queries(data.xq), cb, start)
    if hasher.query_head:
        start = time.monotonic()
        add("sigah_both", hasher.both_codes(data.xq), cb, start, both_distance)
    asked = slice(0, QUERIES)
    real = real_queries(hasher, data.xq[asked], data.xb, cb, truth[asked], engine)
    values |= {name: found | {"encode_secs": encode_secs} for name, found in real.items()}
    if hasher.refinement.mu:
        start = time.monotonic()
        plain = hasher.encode(data.xb, refine=0)
        add("sigah_plain", hasher.encode_queries(data.xq), plain, start)
    for method in config.eval.baselines:
        start = time.monotonic()
        try:
            params = fit_baseline(config, method, data.xt, bits)
        except BitsRefused:
            values[method] = {}
            continue
        cq, cb = encode_baseline(params, method, data, config.eval.block_rows)
        add(method, cq, cb, start, METHODS[method].own_distance)
    return values, curves, seconds
