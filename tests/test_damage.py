"""Bytes flipped, set, cut and put in, at random: a file is refused in one line, or read."""

import gzip
import random
import re

import numpy as np
import pytest
from scipy import io
from test_containers import lists, put_hdf5, put_mat73
from test_vectors import idx_bytes

from sigah_jax.errors import BadInput
from sigah_jax.formats.raw import write_vectors
from sigah_jax.formats.vectors import load, open_vectors

h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

X = np.random.default_rng(0).integers(0, 99, (40, 6)).astype(np.float32)
IMAGES = idx_bytes(X.astype(np.uint8).reshape(40, 2, 3))


def chunked(path) -> None:
    with h5py.File(path, "w", libver="latest") as f:
        f.create_dataset("a/x", data=X, chunks=(7, 2), fletcher32=True)


def checked(path) -> None:
    table = pa.table({"x": lists(X, fixed=True)})
    pq.write_table(table, path, row_group_size=9, write_page_checksum=True)


WRITERS = {
    "x.fvecs": lambda path: write_vectors(path, X.shape, X.dtype, [X]),
    "x.fbin": lambda path: write_vectors(path, X.shape, X.dtype, [X]),
    "x.npy": lambda path: np.save(path, X),
    "x.idx": lambda path: path.write_bytes(IMAGES),
    "x.idx.gz": lambda path: path.write_bytes(gzip.compress(IMAGES)),
    "x4.mat": lambda path: io.savemat(path, {"X": X}, format="4"),
    "packed.mat": lambda path: io.savemat(path, {"X": X}, do_compression=True),
    "x7.mat": lambda path: put_mat73(path, X=X),
    "x.h5": lambda path: put_hdf5(path, x=X),
    "chunked.h5": chunked,
    "x.parquet": lambda path: pq.write_table(pa.table({"x": lists(X, fixed=False)}), path),
    "checked.parquet": checked,
}
HAS_CHECKSUMS = ("x.idx.gz", "packed.mat", "chunked.h5", "checked.parquet")


def damage(data: bytes, draw: random.Random) -> bytes:
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 3])):
        at = int(len(data) * draw.random() ** draw.choice([1, 3]))  # headers come first
        change = draw.randrange(5)
        if change < 2:
            data[at] ^= 1 << draw.randrange(8)
        elif change == 2:
            data[at : at + 4] = draw.choice([b"\0", b"\xff", b"\xff\xff\xff\x7f", b"\xff" * 4])
        elif change == 3:
            data[at:at] = bytes(draw.randrange(1, 9))
        elif at:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_bytes_are_refused_in_one_line_or_read(tmp_path, name):
    path, draw, refused = tmp_path / name, random.Random(0), 0
    WRITERS[name](path)
    whole = path.read_bytes()
    for _ in range(200):
        path.unlink()  # HDF5 takes a file that is open for the same one
        path.write_bytes(damage(whole, draw))
        try:
            v = open_vectors(path)
            x = load(v) if v.shape[0] * v.shape[1] < 10**6 else v.read(0, 1)
        except BadInput as e:
            refused += 1
            assert str(e).startswith(f"{path}: ") and not re.search(r"[\x00-\x1f]", str(e))
        else:
            assert x.ndim == 2
            assert name not in HAS_CHECKSUMS or np.array_equal(x, X)
    assert 0 < refused < 200
