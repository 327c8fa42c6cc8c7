import jax
import numpy as np
import pytest

from sigah_jax.retrieval import hamming


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
