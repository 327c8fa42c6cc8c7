import jax
import numpy as np
import pytest

from sigah_jax.retrieval.histograms import distance_histograms

pytestmark = pytest.mark.accelerator  # on whatever devices JAX finds

Q, N, K_NEAR, SIZES = 3, 53, 10, (1, 4, 10)


def problem(bits, base_rows=N):
    rng = np.random.default_rng(bits)
    q, b = rng.random((Q, bits)) < 0.5, rng.random((base_rows, bits)) < 0.5
    b[0], b[-1] = ~q[0], q[1]  # distances K and 0, the latter in the last block
    near = np.stack([rng.permutation(base_rows)[:K_NEAR] for _ in q]).astype(np.int32)
    return q, b, near


def run(q, b, near, sizes=SIZES, **options):
    bits = q.shape[1]
    return distance_histograms(
        np.packbits(q, axis=1), np.packbits(b, axis=1), near, sizes, bits, **options
    )


def direct(q, b, near, sizes=SIZES):
    bits = q.shape[1]
    d = (q[:, None] != b).sum(-1)
    total = [np.bincount(row, minlength=bits + 1) for row in d]
    relevant = [
        [np.bincount(row[ids[:s]], minlength=bits + 1) for row, ids in zip(d, near, strict=True)]
        for s in sizes
    ]
    return np.array(total), np.array(relevant)


def assert_equal(histograms, expected):
    for got, want in zip(histograms, expected, strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == np.int64


def test_by_hand():
    # query 00; base 00, 01, 11, 10 at distances 0, 1, 2, 1; neighbours: row 3, then row 0
    q = np.zeros((1, 2), bool)
    b = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], bool)
    got = run(q, b, np.array([[3, 0]], np.int32), sizes=(1, 2), engine="cpu")
    np.testing.assert_array_equal(got.total, [[1, 2, 1]])
    np.testing.assert_array_equal(got.relevant, [[[0, 1, 0]], [[1, 1, 0]]])


@pytest.mark.parametrize("engine", ["cpu", "accelerator"])
@pytest.mark.parametrize("bits", [1, 7, 20, 64, 100, 248, 256])
def test_equals_a_direct_count(bits, engine):
    args = problem(bits)
    assert_equal(run(*args, engine=engine), direct(*args))


@pytest.mark.parametrize("engine", ["cpu", "accelerator"])
@pytest.mark.parametrize("block_rows", [1, 7, N, 1000])
def test_does_not_depend_on_the_block_size(block_rows, engine):
    args = problem(20)
    assert_equal(run(*args, engine=engine, block_rows=block_rows), direct(*args))


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("block_rows", [3, 100])
def test_does_not_depend_on_the_number_of_devices(devices, block_rows):
    # 53 rows: with blocks of 3 on 8 devices, 2 full rounds and one of 5 rows: 6 devices idle
    args = problem(20)
    got = run(*args, engine="accelerator", block_rows=block_rows, devices=jax.devices()[:devices])
    assert_equal(got, direct(*args))


def test_does_not_depend_on_the_order_of_the_base():
    q, b, near = problem(20)
    order = np.random.default_rng(0).permutation(N)
    place = np.argsort(order).astype(np.int32)
    assert_equal(run(q, b[order], place[near], engine="cpu"), direct(q, b, near))


@pytest.mark.parametrize("engine", ["cpu", "accelerator"])
def test_rows_that_fill_a_block_are_not_counted_though_they_equal_the_query(engine):
    # all codes are zero, as is the filling; 9 rows, blocks of 8: every count is at distance 0
    q, b = np.zeros((2, 8), bool), np.zeros((9, 8), bool)
    near = np.zeros((2, 1), np.int32)
    got = run(q, b, near, sizes=(1,), engine=engine, block_rows=8)
    np.testing.assert_array_equal(got.total[:, 0], [9, 9])
    assert got.total.sum() == 18


def codes_problem():
    q, b, near = problem(20)
    return np.packbits(q, axis=1), np.packbits(b, axis=1), near


def test_refuses_codes_of_another_width():
    cq, cb, near = codes_problem()
    with pytest.raises(ValueError, match="cb must be rows of uint8 codes of 20 bits, so 3 bytes"):
        distance_histograms(cq, cb[:, :2], near, SIZES, 20, "cpu")
    with pytest.raises(ValueError, match=r"cq must be rows .* got uint8 \(0, 3\)"):
        distance_histograms(cq[:0], cb, near[:0], SIZES, 20, "cpu")


def test_refuses_bits_past_the_last():
    cq, cb, near = codes_problem()
    cb[5, -1] |= 1  # bit 23 of a 20-bit code: the distance could be 21
    with pytest.raises(ValueError, match="cb has bits set past the last of 20"):
        distance_histograms(cq, cb, near, SIZES, 20, "cpu")


def test_refuses_more_relevant_rows_than_neighbours():
    cq, cb, near = codes_problem()
    with pytest.raises(ValueError, match=r"k = 10 neighbours; got \(1, 11\)"):
        distance_histograms(cq, cb, near, (1, 11), 20, "cpu")


def test_refuses_ids_outside_the_base():
    cq, cb, near = codes_problem()
    near[0, 0] = -1
    with pytest.raises(ValueError, match="ids of the 53 base rows; got ids from -1"):
        distance_histograms(cq, cb, near, SIZES, 20, "cpu")


def test_refuses_neighbours_of_other_queries():
    cq, cb, near = codes_problem()
    with pytest.raises(ValueError, match="Q = 3 queries"):
        distance_histograms(cq, cb, near[:2], SIZES, 20, "cpu")


def test_refuses_an_unknown_engine():
    with pytest.raises(ValueError, match="got 'gpu'"):
        distance_histograms(*codes_problem(), SIZES, 20, "gpu")
