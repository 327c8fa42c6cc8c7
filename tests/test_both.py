"""Search by both codes of a query."""

import hashers
import jax
import numpy as np
import pytest

from sigah_jax.errors import BadInput
from sigah_jax.retrieval import both, hamming


def made(queries, rows, width, seed=0):
    rng = np.random.default_rng(seed)
    cb = rng.integers(0, 256, (rows, width), np.uint8)
    own = rng.integers(0, 256, (queries, width), np.uint8)
    other = own ^ (rng.random((queries, width)) < 0.2).astype(np.uint8)
    return np.stack([own, other], 1), cb


def by_hand(cq, cb):
    own, other = (np.bitwise_count(cq[:, i, None] ^ cb[None]).sum(-1, dtype=int) for i in (0, 1))
    return 2 * own + other


@pytest.mark.parametrize("engine", ["cpu", "accelerator"])
@pytest.mark.parametrize("width", [1, 3, 8, 16, 33])
def test_is_the_ranking_by_twice_the_own_code_and_once_the_other(engine, width):
    cq, cb = made(7, 500, width)
    exact = by_hand(cq, cb)
    d, ids = both.search(cq, cb, 20, engine)
    order = np.argsort(exact, axis=1, kind="stable")[:, :20]  # ties to the lower id
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(d, np.take_along_axis(exact, order, 1))
    assert d.dtype == np.int32 and ids.dtype == np.int64
    np.testing.assert_array_equal(both.distances(cq, cb), exact)


def test_blocks_of_the_base_change_nothing(monkeypatch):
    cq, cb = made(5, 300, 4)
    wanted = both.search(cq, cb, 10, "cpu")
    monkeypatch.setattr(hamming, "BASE_BYTES", 16 * 70)
    for a, b in zip(both.search(cq, cb, 10, "cpu"), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_of_one_hash_function_it_is_hammings():
    h, x = hashers.untrained(30, 20, query_head=False), hashers.vectors(200, 20)
    d, ids = both.search(h.both_codes(x[:9]), h.encode(x), 5, "cpu")
    wanted, same = hamming.search(h.encode_queries(x[:9]), h.encode(x), 5, "cpu")
    np.testing.assert_array_equal(ids, same)
    np.testing.assert_array_equal(d, 3 * wanted)


def test_both_codes_and_projections_are_those_of_the_two_hash_functions():
    h, x = hashers.untrained(30, 20), hashers.vectors(200, 20)
    codes = h.both_codes(x)
    np.testing.assert_array_equal(codes[:, 0], h.encode_queries(x))
    np.testing.assert_array_equal(codes[:, 1], h.encode(x))
    base, query = hashers.projections(h, x)
    np.testing.assert_allclose(h.both_projections(x), 2 * query + base, atol=1e-5)
    x[3, 0] = np.nan
    with pytest.raises(BadInput, match="row 3 holds NaN"):
        h.both_codes(x)


def test_what_does_not_fit_is_refused():
    cq, cb = made(3, 50, 4)
    with pytest.raises(BadInput, match="k=51"):
        both.search(cq, cb, 51, "cpu")
    with pytest.raises(ValueError, match=r"must be \[Q, 2, W\]"):
        both.search(cq[:, 0], cb, 5, "cpu")
    with pytest.raises(ValueError, match="codes must be"):
        both.search(cq, cb[:, :3], 5, "cpu")
    with pytest.raises(ValueError, match="engine must be"):
        both.search(cq, cb, 5, "gpu")


def test_the_number_of_devices_changes_nothing():
    cq, cb = made(6, 400, 8)
    wanted = both.search(cq, cb, 30, "cpu")
    for n in (1, 3, 8):
        got = both.search(cq, cb, 30, "accelerator", jax.devices()[:n])
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
