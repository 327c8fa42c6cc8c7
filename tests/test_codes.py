import jax
import numpy as np
import pytest

from sigah_jax.retrieval import codes


def random_bits(*shape):
    return np.random.default_rng(sum(shape)).random(shape) < 0.5


def test_bit_0_is_the_most_significant_of_byte_0():
    # 1 0 1 0 0 0 0 0 | 0 1, filled with zeros -> 128 + 32 = 160 and 64
    bits = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 1], bool)
    np.testing.assert_array_equal(codes.pack(bits), [160, 64])


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 20, 32, 33, 64, 100, 256])
def test_pack_is_numpy_packbits_and_unpack_inverts_it(bits):
    x = random_bits(3, 5, bits)
    packed = np.asarray(codes.pack(x))
    np.testing.assert_array_equal(packed, np.packbits(x, axis=-1))
    assert packed.dtype == np.uint8 and packed.shape == (3, 5, codes.packed_bytes(bits))
    back = np.asarray(codes.unpack(packed, bits))
    np.testing.assert_array_equal(back, x)
    assert back.dtype == bool


def test_pack_and_unpack_inside_pmap():
    x = random_bits(8, 4, 20)
    back = jax.pmap(lambda b: codes.unpack(codes.pack(b), 20))(x)
    np.testing.assert_array_equal(back, x)


def test_pack_refuses_signs():
    with pytest.raises(ValueError, match=r"booleans.*float32"):
        codes.pack(np.ones((2, 8), np.float32))


@pytest.mark.parametrize("bits", [8, 25])
def test_unpack_refuses_another_width(bits):
    with pytest.raises(ValueError, match="bytes wide; got 3"):
        codes.unpack(np.zeros((2, 3), np.uint8), bits)
