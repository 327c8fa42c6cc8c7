"""Columns of tensors, of one name, or of nothing."""

import numpy as np
import pytest
from test_containers import put_parquet, same

from sigah_jax.errors import BadInput
from sigah_jax.formats.vectors import as_array, open_vectors

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

X = np.arange(24, dtype=np.float32).reshape(6, 4)


def arrow_tensors(x: np.ndarray, shape=(4,), **options):
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(x.dtype), shape, **options)
    values = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), int(np.prod(shape)))
    return pa.ExtensionArray.from_storage(kind, values)


@pytest.mark.parametrize("dtype", ["f2", "f4", "u1"])
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_tensors_of_arrow_are_rows(tmp_path, dtype, shape):
    x = X.astype(dtype)
    v = open_vectors(put_parquet(tmp_path / "x.parquet", 4, id=range(6), x=arrow_tensors(x, shape)))
    same(v.read(3, 5), x[3:5])
    same(as_array(v), x)


def test_a_tensor_that_is_null_is_nan(tmp_path):
    tensors = pa.concat_arrays([pa.nulls(1, arrow_tensors(X).type), arrow_tensors(X)])
    x = open_vectors(put_parquet(tmp_path / "x.parquet", 4, x=tensors)).read(0, 7)
    assert np.isnan(x[0]).all()
    same(x[1:], X)


def test_tensors_with_permuted_axes_are_refused(tmp_path):
    tensors = arrow_tensors(X, (2, 2), permutation=[1, 0])
    path = put_parquet(tmp_path / "x.parquet", 4, x=tensors)
    with pytest.raises(BadInput, match=r"x\.parquet: holds tensors with their axes permuted"):
        open_vectors(path)


@pytest.mark.parametrize("version", ["ArrowTensorType", "ArrowTensorTypeV2"])
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_tensors_of_ray_are_rows(tmp_path, version, shape):
    # to import the types registers them, and a file then shows them in place of lists
    kind = getattr(pytest.importorskip("ray.data.extensions"), version)(shape, pa.float32())
    tensors = pa.ExtensionArray.from_storage(kind, pa.array(X.tolist(), kind.storage_type))
    path = put_parquet(tmp_path / "x.parquet", 4, x=tensors)
    assert pq.read_schema(path).field("x").type == kind
    same(as_array(open_vectors(path)), X)


def test_of_two_columns_of_one_name_none_is_taken(tmp_path):
    table = pa.table([pa.array(X.tolist()), pa.array((X + 1).tolist())], ["x", "x"])
    pq.write_table(table, tmp_path / "x.parquet")
    for name in ("", "x"):
        with pytest.raises(BadInput, match=r"x\.parquet: has more than one column 'x'; rename"):
            open_vectors(tmp_path / "x.parquet", name)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 4)])
def test_a_column_of_nothing_is_called_so(tmp_path, kind):
    path = put_parquet(tmp_path / "x.parquet", 4, x=pa.nulls(6, kind))
    with pytest.raises(BadInput, match=r"x\.parquet: all rows of 'x' are null; name another"):
        open_vectors(path)
