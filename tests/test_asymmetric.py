import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sigah_jax.errors import BadInput
from sigah_jax.retrieval import asymmetric, hamming, topk


def projections(nq=6, nb=3000, bits=20):
    """Real projections of queries, and packed codes: 20 bits, only 8 of which vary."""
    rng = np.random.default_rng(0)
    u = (rng.normal(size=(nq, bits)) * rng.lognormal(0, 2, (nq, 1))).astype(np.float32)
    b = np.zeros((nb, bits), bool)
    b[:, ::3] = rng.random((nb, len(range(0, bits, 3)))) < 0.5
    return u, b, np.packbits(b, axis=1)


def test_projection_by_hand():
    # u = (2, -½, 1), own code 101; against 101, 111, 001, 100, 010: 0, ½, 2, 1, 3½; 111 again ½
    b = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 1]], bool)
    d, ids = asymmetric.by_projection(
        np.array([[2, -0.5, 1]], np.float32), np.packbits(b, axis=1), 6
    )
    np.testing.assert_array_equal(d, [[0, 0.5, 0.5, 1, 2, 3.5]])
    np.testing.assert_array_equal(ids, [[0, 1, 5, 3, 2, 4]])


@pytest.mark.parametrize("bits", [3, 8, 20, 64, 130])
@pytest.mark.parametrize("k", [1, 100, 3000])
def test_projection_ranks_by_minus_u_dot_b(bits, k):
    u, b, cb = projections(bits=bits)
    d, ids = asymmetric.by_projection(u, cb, k)
    signs = np.where(b, 1.0, -1.0)
    exact = (np.abs(u.astype(float)).sum(1)[:, None] - u.astype(float) @ signs.T) / 2
    np.testing.assert_allclose(d, np.sort(exact, axis=1)[:, :k], atol=1e-6 * np.abs(u).sum(1).max())
    np.testing.assert_allclose(
        np.take_along_axis(exact, ids, 1), d, rtol=1e-5, atol=1e-5 * np.abs(u).sum(1).min()
    )
    # equal codes are equally far, to the bit, and stand by rising id
    same = d[:, 1:] == d[:, :-1]
    assert (ids[:, 1:] > ids[:, :-1])[same].all()
    for distances, found in zip(d, ids, strict=True):
        assert len(np.unique(distances)) <= len(np.unique(cb[found], axis=0))


def test_jax_arrays_and_lists_are_what_they_are_as_arrays():
    u, _, cb = projections()
    wanted = asymmetric.by_projection(u, cb, 50)
    for queries in (u.tolist(), jnp.asarray(u)):
        np.testing.assert_array_equal(
            asymmetric.by_projection(queries, jnp.asarray(cb), 50), wanted
        )

    def decode(packed):
        return np.unpackbits(packed, axis=1).astype(np.float32)

    x, candidates = decode(cb[:3]) + 0.25, np.arange(60).reshape(3, 20)
    wanted = asymmetric.by_feature(x, cb, candidates, 5, decode)
    got = asymmetric.by_feature(x.tolist(), jnp.asarray(cb), candidates.tolist(), 5, decode)
    np.testing.assert_array_equal(got, wanted)


def test_projection_of_whole_numbers_equals_a_stable_sort():
    u, b, cb = projections()
    u = np.random.default_rng(1).integers(-3, 4, u.shape).astype(np.float32)
    exact = np.abs(u).sum(1)[:, None] - u @ np.where(b, 1, -1).T
    d, ids = asymmetric.by_projection(u, cb, 500)
    expected = np.argsort(exact, axis=1, kind="stable")[:, :500]
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(d, np.take_along_axis(exact, expected, 1) / 2)


def test_projection_of_signs_is_hamming_search():
    _, _, cb = projections()
    cq = cb[:9]
    u = np.where(np.unpackbits(cq, axis=1, count=20), 1, -1).astype(np.float32)
    d, ids = asymmetric.by_projection(u, cb, 200)
    expected_d, expected_ids = hamming.search(cq, cb, 200, "cpu")
    np.testing.assert_array_equal(d, expected_d)
    np.testing.assert_array_equal(ids, expected_ids)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_projection_depends_on_neither_devices_nor_blocks(monkeypatch, devices):
    u, _, cb = projections()
    expected = asymmetric.by_projection(u, cb, 300, jax.devices()[:1])
    monkeypatch.setattr(topk, "BLOCK_ROWS", 130)
    monkeypatch.setattr(topk, "PAIRS", 300)
    for one, other in zip(
        asymmetric.by_projection(u, cb, 300, jax.devices()[:devices]), expected, strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rows", [1, 100, 1 << 20])
def test_projection_unpacks_no_more_bytes_at_once_than_stated(monkeypatch, rows):
    u, _, cb = projections(nb=400, bits=40)
    expected = asymmetric.by_projection(u, cb, 30, jax.devices()[:2])
    unpacked, unpack = [], asymmetric.codes.unpack

    def spy(packed, bits):
        unpacked.append(4 * len(packed) * bits)
        return unpack(packed, bits)

    monkeypatch.setattr(asymmetric.codes, "unpack", spy)
    monkeypatch.setattr(topk, "BLOCK_BYTES", 4 * 40 * rows)
    topk._search.cache_clear()
    got = asymmetric.by_projection(u, cb, 30, jax.devices()[:2])
    np.testing.assert_array_equal(got, expected)
    assert max(unpacked) == 4 * 40 * min(rows, 200)  # 200: all that a device has


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e30, 1e37])
def test_projection_ranks_very_small_and_very_large_values(scale):
    u, b, cb = projections(bits=16)
    u = (u / np.abs(u).max() * scale).astype(np.float32)
    exact = -(u.astype(float) / scale) @ np.where(b, 1.0, -1.0).T
    _, ids = asymmetric.by_projection(u, cb, 50)
    np.testing.assert_allclose(
        np.take_along_axis(exact, ids, 1), np.sort(exact, axis=1)[:, :50], atol=1e-5
    )


def test_projection_of_zeros_is_a_tie_of_all():
    d, ids = asymmetric.by_projection(
        np.zeros((1, 8), np.float32), np.arange(9, dtype=np.uint8)[:, None], 4
    )
    np.testing.assert_array_equal(d, [[0, 0, 0, 0]])
    np.testing.assert_array_equal(ids, [[0, 1, 2, 3]])


def test_projection_refuses_what_does_not_fit():
    u, _, cb = projections(nb=5)
    with pytest.raises(ValueError, match=r"\(6, 20\) and \(5, 2\)"):
        asymmetric.by_projection(u, cb[:, :2], 1)
    with pytest.raises(ValueError, match="uint8; got int32"):
        asymmetric.by_projection(u, cb.astype(np.int32), 1)
    with pytest.raises(BadInput, match="k=6: must be from 1 to 5"):
        asymmetric.by_projection(u, cb, 6)
    u[3, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        asymmetric.by_projection(u, cb, 1)


def decoder(bits=12, d=7):
    """A decoder that is not linear in the bits, of whole numbers."""
    weights = np.random.default_rng(3).integers(-2, 3, (bits, d))

    def decode(packed):
        b = np.unpackbits(packed, axis=1, count=bits).astype(np.int64)
        return np.maximum(b @ weights, 0) ** 2

    return decode


def candidates(nq=9, nb=400, count=60, bits=12):
    """Queries of whole numbers, codes of 12 bits of which 5 vary, and distinct ids a query."""
    rng = np.random.default_rng(4)
    b = np.zeros((nb, bits), bool)
    b[:, :5] = rng.random((nb, 5)) < 0.5
    ids = np.stack([rng.permutation(nb)[:count] for _ in range(nq)])
    return rng.integers(0, 9, (nq, 7)), np.packbits(b, axis=1), ids


@pytest.mark.parametrize("k", [1, 25, 60])
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_feature_compares_with_what_is_decoded(monkeypatch, k, rows):
    xq, cb, ids = candidates()
    decode = decoder()
    monkeypatch.setattr(asymmetric.rerank, "ROW_BYTES", rows * 4 * 7)
    d, found = asymmetric.by_feature(xq, cb, ids, k, decode)
    exact = ((xq[:, None] - decode(cb)[ids.ravel()].reshape(9, 60, 7)) ** 2).sum(-1)
    order = np.stack([np.lexsort((i, row)) for i, row in zip(ids, exact, strict=True)])[:, :k]
    np.testing.assert_array_equal(found, np.take_along_axis(ids, order, 1))
    np.testing.assert_array_equal(d, np.take_along_axis(exact, order, 1))


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_feature_decodes_each_distinct_code_once(monkeypatch, rows):
    xq, cb, ids = candidates()
    seen = []

    def decode(packed):
        assert len(packed) <= rows
        seen.extend(map(bytes, packed))
        return decoder()(packed)

    monkeypatch.setattr(asymmetric.rerank, "ROW_BYTES", rows * 4 * 7)
    asymmetric.by_feature(xq, cb, ids, 5, decode)
    assert sorted(seen) == sorted(set(map(bytes, cb[np.unique(ids)])))


def test_feature_takes_minus_one_for_no_candidate():
    xq, cb, ids = candidates()
    expected_d, expected_ids = asymmetric.by_feature(xq, cb, ids[:, :20], 20, decoder())
    ids[:, 20:] = -1
    d, found = asymmetric.by_feature(xq, cb, ids, 25, decoder())
    np.testing.assert_array_equal(found, np.pad(expected_ids, ((0, 0), (0, 5)), constant_values=-1))
    np.testing.assert_array_equal(d, np.pad(expected_d, ((0, 0), (0, 5)), constant_values=np.inf))


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16])
def test_distinct_codes_equal_numpys(width):
    packed = np.random.default_rng(0).integers(0, 3, (200, width)).astype(np.uint8)
    packed[:, : width // 2] = 5
    rows, number = asymmetric.distinct(packed)
    np.testing.assert_array_equal(rows[number], packed)
    assert len(rows) == len(np.unique(packed, axis=0))


def test_feature_refuses_what_does_not_fit():
    xq, cb, ids = candidates()
    with pytest.raises(BadInput, match="k=61: must be from 1 to 60"):
        asymmetric.by_feature(xq, cb, ids, 61, decoder())
    with pytest.raises(ValueError, match="ids of the 399 base rows"):
        asymmetric.by_feature(xq, cb[:399], np.where(ids == 0, 399, ids), 5, decoder())
    with pytest.raises(BadInput, match="base row"):
        asymmetric.by_feature(xq, cb, ids, 5, lambda packed: np.full((len(packed), 7), np.nan))
    with pytest.raises(ValueError, match=r"d = 7 .*\[32, 6\]"):
        asymmetric.by_feature(xq, cb, ids, 5, lambda packed: decoder()(packed)[:, :6])
