"""How far a trained encoder refines the codes of base rows: μ, by the validation queries.

A small μ brings synthetic features nearest to the rows; from some μ down the ranking by Hamming
distance pays for it, and where differs by data set. So a run takes the smallest μ by which no
metric of Hamming's ranking falls by more than chance explains, or than another seed may bring. The
training rows are searched, or a sample of them if they are many. Where training rows are few, they
are decoded nearly exactly: refinement leaves their codes as they are, and they say nothing about
other rows. Then the validation rows search one another. ours.

Shapes: nt training rows, of which ns are the sample; Q validation queries, P features, W packed
bytes.

Not responsible for refining (`encoder.refining`).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import parallel
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.encoder.refining import Refinement
from sigah_jax.retrieval import evenly, histograms, metrics, neighbours
from sigah_jax.run import logs

MUS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # rising; of which "auto" takes one
METRICS = ("map", "map@1000", "precision@100", "recall@10", "recall@100", "1-recall@10")
METRICS_OF_FEW = ("map", "recall@10", "1-recall@10")  # in some hundred rows the others are near 1
SAMPLE_ROWS = 20_000  # of the sample, at 128 bits and more
SAMPLE_BITS = 2_560_000  # of its codes, at fewer: 40,000 rows at 64 bits
LEAST_CHANGED = 0.005  # of the bits of the sample, if it is to judge a μ
CHANCE = 2.0  # standard errors of a mean over queries by which a metric may fall
SEEDS = 0.002  # or by so much, which is less than two deviations between seeds of most cells
# the same where validation rows search one another: there are few to be found, and so a fall is
# seen less surely
CHANCE_OF_FEW = 1.0
LEAST_ROWS = 200  # validation rows, if they are to judge


def chosen(
    config, h: Hasher, data: Dataset, truth: np.ndarray, log: logs.Log
) -> tuple[Hasher, np.ndarray, np.ndarray]:
    """The encoder with the refinement that `config.refine` asks for, and the rows that chose it.

    Its fact `refinement` says what that changes on the sample of training rows: `bits_changed`, the
    mean of a code, and `error` and `error_refined`, the means of ‖z - ẑ‖².

    Args:
        h: without refinement.
        truth: of validation queries against training rows, returned by `evaluate.ground_truth`.

    Returns:
        (the encoder, the numbers of the training rows of the sample `[ns] i64`, rising, the packed
        codes `[ns, W] u1` that it gives to these).
    """
    engine = parallel.engine(config.engine)
    rows, x, truth = sample(data, truth, h.bits, engine)
    iterations = config.refine.iterations
    unit = dataclasses.replace(h.euclidean, refinement=Refinement(0.0, iterations))
    queries, plain = unit.encode_queries(data.xv), unit.encode(x)

    @functools.cache
    def codes(mu: float) -> np.ndarray:
        return unit.encode(x, refine=mu)

    def bits_changed(mu: float) -> float:
        return float(np.bitwise_count(codes(mu) ^ plain).sum(axis=1).mean())

    if config.refine.mu == "auto":
        before = by_query(queries, plain, truth, h.bits, engine)
        after = lambda mu: by_query(queries, codes(mu), truth, h.bits, engine)  # noqa: E731
        mu = least(MUS, before, after, CHANCE, log)
        if mu and bits_changed(mu) < LEAST_CHANGED * h.bits:
            log.line(
                f"refinement: μ={mu} changes too few bits of training rows to be judged by them"
            )
            mus = MUS[MUS.index(mu) :]  # smaller ones were refused
            mu = by_validation_rows(mus, unit, data, engine, log)
    else:
        mu = float(config.refine.mu)
    if not mu:
        log.line("refinement: none, since each μ lowers a metric of validation queries")
        return h, rows, plain
    facts = {
        "bits_changed": bits_changed(mu),
        "error": error(unit, x, plain),
        "error_refined": error(unit, x, codes(mu)),
    }
    log.line(
        f"refinement: μ={mu} changes {facts['bits_changed']:.2f} of {h.bits} bits, "
        f"‖z - ẑ‖² {facts['error']:.4f} to {facts['error_refined']:.4f}"
    )
    facts = h.facts | {"refinement": facts}
    h = dataclasses.replace(h, refinement=Refinement(mu, iterations), facts=facts)
    return h, rows, codes(mu)


def sample(
    data: Dataset, truth: np.ndarray, bits: int, engine: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The training rows that judge, all or an even sample of many, and the ground truth.

    A sample has `SAMPLE_ROWS` rows, or more if their codes have no more than `SAMPLE_BITS` bits.

    Args:
        truth: of validation queries against all training rows.

    Returns:
        (their numbers `[ns] i64`, rising, the rows `[ns, d]`, the ground truth `[Q, k] i32` of
        validation queries against these).
    """
    count = max(SAMPLE_ROWS, SAMPLE_BITS // bits)
    rows, x = evenly.rows(len(data.xt), count), evenly.of(data.xt, count)
    if x is not data.xt:
        truth = neighbours.nearest_sets(data.xv, x, metrics.relevance_sizes(count), engine)
    return rows, x, truth


def completed(
    h: Hasher, x: np.ndarray, rows: np.ndarray, known: np.ndarray, packed: np.ndarray
) -> np.ndarray:
    """The codes `[m, W] u1` that h gives to rows of x, of which some are known already.

    Args:
        x: `[n, d]`, through the metric of h.
        rows: `[m]`, the numbers of the rows whose codes are asked for.
        known: `[k]`, k > 0, numbers of rows, rising; packed: `[k, W] u1`, their codes by h.
    """
    at = np.minimum(np.searchsorted(known, rows), len(known) - 1)
    found, missing = packed[at], known[at] != rows
    if missing.any():
        found[missing] = h.euclidean.encode(x[rows[missing]])
    return found


def by_validation_rows(
    mus: Sequence[float], h: Hasher, data: Dataset, engine: str, log: logs.Log
) -> float:
    """The smallest of `mus` that loses no validation rows, of which no training knows.

    Each half of them searches the other; `METRICS_OF_FEW` judge. If each μ loses some, it is
    the greatest, which changes least and which the training rows did not refuse. So it is if there
    are fewer than `LEAST_ROWS`, or if they are not rows of the base. h encodes rows of `data`.
    """
    if data.xa is not None or data.metric.added or len(data.xv) < LEAST_ROWS:
        return mus[-1]
    halves = np.array_split(data.xv, 2)
    pairs = list(zip(halves, halves[::-1], strict=True))
    truths = [
        neighbours.nearest_sets(xq, xb, metrics.relevance_sizes(len(xb)), engine)
        for xq, xb in pairs
    ]

    def searched(mu: float) -> dict[str, np.ndarray]:
        of = [
            by_query(h.encode_queries(xq), h.encode(xb, refine=mu), truth, h.bits, engine)
            for (xq, xb), truth in zip(pairs, truths, strict=True)
        ]
        return {name: np.concatenate([values[name] for values in of]) for name in METRICS_OF_FEW}

    return least(mus, searched(0.0), searched, CHANCE_OF_FEW, log) or mus[-1]


def least(
    mus: Sequence[float],
    before: dict[str, np.ndarray],
    after: Callable[[float], dict],
    chance: float,
    log: logs.Log,
) -> float | None:
    """The smallest of `mus`, rising, at which nothing falls, or None; `after(mu)` as in `falls`.

    The list is halved, as if a larger μ never cost more than a smaller one.
    """
    low, high = 0, len(mus)
    while low < high:
        middle = (low + high) // 2
        lost = list(falls(before, after(mus[middle]), chance))
        if lost:
            log.line(f"refinement: μ={mus[middle]} lowers {', '.join(lost)} of validation queries")
            low = middle + 1
        else:
            high = middle
    return mus[low] if low < len(mus) else None


def by_query(
    cq: np.ndarray, cb: np.ndarray, truth: np.ndarray, bits: int, engine: str
) -> dict[str, np.ndarray]:
    """Those of `METRICS` of each query, `[Q]`; arguments as `evaluate.score`."""
    sizes = metrics.relevance_sizes(len(cb))
    found = metrics.by_query(histograms.distance_histograms(cq, cb, truth, sizes, bits, engine))
    return {name: found[name] for name in METRICS}


def falls(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], chance: float
) -> Iterator[str]:
    """The metrics whose mean over queries falls by more than `chance` standard errors and `SEEDS`.

    Args:
        before, after: `[Q]` each, of the same queries in the same order.
    """
    for name in before:
        gain = after[name] - before[name]
        if gain.mean() < -max(SEEDS, chance * gain.std() / math.sqrt(len(gain))):
            yield name


def error(h: Hasher, x: np.ndarray, packed: np.ndarray) -> float:
    """The mean of ‖z - ẑ‖² over rows and their codes: `[n, d], [n, W] u1`."""
    total = 0.0
    for start in range(0, len(x), h.call_rows):
        rows = slice(start, start + h.call_rows)
        difference = h.features(x[rows]) - h.decode(packed[rows])
        total += float(np.einsum("np,np->", difference, difference, dtype=np.float64))
    return total / len(x)
