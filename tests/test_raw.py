"""The raw formats: bytes worked by hand, what is written is read, what is damaged is named."""

import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ml_dtypes import bfloat16, float8_e4m3fn

from sigah_jax.errors import BadInput
from sigah_jax.formats import raw
from sigah_jax.formats.raw import write_vectors
from sigah_jax.formats.vectors import as_array, load, open_vectors

RAW = {**raw.VECS, **raw.BINS}
NPY_DTYPES = ["u1", "i1", "<i2", "<u4", "<i8", "<f2", "<f4", "<f8"]


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


TWO_BY_THREE = {
    # d = 3 stands before each of the two rows
    "a.fvecs": (struct.pack("<i3fi3f", 3, 0.5, -1, 2, 3, 4, 5, 6), "f4", [[0.5, -1, 2], [4, 5, 6]]),
    "a.ivecs": (
        struct.pack("<i3ii3i", 3, 7, -8, 9, 3, 1, 2, 70000),
        "i4",
        [[7, -8, 9], [1, 2, 70000]],
    ),
    "a.bvecs": (b"\3\0\0\0\1\2\xff\3\0\0\0\4\5\6", "u1", [[1, 2, 255], [4, 5, 6]]),
    # n = 2 and d = 3 stand once in front
    "base.1B.fbin": (
        struct.pack("<II6f", 2, 3, 1, 2, 3, 4, 5, 6.5),
        "f4",
        [[1, 2, 3], [4, 5, 6.5]],
    ),
    "a.fbin.crop_nb_2": (struct.pack("<II6f", 2, 3, *range(6)), "f4", [[0, 1, 2], [3, 4, 5]]),
    "a.ibin": (
        struct.pack("<II6i", 2, 3, -1, 2, 3, 4, 5, 70000),
        "i4",
        [[-1, 2, 3], [4, 5, 70000]],
    ),
    "base.1B.u8bin": (b"\2\0\0\0\3\0\0\0\1\2\3\4\5\xff", "u1", [[1, 2, 3], [4, 5, 255]]),
    "a.i8bin": (b"\2\0\0\0\3\0\0\0\1\2\3\4\5\xff", "i1", [[1, 2, 3], [4, 5, -1]]),
    # magic, version 1.0, u16 length of the header, the header, the rows; here big-endian ones
    "a.npy": (
        b"\x93NUMPY\1\0\x76\0"
        + b"{'descr': '>i2', 'fortran_order': False, 'shape': (2, 3), }".ljust(117)
        + b"\n\0\1\0\2\0\3\0\4\0\5\xff\xff",
        "i2",
        [[1, 2, 3], [4, 5, -1]],
    ),
}


@pytest.mark.parametrize("name", TWO_BY_THREE)
def test_bytes_worked_by_hand(tmp_path, name):
    data, dtype, expected = TWO_BY_THREE[name]
    v = open_vectors(put(tmp_path / name, data))
    assert v.path == tmp_path / name and v.shape == (2, 3)
    assert v.dtype == np.dtype(dtype) and v.dtype.isnative
    for x in (v.read(0, 2), as_array(v)):
        assert x.dtype == v.dtype and x.dtype.isnative and x.tolist() == expected
    assert v.read(1, 2).tolist() == expected[1:] and v.read(1, 1).shape == (0, 3)
    assert load(v).dtype == np.float32 and load(v).tolist() == expected


def arrays(dtype):
    shape = st.tuples(st.integers(1, 20), st.integers(1, 9))
    elements = {} if np.dtype(dtype).kind != "f" else {"elements": {"allow_nan": False}}
    return hnp.arrays(dtype, shape, **elements)


def same(got: np.ndarray, x: np.ndarray) -> None:
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("suffix", [*RAW, ".npy"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_written_in_blocks_is_read_in_blocks(suffix, data):
    x = data.draw(
        arrays(RAW[suffix]) if suffix in RAW else st.sampled_from(NPY_DTYPES).flatmap(arrays)
    )
    write_rows, read_rows = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"x{suffix}"
        blocks = (x[i : i + write_rows] for i in range(0, len(x), write_rows))
        write_vectors(path, x.shape, x.dtype, blocks)
        assert os.listdir(directory) == [path.name]
        v = open_vectors(path)
        assert v.shape == x.shape
        parts = [v.read(i, min(i + read_rows, len(x))) for i in range(0, len(x), read_rows)]
        same(np.concatenate(parts), x)
        same(as_array(v), x)
        same(load(v, x.dtype), x)
        if suffix == ".npy":
            same(np.load(path), x)


@pytest.mark.parametrize("name", ["X.FVECS", "X.u8Bin", "X.FBIN.crop_nb_2", "X.NPY"])
def test_extensions_are_known_in_upper_case(tmp_path, name):
    dtype = np.uint8 if "u8" in name else np.float32
    x = np.arange(6, dtype=dtype).reshape(2, 3)
    write_vectors(tmp_path / name, x.shape, x.dtype, [x])
    same(as_array(open_vectors(tmp_path / name)), x)


def test_raw_arrays_are_views_of_the_file_and_rows_are_copies(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    for name, strides in (("x.fvecs", (12, 4)), ("x.fbin", (8, 4)), ("x.npy", (8, 4))):
        write_vectors(tmp_path / name, x.shape, x.dtype, [x])
        v = open_vectors(tmp_path / name)
        view, rows = as_array(v), v.read(0, 3)
        assert isinstance(view, np.memmap) and view.strides == strides
        rows[:] = 0
        with (tmp_path / name).open("r+b") as f:
            f.seek(-4, os.SEEK_END)
            f.write(struct.pack("<f", 9))
        assert view[2].tolist() == [4, 9]


def npy(tmp_path: Path, x: np.ndarray) -> bytes:
    np.save(tmp_path / "saved.npy", x)
    return (tmp_path / "saved.npy").read_bytes()


def npy_of(shape: str, descr: str, size: int) -> bytes:
    """A header with any text for a shape, then bytes."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", 118) + header.encode() + bytes(size)


def vecs(d: int) -> bytes:
    return struct.pack("<i", d) + bytes(64)


BAD = [
    ("cut", "x.fvecs", TWO_BY_THREE["a.fvecs"][0][:-1], "31 bytes are 1 rows of 16 .* and 15"),
    ("cut", "x.bvecs", TWO_BY_THREE["a.bvecs"][0][:9], "9 bytes are 1 rows of 7 .* and 2 bytes"),
    ("cut in the first d", "x.fvecs", b"\3", "0 rows of 16"),
    ("d is 0", "x.fvecs", vecs(0), "d=0"),
    ("d is negative", "x.ivecs", vecs(-5), "d=-5"),
    ("d is absurd", "x.bvecs", vecs(1_000_001), "d=1000001"),
    ("n too small", "x.fbin", struct.pack("<II6f", 1, 3, *range(6)), "32 bytes.* needs 20"),
    ("n too great", "x.u8bin", struct.pack("<II6B", 3, 3, *range(6)), "14 bytes.* needs 17"),
    ("n is 0", "x.fbin", struct.pack("<II", 0, 3), "n=0"),
    ("d is 0", "x.fbin", struct.pack("<II", 3, 0), "d=0"),
    ("d is absurd", "x.i8bin", struct.pack("<II", 1, 2**31) + bytes(9), "d=2147483648"),
    ("no header", "x.ibin", b"\1\0\0\0", "header alone needs 8"),
    ("not npy", "x.npy", b"PK\3\4" + bytes(99), "is an .npz archive; write the one"),
    ("no magic", "x.npy", bytes(99), "cannot be read as npy .*magic"),
    ("header cut", "x.npy", TWO_BY_THREE["a.npy"][0][:40], "cannot be read as npy"),
    ("cut", "x.npy", TWO_BY_THREE["a.npy"][0][:-1], "139 bytes.* needs 140"),
    ("longer", "x.npy", TWO_BY_THREE["a.npy"][0] + b"\0", "141 bytes.* needs 140"),
    ("objects", "x.npy", np.array([[None, {}]]), "holds object"),
    ("complex", "x.npy", np.ones((2, 2), complex), "holds complex128"),
    ("bool", "x.npy", np.ones((2, 2), bool), "holds bool"),
    ("text", "x.npy", np.array([["a", "b"]]), "holds <U1"),
    ("1-d", "x.npy", np.arange(3), r"shape \[3\]"),
    ("3-d", "x.npy", np.ones((2, 3, 4)), r"shape \[2, 3, 4\]"),
    ("no rows", "x.npy", np.ones((0, 4)), "n=0"),
    ("no columns", "x.npy", np.ones((4, 0)), "d=0"),
    ("shape of bool", "x.npy", npy_of("(True, 4)", "<f4", 16), r"shape \[True, 4\]"),
    ("two bytes without a type", "x.npy", np.ones((2, 2), "u2").view("V2"), r"holds \|V2, .*float"),
    ("float8", "x.npy", np.ones((2, 2), float8_e4m3fn), r"holds \|V1, .*convert it to float32"),
    ("by columns", "x.npy", np.ones((2, 3)).T, "np.ascontiguousarray"),
]


@pytest.mark.parametrize("what, name, data, words", BAD, ids=[f"{b[1]} {b[0]}" for b in BAD])
def test_bad_files_are_named_with_what_is_wrong(tmp_path, what, name, data, words):
    data = npy(tmp_path, data) if isinstance(data, np.ndarray) else data
    path = put(tmp_path / name, data)
    with pytest.raises(BadInput, match=words) as e:
        open_vectors(path)
    assert str(e.value).startswith(f"{path}: ") and "\n" not in str(e.value)


def test_bfloat16_is_read_as_the_float32_of_its_values(tmp_path):
    # 1, 1 + 2^-7 (its last bit), the greatest number, infinity, -0 and the smallest one
    values = [[1, 1.0078125, 3.3895313892515355e38], [np.inf, -0.0, 9.183549615799121e-41]]
    x = np.array(values, np.float32)
    assert (x.astype(bfloat16).astype(np.float32) == x).all()
    v = open_vectors(put(tmp_path / "x.npy", npy(tmp_path, x.astype(bfloat16))))
    assert v.dtype == np.float32
    for got, wanted in ((v.read(1, 2), x[1:]), (as_array(v), x), (load(v), x)):
        assert got.dtype == np.float32 and got.tobytes() == wanted.tobytes()


def test_a_row_of_another_dimension_is_named_before_it_is_used(tmp_path):
    x = np.arange(400_000, dtype=np.float32).reshape(200_000, 2)
    path = tmp_path / "x.fvecs"
    write_vectors(path, x.shape, x.dtype, [x])
    with path.open("r+b") as f:
        f.seek(123_456 * 12)  # 4 bytes of d and 2 x 4 of values a row
        f.write(struct.pack("<i", 7))
    v = open_vectors(path)
    same(v.read(0, 123_456), x[:123_456])
    same(v.read(123_457, 200_000), x[123_457:])
    for use in (lambda: v.read(123_000, 124_000), lambda: load(v), lambda: as_array(v)):
        with pytest.raises(BadInput, match=r"x\.fvecs: row 123456 has d=7, but row 0 has d=2"):
            use()


def test_a_file_cut_after_it_was_opened_is_named(tmp_path):
    path = put(tmp_path / "a.bvecs", TWO_BY_THREE["a.bvecs"][0])
    v = open_vectors(path)
    os.truncate(path, 10)
    with pytest.raises(BadInput, match=r"a\.bvecs: got shorter"):
        v.read(0, 2)


def broken_source(error):
    yield np.zeros((2, 3), np.float32)
    raise error


@pytest.mark.parametrize(
    "blocks, error, words",
    [
        ([np.zeros((2, 3), np.float32)], ValueError, "2 rows, expected 4"),
        ([np.zeros((5, 3), np.float32)], ValueError, "ends at row 5"),
        ([np.zeros((4, 2), np.float32)], ValueError, r"float32 \[4, 2\]"),
        ([np.zeros((4, 3), np.float64)], ValueError, "block of float64"),
        ([np.zeros(3, np.float32)], ValueError, r"float32 \[3\]"),
        (RuntimeError("the source broke"), RuntimeError, "the source broke"),
        # of another file: not for us to say that this one cannot be written
        (PermissionError(13, "denied", "source.bin"), PermissionError, r"denied: 'source\.bin'$"),
    ],
)
@pytest.mark.parametrize("name", ["x.fvecs", "x.npy"])
def test_failed_writes_leave_the_directory_as_it_was(tmp_path, name, blocks, error, words):
    put(tmp_path / name, b"old")
    blocks = broken_source(blocks) if isinstance(blocks, Exception) else blocks
    with pytest.raises(error, match=words):
        write_vectors(tmp_path / name, (4, 3), np.float32, blocks)
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"old"


def test_hosts_with_equal_process_numbers_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    path, x = tmp_path / "x.npy", np.ones((1, 3))

    def while_another_writes():
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: "other")
            write_vectors(path, x.shape, x.dtype, [2 * x])
        yield x

    write_vectors(path, x.shape, x.dtype, while_another_writes())
    same(np.load(path), x)
    assert os.listdir(tmp_path) == ["x.npy"]


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    x = np.ones((1, 3))
    with pytest.raises(ValueError, match=r"\.fvecs holds float32, got dtype=float64"):
        write_vectors(tmp_path / "x.fvecs", x.shape, x.dtype, [x])
    with pytest.raises(BadInput, match=r"\.hdf5 cannot be written; use \.npy, \.fvecs"):
        write_vectors(tmp_path / "x.hdf5", x.shape, x.dtype, [x])
    with pytest.raises(BadInput, match=r"x\.npy: cannot be written \(No such file"):
        write_vectors(tmp_path / "gone" / "x.npy", x.shape, x.dtype, [x])
    assert os.listdir(tmp_path) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from sigah_jax.formats.raw import write_vectors
from sigah_jax.errors import BadInput

resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
block = np.zeros((1000, 8), np.float32)
try:
    write_vectors(Path(sys.argv[1]), (10000, 8), np.float32, [block] * 10)
except BadInput as e:
    print(e)
"""


@pytest.mark.parametrize("name", ["x.fvecs", "x.fbin", "x.npy"])
def test_a_full_disk_is_named_and_leaves_no_file(tmp_path, name):
    pytest.importorskip("resource")
    # 10,000 rows of 32 bytes pass the limit of 65,536 in the third block
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert told.startswith(f"{tmp_path / name}: cannot be written (") and "free space" in told
    assert os.listdir(tmp_path) == []
