"""Arrays kept under a hash of their inputs: computed once, never used damaged, written whole."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sigah_jax.errors import BadInput
from sigah_jax.files import cache


def test_cache_computes_once_and_again_for_other_input(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return np.arange(3)

    for inputs in ([np.zeros(2), 1], [np.zeros(2), 1], [np.zeros(2), 2], [np.ones(2), 1]):
        np.testing.assert_array_equal(cache.cached(tmp_path, "a", inputs, compute), [0, 1, 2])
    assert len(calls) == 3 and len(list(tmp_path.iterdir())) == 3


def test_of_several_that_start_together_one_computes(tmp_path):
    started, calls = threading.Barrier(4), []

    def compute():
        calls.append(1)
        time.sleep(0.2)  # the others look meanwhile
        return np.arange(3)

    def want(_):
        started.wait(20)
        return cache.cached(tmp_path, "a", [1], compute).tolist()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(want, range(4))) == [[0, 1, 2]] * 4
    assert len(calls) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_a_damaged_cache_file_is_computed_again_and_said_so(tmp_path, capsys):
    wanted = np.arange(40, dtype=np.int32).reshape(8, 5)
    np.testing.assert_array_equal(cache.cached(tmp_path, "a", [1], wanted.copy), wanted)
    (path,) = tmp_path.iterdir()
    text, other, again = path.read_bytes(), wanted.reshape(5, 8), 0
    shapes = io.BytesIO()
    np.save(shapes, other)
    damaged = [text[:n] for n in (0, 9, 100, len(text) - 70, len(text) - 16, len(text) - 1)]
    damaged += [text[:-40] + bytes(40), shapes.getvalue(), shapes.getvalue() + text[-16:]]
    for bit in range(0, 8 * len(text), 13):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        np.testing.assert_array_equal(cache.cached(tmp_path, "a", [1], wanted.copy), wanted)
        said = capsys.readouterr().out
        assert path.read_bytes() == text or not said  # harmless: a space of the header
        again += said == f"{path}: damaged, or without a hash; it is computed again\n"
    assert again > len(damaged) * 0.9


def test_what_a_killed_process_left_of_a_cache_file_is_removed(tmp_path):
    cache.cached(tmp_path, "a", [1], lambda: np.arange(3))
    (path,) = tmp_path.iterdir()
    path.rename(path.with_name(f"{path.name}.partial-h-1"))
    cache.cached(tmp_path, "a", [1], lambda: np.arange(3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_computation_leaves_nothing_and_is_told_as_it_is(tmp_path):
    def fail():
        raise OSError("of its own")

    with pytest.raises(OSError, match="of its own") as e:
        cache.cached(tmp_path, "a", [1], fail)
    assert not isinstance(e.value, BadInput) and not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, full_at):
    make = lambda: np.arange(10_000)  # noqa: E731
    for size in (100, 50_000):  # of 80,144
        full_at(size)
        with pytest.raises(BadInput, match=r"cannot be used for ground truth .*\(.*\); free space"):
            cache.cached(tmp_path, "a", [1], make)
        assert not list(tmp_path.iterdir())
    full_at(2**30)
    np.testing.assert_array_equal(cache.cached(tmp_path, "a", [1], make), make())


def test_a_bucket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="gs:/mine: gs:// is not on a disk; mount the bucket"):
        cache.cached(Path("gs://mine"), "a", [1], lambda: np.arange(3))
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadInput, match="cannot be used for ground truth") as e:
            cache.cached(directory, "a", [1], lambda: np.arange(3))
        assert str(e.value).startswith(f"{directory}: ") and "\n" not in str(e.value)


def test_the_hash_of_a_memory_map_is_that_of_the_array(tmp_path):
    x = np.random.default_rng(0).random((20001, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    strided = np.concatenate([x, x], 1)[:, :3]
    assert cache.content_hash([x]) == cache.content_hash([mapped]) == cache.content_hash([strided])
    assert cache.content_hash([x]) != cache.content_hash([x[:-1]])
