"""What a search by real queries is worth, by hand, and the ways of SiGAH's codes."""

import dataclasses

import hashers
import numpy as np
import pytest

from sigah_jax.retrieval import both, neighbours, real_queries
from sigah_jax.training import evaluate

N, D, BITS = 1300, 12, 24


@pytest.fixture(scope="module")
def made():
    h = dataclasses.replace(hashers.untrained(BITS, D), query_scale=1.5)
    x = hashers.vectors(N + 30, D)
    xq, xb = x[:30], x[30:]
    truth = neighbours.nearest_sets(xq, xb, (1, 10, 1000, 26), "cpu")
    return h, xq, xb, h.encode(xb), truth


def test_a_ranking_by_hand():
    # 2,000 rows on a line: row i at i; the query at 0, whose order is right but for two swaps
    rows, truth = np.arange(2000.0), np.arange(1000)[None]

    def values():
        found = real_queries.score(lambda part: rows[None][part], truth, 2000)
        return [found[name] for name in ("map@1000", "precision@100", "recall@100")]

    np.testing.assert_allclose(values(), 1)
    rows[[5, 150]] = rows[[150, 5]]  # the 6th nearest comes 151st, out of the first 100
    np.testing.assert_allclose(values()[1:], [1, 0.9])
    rows[[7, 1500]] = rows[[1500, 7]]  # row 1500 comes 8th
    np.testing.assert_allclose(values()[1:], [0.99, 0.8])


def test_what_a_search_finds_is_re_ranked_by_the_vectors():
    xb = np.arange(300, dtype=np.float32)[:, None]
    xq, truth = np.float32([[0], [299]]), np.stack([np.arange(300), 299 - np.arange(300)])
    asked = []

    def search(k):  # the second query's true neighbours but three, in a wrong order
        asked.append(k)
        return np.stack([np.arange(k), np.arange(297 - k, 297)])

    way = real_queries.Way(lambda part: np.abs(xq - xb.T)[part], search)
    values = real_queries.measure(way, xq, xb, truth)
    assert set(asked) == {100} and values["reranked"] == (1 + 0.7) / 2
    assert values["recall@10"] == 1 and values["ms_per_query"] > 0


def test_blocks_of_queries_change_nothing(made, monkeypatch):
    h, xq, *_, truth = made
    d = h.both_projections(xq) @ np.random.default_rng(0).standard_normal((BITS, N))
    whole = real_queries.score(lambda part: d[part], truth, N)
    monkeypatch.setattr(real_queries, "RANKED", 7 * N)
    assert real_queries.score(lambda part: d[part], truth, N) == pytest.approx(whole)


def test_stages_rank_candidates_by_synthetic_features_and_the_others_by_both_codes(
    made, monkeypatch
):
    h, xq, xb, cb, truth = made
    ways = {}
    monkeypatch.setattr(evaluate, "measure", lambda way, *_: ways.setdefault(len(ways), way))
    found = evaluate.real_queries(h, xq, xb, cb, truth, "cpu")
    assert list(found) == ["sigah_projection", "sigah_synthetic", "sigah_stages"]
    order = found["sigah_stages"].distances(slice(3, 9)).argsort(1)
    behind, ids = both.search(h.both_codes(xq[3:9]), cb, N, "cpu")
    z_hat = h.decode(cb)
    for q, z in enumerate(np.float32(1.5) * h.features(xq[3:9])):
        assert set(order[q, :1000]) == set(ids[q, :1000])
        d = ((z - z_hat[order[q, :1000]]) ** 2).sum(1)
        assert (np.diff(d) > -1e-3).all()
        rest = np.empty(N, np.int64)
        rest[ids[q]] = behind[q]
        assert (rest[order[q, 1000:]] == behind[q, 1000:]).all()
    assert (found["sigah_stages"].search(100)[3:9] == order[:, :100]).all()
    for name in ("sigah_projection", "sigah_synthetic"):  # each finds the head of its ranking
        d = found[name].distances(slice(None))
        got = np.take_along_axis(d, found[name].search(50), 1)
        np.testing.assert_allclose(got, np.sort(d, 1)[:, :50], rtol=1e-3, atol=1e-3)
