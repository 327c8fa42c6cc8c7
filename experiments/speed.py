"""Speed of the slow parts as a ratio to a named peer, both timed in turn in one process.

    python -m experiments.speed ground_truth --rows=1000000 --dims=960 --queries=1000
    python -m experiments.speed histograms --rows=1000000 --bits=64 --queries=1000
    python -m experiments.speed itq --rows=69000 --dims=784 --bits=64

Timings on a shared machine are noisy: the two alternate, and the table shows the best and the
median of each and the ratio of the medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import faiss
import jax
import numpy as np

from sigah_jax import parallel
from sigah_jax.baselines import itq
from sigah_jax.data.synthetic import make_manifold
from sigah_jax.retrieval import histograms, metrics, neighbours

ITERATIONS = 50  # of ITQ
MATRIX_BLOCK_BYTES = 1 << 24  # of one product, as in `retrieval.neighbours`


def compare(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> dict:
    """Seconds of both, `{"ours": [repeats], "peer": [repeats]}`, run in turn."""
    seconds = {"ours": [], "peer": []}
    for _ in range(repeats):
        for name, function in (("peer", peer), ("ours", ours)):
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def bare_product(xq: np.ndarray, xb: np.ndarray) -> None:
    """All inner products, block by block, thrown away: what an exact search cannot go below."""
    rows = max(1, MATRIX_BLOCK_BYTES // (4 * len(xq)))
    for start in range(0, len(xb), rows):
        xq @ xb[start : start + rows].T


def ground_truth(args) -> tuple[str, dict]:
    """Certified top 1,000 and top 2 % against the bare float32 matrix product."""
    draw = make_manifold(0, args.dims)
    xb = np.empty((args.rows, args.dims), np.float32)
    generator = np.random.default_rng(0)
    for start in range(0, args.rows, 16384):
        xb[start : start + 16384] = draw(generator, min(16384, args.rows - start))
    xq = draw(generator, args.queries)
    sizes = metrics.relevance_sizes(args.rows)
    engine = parallel.engine("auto")
    return "numpy float32 matrix product", compare(
        lambda: neighbours.nearest_sets(xq, xb, sizes, engine),
        lambda: bare_product(xq, xb),
        args.repeats,
    )


def hamming(args) -> tuple[str, dict]:
    """Distance histograms of all rows against faiss's top 1,000 of IndexBinaryFlat."""
    generator = np.random.default_rng(0)
    bits = args.bits // 8 * 8
    cb = generator.integers(0, 256, (args.rows, bits // 8), np.uint8)
    cq = generator.integers(0, 256, (args.queries, bits // 8), np.uint8)
    index = faiss.IndexBinaryFlat(bits)
    index.add(cb)
    sizes = metrics.relevance_sizes(args.rows)
    truth = generator.integers(0, args.rows, (args.queries, max(sizes)), np.int32)
    engine = parallel.engine("auto")
    return "faiss IndexBinaryFlat, k=1000", compare(
        lambda: histograms.distance_histograms(cq, cb, truth, sizes, bits, engine),
        lambda: index.search(cq, 1000),
        args.repeats,
    )


def itq_fit(args) -> tuple[str, dict]:
    """ITQ's training against faiss's, 50 iterations on all rows; ours compiled before."""
    xt = make_manifold(0, args.dims)(np.random.default_rng(0), args.rows)
    key = jax.random.key(0)
    itq.fit(key, xt, args.bits, ITERATIONS)

    def peer() -> None:
        transform = faiss.ITQTransform(args.dims, args.bits, True)
        transform.max_train_per_dim = args.rows
        transform.itq.max_iter = ITERATIONS
        transform.train(xt)

    def ours() -> None:
        itq.fit(key, xt, args.bits, ITERATIONS)

    return "faiss ITQTransform", compare(ours, peer, args.repeats)


PARTS = {"ground_truth": ground_truth, "histograms": hamming, "itq": itq_fit}


def main() -> None:
    """Times one part and prints a line a side and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=960)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    peer, seconds = PARTS[args.part](args)
    for name, values in seconds.items():
        label = peer if name == "peer" else args.part
        print(f"{label:32} best {min(values):7.2f} s  median {statistics.median(values):7.2f} s")
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["peer"])
    print(f"ratio of the medians {ratio:.2f}")


if __name__ == "__main__":
    main()
