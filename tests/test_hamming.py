import jax
import numpy as np
import pytest

from sigah_jax.errors import BadInput
from sigah_jax.retrieval import hamming, topk

pytestmark = pytest.mark.accelerator  # on whatever devices JAX finds

ENGINES = ["cpu", "accelerator"]


def brute(cq, cb, k):
    """(distances, ids) by (distance, id), from unpacked bits."""
    q, b = np.unpackbits(cq, axis=1), np.unpackbits(cb, axis=1)
    d = np.stack([(row != b).sum(axis=1) for row in q])
    ids = np.argsort(d, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(d, ids, 1), ids


def tied(nq=20, nb=5000, width=1):
    """Codes of few values: at 8 bits 5,000 rows on 256 places, 550 at distance 2 of any query."""
    rng = np.random.default_rng(0)
    c = rng.integers(0, 256, (nq + nb, width), np.uint8)
    c[:, 1:] &= 1
    c[0] = 0  # as the rows that fill a block
    return c[:nq], c[nq:]


def assert_search(cq, cb, k, engine, devices=None):
    d, ids = hamming.search(cq, cb, k, engine, devices)
    expected_d, expected_ids = brute(cq, cb, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(d, expected_d)
    assert d.dtype == np.int32 and ids.dtype == np.int64


def test_distances_by_hand():
    # 0b1010_0000 against itself: 0; against 0b0101_0000: four bits; against 0b1010_0001: one
    cq = np.array([[0b10100000]], np.uint8)
    cb = np.array([[0b10100000], [0b01010000], [0b10100001]], np.uint8)
    np.testing.assert_array_equal(hamming.distances(cq, cb), [[0, 4, 1]])


@pytest.mark.parametrize("bits", [1, 8, 20, 32, 33, 64, 100, 248, 256, 300])
def test_distances_equal_numpys_count_of_unequal_bits(bits):
    rng = np.random.default_rng(bits)
    q, b = rng.random((3, bits)) < 0.5, rng.random((17, bits)) < 0.5
    b[0] = ~q[0]  # distance K, which must not wrap round
    cq, cb = np.packbits(q, axis=1), np.packbits(b, axis=1)
    d = jax.jit(hamming.distances)(cq, cb)
    np.testing.assert_array_equal(d, (q[:, None] != b).sum(-1))


@pytest.mark.parametrize(("width", "dtype"), [(1, "uint8"), (31, "uint8"), (32, "uint16")])
def test_the_result_is_the_smallest_type_that_holds_the_largest_distance(width, dtype):
    # 31 bytes: at most 248 <= 255; 32 bytes: at most 256
    zeros, ones = np.zeros((1, width), np.uint8), np.full((1, width), 255, np.uint8)
    d = hamming.distances(zeros, ones)
    assert d.dtype == dtype and int(d[0, 0]) == 8 * width


def test_refuses_codes_of_two_widths_and_codes_that_are_not_bytes():
    c = np.zeros((2, 4), np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(2, 3\)"):
        hamming.distances(c, c[:, :3])
    with pytest.raises(ValueError, match=r"uint8; got uint8 and int32"):
        hamming.distances(c, c.astype(np.int32))


@pytest.mark.parametrize("engine", ENGINES)
def test_search_by_hand(engine):
    # from 0b0000_0011: 0b0001 is 1 bit away, 0b0111 is 1, 0b0011 is 0, 0b1111_1111 is 6, again 1
    cb = np.array([[0b1], [0b111], [0b11], [0b11111111], [0b10]], np.uint8)
    d, ids = hamming.search(np.array([[0b11]], np.uint8), cb, 4, engine)
    np.testing.assert_array_equal(d, [[0, 1, 1, 1]])
    np.testing.assert_array_equal(ids, [[2, 0, 1, 4]])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", [1, 300, 5000])
def test_search_gives_ties_to_the_lower_id(k, engine):
    assert_search(*tied(), k, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("order", ["same", "falling", "rising"])
def test_search_keeps_the_lowest_of_ids_all_tied(order, engine):
    # 700 rows at one distance, or rows that come nearer, or go farther, as ids rise
    steps = {"same": np.zeros(700, int), "falling": np.arange(700)[::-1], "rising": np.arange(700)}
    cb = np.packbits(np.arange(8) < steps[order][:, None] // 80, axis=1)
    assert_search(np.zeros((2, 1), np.uint8), cb, 300, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("width", [2, 8, 13, 32, 40])
def test_search_of_every_width(width, engine):
    assert_search(*tied(5, 999, width), 100, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_search_for_ten_thousand_neighbours(engine):
    assert_search(*tied(3, 12001, 2), 10000, engine)


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("engine", ENGINES)
def test_search_does_not_depend_on_block_sizes(monkeypatch, rows, engine):
    # of 2 bytes each; 1,000 and 7 leave one row to the last block; two queries a pass
    cq, cb = tied(5, {1: 40, 7: 295, 1000: 1001}[rows], 2)
    k = 30
    monkeypatch.setattr(hamming, "BASE_BYTES", rows * 2)
    monkeypatch.setattr(topk, "BASE_BYTES", rows * 2 * 3)
    monkeypatch.setattr(topk, "BLOCK_ROWS", max(1, rows // 3))
    monkeypatch.setattr(topk, "PAIRS", 50)
    monkeypatch.setattr(topk, "RESULTS", 2 * k)
    assert_search(cq, cb, k, engine, jax.devices()[:3])


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("k", [20, 300])
def test_search_does_not_depend_on_the_number_of_devices(devices, k):
    # 5,000 rows on 8 devices are 625 each
    assert_search(*tied(), k, "accelerator", jax.devices()[:devices])


def test_search_with_fewer_rows_than_devices():
    assert_search(*tied(4, 3), 3, "accelerator")


@pytest.mark.parametrize("engine", ENGINES)
def test_search_reads_memory_maps_and_strided_rows(tmp_path, monkeypatch, engine):
    monkeypatch.setattr(hamming, "BASE_BYTES", 1000)
    cq, cb = tied(4, 700, 8)
    np.save(tmp_path / "codes.npy", cb)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    assert_search(cq, mapped, 50, engine)
    wide = np.zeros((700, 12), np.uint8)  # a field of a record, as in a memory-mapped bvecs file
    wide[:, 4:] = cb
    assert_search(np.asfortranarray(cq), wide[:, 4:], 50, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_search_of_no_queries(engine):
    d, ids = hamming.search(np.zeros((0, 8), np.uint8), np.zeros((5, 8), np.uint8), 2, engine)
    assert d.shape == ids.shape == (0, 2)


@pytest.mark.parametrize("k", [0, -1, 6])
def test_search_refuses_an_impossible_k(k):
    c = np.zeros((5, 2), np.uint8)
    for engine in ENGINES:
        with pytest.raises(BadInput, match=rf"k={k}: must be from 1 to 5"):
            hamming.search(c, c, k, engine)


def test_search_refuses_codes_that_do_not_fit_and_unknown_engines():
    c = np.zeros((5, 2), np.uint8)
    with pytest.raises(ValueError, match=r"\(5, 1\) and \(5, 2\)"):
        hamming.search(c[:, :1], c, 1, "cpu")
    with pytest.raises(ValueError, match="uint8; got bool and uint8"):
        hamming.search(c.astype(bool), c, 1, "cpu")
    with pytest.raises(ValueError, match="got 'gpu'"):
        hamming.search(c, c, 1, "gpu")
