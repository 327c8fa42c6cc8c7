"""How far a trained encoder refines the codes of base rows: μ, by the validation queries.

A small μ brings synthetic features nearest to the rows; from some μ down the ranking by Hamming
distance pays for it, and where differs by data set. So a run takes the smallest μ that costs
nothing: refined, no metric of Hamming's ranking falls by more than chance explains. Few training
rows are decoded nearly exactly, so that refinement leaves their codes as they are and they say
nothing about other rows; then the greatest μ is taken, which changes least. ours.

Shapes: nt training rows, Q validation queries, P features, W packed bytes.

Not responsible for refining (`encoder.refining`).
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import parallel
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.encoder.refining import Refinement
from sigah_jax.retrieval import histograms, metrics
from sigah_jax.run import logs

MUS = (0.001, 0.003, 0.01, 0.03, 0.1)  # rising; of which "auto" takes one
METRICS = ("map", "map@1000", "precision@100", "recall@10", "recall@100", "1-recall@10")
LEAST_CHANGED = 0.005  # of the bits of the training rows, if these are to judge a μ
CHANCE = 2.0  # standard errors of a mean over queries by which a metric may fall


def chosen(
    config, h: Hasher, data: Dataset, truth: np.ndarray, log: logs.Log
) -> tuple[Hasher, np.ndarray]:
    """The encoder with the refinement that `config.refine` asks for, and codes of training rows.

    Its fact `refinement` says what that changes on the training rows: `bits_changed`, the mean of
    a code, and `error` and `error_refined`, the means of ‖z - ẑ‖².

    Args:
        h: without refinement.
        truth: of validation queries against training rows, returned by `evaluate.ground_truth`.

    Returns:
        (the encoder, packed codes `[nt, W] u1` that it gives to the training rows).
    """
    euclidean = h.euclidean
    plain = euclidean.encode(data.xt, refine=0)
    auto = config.refine.mu == "auto"
    mus = MUS if auto else (float(config.refine.mu),)
    queries, engine = euclidean.encode_queries(data.xv), parallel.engine(config.engine)

    def by_query(cb: np.ndarray) -> dict[str, np.ndarray]:
        sizes = metrics.relevance_sizes(len(cb))
        counts = histograms.distance_histograms(queries, cb, truth, sizes, h.bits, engine)
        return metrics.by_query(counts)

    def by(mu: float) -> tuple[Hasher, np.ndarray]:
        refined = dataclasses.replace(h, refinement=Refinement(mu, config.refine.iterations))
        return refined, refined.euclidean.encode(data.xt)

    def bits_changed(cb: np.ndarray) -> float:
        return float(np.bitwise_count(cb ^ plain).sum(axis=1).mean())

    before = by_query(plain) if auto else {}
    found, low, high = None, 0, len(mus)
    while low < high:  # halves the list: a larger μ costs less
        middle = (low + high) // 2
        mu = mus[middle]
        refined, cb = by(mu)
        lost = list(falls(before, by_query(cb))) if auto else []
        if lost:
            log.line(f"refinement: μ={mu} lowers {', '.join(lost)} of validation queries")
            low = middle + 1
        else:
            found, high = (mu, refined, cb), middle
    if found is None:
        log.line("refinement: none, since each μ lowers a metric of validation queries")
        return h, plain
    mu, refined, cb = found
    if auto and bits_changed(cb) < LEAST_CHANGED * h.bits and mu < MUS[-1]:
        log.line(f"refinement: μ={mu} changes too few bits of the training rows to be judged")
        mu = MUS[-1]
        refined, cb = by(mu)
    facts = {
        "bits_changed": bits_changed(cb),
        "error": error(euclidean, data.xt, plain),
        "error_refined": error(euclidean, data.xt, cb),
    }
    log.line(
        f"refinement: μ={mu} changes {facts['bits_changed']:.2f} of {h.bits} bits, "
        f"‖z - ẑ‖² {facts['error']:.4f} to {facts['error_refined']:.4f}"
    )
    return dataclasses.replace(refined, facts=h.facts | {"refinement": facts}), cb


def falls(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> Iterator[str]:
    """Those of `METRICS` whose mean over queries falls by more than `CHANCE` standard errors.

    Args:
        before, after: `[Q]` each, of the same queries in the same order.
    """
    for name in METRICS:
        gain = after[name] - before[name]
        if gain.mean() < -CHANCE * gain.std() / math.sqrt(len(gain)):
            yield name


def error(h: Hasher, x: np.ndarray, packed: np.ndarray) -> float:
    """The mean of ‖z - ẑ‖² over rows and their codes: `[n, d], [n, W] u1`."""
    total = 0.0
    for start in range(0, len(x), h.call_rows):
        rows = slice(start, start + h.call_rows)
        difference = h.features(x[rows]) - h.decode(packed[rows])
        total += float(np.einsum("np,np->", difference, difference, dtype=np.float64))
    return total / len(x)
