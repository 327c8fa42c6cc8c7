"""Our baselines against a public table: SIFT1M, mean average precision, relevant = top 1,000.

The table is doc/SIFT1M_HammRank.md of github.com/jiaxiang-wu/libhash: 1,000 queries, trained on
the learn split, single runs; AP in index order, ours is the expectation over ties.
"""

import jax
import numpy as np
import pytest

from sigah_jax.baselines.methods import METHODS
from sigah_jax.data.benchmarks import load_benchmark
from sigah_jax.data.datasets import Dataset
from sigah_jax.data.directory import data_directory
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import histograms, metrics, neighbours
from sigah_jax.training import evaluate

QUERIES = 1000


@pytest.fixture(scope="module")
def sift():
    try:
        parts = load_benchmark("sift1m", data_directory(), "python -m sigah_jax.data.download")
    except BadInput:
        pytest.skip("SIFT1M not present")
    learn = parts.base if parts.learn is None else parts.learn
    xq = parts.queries[:QUERIES]
    truth = neighbours.nearest_sets(xq, parts.base, [1000], "cpu")
    empty = np.empty((0, 128), np.float32)
    return Dataset(np.asarray(learn), empty, parts.base, xq, (), parts.origin), truth


def mean_ap(sift, method, bits, seed):
    data, truth = sift
    params = METHODS[method].fit(jax.random.key(seed), data.xt, bits)
    cq, cb = evaluate.encode_baseline(params, method, data, 8192)
    counts = histograms.distance_histograms(cq, cb, truth, [1000], bits, parallel.engine("auto"))
    return metrics.average_precision(counts.total, counts.relevant[0]).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, bits, table, tolerance, seeds",
    [
        ("lsh", 32, 0.0513, 0.015, 5),
        ("lsh", 64, 0.1261, 0.015, 5),
        ("itq", 64, 0.1923, 0.005, 1),
        ("sh", 64, 0.1662, 0.02, 1),
        ("agh1", 64, 0.1298, 0.02, 1),
        ("sph", 64, 0.1729, 0.02, 1),
        ("isohash", 64, 0.1826, 0.02, 1),
        ("kmh", 64, 0.2056, 0.02, 1),
        ("sgh", 64, 0.1914, 0.02, 1),
    ],
)
def test_the_public_table(sift, method, bits, table, tolerance, seeds):
    got = np.mean([mean_ap(sift, method, bits, seed) for seed in range(seeds)])
    assert got == pytest.approx(table, abs=tolerance)
