import os
import socket

import numpy as np
import pytest

from sigah_jax import whole
from sigah_jax.data import raw


def test_the_file_appears_at_the_end_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.bin"
    with whole.writing(path) as f:
        f.write(b"12")
        assert not path.exists()
    assert path.read_bytes() == b"12"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_error_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.txt"
    whole.write_text(path, "κ old")
    with pytest.raises(KeyError), whole.writing(path) as f:
        f.write(b"new")
        raise KeyError
    assert path.read_text() == "κ old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_hosts_with_equal_process_numbers_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    with whole.writing(path) as f:
        f.write(b"ours")
        monkeypatch.setattr(socket, "gethostname", lambda: "other")
        whole.write_text(path, "theirs")
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: whole.write_text(path, "ours"),
        lambda path: raw.write_vectors(path, (2, 3), np.float32, [np.ones((2, 3), np.float32)]),
    ],
)
def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path, write):
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / f"a.npy.partial-{whole.this_process()}").symlink_to(victim)
    write(tmp_path / "a.npy")
    assert victim.read_text() == "theirs" and not (tmp_path / "a.npy").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "victim"]


def test_file_names_that_are_not_utf8_are_written_as_they_are(tmp_path):
    whole.write_text(tmp_path / "a", os.fsdecode(b"\xff\xc3\xa4"))
    assert (tmp_path / "a").read_bytes() == b"\xff\xc3\xa4"


def test_a_directory_of_that_name_stays(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):
        whole.write_text(tmp_path / "a", "x")
    assert os.listdir(tmp_path) == ["a"]
