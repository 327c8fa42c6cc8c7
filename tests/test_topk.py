"""The k smallest over all devices, with a distance of the tests' own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sigah_jax.retrieval import topk

pytestmark = pytest.mark.accelerator  # on whatever devices JAX finds


def apart(q: jax.Array, rows: jax.Array) -> jax.Array:
    """|q - row|, of queries [q] and rows of one value."""
    return jnp.abs(q[:, None] - rows[:, 0].astype(jnp.float32))


def tied(nq: int, nb: int, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Queries [nq] f32 and rows [nb, 1] of nine values. A query at 0 is where filling lies."""
    rng = np.random.default_rng(0)
    q = rng.integers(0, 9, nq).astype(np.float32)
    q[:1] = 0
    return q, rng.integers(0, 9, (nb, 1)).astype(dtype)


def assert_nearest(q, base, k, devices=None):
    d, ids = topk.on_devices(apart, q, base, k, devices)
    expected = np.abs(q[:, None] - base[:, 0].astype(np.float32))
    order = np.argsort(expected, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(d, np.take_along_axis(expected, order, 1))
    assert d.dtype == np.float32 and ids.dtype == np.int64


def test_by_hand():
    # from 4: rows 1, 6, 2, 5 are at distances 3, 2, 2, 1; of the two at 2 the lower id is first
    base = np.array([[1], [6], [2], [5]], np.float32)
    d, ids = topk.on_devices(apart, np.array([4], np.float32), base, 3, None)
    np.testing.assert_array_equal(d, [[1, 2, 2]])
    np.testing.assert_array_equal(ids, [[3, 1, 2]])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("k", [1, 30, 201])
def test_ties_go_to_the_lower_id_on_any_number_of_devices(dtype, devices, k):
    # 201 rows are 26 a device on eight: the last has fewer, and k is more than one holds
    assert_nearest(*tied(7, 201, dtype), k, jax.devices()[:devices])


@pytest.mark.parametrize("nb", [1, 3, 8, 9])
def test_fewer_rows_than_devices_or_about_as_many(nb):
    assert_nearest(*tied(3, nb, np.float32), nb, jax.devices()[:8])


@pytest.mark.parametrize("name", ["BASE_BYTES", "BLOCK_ROWS", "BLOCK_BYTES", "PAIRS", "RESULTS"])
@pytest.mark.parametrize("limit", [1, 50, 1000])
def test_results_do_not_depend_on_what_is_done_at_once(monkeypatch, name, limit):
    monkeypatch.setattr(topk, name, limit)
    assert_nearest(*tied(7, 90, np.float32), 20, jax.devices()[:3])


@pytest.mark.parametrize("rows", [1, 12, 12_345, 1 << 20])
@pytest.mark.parametrize("most", [1, 100, 1 << 18])
@pytest.mark.parametrize("k", [1, 10, 20_000])
def test_shapes_cover_the_rows_in_whole_groups(rows, most, k):
    blocks, block_rows, group = topk._shapes(rows, most, k)
    assert block_rows % group == 0
    assert blocks * block_rows >= rows > (blocks - 1) * (block_rows - group)
    assert block_rows < most + group


def test_chunks_of_queries_are_all_of_them_in_order(monkeypatch):
    # 10 results at once are 3 queries of 3 neighbours, and one query of 11
    monkeypatch.setattr(topk, "RESULTS", 10)
    assert topk.query_chunks(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert topk.query_chunks(2, 11) == [slice(0, 1), slice(1, 2)]
    assert topk.query_chunks(0, 3) == []


def test_merge_by_hand():
    # distances 1, 4 of ids 0, 2 and 1, 3 of ids 5, 7: the tie at 1 is in order of id
    parts = [
        (np.array([[1, 4]]), np.array([[0, 2]])),
        (np.array([[1, 3]]), np.array([[5, 7]])),
    ]
    d, ids = topk.merge(parts, 3)
    np.testing.assert_array_equal(d, [[1, 1, 3]])
    np.testing.assert_array_equal(ids, [[0, 5, 7]])
    for got, given in zip(topk.merge(parts[:1], 1), parts[0], strict=True):
        np.testing.assert_array_equal(got, given[:, :1])


def test_nearest_first_by_hand():
    # by distance, then by id, and -0 is 0: 0 (id 9), 0 (id 2³² - 1), 2 (id 1), 2 (id 3)
    d = np.array([[2, 0, -0.0, 2, np.inf]], np.float32)
    near, ids = topk.nearest_first(d, np.array([[3, 9, 2**32 - 1, 1, 0]]), 4)
    np.testing.assert_array_equal(near, [[0, 0, 2, 2]])
    np.testing.assert_array_equal(ids, [[9, 2**32 - 1, 1, 3]])
    assert near.dtype == np.float32 and ids.dtype == np.int64


@pytest.mark.parametrize(("group", "k"), [(1, 3), (4, 1), (4, 40), (16, 3), (16, 64)])
def test_smallest_is_a_stable_sort(group, k):
    d = np.random.default_rng(0).integers(0, 4, (6, 64)).astype(np.float32)
    values, places = jax.jit(topk.smallest, static_argnums=(1, 2))(d, k, group)
    expected = np.argsort(d, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(d, expected, 1))
