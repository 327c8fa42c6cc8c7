"""Ground truth against exact integer arithmetic: ties, duplicates, rounding, blocks, devices."""

import jax
import numpy as np
import pytest

from sigah_jax.retrieval import euclidean, neighbours, topk

pytestmark = pytest.mark.accelerator  # on whatever devices JAX finds

ENGINES = ["cpu", "accelerator"]


def brute(xq, xb, sizes):
    """`nearest_sets` of whole numbers, exact in int64."""
    d = ((xq[:, None].astype(np.int64) - xb[None].astype(np.int64)) ** 2).sum(-1)
    order = np.argsort(d, axis=1, kind="stable")
    rings = np.split(order[:, : sizes[-1]], sizes[:-1], axis=1)
    return np.concatenate([np.sort(ring, axis=1) for ring in rings], axis=1)


def tied(nq=30, nb=403, d=5):
    """Points of a 3⁵ grid: 403 rows on 243 places, so duplicates and ties everywhere."""
    x = np.random.default_rng(0).integers(0, 3, (nq + nb, d)).astype(np.float32)
    return x[:nq], x[nq:]


def pixels(nq=40, nb=2000):
    """Like MNIST: bytes, most of them 0, many columns, squared distances in the millions."""
    rng = np.random.default_rng(1)
    prototypes = rng.integers(0, 256, (10, 196)) * (rng.random((10, 196)) < 0.3)
    noise = rng.integers(-2, 3, (nq + nb, 196))
    x = np.clip(prototypes[rng.integers(0, 10, nq + nb)] + noise, 0, 255).astype(np.float32)
    x[nq + 50 : nq + 90] = x[nq + 100 : nq + 140]  # duplicates
    return x[:nq], x[nq:]


def two_far_clusters(step, nq=20, nb=1200, d=8):
    """Rows a few `step`s apart in two clusters far apart, where float32 distances err by ~10."""
    rng = np.random.default_rng(2)
    side = np.where(rng.random((nq + nb, 1)) < 0.5, 4096.0, -4096.0)
    x = (side + rng.integers(0, 9, (nq + nb, d)) * step).astype(np.float32)
    return x[:nq], x[nq:]


@pytest.mark.parametrize("engine", ENGINES)
def test_by_hand(engine):
    # from 1: rows 0, 3, 2, 2, 9 are at squared distances 1, 4, 1, 1, 64. The nearest is row 0 by
    # id, the three nearest add rows 2 and 3, the four nearest row 1.
    xq, xb = np.array([[1]], np.float32), np.array([[0], [3], [2], [2], [9]], np.float32)
    ids = neighbours.nearest_sets(xq, xb, [4, 1, 3], engine)
    np.testing.assert_array_equal(ids, [[0, 2, 3, 1]])
    assert ids.dtype == np.int32


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sizes", [[1], [40], [403], [1, 10, 100, 150], [1, 10, 403]])
def test_exact_with_ties_and_duplicates(sizes, engine):
    xq, xb = tied()
    got = neighbours.nearest_sets(xq, xb, sizes, engine)
    np.testing.assert_array_equal(got, brute(xq, xb, sizes))


@pytest.mark.parametrize("engine", ENGINES)
def test_exact_on_pixels(engine):
    xq, xb = pixels()
    got = neighbours.nearest_sets(xq, xb, [1, 10, 200], engine)
    np.testing.assert_array_equal(got, brute(xq, xb, [1, 10, 200]))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [1, 50, 400])
def test_does_not_depend_on_blocks(monkeypatch, rows, engine):
    # 403 rows: a last block of 3 for both 50 and 400; a sample of 58 of them; queries by twos
    xq, xb = tied(5)
    monkeypatch.setattr(neighbours, "SCORES", 2 * rows)
    monkeypatch.setattr(neighbours, "QUERIES", 2)
    monkeypatch.setattr(neighbours, "SAMPLE_ROWS", 60)
    monkeypatch.setattr(topk, "BASE_BYTES", rows * 4 * xb.shape[1])
    got = neighbours.nearest_sets(xq, xb, [1, 10], engine)
    np.testing.assert_array_equal(got, brute(xq, xb, [1, 10]))


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_does_not_depend_on_the_number_of_devices(devices):
    xq, xb = tied()
    got = neighbours.nearest_sets(xq, xb, [10, 60], "accelerator", jax.devices()[:devices])
    np.testing.assert_array_equal(got, brute(xq, xb, [10, 60]))


def test_the_threshold_leaves_most_rows_out(monkeypatch):
    # 2 % of 20,000 rows are 400; a rank of 8 + 5 (√8 + 1) = 28 among a sample of 400 lets about
    # 1,400 rows through
    monkeypatch.setattr(neighbours, "SAMPLE_ROWS", 400)
    rng = np.random.default_rng(3)
    x = rng.integers(0, 100, (20020, 8)).astype(np.float32)
    xq, xb = x[:20], x[20:]
    rank, sample_rows = neighbours._sample_rank(400, len(xb), 1)
    assert (rank, sample_rows) == (28, 400)
    found = neighbours._below_threshold(xq, xb, euclidean.centre_of(xb), rank, sample_rows)
    exact = ((xq[:, None].astype(np.float64) - xb[None]) ** 2).sum(-1)
    for q, distances in enumerate(exact):
        d32, ids, limit = found(q)
        assert 400 <= len(ids) < 3000
        np.testing.assert_allclose(d32, distances[ids], atol=0.5)
        assert np.delete(distances, ids).min() >= limit - 0.5
    got = neighbours.nearest_sets(xq, xb, [10, 400], "cpu")
    np.testing.assert_array_equal(got, brute(xq, xb, [10, 400]))


def test_a_base_sorted_by_distance_misleads_the_sample_and_is_searched_again(monkeypatch):
    # every 10th row is far away and the sample is those rows: its guess lets everything near
    # through for some queries and nothing for others
    monkeypatch.setattr(neighbours, "SAMPLE_ROWS", 100)
    rng = np.random.default_rng(4)
    xb = rng.integers(0, 50, (1000, 4)).astype(np.float32)
    xb[::10] = 1
    xq = np.concatenate([np.full((1, 4), 1), rng.integers(0, 50, (5, 4))]).astype(np.float32)
    searched, search = [], neighbours._below_threshold

    def spy(queries, *rest):
        searched.append(len(queries))
        return search(queries, *rest)

    monkeypatch.setattr(neighbours, "_below_threshold", spy)
    got = neighbours.nearest_sets(xq, xb, [1, 200], "cpu")
    np.testing.assert_array_equal(got, brute(xq, xb, [1, 200]))
    # the first query: all of the sample is at distance 0, so nothing is nearer than its rank
    assert searched[0] == 6 and 1 <= searched[1] < 6


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("step", [2.0**-10, 0.5])
def test_rows_within_rounding_of_each_other_are_told_apart(step, engine):
    # squared distances within a cluster are at most 8 · 64 · step², float32 errs by about 10
    xq, xb = two_far_clusters(step)
    expected = brute(xq / step, xb / step, [1, 5])
    # the premise: float32 alone, by products and not by differences, gets the sets wrong
    _, first = euclidean.knn(xq, xb, 5, "accelerator")
    assert not np.array_equal(np.sort(first, 1), np.sort(expected, 1))
    np.testing.assert_array_equal(neighbours.nearest_sets(xq, xb, [1, 5], engine), expected)


def test_the_rounding_bound_covers_float32():
    rng = np.random.default_rng(4)
    xq, xb = rng.random((50, 100), np.float32) - 0.3, rng.random((500, 100), np.float32) - 0.3
    centre = euclidean.centre_of(xb)
    found = neighbours._below_threshold(xq, xb, centre, 500, 500)
    for q in range(50):
        d32, ids, _ = found(q)
        error = np.abs(d32 - neighbours._exact_distances(xq[q], xb, ids)).max()
        bound = neighbours.rounding_bound(xq[q], centre, d32.max())
        # 116 · 2⁻²⁴ · (2 ‖a‖ + r)² < 116 · 6e-8 · 200: not so wide that it tells nothing
        assert 0 < error < bound < 1.4e-3


def test_duplicates_tie_exactly_in_float64():
    rng = np.random.default_rng(5)
    row = rng.standard_normal((1, 101), np.float32)
    xb = rng.standard_normal((1500, 101), np.float32)
    places = rng.permutation(1500)[:700]  # more than one block of EXACT_VALUES
    xb[places] = row
    ids = neighbours.nearest_sets(row + 0.01, xb, [300, 700], "cpu")
    np.testing.assert_array_equal(ids[0], np.sort(places))


def test_equal_rows_everywhere_and_a_single_row():
    same = np.ones((50, 3), np.float32)
    for engine in ENGINES:
        got = neighbours.nearest_sets(same[:2], same, [1, 10], engine)
        np.testing.assert_array_equal(got, [np.arange(10)] * 2)
        np.testing.assert_array_equal(
            neighbours.nearest_sets(same[:1], same[:1], [1], engine), [[0]]
        )


def test_the_base_may_be_a_memory_map(tmp_path):
    xq, xb = tied()
    np.save(tmp_path / "xb.npy", xb)
    mapped = np.load(tmp_path / "xb.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        neighbours.nearest_sets(xq, mapped, [10], "cpu"), brute(xq, xb, [10])
    )


def overflowing(rows, value):
    """Queries and 300 base rows of which some hold a value whose square overflows float32."""
    x = np.random.default_rng(6).integers(0, 9, (304, 3)).astype(np.float32)
    xq, xb = x[:4], x[4:]
    xb[rows, 1] = value
    return xq, xb


def exact(xq, xb, sizes):
    """`nearest_sets` in float64 by direct differences, ties to the lower id."""
    d = ((xq[:, None].astype(np.float64) - xb) ** 2).sum(-1)
    order = np.argsort(d, axis=1, kind="stable")
    rings = np.split(order[:, : sizes[-1]], sizes[:-1], axis=1)
    return np.concatenate([np.sort(ring, axis=1) for ring in rings], axis=1)


@pytest.fixture
def bounded(monkeypatch):
    """A search that does not end fails: each pass asks for the rank of its sample once."""
    rank, passes = neighbours._sample_rank, iter(range(20))

    def counted(*args):
        assert next(passes, None) is not None, "20 passes over the base"
        return rank(*args)

    monkeypatch.setattr(neighbours, "_sample_rank", counted)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("rows", "sizes"), [(slice(None), [1, 10]), ([7], [10, 300]), ([7], [10]), ([7, 9, 200], [298])]
)
def test_finite_values_that_overflow_float32_are_ranked_in_float64(bounded, rows, sizes, engine):
    xq, xb = overflowing(rows, 1e20)
    xb[::5, 1] *= 2
    got = neighbours.nearest_sets(xq, xb, sizes, engine)
    np.testing.assert_array_equal(got, exact(xq, xb, sizes))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_row_that_is_not_finite_is_named_where_it_may_count(bounded, value, engine):
    xq, xb = overflowing([123], value)
    with pytest.raises(ValueError, match="base row 123 holds NaN or infinity"):
        neighbours.nearest_sets(xq, xb, [10], engine)
    xq, xb = overflowing([], 0)
    xq[2, 0] = value
    with pytest.raises(ValueError, match="query 2 holds NaN or infinity"):
        neighbours.nearest_sets(xq, xb, [10], engine)


@pytest.mark.parametrize("sizes", [[0, 3], [6]])
def test_refuses_an_impossible_size(sizes):
    x = np.zeros((5, 2), np.float32)
    with pytest.raises(ValueError, match="from 1 to 5"):
        neighbours.nearest_sets(x, x, sizes, "cpu")
