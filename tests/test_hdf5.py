"""HDF5 files that name other files or one data set in several ways, and files not fully written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_containers import put_hdf5, put_mat73, same

from sigah_jax.errors import BadInput
from sigah_jax.formats.vectors import as_array, open_file, open_vectors

h5py = pytest.importorskip("h5py")

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def external_storage(file, source: Path) -> None:
    source.write_bytes(X.tobytes())
    file.create_dataset("x", (4, 3), "f4", external=[(str(source), 0, X.nbytes)])


def virtual_dataset(file, source: Path) -> None:
    put_hdf5(source, y=X)
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(str(source), "y", (4, 3))
    file.create_virtual_dataset("x", layout)


def external_link(file, source: Path) -> None:
    put_hdf5(source, y=X)
    file["x"] = h5py.ExternalLink(str(source), "y")


def soft_link_to_an_external_link(file, source: Path) -> None:
    external_link(file, source)
    file.move("x", "z")
    file["x"] = h5py.SoftLink("z")


def external_group(file, source: Path) -> None:
    put_hdf5(source, **{"a/y": X})
    file["x"] = h5py.ExternalLink(str(source), "/a")


ELSEWHERE = {
    external_storage: ("x", "is kept in external storage"),
    virtual_dataset: ("x", "is a virtual dataset"),
    external_link: ("x", "is behind an external link to '.*source'"),
    soft_link_to_an_external_link: ("x", "is behind an external link to '.*source'"),
    external_group: ("x/y", "is behind an external link to '.*source'"),
}


@pytest.mark.parametrize("source", ["there", "missing", "FIFO"])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("put", ELSEWHERE)
def test_values_in_other_files_are_refused_and_the_files_stay_closed(tmp_path, put, named, source):
    name, words = ELSEWHERE[put]
    path, other = tmp_path / "x.h5", tmp_path / "source"
    with h5py.File(path, "w") as f:
        put(f, other)
    if source != "there":
        other.unlink()
    if source == "FIFO":  # to open it would wait for ever
        os.mkfifo(other)
    with pytest.raises(BadInput, match=words) as e:
        open_vectors(path, name if named else "")
    assert str(e.value).startswith(f"{path}: ") and str(e.value).endswith("e.g. with h5py")
    mixed = shutil.copy(path, tmp_path / "mixed.h5")
    with h5py.File(mixed, "r+") as f:
        f["own"] = X  # can be read beside what lies elsewhere
    same(as_array(open_vectors(mixed, "own")), X)


def test_mat_73_is_held_to_its_own_file_too(tmp_path):
    put_hdf5(tmp_path / "source", X=X.T)
    path = put_mat73(tmp_path / "x.mat", k=np.ones(3))
    with h5py.File(path, "r+") as f:
        f["X"] = h5py.ExternalLink("source", "X")
    for name in ("", "X"):
        with pytest.raises(BadInput, match="'X' is behind an external link to 'source'"):
            open_vectors(path, name)


def test_a_data_set_is_found_by_each_of_its_names(tmp_path):
    path = put_hdf5(tmp_path / "x.h5", **{"a/b/x": X, ":c/y:z": X + 1, "labels": np.zeros(3)})
    with h5py.File(path, "r+") as f:
        f["second"] = f["a/b/x"]
        f["soft"] = h5py.SoftLink("/a/b/x")
        f["group"] = h5py.SoftLink("a/b")
        f["a/beside"] = h5py.SoftLink("b/x")
        f["twice"] = h5py.SoftLink("group/x")
        f["dangling"] = h5py.SoftLink("/nothing")
        f["circle"] = h5py.SoftLink("/circle/x")
    names = ["a/b/x", "/a/b/x", "a//b/./x", "second", "soft", "group/x", "a/beside", "twice"]
    for name in names:
        same(as_array(open_vectors(path, name)), X)
        same(as_array(open_file(f"{path}:{name}")), X)
    same(as_array(open_file(f"{path}::c/y:z")), X + 1)
    for name in ("dangling", "circle", "labels", "a", "a/b/x/y", "nothing"):
        with pytest.raises(BadInput, match=f"no matrix of numbers named '{name}'; .*, of: .*a/b/x"):
            open_vectors(path, name)


def test_the_only_matrix_is_found_behind_two_hard_links(tmp_path):
    path = put_hdf5(tmp_path / "x.h5", x=X)
    with h5py.File(path, "r+") as f:
        f["y"] = f["x"]
    same(as_array(open_vectors(path)), X)


def test_a_file_whose_name_holds_colons_is_found(tmp_path):
    path = put_hdf5(tmp_path / "x:y.h5", x=X, z=X + 1)
    same(as_array(open_file(f"{path}:z")), X + 1)
    with pytest.raises(BadInput, match=r"gone\.h5:a:b: cannot be read \(No such file"):
        open_file(f"{tmp_path / 'gone.h5'}:a:b")


@pytest.mark.parametrize("options", [{}, {"chunks": (100, 3), "compression": "gzip"}])
def test_rows_that_were_never_written_are_not_made_up(tmp_path, options):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset("x", (3000, 3), "f4", **options)
    with pytest.raises(BadInput, match="names 36000 bytes of values, but 0 stored bytes"):
        open_vectors(path)


def test_a_file_that_another_process_writes_is_called_so(tmp_path):
    path = tmp_path / "x.h5"
    code = f"import h5py\nf = h5py.File({str(path)!r}, 'w')\nprint(flush=True)\ninput()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        try:
            with pytest.raises(BadInput, match=r"x\.h5: another process is writing it; wait"):
                with path.open("ab") as f:  # empty until it is closed
                    f.write(b"\x89HDF\r\n\x1a\n")
                open_vectors(path)
        finally:
            writer.stdin.close()
