"""Evaluation: encode base and queries, count distances, compute metrics; SiGAH and baselines.

Shapes: Q queries, N base rows, d columns, W packed bytes, K bits.

Not responsible for training; used by it and by `--mode=eval`.
"""

import time
from pathlib import Path

import jax
import numpy as np

from sigah_jax import parallel
from sigah_jax.baselines import itq, lsh, pca
from sigah_jax.data.cache import cached
from sigah_jax.data.datasets import Dataset
from sigah_jax.hasher import Hasher
from sigah_jax.retrieval import codes, histograms, metrics, neighbours

ITQ_ITERATIONS = 50  # Gong & Lazebnik 2011


def cached_ground_truth(directory: Path, xq: np.ndarray, xb: np.ndarray, engine: str) -> np.ndarray:
    """`neighbours.nearest_sets` of every relevance set, `[Q, k] i32`, kept in `directory`."""
    sizes = metrics.relevance_sizes(len(xb))
    return cached(
        directory,
        "ground_truth",
        [xq, xb, *sizes],
        lambda: neighbours.nearest_sets(xq, xb, sizes, engine),
    )


def measure(
    cq: np.ndarray, cb: np.ndarray, truth: np.ndarray, bits: int, engine: str
) -> tuple[dict[str, float], tuple[list, list]]:
    """Metrics of packed codes, and precision and recall at each radius (relevant = top 2 %).

    Args:
        cq: `[Q, W] u1`; cb: `[N, W] u1`; truth: `[Q, k] i32`, of `cached_ground_truth`.
    """
    h = histograms.distance_histograms(
        cq, cb, truth, metrics.relevance_sizes(len(cb)), bits, engine
    )
    curve = metrics.pr_curve(h.total, h.relevant[-1])
    return metrics.summary(h), tuple(v.tolist() for v in curve)


def validation(hasher: Hasher, params: dict, data: Dataset, truth: np.ndarray, engine: str) -> dict:
    """Metrics of the validation queries against the training set, as `eval/…` rows."""
    h = hasher._replace(params=params)
    values, _ = measure(h.encode(data.xv), h.encode(data.xt), truth, hasher.bits, engine)
    return {f"eval/{name}": value for name, value in values.items()}


def baseline_codes(key: jax.Array, method: str, data: Dataset, bits: int, block_rows: int):
    """(query codes, base codes) of "itq", "pca_rr" or "lsh" fitted on the training set."""
    if method == "itq":
        params = itq.fit(key, data.xt, bits, ITQ_ITERATIONS)
    else:
        params = {"pca_rr": pca, "lsh": lsh}[method].fit(key, data.xt, bits)
    encode = parallel.map_rows(lambda p, x: codes.pack(pca.project(p, x) > 0), block_rows)
    return encode(params, data.xq), encode(params, data.xb)


def test(config, workdir: Path, data: Dataset, hasher: Hasher) -> tuple[dict, dict, dict]:
    """Metrics, precision-recall curves and seconds of SiGAH and the baselines on test queries.

    Baselines that need bits <= d are left out beyond that; a table says "n/a".
    """
    engine = parallel.engine(config.engine)
    truth = cached_ground_truth(workdir / "data", data.xq, data.xb, engine)
    bits, d = config.model.bits, data.xb.shape[1]
    methods = ("sigah", "itq", "pca_rr", "lsh") if bits <= d else ("sigah", "lsh")
    values, curves, seconds = {}, {}, {}
    for method in methods:
        start = time.monotonic()
        if method == "sigah":
            cq, cb = hasher.encode(data.xq), hasher.encode(data.xb)
        else:
            key = jax.random.key(config.seed)
            cq, cb = baseline_codes(key, method, data, bits, config.eval.block_rows)
        seconds[f"fit_and_encode_{method}" if method != "sigah" else "encode_sigah"] = round(
            time.monotonic() - start, 3
        )
        values[method], curves[method] = measure(cq, cb, truth, bits, engine)
    return values, curves, seconds
