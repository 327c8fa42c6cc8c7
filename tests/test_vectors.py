"""Files of vectors of any format: names, rows as they are asked for, what is no such file."""

import gzip
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import io
from test_raw import put, same

from sigah_jax.errors import BadInput
from sigah_jax.files.regular import fingerprint, open_regular
from sigah_jax.formats import raw
from sigah_jax.formats.idx import read_bytes
from sigah_jax.formats.raw import write_vectors
from sigah_jax.formats.vectors import as_array, check_unchanged, load, open_file, open_vectors

h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

# d = 3 stands before each of the two rows
BVECS = b"\3\0\0\0\1\2\xff\3\0\0\0\4\5\6"
# type 8 = u1, rank 3, two images of 1 x 3: one image is one row of 3
IDX = b"\0\0\x08\3\0\0\0\2\0\0\0\1\0\0\0\3\1\2\3\4\5\xff"

needs_proc = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs /proc of Linux"
)


def idx_bytes(x: np.ndarray) -> bytes:
    # two zeros, type 8 = u1, rank, then every length as big-endian u32
    return struct.pack(f">BBBB{x.ndim}I", 0, 0, 8, x.ndim, *x.shape) + x.tobytes()


@pytest.mark.parametrize(
    "name",
    [
        "t-images-idx3-ubyte",
        "T-IMAGES-IDX3-UBYTE",
        "t-ubyte.gz",
        "a.idx",
        "a.Idx",
        "a.idx.gz",
        "A.IDX.GZ",
    ],
)
def test_idx_is_known_by_each_of_its_names(tmp_path, name):
    path = put(tmp_path / name, gzip.compress(IDX) if name.lower().endswith(".gz") else IDX)
    v, expected = open_vectors(path), [[1, 2, 3], [4, 5, 255]]
    assert v.path == path and v.shape == (2, 3) and v.dtype == np.uint8
    for x in (v.read(0, 2), as_array(v)):
        assert x.dtype == np.uint8 and x.tolist() == expected
    assert v.read(1, 2).tolist() == expected[1:] and v.read(1, 1).shape == (0, 3)
    assert load(v).dtype == np.float32 and load(v).tolist() == expected


def test_a_mat_file_is_known_in_upper_case(tmp_path):
    io.savemat(tmp_path / "Tiny.MAT", {"X": np.eye(2)}, appendmat=False)
    assert as_array(open_vectors(tmp_path / "Tiny.MAT")).tolist() == [[1, 0], [0, 1]]


@settings(max_examples=25, deadline=None)
@given(x=hnp.arrays(np.uint8, st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple)))
def test_idx_rows_are_the_flattened_arrays(x):
    with tempfile.TemporaryDirectory() as directory:
        v = open_vectors(put(Path(directory) / "x.idx", idx_bytes(x)))
        same(as_array(v), x.reshape(len(x), -1))
        same(v.read(1, len(x)), x.reshape(len(x), -1)[1:])


def test_load_does_not_depend_on_the_size_of_blocks(tmp_path, monkeypatch):
    x = np.arange(70, dtype=np.float32).reshape(10, 7)
    write_vectors(tmp_path / "x.fvecs", x.shape, x.dtype, [x])
    # 28 bytes a row: blocks of 1, 1, 3, 10 rows
    for block_bytes in (1, 28, 100, 2**24):
        monkeypatch.setattr(raw, "BLOCK_BYTES", block_bytes)
        same(load(open_vectors(tmp_path / "x.fvecs")), x)
        same(as_array(open_vectors(tmp_path / "x.fvecs")), x)


def test_rows_outside_the_file_are_refused(tmp_path):
    v = open_vectors(put(tmp_path / "a.bvecs", BVECS))
    for start, stop in ((-1, 1), (0, 3), (2, 1)):
        with pytest.raises(ValueError, match=f"rows {start} to {stop} of 2"):
            v.read(start, stop)


def write(path: Path, x: np.ndarray) -> Path:
    """`x [n, d] u1` in the format that the name says."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as f:
            f["x"] = x
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"x": list(x)}), path, row_group_size=3)
    elif path.suffix == ".mat":
        io.savemat(path, {"X": x})
    elif path.suffix == ".idx":
        put(path, idx_bytes(x))
    else:
        write_vectors(path, x.shape, x.dtype, [x])
    return path


FORMATS = ["x.bvecs", "x.u8bin", "x.npy", "x.h5", "x.parquet", "x.mat", "x.idx"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_replaced_or_removed_is_read_as_it_was_opened(tmp_path, name):
    old = np.arange(40, dtype=np.uint8).reshape(10, 4)
    v = open_vectors(write(tmp_path / name, old))
    then = fingerprint(v.file)
    same(v.read(0, 2), old[:2])
    check_unchanged(v, json.loads(json.dumps(then)))
    os.replace(write(tmp_path / f"new{name}", old + 1), v.path)
    same(v.read(2, 9), old[2:9])
    same(as_array(v), old)
    assert fingerprint(v.file) == then
    with pytest.raises(BadInput, match=rf"{name}: was removed or replaced by another file"):
        check_unchanged(v, then)
    v.path.unlink()
    same(v.read(0, 10), old)
    with pytest.raises(BadInput, match=rf"{name}: was removed or replaced"):
        check_unchanged(v, then)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("change", ["bytes", "modified_ns", "content"])
def test_a_file_that_changes_where_it_is_has_another_fingerprint(tmp_path, name, change):
    path = write(tmp_path / name, np.arange(40, dtype=np.uint8).reshape(10, 4))
    v, at = open_vectors(path), path.stat()
    then = fingerprint(v.file)
    with path.open("r+b") as f:
        if change == "bytes":
            f.seek(0, os.SEEK_END)
        if change != "modified_ns":
            f.write(b"?")
    later = at.st_mtime_ns + (change == "modified_ns")
    os.utime(path, ns=(at.st_atime_ns, later))
    with pytest.raises(BadInput, match=rf"{name}: has changed while it was in use"):
        check_unchanged(v, then)
    now = fingerprint(v.file)
    assert now[change] != then[change] and now["modified_ns"] == later


def test_every_part_of_a_large_file_is_in_its_fingerprint(tmp_path):
    x = np.zeros((1000, 4096), np.uint8)
    path = write(tmp_path / "x.u8bin", x)
    v = open_vectors(path)
    then = fingerprint(v.file)
    # 66 blocks lie 63,000 bytes apart, and other vectors differ in every stretch of 16 rows
    for row in range(0, 1000, 16):
        x[row : row + 16] = 1
        with path.open("r+b") as f:
            f.seek(8)
            f.write(x.tobytes())
        assert fingerprint(v.file)["content"] != then["content"]
        x[:] = 0


@pytest.mark.parametrize("name", FORMATS)
def test_threads_may_read_one_file(tmp_path, name):
    x = np.random.default_rng(0).integers(0, 256, (2000, 8), np.uint8)
    v = open_vectors(write(tmp_path / name, x))
    with ThreadPoolExecutor(8) as pool:
        for start, rows in pool.map(lambda i: (i, v.read(i, i + 9)), [*range(0, 1990, 37)] * 3):
            same(rows, x[start : start + 9])


@needs_proc
@pytest.mark.parametrize("name", FORMATS)
def test_files_are_closed_when_nothing_refers_to_them(tmp_path, name):
    path = write(tmp_path / name, np.zeros((10, 4), np.uint8))
    open_vectors(path).read(0, 3)
    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            open_vectors(path).read(0, 3)
    assert len(os.listdir("/proc/self/fd")) == before


PAGE = b"\n <!DOCTYPE html><html><body>404 Not Found</body></html>"
BAD = [
    ("empty", "x.fvecs", b"", "is empty"),
    ("empty", "x.npy", b"", "is empty"),
    ("page", "x.fvecs", PAGE, "is a web page"),
    ("page", "x.fbin", b"<html>" + bytes(99), "is a web page"),
    ("page", "x.npy", PAGE, "is a web page"),
    ("page", "x-ubyte.gz", PAGE, "is a web page"),
    ("pointer", "x.fbin", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ("not idx", "x-ubyte", b"\1\2\3\4\5", "not an idx file"),
    ("labels", "x-labels-idx1-ubyte", idx_bytes(np.zeros(3, np.uint8)), r"shape \[3\]"),
    ("no rows", "x.idx", idx_bytes(np.zeros((0, 2, 2), np.uint8)), r"shape \[0, 2, 2\]"),
    ("rank 255", "x.idx", b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"?", "no array that can be"),
    ("rank 0", "x.idx", b"\0\0\x08\0?", r"shape \[\]"),
    ("huge and empty", "x.idx", b"\0\0\x08\3" + b"\xff" * 8 + bytes(4), r"shape \[|no array"),
    ("cut header", "x.idx", b"\0\0\x08\3\0\0", "header is cut off"),
    ("longer", "x.idx", IDX + b"?", "needs 22 bytes, but it holds more"),
    ("shorter", "x.idx", IDX[:-1], "needs 22 bytes, but it holds 21 bytes"),
    (
        "cut gzip",
        "x.idx.gz",
        gzip.compress(idx_bytes(np.eye(9, dtype=np.uint8)))[:-9],
        "damaged gzip",
    ),
    ("unknown", "x.csv", b"1,2", r"no known format.*\.fvecs .*\.fbin .*\.npy .*\.parquet"),
    ("no suffix", "fvecs", b"1,2", "no known format"),
    ("packed", "x.fvecs.gz", gzip.compress(b"1"), "gunzip"),
]


@pytest.mark.parametrize("what, name, data, words", BAD, ids=[f"{b[1]} {b[0]}" for b in BAD])
def test_bad_files_are_named_with_what_is_wrong(tmp_path, what, name, data, words):
    path = put(tmp_path / name, data)
    with pytest.raises(BadInput, match=words) as e:
        open_vectors(path)
    assert str(e.value).startswith(f"{path}: ") and "\n" not in str(e.value)


def test_missing_files_directories_and_needless_datasets_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"gone\.fvecs: cannot be read \(No such file"):
        open_vectors(tmp_path / "gone.fvecs")
    (tmp_path / "d.fvecs").mkdir()
    with pytest.raises(BadInput, match=r"d\.fvecs: is a directory"):
        open_vectors(tmp_path / "d.fvecs")
    with pytest.raises(BadInput, match=r"files hold one array.*leave :train out"):
        open_vectors(put(tmp_path / "a.bvecs", BVECS), "train")
    with pytest.raises(BadInput, match=r"no:such\.npy: cannot be read \(No such file"):
        open_file(f"{tmp_path}/no:such.npy")
    with pytest.raises(BadInput, match=r"a\.bvecs:: names no array after the colon"):
        open_file(f"{tmp_path}/a.bvecs:")


AS_NOBODY = """
import os, sys
from pathlib import Path
from sigah_jax.formats.vectors import open_vectors
from sigah_jax.errors import BadInput
if os.geteuid() == 0:  # root may read every file
    os.setuid(65534)
for name in sys.argv[1:]:
    try:
        open_vectors(Path(name))
    except BadInput as e:
        print(e)
"""


def test_files_without_permission_are_named():
    with tempfile.TemporaryDirectory() as directory:  # that of pytest is closed to others
        Path(directory).chmod(0o755)
        (Path(directory) / "closed").mkdir(mode=0)
        paths = [Path(directory) / name for name in (*FORMATS, "x.idx.gz")]
        for path in paths:
            put(path, BVECS).chmod(0)
        paths.append(Path(directory) / "closed/x.npy")
        said = python(AS_NOBODY, *paths).splitlines()
    reason = "cannot be read (Permission denied); check the path and its permissions"
    assert said == [f"{path}: {reason}" for path in paths]


@pytest.mark.parametrize("name", [*FORMATS, "x.idx.gz"])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
def test_what_is_not_a_regular_file_is_not_waited_for(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    with socket.socket(socket.AF_UNIX) as s:
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "socket":
            s.bind(name)  # a long path has no room
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(BadInput, match=rf"{name}: is a FIFO, socket or device; copy"):
            open_vectors(path)


def test_a_small_gzip_unpacks_to_no_more_than_its_header_names(tmp_path):
    path = put(tmp_path / "x.idx.gz", gzip.compress(IDX + bytes(2**24)))
    f = open_regular(path)
    assert len(read_bytes(f, path)) == len(IDX) + 1
    with pytest.raises(BadInput, match=r"header \[2, 1, 3\] needs 22 bytes, but it holds more"):
        open_vectors(path)
    # 2^16 rows of 2^16 bytes, and zlib makes at most 1,032 of one
    path = put(tmp_path / "y.idx.gz", gzip.compress(b"\0\0\x08\2\0\1\0\0\0\1\0\0" + bytes(999)))
    with pytest.raises(BadInput, match=r"names 4294967308 bytes of values, but .* cannot unpack"):
        open_vectors(path)


def test_a_small_mat_file_unpacks_to_no_more_than_it_can_hold(tmp_path):
    path = tmp_path / "x.mat"
    io.savemat(path, {"X": np.ones((3, 4))}, do_compression=True)
    data = path.read_bytes()
    # 128 bytes of text; then type 15 = compressed and its length, and zlib's bytes
    matrix = zlib.decompress(data[136:])
    assert matrix.count(struct.pack("<II", 3, 4)) == 1
    packed = zlib.compress(matrix.replace(struct.pack("<II", 3, 4), struct.pack("<II", 10**8, 4)))
    put(path, data[:128] + struct.pack("<ii", 15, len(packed)) + packed)
    with pytest.raises(BadInput, match=r"names 400000000 bytes of values, but .* cannot unpack"):
        open_vectors(path)


@pytest.mark.parametrize("name", ["x.idx", "x.idx.gz", "x.mat", "x.h5", "x.parquet", "x.npy"])
def test_what_no_memory_holds_is_named_before_it_is_loaded(tmp_path, monkeypatch, name):
    x = np.zeros((1000, 8), np.uint8)
    path = tmp_path / name
    put(path, gzip.compress(idx_bytes(x))) if name == "x.idx.gz" else write(path, x)
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 20}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    with pytest.raises(BadInput, match=rf"{name}: its values need .* GiB of memory, and this"):
        load(open_vectors(path))


@pytest.mark.parametrize("d", [60, 0x6D74])  # the bytes "<" and "tm", as in "<html"
def test_a_dimension_that_looks_like_text_is_no_web_page(tmp_path, d):
    v = open_vectors(put(tmp_path / "a.bvecs", struct.pack("<i", d) + bytes(d)))
    assert v.shape == (1, d)


def python(code: str, *args) -> str:
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


RESIDENT = """
import sys
import numpy as np
from sigah_jax.formats.vectors import as_array, check_unchanged, load, open_vectors

def peak_bytes():
    with open("/proc/self/status") as f:
        return 1024 * next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))

v = open_vectors(sys.argv[1])
n = v.shape[0]
with open("/proc/self/clear_refs", "w") as f:
    f.write("5")  # the peak starts again at what is resident now
before = peak_bytes()
rows = eval(sys.argv[2])
print(float(rows[:, 0].sum(dtype=np.float64)), peak_bytes() - before)
"""


@needs_proc
@pytest.mark.parametrize(
    "suffix, rows, least, most",
    [
        (".fvecs", "v.read(n // 2, n // 2 + 1000)", 0, 50e6),
        (".fbin", "v.read(n // 2, n // 2 + 1000)", 0, 50e6),
        (".fbin", "as_array(v)[n // 2:][:1000]", 0, 50e6),
        # the measure sees what is there: 200,000 rows of 508 bytes are 101.6 MB
        (".fbin", "v.read(n // 2, n // 2 + 200000)", 100e6, 400e6),
    ],
)
def test_a_file_of_4_gb_leaves_in_memory_only_the_rows_asked_for(
    tmp_path, suffix, rows, least, most
):
    path, n, d = tmp_path / f"x{suffix}", 2**23, 127
    block = np.ones((1000, d), "<f4")
    if suffix == ".fvecs":
        block = np.hstack([np.full((1000, 1), d, "<i4").view("<f4"), block])
    start = struct.pack("<i", d) if suffix == ".fvecs" else struct.pack("<II", n, d)
    offset = 0 if suffix == ".fvecs" else 8
    row_bytes = 4 * block.shape[1]
    with path.open("wb") as f:
        f.write(start)
        # holes of a file read as zeros and take no disk
        f.seek(offset + n // 2 * row_bytes)
        f.write(block.tobytes())
        f.truncate(offset + n * row_bytes)
    total, grown = map(float, python(RESIDENT, path, rows).split())
    assert total == 1000
    assert least <= grown < most


@needs_proc
@pytest.mark.parametrize(
    "rows, least, most",
    # 131 MB of rows: the check of each d keeps no page of the file, loading makes no second copy
    [("as_array(v)[:9]", 0, 80e6), ("load(v)", 130e6, 210e6)],
)
def test_reading_a_whole_file_keeps_no_second_copy(tmp_path, rows, least, most):
    block = np.ones((1000, 127), np.float32)
    write_vectors(tmp_path / "x.fvecs", (258_000, 127), np.float32, (block for _ in range(258)))
    total, grown = map(float, python(RESIDENT, tmp_path / "x.fvecs", rows).split())
    assert total == (9 if "9" in rows else 258_000)
    assert least <= grown < most
