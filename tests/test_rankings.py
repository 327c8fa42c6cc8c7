"""Rankings by real distances, against Hamming's own histograms and a plain sort."""

import numpy as np
import pytest

from sigah_jax.retrieval import histograms, metrics, rankings

N = 300
SIZES = metrics.relevance_sizes(N)


@pytest.fixture(scope="module")
def made():
    """Codes of 12 bits, of which many tie, their distances, and some true neighbours."""
    rng = np.random.default_rng(0)
    cq, cb = (rng.integers(0, 256, (n, 2), np.uint8) & [255, 240] for n in (20, N))
    cq, cb = cq.astype(np.uint8), cb.astype(np.uint8)
    d = np.bitwise_count(cq[:, None] ^ cb).sum(-1)
    truth = np.argsort(d + 3 * rng.random(d.shape), axis=1)[:, : max(SIZES)].astype(np.int32)
    return cq, cb, d, truth


def test_metrics_of_hamming_distances_are_those_of_their_histograms(made):
    cq, cb, d, truth = made
    wanted = histograms.distance_histograms(cq, cb, truth, SIZES, 12, "cpu")
    wanted = metrics.by_query(wanted)
    got = metrics.by_query(rankings.ranking_histograms(0.7 * d.astype(np.float32), truth, SIZES))
    assert got.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-12, err_msg=name)


def test_metrics_of_distinct_distances_are_those_of_the_sorted_rows(made):
    *_, truth = made
    d = np.random.default_rng(1).random((len(truth), N)).astype(np.float32)
    d[3, truth[3, :5]] = [0, 0.1, -1, 2, 3]  # first and last of all
    h = rankings.ranking_histograms(d, truth, SIZES)
    assert (h.total.sum(1) == N).all()
    assert [r.sum(1).tolist() for r in h.relevant] == [[size] * len(d) for size in SIZES]
    got = metrics.by_query(h)
    for q, ids in enumerate(np.argsort(d, axis=1)):
        hit = np.isin(ids, truth[q, : SIZES.top2percent])
        precision = np.cumsum(hit) / np.arange(1, N + 1)
        np.testing.assert_allclose(got["map"][q], precision[hit].mean())
        assert np.isclose(got["recall@10"][q], np.isin(truth[q, :10], ids[:10]).mean())
        assert got["1-recall@10"][q] == (truth[q, 0] in ids[:10])
        wanted = np.isin(ids[:100], truth[q, : SIZES.top1000]).mean()
        assert np.isclose(got["precision@100"][q], wanted)


def test_what_does_not_fit_is_refused(made):
    *_, d, truth = made
    with pytest.raises(ValueError, match="do not fit"):
        rankings.ranking_histograms(d[:5], truth, SIZES)
    with pytest.raises(ValueError, match="do not fit"):
        rankings.ranking_histograms(d, truth[:, :5], SIZES)
    with pytest.raises(ValueError, match="finite"):
        rankings.ranking_histograms(np.where(d > 11, np.nan, d), truth, SIZES)
