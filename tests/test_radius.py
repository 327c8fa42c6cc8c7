"""Search of all rows within a radius: `sigah_jax.range_search`."""

import dataclasses
import tracemalloc

import hashers
import jax.numpy as jnp
import numpy as np
import pytest
import sets

import sigah_jax
from sigah_jax.encoder import radius
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import metric as metrics

D, BITS = 24, 64
RADII = {"l2": 11.2, "cosine": 0.045, "ip": 1480.0}  # which 1 to 9 % of the pairs lie within


@pytest.fixture(scope="module", params=["l2", "cosine", "ip"])
def made(request):
    """An encoder of 2,000 rows, with pairs of 500 others; queries, 1,500 rows, codes, a radius."""
    x = sets.low_dimensional(6000, D)
    metric = metrics.of(request.param, metrics.longest(x) if request.param == "ip" else 0)
    points = np.float32(metrics.base_rows(metric, x))
    h = dataclasses.replace(hashers.fitted(points[:2000], BITS), metric=metric, block_rows=128)
    held_out = np.float32(metrics.queries_of(metric, x[2000:2500]))
    pairs = radius.pairs_of(h, held_out, points[:2000], h.encode(x[:2000]))
    h = dataclasses.replace(h, pairs=pairs)
    base = x[2500:4000]
    return h, x[4000:4060], base, h.encode(base), RADII[request.param]


def true_distances(h, xq, xb):
    """As a radius is given, and which are within it."""
    a, b = xq.astype(float), xb.astype(float)
    if h.metric.name == "l2":
        return np.linalg.norm(a[:, None] - b, axis=2)
    if h.metric.name == "ip":
        return a @ b.T
    return 1 - (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T


def within(h, d, r):
    return d >= r if h.metric.name == "ip" else d <= r


def dense(found, n):
    """Which rows are found, and their distances: `[Q, n]` each."""
    q = np.repeat(np.arange(len(found.lims) - 1), np.diff(found.lims))
    there, d = np.zeros((len(found.lims) - 1, n), bool), np.full((len(found.lims) - 1, n), np.nan)
    there[q, found.ids], d[q, found.ids] = True, found.distances
    assert there.sum() == len(found.ids)  # none twice
    return there, d


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_are_those_whose_synthetic_features_lie_within_the_bound(made):
    h, xq, xb, cb, r = made
    found = sigah_jax.range_search(h, xq, cb, r)
    assert [a.dtype for a in found[:3]] == [np.int64, np.float32, np.int64]
    there, d = dense(found, len(xb))
    exact = ((h.features(xq)[:, None].astype(float) - h.decode(cb)) ** 2).sum(-1)
    bounds = radius.calibrated(h, xq, r, 0.95).bounds[:, None]
    assert (bounds.std() > 0) == (h.metric.name == "ip")  # each query has its own
    sure = abs(exact - bounds) > 1e-5  # but for rounding
    np.testing.assert_array_equal(there[sure], (exact <= bounds)[sure])
    np.testing.assert_allclose(d[there], exact[there], rtol=1e-4)
    for i in range(len(xq)):
        part = slice(found.lims[i], found.lims[i + 1])
        order = np.lexsort((found.ids[part], found.distances[part]))
        np.testing.assert_array_equal(order, np.arange(len(order)))


@pytest.mark.parametrize("recall", [0.8, 0.95])
def test_new_queries_find_about_the_share_that_is_asked_for(made, recall):
    h, _, xb, cb, r = made
    xq = sets.low_dimensional(6000, D)[4500:5100]
    if h.metric.name == "ip":  # queries of all lengths
        xq *= np.exp(0.3 * np.random.default_rng(0).normal(size=(len(xq), 1))).astype(np.float32)
    found = sigah_jax.range_search(h, xq, cb, r, recall=recall)
    truth = within(h, true_distances(h, xq, xb), r)
    there, _ = dense(found, len(xb))
    assert truth.sum() > 6000 and there.sum() < truth.size / 2
    assert recall <= found.recall < recall + 0.01
    assert abs(there[truth].mean() - recall) < 0.04
    assert abs(truth[there].mean() - found.precision) < 0.04


def test_vectors_leave_the_rows_within_the_radius(made):
    h, xq, xb, cb, r = made
    alone, _ = dense(sigah_jax.range_search(h, xq, cb, r), len(xb))
    found = sigah_jax.range_search(h, xq, cb, r, rerank=xb)
    there, d = dense(found, len(xb))
    exact = true_distances(h, xq, xb)
    np.testing.assert_array_equal(there, alone & within(h, exact, r))
    np.testing.assert_allclose(d[there], exact[there], rtol=1e-4, atol=1e-5)
    assert within(h, found.distances, np.float32(r)).all()
    sign = -1 if h.metric.name == "ip" else 1  # nearest first
    for i in range(len(xq)):
        part = slice(found.lims[i], found.lims[i + 1])
        order = np.lexsort((found.ids[part], sign * found.distances[part]))
        np.testing.assert_array_equal(order, np.arange(len(order)))


def test_blocks_change_nothing_and_memory_does_not_hold_all_distances(made, monkeypatch):
    h, xq, xb, cb, r = made
    wanted = sigah_jax.range_search(h, xq, cb, r, rerank=xb)
    monkeypatch.setattr(radius, "CALLS", 1)
    monkeypatch.setattr(radius, "SCORES", 1000)
    same(sigah_jax.range_search(h, xq, cb, r, rerank=xb), wanted)
    many, far = np.repeat(xq[:20], 20, axis=0), np.tile(cb, (40, 1))
    h = dataclasses.replace(h, block_rows=1024)
    with monkeypatch.context() as patch:  # so that little is found
        patch.setattr(radius, "calibrated", lambda h, q, *_: radius.calibration.Bounds(
            np.full(len(q), 1e-6), 1.0, 1.0))  # fmt: skip
        sigah_jax.range_search(h, many, far[:2048], r)  # compiles
        tracemalloc.start()
        found = sigah_jax.range_search(h, many, far, r)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * len(many) * len(far) / 8 and not len(found.ids)


def test_missing_rows_and_those_outside_a_subset_are_as_if_they_were_not_there(made):
    h, xq, xb, cb, r = made
    missing, kept = np.arange(0, 1500, 9), np.arange(1500) % 4 > 0
    rows = np.setdiff1d(np.flatnonzero(kept), missing)
    alone = sigah_jax.range_search(h, xq, cb[rows], r, rerank=xb[rows])
    wanted = alone._replace(ids=rows[alone.ids])
    for only in (kept, np.flatnonzero(kept)[::-1]):
        same(sigah_jax.range_search(h, xq, cb, r, rerank=xb, missing=missing, only=only), wanted)
    none = sigah_jax.range_search(h, xq, cb, r, only=[])
    assert not len(none.ids) and (none.lims == 0).all() and len(none.lims) == 61


def test_duplicates_stand_side_by_side_at_equal_distance(made):
    h, xq, _xb, cb, r = made
    one = sigah_jax.range_search(h, xq, cb, r)
    twice = sigah_jax.range_search(h, xq, np.concatenate([cb, cb]), r)
    np.testing.assert_array_equal(twice.lims, 2 * one.lims)
    there, d = dense(twice, 3000)
    np.testing.assert_array_equal(there[:, :1500], there[:, 1500:])
    same(d[:, :1500][there[:, :1500]], d[:, 1500:][there[:, 1500:]])


def test_no_queries_and_queries_far_from_all_find_nothing(made):
    h, xq, _, cb, r = made
    found = sigah_jax.range_search(h, xq[:0], cb, r)
    assert found.lims.tolist() == [0] and not len(found.ids)
    far = xq * (1e-6 if h.metric.name == "ip" else -3)
    found = sigah_jax.range_search(h, np.concatenate([xq[:1], far[:1]]), cb, r)
    assert found.lims[2] == found.lims[1] > 0


@pytest.mark.filterwarnings("error")
def test_a_radius_that_float32_does_not_hold_finds_all_rows_that_are_asked_for(made):
    h, xq, xb, cb, _ = made
    for r in (1e200, np.float32(1e30)):
        r *= -1 if h.metric.name == "ip" else 1
        for rerank in (None, xb):
            found = sigah_jax.range_search(h, xq, cb, r, rerank=rerank)
            assert len(found.ids) > 0.8 * len(xq) * len(xb)


def test_arrays_of_jax_are_taken_for_arrays(made):
    h, xq, xb, cb, r = made
    wanted = sigah_jax.range_search(h, xq, cb, r, rerank=xb)
    queries, packed, base = (jnp.asarray(a) for a in (xq, cb, xb))
    same(sigah_jax.range_search(h, queries, packed, r, rerank=base), wanted)


def test_of_inner_products_the_length_of_a_query_counts(made):
    h, xq, xb, cb, r = made
    if h.metric.name != "ip":
        pytest.skip("inner products only")
    same(
        sigah_jax.range_search(h, 2 * xq, cb, 2 * r)[:1],
        sigah_jax.range_search(h, xq, cb, r)[:1],
    )
    # every product of a query of zeros is 0
    zero = np.zeros((1, D), np.float32)
    found = sigah_jax.range_search(h, zero, cb, 0, rerank=xb, recall=0.8)
    assert len(found.ids) > 1000 and (found.distances == 0).all()


def test_rows_exactly_at_the_radius_are_within():
    # whole numbers; each query is a row moved by (3, 4): all other rows are farther
    rng = np.random.default_rng(0)
    x = rng.integers(-60, 60, (1000, 2)).astype(np.float32)
    h = hashers.fitted(x, 64)
    pairs = radius.pairs_of(h, x[:500], x, h.encode(x))
    h = dataclasses.replace(h, pairs=pairs._replace(synthetic=pairs.synthetic + 9))  # finds all
    queries = x[:20] + np.float32([3, 4])
    exact = ((queries[:, None] - x) ** 2).sum(-1)
    assert (exact == 25).sum() >= 20
    for r, wanted in ((5, exact <= 25), (np.nextafter(np.float32(5), np.float32(0)), exact < 25)):
        found = sigah_jax.range_search(h, queries, h.encode(x), r, rerank=x)
        np.testing.assert_array_equal(dense(found, 1000)[0], wanted)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"radius": -1}, "radius=-1: expected a distance, 0 or more"),
        ({"radius": np.inf}, "radius=inf: expected a"),
        ({"radius": np.nan}, "radius=nan: expected a"),
        ({"radius": 10**400}, "radius: is too large a number"),
        ({"radius": None}, "radius=None: expected a number"),
        ({"recall": "a"}, "recall='a': expected a number"),
        ({"recall": 1}, "recall=1: expected a share above 0 and below 1"),
        ({"recall": 0}, "recall=0: expected"),
        ({"recall": 0.9999}, "recall=0.9999; ask for a smaller recall"),
        ({"h": "plain"}, "radius: this encoder was saved without pairs"),
        ({"queries": np.zeros((3, D + 1))}, "queries: vectors of shape"),
        ({"queries": np.full((3, D), np.nan)}, "queries: vectors: row 0 holds NaN"),
        (
            {"packed": np.zeros((9, 4), np.uint8)},
            r"codes are uint8 \[9, 4\]: codes of 64 bits are uint8 \[n, 8\]",
        ),
        ({"missing": [3, 2]}, "missing: expected rising"),
        ({"only": [3, 3]}, "only: holds row 3 twice"),
        ({"rerank": np.zeros((9, D))}, r"rerank: \[9, 24\], but there are 1500 codes of 24"),
        ({"rerank": np.full((1500, D), np.nan)}, "rerank: base row .* holds NaN"),
    ],
)
def test_what_does_not_fit_is_refused(made, change, words):
    h, xq, _, cb, r = made
    if h.metric.name == "ip" and change == {"radius": -1}:
        pytest.skip("an inner product may be negative")
    if "h" in change:
        change = {"h": dataclasses.replace(h, pairs=None)}
    arguments = {"h": h, "queries": xq, "packed": cb, "radius": r} | change
    with pytest.raises(BadInput, match=words):
        sigah_jax.range_search(**arguments)


def test_a_query_too_long_for_distances_is_named(made):
    h, xq, xb, cb, r = made
    if h.metric.name != "l2":
        pytest.skip("only squares of distances overflow")
    xq = xq.copy()
    xq[2] = 1e25
    with pytest.raises(BadInput, match=r"^queries: vectors: row 2 holds values so large"):
        sigah_jax.range_search(h, xq, cb, r, rerank=xb)


def test_a_radius_of_too_few_pairs_is_refused_and_another_named_that_is_not(made):
    h, xq, _, cb, r = made
    few = 1e9 if h.metric.name == "ip" else 0
    with pytest.raises(BadInput, match=f"radius={few}: too few rows lie within it .*recall=0.95"):
        sigah_jax.range_search(h, xq, cb, few)
    try:
        sigah_jax.range_search(h, xq, cb, few)
    except BadInput as e:
        named = float(str(e).split("choose ")[1].split(" ")[0])
    assert within(h, named, r)  # r is served too
    sigah_jax.range_search(h, xq, cb, named)
    with pytest.raises(BadInput, match="too few"):
        sigah_jax.range_search(h, xq, cb, named * (1.01 if h.metric.name == "ip" else 0.99))
