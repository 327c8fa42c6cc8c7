import errno
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.formats import raw


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
    (tmp_path / f"a.npy.partial-{whole.this_thread()}").symlink_to(victim)
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


def test_json_is_replaced_whole_and_read_again(tmp_path):
    path, value = tmp_path / "a.json", {"b": [1, 0.1], "a": {"κ": None}}
    whole.write_json(path, {"old": 1})
    whole.write_json(path, value)
    assert whole.read_json(path, "remove it") == value
    assert os.listdir(tmp_path) == ["a.json"]


def test_no_flipped_bit_of_a_json_file_gives_another_value(tmp_path):
    path, value = tmp_path / "a.json", {"map": 0.25, "steps": 400, "name": "mnist"}
    whole.write_json(path, value)
    text, refused = path.read_bytes(), 0
    for bit in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            # a flip in the name of the hash leaves one more field, and the value as it was
            assert whole.read_json(path, "remove it").items() >= value.items()
        except BadInput as e:
            assert str(e).startswith(f"{path}: damaged") and str(e).endswith("; remove it")
            refused += 1
    assert refused > 6 * len(text)


def test_what_a_dead_process_left_of_a_file_is_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait(20)
    left = tmp_path / f"a.txt.partial-{socket.gethostname()}-7-{dead.pid}"
    living = tmp_path / f"a.txt.partial-{socket.gethostname()}-7-{os.getppid()}"
    elsewhere = tmp_path / f"a.txt.partial-other-7-{dead.pid}"
    begins_alike = tmp_path / f"a.txt.partial-{socket.gethostname()}-2-7-{dead.pid}"
    for path in (left, living, elsewhere, begins_alike):
        path.touch()
    whole.write_text(tmp_path / "a.txt", "x")
    kept = {living.name, elsewhere.name, begins_alike.name}
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", *kept}


def test_threads_that_write_one_file_leave_one_that_is_whole(tmp_path):
    path, text = tmp_path / "a.txt", "x" * 300_000
    whole.write_text(path, text)

    def write_and_read(_):
        whole.write_text(path, text)
        return path.read_text() == text

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write_and_read, range(40)))
    assert list(tmp_path.iterdir()) == [path]


def test_the_text_of_an_object_is_one_line():
    assert whole.dumps({"a": "x\ny"}).count("\n") == 0


def test_what_the_disk_says_of_a_path_is_told_and_of_another_stays(tmp_path):
    path = tmp_path / "a" / "b"
    for named in (None, path, f"{path}.partial", path / "c", tmp_path):
        with (
            pytest.raises(BadInput) as e,
            whole.telling(path, "free some", "cannot be kept", "--x="),
        ):
            raise OSError(errno.ENOSPC, "No space", named)
        assert str(e.value) == f"--x={path}: cannot be kept (No space); free some"
    for error in (OSError(errno.EIO, "broken", "/other/file"), OSError("of a library")):
        with pytest.raises(OSError) as e, whole.telling(path, "free some"):
            raise error
        assert e.value is error
