import faiss
import jax
import numpy as np
import pytest

from sigah_jax.retrieval import euclidean, topk

pytestmark = pytest.mark.accelerator  # on whatever devices JAX finds

ENGINES = ["cpu", "accelerator"]


@pytest.fixture
def by_matrix_product(monkeypatch):
    """Makes faiss multiply matrices, as it does for large inputs; for small ones it subtracts."""
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)


def brute(xq, xb, k):
    """(distances, ids) of whole numbers, exact in int64, by (distance, id)."""
    d = ((xq[:, None].astype(np.int64) - xb[None].astype(np.int64)) ** 2).sum(-1)
    ids = np.argsort(d, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(d, ids, 1), ids


def tied(nq=30, nb=403, d=5):
    """Points of a 3⁵ grid: 403 rows on 243 places, so duplicates and ties everywhere.

    The first query is the middle, where rows that fill a block come to lie.
    """
    x = np.random.default_rng(0).integers(0, 3, (nq + nb, d)).astype(np.float32)
    x[0] = 1
    return x[:nq], x[nq:]


def test_knn_by_hand():
    # from 1: rows 0, 3, 2, 2 are at squared distances 1, 4, 1, 1; ties by id
    xb = np.array([[0], [3], [2], [2]], np.float32)
    for engine in ENGINES:
        d, ids = euclidean.knn(np.array([[1]], np.float32), xb, 3, engine)
        np.testing.assert_array_equal(d, [[1, 1, 1]])
        np.testing.assert_array_equal(ids, [[0, 2, 3]])
        assert d.dtype == np.float32 and ids.dtype == np.int32


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", [1, 37, 150, 403])
def test_knn_gives_ties_to_the_lower_id(k, engine):
    xq, xb = tied()
    d, ids = euclidean.knn(xq, xb, k, engine)
    expected_d, expected_ids = brute(xq, xb, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(d, expected_d)


@pytest.mark.parametrize("k", [1, 37, 150, 403])
def test_knn_by_matrix_product_gives_ties_to_the_lower_id(k, by_matrix_product):
    # faiss has other code again for k = 1 and for k >= 100
    xq, xb = tied()
    np.testing.assert_array_equal(euclidean.knn(xq, xb, k, "cpu")[1], brute(xq, xb, k)[1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [1, 50, 400])
def test_knn_does_not_depend_on_block_sizes(monkeypatch, rows, engine):
    # 403 rows: a last block of 3 for both 50 and 400; two queries a chunk
    xq, xb = tied(5)
    monkeypatch.setattr(euclidean, "BASE_BYTES", rows * 4 * xb.shape[1])
    monkeypatch.setattr(topk, "BASE_BYTES", rows * 4 * xb.shape[1])
    monkeypatch.setattr(euclidean, "PAIRS", 2 * 60)
    monkeypatch.setattr(topk, "PAIRS", 7)
    np.testing.assert_array_equal(euclidean.knn(xq, xb, 60, engine)[1], brute(xq, xb, 60)[1])


def test_queries_of_several_passes_are_one_search_so_that_the_base_is_copied_once(monkeypatch):
    calls, on_devices = [], topk.on_devices
    monkeypatch.setattr(topk, "on_devices", lambda *args: calls.append(1) or on_devices(*args))
    monkeypatch.setattr(topk, "RESULTS", 7 * 60)  # seven queries a pass
    xq, xb = tied()
    np.testing.assert_array_equal(euclidean.knn(xq, xb, 60, "accelerator")[1], brute(xq, xb, 60)[1])
    graph = euclidean.neighbour_graph(xb, 59, "accelerator")
    np.testing.assert_array_equal(graph, euclidean.neighbour_graph(xb, 59, "cpu"))
    assert len(calls) == 2


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_knn_does_not_depend_on_the_number_of_devices(devices):
    xq, xb = tied()
    _, ids = euclidean.knn(xq, xb, 60, "accelerator", jax.devices()[:devices])
    np.testing.assert_array_equal(ids, brute(xq, xb, 60)[1])


def test_knn_is_accurate_far_from_the_origin(by_matrix_product):
    # uncentred, the squared norms near 16 · 10⁸ that are subtracted are multiples of 128
    rng = np.random.default_rng(3)
    x = (1e4 + rng.integers(0, 9, (300, 16))).astype(np.float32)
    for engine in ENGINES:
        np.testing.assert_array_equal(
            euclidean.knn(x[:20], x, 30, engine)[1], brute(x[:20], x, 30)[1]
        )


@pytest.mark.parametrize("engine", ENGINES)
def test_graph_is_the_nearest_other_rows(engine):
    _, x = tied()
    d = ((x[:, None] - x[None]) ** 2).sum(-1)
    np.fill_diagonal(d, np.inf)
    expected = np.argsort(d, axis=1, kind="stable")[:, :40]
    np.testing.assert_array_equal(euclidean.neighbour_graph(x, 40, engine), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_graph_leaves_out_the_row_itself_among_many_duplicates(monkeypatch, engine):
    # row 19 has 19 duplicates of lower id: it is not among its own 5 nearest
    monkeypatch.setattr(euclidean, "PAIRS", 5 * 8)  # eight rows a chunk
    x = np.zeros((30, 4), np.float32)
    x[20:] = np.arange(5, 15, dtype=np.float32)[:, None]
    graph = euclidean.neighbour_graph(x, 4, engine)
    np.testing.assert_array_equal(graph[0], [1, 2, 3, 4])
    np.testing.assert_array_equal(graph[2], [0, 1, 3, 4])
    np.testing.assert_array_equal(graph[19], [0, 1, 2, 3])
    np.testing.assert_array_equal(graph[25], [24, 26, 23, 27])


@pytest.mark.parametrize(
    ("function", "k", "most"),
    [(euclidean.knn, 6, 5), (euclidean.knn, 0, 5)],
)
def test_refuses_an_impossible_k(function, k, most):
    x = np.zeros((5, 2), np.float32)
    with pytest.raises(ValueError, match=f"from 1 to {most}.* got {k}"):
        function(x, x, k, "cpu")


def test_refuses_a_graph_with_as_many_neighbours_as_rows():
    with pytest.raises(ValueError, match=r"from 1 to 4.* got 5"):
        euclidean.neighbour_graph(np.zeros((5, 2), np.float32), 5, "cpu")


def test_refuses_two_widths_other_types_and_unknown_engines():
    x = np.zeros((5, 2), np.float32)
    with pytest.raises(ValueError, match=r"\(5, 2\) and \(5, 1\)"):
        euclidean.knn(x, x[:, :1], 1, "cpu")
    with pytest.raises(ValueError, match="float32; got float32 and uint8"):
        euclidean.knn(x, x.astype(np.uint8), 1, "cpu")
    with pytest.raises(ValueError, match="got 'gpu'"):
        euclidean.knn(x, x, 1, "gpu")


@pytest.mark.parametrize("engine", ENGINES)
def test_graph_of_rows_that_differ_as_queries_leaves_out_the_row_itself(engine):
    queries, x = tied()[0][:30], tied()[1][:30]
    d = ((queries[:, None] - x[None]) ** 2).sum(-1)
    np.fill_diagonal(d, np.inf)
    expected = np.argsort(d, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(euclidean.neighbour_graph(x, 9, engine, queries), expected)
