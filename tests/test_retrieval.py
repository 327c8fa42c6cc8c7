import numpy as np
import pytest

from sigah_jax.retrieval import codes, euclidean, histograms

ENGINES = ("cpu", "accelerator")


@pytest.mark.parametrize("bits", [1, 7, 8, 20, 64, 100, 256])
def test_pack_is_numpy_packbits_and_unpack_inverts_it(bits):
    x = np.random.default_rng(bits).random((5, bits)) < 0.5
    packed = np.asarray(codes.pack(x))
    np.testing.assert_array_equal(packed, np.packbits(x, axis=-1))
    np.testing.assert_array_equal(codes.unpack(packed, bits), x)


def test_unpack_refuses_another_width():
    with pytest.raises(ValueError, match="bytes"):
        codes.unpack(np.zeros((2, 3), np.uint8), 8)


@pytest.mark.parametrize("bits", [1, 20, 64, 100, 256])
@pytest.mark.parametrize("block_rows", [1, 7, 1000])
@pytest.mark.parametrize("engine", ENGINES)
def test_histograms_equal_a_direct_count(bits, block_rows, engine):
    rng = np.random.default_rng(bits)
    q, b = rng.random((3, bits)) < 0.5, rng.random((50, bits)) < 0.5
    b[0] = ~q[0]  # distance K
    near = np.stack([rng.permutation(50)[:10] for _ in q]).astype(np.int32)
    got = histograms.distance_histograms(
        np.packbits(q, axis=1), np.packbits(b, axis=1), near, (1, 10), bits, engine, block_rows
    )
    for i in range(3):
        d = (q[i] != b).sum(1)
        np.testing.assert_array_equal(got.total[i], np.bincount(d, minlength=bits + 1))
        for s, size in enumerate((1, 10)):
            expected = np.bincount(d[near[i, :size]], minlength=bits + 1)
            np.testing.assert_array_equal(got.relevant[s, i], expected)


def brute(xq, xb, k):
    d = ((xq[:, None].astype(np.int64) - xb[None].astype(np.int64)) ** 2).sum(-1)
    return np.argsort(d, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("engine", ENGINES)
def test_ground_truth_is_exact_with_ties_and_duplicates(engine):
    rng = np.random.default_rng(0)
    xb = rng.integers(0, 3, (400, 5)).astype(np.float32)  # 243 points: ties everywhere
    xq = rng.integers(0, 3, (20, 5)).astype(np.float32)
    np.testing.assert_array_equal(euclidean.ground_truth(xq, xb, 37, engine), brute(xq, xb, 37))


@pytest.mark.parametrize("engine", ENGINES)
def test_ground_truth_sees_differences_that_float32_cannot(engine):
    # distances to 0 near 3e9: float32 steps are 256 there, the rows differ by less
    rng = np.random.default_rng(1)
    xb = (2000 + rng.integers(0, 3, (500, 784))).astype(np.float32)
    xb[:, 0] += rng.integers(0, 2, 500)
    xq = np.zeros((2, 784), np.float32)
    np.testing.assert_array_equal(euclidean.ground_truth(xq, xb, 10, engine), brute(xq, xb, 10))


def test_k_beyond_the_base_is_refused():
    with pytest.raises(ValueError, match="got 6"):
        euclidean.ground_truth(np.zeros((1, 2), np.float32), np.zeros((5, 2), np.float32), 6, "cpu")


@pytest.mark.parametrize("engine", ENGINES)
def test_graph_leaves_out_the_row_itself_even_among_duplicates(engine):
    x = np.zeros((30, 4), np.float32)
    x[20:] = np.arange(10, dtype=np.float32)[:, None] + 5
    graph = euclidean.neighbour_graph(x, 4, engine)
    assert graph.shape == (30, 4) and not (graph == np.arange(30)[:, None]).any()
    assert (graph[:20] < 20).all()
    assert set(graph[25]) == {23, 24, 26, 27}
