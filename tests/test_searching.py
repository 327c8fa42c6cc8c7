"""Search by vectors from Python: `sigah_jax.search`."""

import dataclasses
import inspect

import hashers
import jax.numpy as jnp
import numpy as np
import pytest

import sigah_jax
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import asymmetric, both, hamming, metric, rerank, topk

D, BITS, K = 20, 30, 5


@pytest.fixture(scope="module")
def made():
    h = hashers.untrained(BITS, D)
    x = hashers.vectors(400, D)
    return h, x[:40], x[40:], h.encode(x[40:])


def same(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_queries_go_through_the_hash_function_of_queries(made):
    h, xq, _xb, cb = made
    got = sigah_jax.search(h, xq, cb, K, by="both")
    same(got, both.search(h.both_codes(xq), cb, K, "cpu"))
    got = sigah_jax.search(h, xq, cb, K, by="hamming")
    same(got, hamming.search(h.encode_queries(xq), cb, K, "cpu"))
    got = sigah_jax.search(h, xq, cb, K, by="projection")
    same(got, asymmetric.by_projection(h.both_projections(xq), cb, K))


def test_candidates_are_ranked_by_synthetic_features_or_vectors(made):
    h, xq, xb, cb = made
    candidates = both.search(h.both_codes(xq), cb, 3 * K, "cpu")[1]
    got = sigah_jax.search(h, xq, cb, K, candidates=3 * K)
    same(got, asymmetric.by_feature(h.features(xq), cb, candidates, K, h.decode))
    scaled = sigah_jax.search(dataclasses.replace(h, query_scale=1.5), xq, cb, K, candidates=3 * K)
    by_scaled = asymmetric.by_feature(np.float32(1.5) * h.features(xq), cb, candidates, K, h.decode)
    same(scaled, by_scaled)
    assert (scaled[1] != got[1]).any()
    got = sigah_jax.search(h, xq, cb, K, by="both", rerank=xb, oversample=3)
    same(got, rerank.rerank(xq, xb, candidates, K))
    # three stages: all rows by both codes, 100 by synthetic features, 3 K by vectors
    candidates = both.search(h.both_codes(xq), cb, 100, "cpu")[1]
    left = asymmetric.by_feature(h.features(xq), cb, candidates, 3 * K, h.decode)[1]
    got = sigah_jax.search(h, xq, cb, K, candidates=100, rerank=xb, oversample=3)
    same(got, rerank.rerank(xq, xb, left, K))
    # all rows are candidates: the true neighbours
    d, _ids = sigah_jax.search(h, xq, cb, K, rerank=xb, oversample=len(xb))
    exact = ((xq[:, None] - xb[None]) ** 2).sum(-1)
    np.testing.assert_allclose(d, np.sort(exact, axis=1)[:, :K], rtol=1e-5)


def test_a_query_too_long_for_distances_is_named_by_its_number_in_all_chunks(made, monkeypatch):
    h, xq, xb, cb = made
    monkeypatch.setattr(topk, "query_chunks", lambda *_: (slice(0, 10), slice(10, 40)))
    xq = xq.copy()
    xq[37] = 1e25
    for way in ({"by": "hamming"}, {"by": "both"}):
        with pytest.raises(BadInput, match=r"^queries: vectors: row 37 holds values so large"):
            sigah_jax.search(h, xq, cb, K, rerank=xb, **way)
    cosine = dataclasses.replace(h, metric=metric.of("cosine", 1.0))  # which compares directions
    sigah_jax.search(cosine, xq, cb, K, by="hamming", rerank=xb)


def test_missing_rows_are_not_found(made):
    h, xq, _xb, cb = made
    nearest = np.unique(sigah_jax.search(h, xq, cb, 1)[1])
    _, ids = sigah_jax.search(h, xq, cb, K, missing=nearest)
    assert not np.isin(ids, nearest).any()


def nearest_of(d, rows, k):
    """The k least of d `[Q, n]` among some rows, and where they are; ties to the lower id."""
    ids = rows[np.argsort(d[:, rows], axis=1, kind="stable")[:, :k]]
    return np.take_along_axis(d, ids, 1), ids


@pytest.mark.parametrize("engine", ["cpu", "accelerator"])
@pytest.mark.parametrize("size", [1, 10, 1000, 1200])
def test_a_subset_is_searched_exactly(size, engine):
    h, n = hashers.untrained(BITS, D), 1200
    xq, xb = hashers.vectors(9, D, 1), hashers.vectors(n, D, 2)
    cb, generator = h.encode(xb), np.random.default_rng(size)
    only = generator.permutation(n)[:size]
    rows, k = np.sort(only), min(K, size)
    own, other = (
        np.bitwise_count(c[:, None] ^ cb).sum(-1, dtype=int)
        for c in h.both_codes(xq).swapaxes(0, 1)
    )
    for by, d in (("hamming", own), ("both", 2 * own + other)):
        got = sigah_jax.search(h, xq, cb, k, by=by, only=only, engine=engine)
        same(got, nearest_of(d, rows, k))
    # of as many candidates as there are rows, and of all that are re-ranked
    z, synthetic = h.features(xq), h.decode(cb)
    d, ids = sigah_jax.search(h, xq, cb, k, candidates=n, only=only, engine=engine)
    exact = ((z[:, None].astype(float) - synthetic) ** 2).sum(-1)
    np.testing.assert_allclose(d, nearest_of(exact, rows, k)[0], rtol=1e-4)
    assert np.isin(ids, only).all()
    more = {"by": "both", "rerank": xb, "oversample": n, "engine": engine}
    d, ids = sigah_jax.search(h, xq, cb, k, only=only, **more)
    exact = ((xq[:, None].astype(float) - xb) ** 2).sum(-1)
    same([ids], [nearest_of(exact, rows, k)[1]])
    # every way, beside a search of these codes alone
    for more in (
        {"by": "projection"},
        {"candidates": 20, "engine": engine},
        {"candidates": 20, "rerank": xb, "oversample": 3, "engine": engine},
    ):
        alone = more | ({"rerank": xb[rows]} if "rerank" in more else {})
        d, ids = sigah_jax.search(h, xq, cb[rows], k, **alone)
        same(sigah_jax.search(h, xq, cb, k, only=only, **more), (d, rows[ids]))


def test_a_boolean_for_each_row_is_a_subset_and_missing_rows_are_not_in_it(made):
    h, xq, _xb, cb = made
    kept = np.ones(len(cb), bool)
    kept[sigah_jax.search(h, xq, cb, 1)[1]] = False
    rows = np.flatnonzero(kept)
    found = sigah_jax.search(h, xq, cb, K, only=kept)
    same(found, sigah_jax.search(h, xq, cb, K, only=rows[::-1]))
    assert np.isin(found[1], rows).all()
    same(
        sigah_jax.search(h, xq, cb, K, only=kept, missing=rows[:100]),
        sigah_jax.search(h, xq, cb, K, only=rows[100:]),
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"queries": np.zeros((3, D + 1))}, r"queries: vectors of shape .*trained on \[n, 20\]"),
        ({"queries": np.full((3, D), np.nan)}, "queries: vectors: row 0 holds NaN"),
        (
            {"queries": np.eye(3, D) * [[1], [1e30], [1]]},
            "queries: vectors: row 1 holds values so l",
        ),
        ({"packed": np.zeros((9, 4), np.int8)}, r"codes are int8 \[9, 4\]: codes of 30 b"),
        ({"packed": np.zeros((9, 3), np.uint8)}, r"\[9, 3\]: codes of 30 bits are uint8 \[n, 4\]"),
        ({"k": 0}, "k=0: expected 1 to 360"),
        ({"k": 361}, "k=361: expected 1 to 360"),
        ({"packed": [[0, 1], [2]]}, "codes: no array of numbers"),
        ({"missing": [3, 2]}, "missing: expected rising numbers of the 360 rows of codes"),
        ({"missing": [1, 1]}, "missing: expected rising"),
        ({"missing": [360]}, "missing: expected rising"),
        ({"missing": [-1]}, "missing: expected rising"),
        ({"missing": [1j]}, "missing: complex128, expected whole numbers"),
        ({"missing": [0.5]}, "missing: float64, expected whole numbers"),
        ({"only": [3, 360]}, "only: holds row 360, but rows are numbered 0 to 359"),
        ({"only": [3, 3]}, "only: holds row 3 twice"),
        ({"only": [True]}, "only: holds 1 booleans, expected one for each of 360 codes"),
        ({"only": [0, 5, 9]}, "k=5: expected 1 to 3, the rows of `only` that have a code"),
        ({"only": []}, "packed: there is nothing to find, no row of `only` has a code"),
        ({"engine": "gpu"}, "engine='gpu': expected one of auto, cpu, accelerator"),
        ({"engine": "cpu", "by": "projection"}, "engine='cpu': search by projection has one"),
        ({"rerank": np.zeros(D)}, r"rerank: \[20\], but there are 360 codes of 20"),
        ({"by": "cosine"}, "by='cosine': expected one of synthetic, both, hamming, projection"),
        ({"rerank": np.zeros((9, D))}, r"rerank: \[9, 20\], but there are 360 codes of 20"),
        ({"rerank": np.full((360, D), np.nan)}, "rerank: base row .* holds NaN"),
        ({"oversample": 0}, "oversample=0: expected 1 or more"),
        ({"candidates": 0}, "candidates=0: expected 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused(made, change, words):
    h, xq, _xb, cb = made
    arguments = {"queries": xq, "packed": cb, "k": K} | change
    with pytest.raises(BadInput, match=words):
        sigah_jax.search(h, **arguments)


@pytest.mark.parametrize("by", ["both", "hamming", "projection", "synthetic"])
def test_no_queries_have_no_neighbours(made, by):
    h, xq, _xb, cb = made
    d, ids = sigah_jax.search(h, xq[:0], cb, K, by=by)
    assert d.shape == ids.shape == (0, K)


def test_lists_arrays_of_jax_and_whole_numbers_of_numpy_will_do(made):
    h, xq, xb, cb = made
    wanted = sigah_jax.search(h, xq, cb, K, rerank=xb)
    k = np.int64(K)
    same(sigah_jax.search(h, xq.tolist(), jnp.asarray(cb), k, rerank=xb.tolist()), wanted)
    same(sigah_jax.search(h, xq, cb, k), sigah_jax.search(h, xq, cb, K))
    with pytest.raises(TypeError, match="integer"):
        sigah_jax.search(h, xq, cb, 5.0)


@pytest.mark.parametrize("find", [sigah_jax.search, sigah_jax.range_search])
def test_a_path_is_not_a_hasher(made, find):
    _, xq, _, cb = made
    with pytest.raises(TypeError, match=r"^h: str, expected a Hasher; `sigah_jax.load\(path\)`"):
        find("encoder.npz", xq, cb, K)


def test_the_name_stays_a_function_where_the_command_was_imported(made):
    import sigah_jax.search as command

    h, xq, _, cb = made
    assert command is sigah_jax.search and command.main
    same(sigah_jax.search(h, xq, cb, K), command.searching.search(h, xq, cb, K))
    assert list(inspect.signature(sigah_jax.search).parameters)[:4] == [
        "h",
        "queries",
        "packed",
        "k",
    ]
