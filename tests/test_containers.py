import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import io

from sigah_jax.errors import BadInput
from sigah_jax.formats.vectors import as_array, load, open_vectors

h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PAGE = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"


def put_hdf5(path: Path, **datasets) -> Path:
    with h5py.File(path, "w") as f:
        for name, x in datasets.items():
            f[name] = x
    return path


def put_mat73(path: Path, **variables) -> Path:
    """As MATLAB writes version 7.3: HDF5 behind 512 bytes of text, matrices transposed."""
    classes = {"f8": "double", "f4": "single", "u1": "uint8", "i8": "int64", "u2": "char"}
    with h5py.File(path, "w", userblock_size=512) as f:
        for name, x in variables.items():
            f[name] = x.T
            kind = classes.get(x.dtype.str[1:], "double")
            f[name].attrs["MATLAB_class"] = np.bytes_(kind)
    with path.open("r+b") as f:
        f.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    return path


def put_mat(path: Path, **variables) -> Path:
    io.savemat(path, variables, do_compression=True)
    return path


def lists(x: np.ndarray, fixed: bool):
    values = pa.array(x.reshape(-1))
    if fixed:
        return pa.FixedSizeListArray.from_arrays(values, x.shape[1])
    return pa.ListArray.from_arrays(np.arange(len(x) + 1, dtype=np.int32) * x.shape[1], values)


def put_parquet(path: Path, group_rows: int, **columns) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=group_rows)
    return path


def same(got: np.ndarray, x: np.ndarray) -> None:
    assert got.dtype == x.dtype and got.dtype.isnative and got.flags.c_contiguous
    np.testing.assert_array_equal(got, x)


def put(path: Path, x: np.ndarray, group_rows: int) -> Path:
    writers = {
        "x.hdf5": lambda: put_hdf5(path, x=x),
        "x.h5": lambda: put_hdf5(path, x=x),
        "x.mat": lambda: put_mat(path, x=x),
        "x7.mat": lambda: put_mat73(path, x=x),
        "x.parquet": lambda: put_parquet(path, group_rows, x=lists(x, fixed=False)),
        "fixed.parquet": lambda: put_parquet(path, group_rows, x=lists(x, fixed=True)),
    }
    return writers[path.name]()


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i8"])
@pytest.mark.parametrize(
    "name", ["x.hdf5", "x.h5", "x.mat", "x7.mat", "x.parquet", "fixed.parquet"]
)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_what_the_library_writes_is_read_whole_and_in_blocks(name, dtype, data):
    elements = {"elements": {"allow_nan": False}} if dtype[0] == "f" else {}
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 9)))
    x = data.draw(hnp.arrays(dtype, shape, **elements))
    block_rows, group_rows = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    with tempfile.TemporaryDirectory() as directory:
        v = open_vectors(put(Path(directory) / name, x, group_rows))
        assert v.shape == x.shape and v.dtype == x.dtype
        parts = [v.read(i, min(i + block_rows, len(x))) for i in range(0, len(x), block_rows)]
        same(np.concatenate(parts), x)
        for start in (0, len(x) // 2, len(x)):
            same(v.read(start, len(x)), x[start:])
        same(as_array(v), x)
        same(load(v, v.dtype), x)


def test_rows_are_a_copy(tmp_path):
    v = open_vectors(put_mat(tmp_path / "x.mat", X=np.ones((2, 3))))
    v.read(0, 2)[:] = 0
    assert as_array(v).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_mat_bytes_worked_by_hand(tmp_path):
    # version 4: type 0 = little-endian double matrix, 2 rows, 3 columns, real, name of 2 bytes
    # with its zero; then the values by columns: (0, 0) (1, 0) (0, 1) (1, 1) (0, 2) (1, 2)
    data = struct.pack("<5i2s6d", 0, 2, 3, 0, 2, b"X\0", 1, 4, 2, 5, 3, 6)
    (tmp_path / "x.mat").write_bytes(data)
    v = open_vectors(tmp_path / "x.mat")
    assert v.dtype == np.float64 and as_array(v).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_matrix_packed_as_bytes_has_the_dtype_of_its_class(tmp_path):
    # version 4, type 50 = little-endian u1, class still double
    data = struct.pack("<5i2s6B", 50, 3, 2, 0, 2, b"X\0", 1, 2, 3, 4, 5, 255)
    (tmp_path / "x.mat").write_bytes(data)
    v = open_vectors(tmp_path / "x.mat")
    same(v.read(0, 3), np.array([[1, 4], [2, 5], [3, 255]], np.float64))


def test_a_sparse_matrix_of_mat_73_is_passed_over(tmp_path):
    x = np.ones((3, 2), np.float32)
    path = put_mat73(tmp_path / "x.mat", a=x)
    with h5py.File(path, "r+") as f:
        f.create_group("X").attrs["MATLAB_class"] = np.bytes_("double")
    same(as_array(open_vectors(path)), x)


def test_parquet_rows_may_lie_in_uneven_and_empty_groups(tmp_path):
    x = np.arange(14, dtype=np.float32).reshape(7, 2)
    table = pa.table({"a.b": lists(x, fixed=False)})
    with pq.ParquetWriter(tmp_path / "x.parquet", table.schema) as writer:
        for start, stop in ((0, 0), (0, 1), (1, 1), (1, 6), (6, 7)):
            writer.write_table(table.slice(start, stop - start))
    v = open_vectors(tmp_path / "x.parquet")
    assert v.shape == (7, 2)
    for start in range(8):
        for stop in range(start, 8):
            same(v.read(start, stop), x[start:stop])


def test_big_endian_hdf5_becomes_native(tmp_path):
    x = np.arange(6, dtype=">f4").reshape(2, 3)
    v = open_vectors(put_hdf5(tmp_path / "x.h5", x=x))
    same(v.read(0, 2), np.array([[0, 1, 2], [3, 4, 5]], np.float32))


def test_the_dataset_names_one_of_several(tmp_path):
    train, test = np.zeros((4, 2), np.float32), np.ones((3, 2), np.float32)
    path = put_hdf5(tmp_path / "glove.hdf5", train=train, test=test, deep=np.zeros(3))
    same(as_array(open_vectors(path, "train")), train)
    same(as_array(open_vectors(path, "/test")), test)
    with pytest.raises(BadInput, match=r"as .*:NAME, of: test \(float32 \[3, 2\]\), train"):
        open_vectors(path)
    with pytest.raises(BadInput, match="no matrix of numbers named 'deep'"):
        open_vectors(path, "deep")

    path = put_hdf5(tmp_path / "nested.h5", **{"a/b/x": test, "labels": np.zeros(3)})
    same(as_array(open_vectors(path)), test)
    same(as_array(open_vectors(path, "a/b/x")), test)

    columns = {"a": lists(train, True), "b": lists(train + 1, False), "id": pa.array([1, 2, 3, 4])}
    path = put_parquet(tmp_path / "x.parquet", 3, **columns)
    same(as_array(open_vectors(path, "b")), train + 1)
    with pytest.raises(BadInput, match=r", of: a \(fixed_size_list.*, b \(list"):
        open_vectors(path)


@pytest.mark.parametrize("write", [put_mat, put_mat73])
def test_x_is_the_matrix_of_a_mat_file_unless_another_is_named(tmp_path, write):
    x, y = np.zeros((4, 2), np.float32), np.ones((3, 2), np.float32)
    path = write(tmp_path / "tiny.mat", X=x, other=y, k=np.ones((1, 1)))
    same(as_array(open_vectors(path)), x)
    same(as_array(open_vectors(path, "other")), y)
    path = write(tmp_path / "two.mat", a=x, b=y)
    with pytest.raises(BadInput, match=r", of: a \(single \[4, 2\]\), b \(single \[3, 2\]\)"):
        open_vectors(path)
    with pytest.raises(BadInput, match="named 'c'"):
        open_vectors(path, "c")


BAD = {
    "hdf5 without a matrix": (
        lambda d: put_hdf5(d / "x.h5", a=np.zeros(3), b=np.zeros((2, 2, 2))),
        "no matrix of numbers",
    ),
    "hdf5 of bool": (lambda d: put_hdf5(d / "x.h5", a=np.ones((2, 2), bool)), "no matrix"),
    "hdf5 of complex": (lambda d: put_hdf5(d / "x.h5", a=np.ones((2, 2), complex)), "no matrix"),
    "hdf5 without rows": (lambda d: put_hdf5(d / "x.h5", a=np.ones((0, 2))), "n=0"),
    "mat of complex": (
        lambda d: put_mat(d / "x.mat", X=np.ones((2, 2)) * 1j),
        "holds complex128",
    ),
    "mat of text": (lambda d: put_mat(d / "x.mat", X="words"), "no matrix of numbers"),
    "mat of bool": (lambda d: put_mat(d / "x.mat", X=np.ones((2, 2), bool)), "no matrix"),
    "mat 7.3 of text": (lambda d: put_mat73(d / "x.mat", X=np.ones((2, 2), "u2")), "no matrix"),
    "mat 7.3 of complex": (lambda d: put_mat73(d / "x.mat", X=np.ones((2, 2)) * 1j), "no matrix"),
    "parquet without lists": (
        lambda d: put_parquet(d / "x.parquet", 9, a=pa.array([1.0, 2.0]), b=pa.array([3, 4])),
        "has 2 columns of numbers and none of lists; each vector must be one list",
    ),
    "parquet of lists of text": (
        lambda d: put_parquet(d / "x.parquet", 9, a=pa.array([["a"], ["b"]])),
        "no matrix of numbers",
    ),
    "parquet without rows": (
        lambda d: put_parquet(d / "x.parquet", 9, a=pa.array([], pa.list_(pa.float32()))),
        "n=0",
    ),
    "parquet with an empty first list": (
        lambda d: put_parquet(d / "x.parquet", 9, a=pa.array([None, [], [1.0]])),
        "x.parquet: the first list of 'a' is empty",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_files_without_rows_of_numbers_are_named(tmp_path, what):
    write, words = BAD[what]
    path = write(tmp_path)
    with pytest.raises(BadInput, match=words) as e:
        open_vectors(path)
    assert str(e.value).startswith(f"{path}: ") and "\n" not in str(e.value)


@pytest.mark.parametrize("shape", [(1000, 6), (6, 1000)])
def test_an_hdf5_file_whose_writer_was_stopped_is_named(tmp_path, shape):
    path, chunks = tmp_path / "x.h5", (100, 6) if shape == (1000, 6) else (6, 100)
    with h5py.File(path, "w") as f:
        x = f.create_dataset("x", shape, "f4", chunks=chunks)
        for start in range(0, 500, 100):
            x[tuple(slice(start % size, start % size + 100) for size in shape)] = 1
    with pytest.raises(BadInput, match="'x' only 5 of 10 chunks were written, so rows are missing"):
        open_vectors(path)


@pytest.mark.parametrize("name", ["x.hdf5", "x.mat", "x7.mat", "x.parquet"])
@pytest.mark.parametrize("damage", ["page", "noise", "cut", "cut short"])
def test_damaged_files_are_named(tmp_path, name, damage):
    path = put(tmp_path / name, np.random.default_rng(0).normal(size=(500, 8)), 100)
    whole = path.read_bytes()
    cut = whole[: len(whole) // 2]
    noise = np.random.default_rng(0).bytes(999)
    path.write_bytes({"page": PAGE, "noise": noise, "cut": cut, "cut short": whole[:600]}[damage])
    with pytest.raises(BadInput) as e:
        open_vectors(path)
    words = "is a web page" if damage == "page" else "cannot be read as"
    assert str(e.value).startswith(f"{path}: {words}") and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["x.h5", "x.parquet"])
def test_a_damaged_block_is_named_when_it_is_read(tmp_path, name):
    x = np.random.default_rng(0).normal(size=(500, 8))
    path = tmp_path / name
    # five blocks of 100 rows, each with a checksum, not compressed
    if name == "x.h5":
        with h5py.File(path, "w") as f:
            f.create_dataset("x", data=x, chunks=(100, 8), fletcher32=True)
    else:
        options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
        table = pa.table({"x": lists(x, fixed=True)})
        pq.write_table(table, path, row_group_size=100, **options)
    path.write_bytes(path.read_bytes().replace(x[250].tobytes(), x[251].tobytes()))
    v = open_vectors(path)
    same(v.read(0, 200), x[:200])
    same(v.read(300, 500), x[300:])
    with pytest.raises(BadInput, match=rf"{name}: cannot be read as"):
        v.read(199, 201)


@pytest.mark.parametrize(
    "rows, words",
    [
        ([[1.0, 2.0], [3.0, 4.0], [5.0]], r"row 2 holds \[5.0\], expected a list of 2"),
        ([[1, 2], [3, 4], None], "row 2 holds null"),
        ([[1, 2], [3, 4], [None, 5]], "row 2 holds null"),
        ([[1, 2], [0, 0], [3, 4, 5]], r"row 2 holds \[3, 4, 5\], expected a list of 2"),
    ],
)
@pytest.mark.parametrize("fixed", [False, True])
def test_a_list_that_is_no_row_of_d_numbers_is_named(tmp_path, fixed, rows, words):
    if fixed and rows[2] and len(rows[2]) != 2:
        pytest.skip("lists of fixed size have one length")
    number = pa.float32() if isinstance(rows[0][0], float) else pa.int16()
    kind = pa.list_(number, 2) if fixed else pa.list_(number)
    path = put_parquet(tmp_path / "x.parquet", 1, x=pa.array(rows, kind))
    v = open_vectors(path)
    assert v.read(0, 1).tolist() == rows[:1]
    for use in (lambda: v.read(0, 3), lambda: load(v)):
        with pytest.raises(BadInput, match=r"x\.parquet: " + words):
            use()


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("number", [pa.float16(), pa.float32(), pa.float64()])
def test_floats_that_are_null_are_nan(tmp_path, fixed, number):
    kind = pa.list_(number, 2) if fixed else pa.list_(number)
    rows = [None, [1.0, 2.0], [None, 5.0], [3.0, 4.0]]
    path = put_parquet(tmp_path / "x.parquet", 3, x=pa.array(rows, kind))
    x = open_vectors(path).read(0, 4)
    assert x.dtype == number.to_pandas_dtype() and np.isnan(x[0]).all()
    np.testing.assert_array_equal(x[[1, 3]], [[1, 2], [3, 4]])
    assert np.isnan(x[2, 0]) and x[2, 1] == 5


@pytest.mark.parametrize(
    "name, library",
    [("x.h5", "h5py"), ("x7.mat", "h5py"), ("x.parquet", "pyarrow")],
)
def test_a_missing_library_is_named_with_the_way_to_get_it(tmp_path, monkeypatch, name, library):
    path = put(tmp_path / name, np.ones((2, 3)), 9)
    # None there makes `import` raise as if the package were not installed
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        BadInput, match=rf"needs {library}; .*pip install 'sigah_jax\[formats\]'"
    ) as e:
        open_vectors(path)
    assert str(e.value).startswith(f"{path}: ")
