import jax.numpy as jnp
import numpy as np
import pytest

from sigah_jax.errors import BadInput
from sigah_jax.retrieval import metric, rerank


def brute(xq, xb, candidates, k):
    """(distances, ids) of whole numbers, exact in int64, by (distance, id)."""
    d = ((xq.astype(np.int64)[:, None] - xb.astype(np.int64)[candidates]) ** 2).sum(-1)
    order = np.stack([np.lexsort((c, row)) for c, row in zip(candidates, d, strict=True)])[:, :k]
    return np.take_along_axis(d, order, 1), np.take_along_axis(candidates, order, 1)


def tied(nq=12, nb=300, count=80, d=5):
    """Points of a 3⁵ grid, 300 on 243 places, and 80 candidates a query in random order."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (nq + nb, d)).astype(np.float32)
    candidates = np.stack([rng.permutation(nb)[:count] for _ in range(nq)])
    return x[:nq], x[nq:], candidates


def assert_rerank(xq, xb, candidates, k):
    d, ids = rerank.rerank(xq, xb, candidates, k)
    expected_d, expected_ids = brute(np.asarray(xq), np.asarray(xb), candidates, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(d, expected_d)
    assert d.dtype == np.float32 and ids.dtype == np.int64


def test_by_hand():
    # from 1: rows 4, 2, 0 are at squared distances 4, 9, 1; row 3, at 0, is no candidate
    xb = np.array([[0], [9], [4], [1], [3]], np.float32)
    d, ids = rerank.rerank(np.array([[1]], np.float32), xb, np.array([[4, 2, 0]]), 3)
    np.testing.assert_array_equal(d, [[1, 4, 9]])
    np.testing.assert_array_equal(ids, [[0, 4, 2]])


def test_lists_and_jax_arrays_are_what_they_are_as_arrays():
    xq, xb, candidates = tied()
    wanted = rerank.rerank(xq, xb, candidates, 10)
    for convert in (np.ndarray.tolist, jnp.asarray):
        got = rerank.rerank(*map(convert, (xq, xb, candidates)), 10)
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("k", [1, 10, 80])
def test_ties_go_to_the_lower_id(k):
    assert_rerank(*tied(), k)


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "float64", ">f4", "uint8", "int8", "int64"]
)
def test_every_type_of_the_base(dtype):
    xq, xb, candidates = tied()
    assert_rerank(xq, xb.astype(dtype), candidates, 10)
    assert_rerank(xq.astype(dtype), xb, candidates.astype(np.uint32), 10)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize(("pairs", "rows"), [(1, 1), (160, 7), (250, 1000)])
def test_does_not_depend_on_block_sizes(monkeypatch, pairs, rows, dtype):
    xq, xb, candidates = tied()
    monkeypatch.setattr(rerank, "PAIRS", pairs)
    monkeypatch.setattr(rerank, "ROW_BYTES", rows * 4 * xb.shape[1])
    assert_rerank(xq, xb.astype(dtype), candidates, 30)


def test_memory_maps_contiguous_and_strided(tmp_path):
    xq, xb, candidates = tied()
    np.save(tmp_path / "base.npy", xb)
    assert_rerank(xq, np.load(tmp_path / "base.npy", mmap_mode="r"), candidates, 10)
    records = np.zeros(len(xb), [("d", "<i4"), ("x", "<f4", (5,))])  # an fvecs file
    records["x"] = xb
    records.tofile(tmp_path / "base.fvecs")
    mapped = np.memmap(tmp_path / "base.fvecs", records.dtype, "r")["x"]
    assert_rerank(xq, mapped, candidates, 10)


def test_reads_only_candidates_and_each_once():
    _, xb, candidates = tied(count=20)

    class Counted(np.ndarray):
        reads = ()

        def __getitem__(self, ids):
            Counted.reads += tuple(ids)
            return np.asarray(super().__getitem__(ids))

    xq = np.zeros((len(candidates), 5), np.float32)
    rerank.rerank(xq, xb.astype(np.float64).view(Counted), candidates, 5)
    np.testing.assert_array_equal(Counted.reads, np.unique(candidates))


def test_far_from_the_origin_there_is_no_cancellation():
    # ‖a‖² + ‖b‖² - 2 a·b of numbers near 10⁵ would be wrong by thousands
    xq, xb, candidates = tied()
    assert_rerank(xq + 1e5, xb + 1e5, candidates, 20)


def test_all_rows_as_candidates_is_exact_search():
    rng = np.random.default_rng(1)
    xq, xb = rng.normal(size=(7, 33)), rng.normal(size=(200, 33))
    _, ids = rerank.rerank(xq, xb, np.tile(np.arange(200), (7, 1)), 15)
    exact = ((xq[:, None] - xb) ** 2).sum(-1)
    np.testing.assert_array_equal(ids, np.argsort(exact, axis=1)[:, :15])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("pairs", [160, 1 << 24])  # 160: two queries at once
def test_minus_one_stands_for_no_candidate_and_comes_last(monkeypatch, pairs, dtype):
    monkeypatch.setattr(rerank, "PAIRS", pairs)
    xq, xb, candidates = tied()
    xb = xb.astype(dtype)
    # 30 candidates for queries 0 to 3, none for 4 to 6, all 80 for the others
    few, none = slice(0, 4), slice(4, 7)
    given = candidates.copy()
    given[few, 10:60] = -1
    given[none] = -1
    d, ids = rerank.rerank(xq, xb, given, 40)
    expected_d, expected_ids = brute(xq, xb, candidates, 40)
    kept = np.delete(candidates[few], np.s_[10:60], axis=1)
    few_d, few_ids = brute(xq[few], xb, kept, 30)
    expected_d = expected_d.astype(np.float32)
    expected_d[few, :30], expected_ids[few, :30] = few_d, few_ids
    expected_d[few, 30:], expected_ids[few, 30:] = np.inf, -1
    expected_d[none], expected_ids[none] = np.inf, -1
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(d, expected_d)


def test_no_queries():
    d, ids = rerank.rerank(np.zeros((0, 3)), np.zeros((5, 3)), np.zeros((0, 4), int), 2)
    assert d.shape == ids.shape == (0, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_names_a_row_without_a_finite_distance(value, dtype):
    xq, xb, candidates = tied()
    xb[candidates[3, 3], 2] = value
    with pytest.raises(BadInput, match=rf"base row {candidates[3, 3]}: "):
        rerank.rerank(xq, xb.astype(dtype), candidates, 5)


@pytest.mark.filterwarnings("error")
def test_a_value_too_large_for_float32_is_named_without_a_warning():
    xq, xb, candidates = tied()
    xb, row = xb.astype(np.float64), candidates[3, 3]
    xb[row, 2] = 1e300
    for of in (metric.L2, metric.Metric("cosine")):
        with pytest.raises(BadInput, match=rf"base row {row}"):
            rerank.rerank(xq, xb, candidates, 5, of)
    xq = xq.astype(np.float64)
    xq[5, 1] = 1e300
    with pytest.raises(BadInput, match="query 5"):
        rerank.rerank(xq, 10 * xb, candidates[:, :1], 1)


def test_names_a_query_that_is_not_finite(monkeypatch):
    monkeypatch.setattr(rerank, "PAIRS", 160)  # two queries at once
    xq, xb, candidates = tied()
    xq[5, 1] = np.nan
    with pytest.raises(BadInput, match="query 5: holds NaN"):
        rerank.rerank(xq, xb, candidates, 5)


@pytest.mark.parametrize("of", [metric.L2, metric.Metric("ip", 1.0)])
def test_names_a_query_whose_distances_overflow(monkeypatch, of):
    monkeypatch.setattr(rerank, "PAIRS", 160)  # two queries at once
    xq, xb, candidates = tied()
    xq[5] = 3e38
    with pytest.raises(BadInput, match=r"^query 5: holds .* overflows float32"):
        rerank.rerank(xq, 10 * xb, candidates, 5, of)
    queries, ids = np.repeat(np.arange(len(xq)), candidates.shape[1]), candidates.ravel()
    with pytest.raises(BadInput, match=r"^query 5: holds .* overflows float32"):
        rerank.of_pairs(xq, 10 * xb, queries, ids, of)


@pytest.mark.parametrize("k", [0, 81])
def test_refuses_an_impossible_k(k):
    with pytest.raises(BadInput, match=f"k={k}: must be from 1 to 80"):
        rerank.rerank(*tied(), k)


def test_refuses_arrays_that_do_not_fit():
    xq, xb, candidates = tied()
    with pytest.raises(ValueError, match=r"\(12, 4\) and \(300, 5\)"):
        rerank.rerank(xq[:, :4], xb, candidates, 5)
    with pytest.raises(ValueError, match=r"Q = 12 queries; got int64 \(11, 80\)"):
        rerank.rerank(xq, xb, candidates[1:], 5)
    with pytest.raises(ValueError, match="got float32"):
        rerank.rerank(xq, xb, candidates.astype(np.float32), 5)
    with pytest.raises(ValueError, match=r"ids of the 200 base rows, .* got ids from 0 to 29"):
        rerank.rerank(xq, xb[:200], candidates, 5)
    with pytest.raises(ValueError, match="or -1 for none; got ids from -2"):
        rerank.rerank(xq, xb, np.where(candidates == 7, -2, candidates), 5)
    with pytest.raises(ValueError, match="id twice"):
        rerank.rerank(
            xq, xb, np.where(candidates == candidates[0, 0], candidates[0, 1], candidates), 5
        )
