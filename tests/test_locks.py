"""Locks, and what each user of them does on a file system that has none."""

import errno
import os
import sys
import threading
import time

import numpy as np
import pytest

from launch import local
from sigah_jax import config
from sigah_jax.data import download
from sigah_jax.data.sources import File, Way
from sigah_jax.errors import BadInput
from sigah_jax.files import cache, locks, resumable
from sigah_jax.run import rundir


def train(place):
    rundir.claim(place, config.get_config())


def encode(place):
    with resumable.open_output(place / "codes.npy", (4, 2), {"input": "x.npy"}, False):
        pass


def fetch(place):
    file = File("set/a", ("http://127.0.0.1:1/a",), 3, "")
    download.get_set("set", (Way((file,)),), place)


def sweep(place):
    argv = [sys.executable, "-c", f"open({str(place / 'started')!r}, 'w')"]
    job = local.Job("a", argv, place / "a.log", place / "a.done", place / "a" / "lock")
    local.run_jobs([job], [{}], 0)


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def without_locks(request, monkeypatch):
    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", refuse)


@pytest.mark.parametrize("use", [train, encode, fetch, sweep])
def test_a_file_system_without_locks_is_refused_in_one_line(without_locks, use, tmp_path):
    with pytest.raises(BadInput, match="use a directory on a file system that supports locks") as e:
        use(tmp_path)
    assert str(e.value).startswith(f"{tmp_path}/") and "\n" not in str(e.value)
    left = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert left <= {"lock", "download.lock", "a.log"}  # nothing was started or begun


def test_a_cache_works_without_locks(without_locks, tmp_path):
    assert cache.cached(tmp_path, "a", [1], lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_a_lock_is_held_by_one_and_only_while_its_file_has_its_name(tmp_path):
    path = tmp_path / "lock"
    with locks.open_file(path) as ours, locks.open_file(path) as theirs:
        assert locks.take(ours, path) and not locks.take(theirs, path)
    with locks.open_file(path) as late:
        path.unlink()
        assert not locks.take(late, path)
        path.touch()  # of a third process
        assert not locks.take(late, path)


def test_a_lock_that_is_held_is_refused_or_waited_for(tmp_path):
    path, order = tmp_path / "lock", []

    def wait():
        with locks.held(path):
            order.append("second")

    with locks.held(path, "in use"):
        with pytest.raises(BadInput, match="in use"), locks.held(path, "in use"):
            pass
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"] and not path.exists()


def test_a_locked_file_stays_if_something_is_in_it(tmp_path):
    with locks.held(tmp_path / "a", "in use") as f:
        f.write(b"1")
        f.flush()
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("use", [train, encode, fetch])
def test_a_link_that_lies_at_the_place_of_a_lock_is_not_followed(use, tmp_path):
    (tmp_path / "set").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    for name in ("lock", "codes.npy.partial", "set/download.lock"):
        (tmp_path / name).symlink_to(victim)
    with pytest.raises(BadInput, match="symbolic link"):
        use(tmp_path)
    assert victim.read_text() == "theirs"
