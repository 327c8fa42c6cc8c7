"""Files of bytes that are written by runs that may be stopped at any moment."""

import contextlib
import json
import os
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sigah_jax.errors import BadInput
from sigah_jax.files import resumable, whole

ROWS = np.random.default_rng(0).integers(0, 256, (10, 3), np.uint8)
OF = {"input": "x.npy", "encoder": "1a"}


def names(directory):
    return sorted(p.name for p in directory.iterdir())


def write(path, first, stop, save=True, of=OF, overwrite=False):
    """Writes rows `first` to `stop`, as a run that is then killed."""
    with resumable.open_output(path, ROWS.shape, of, overwrite) as out:
        assert out.state["rows"] == first
        resumable.append(out, ROWS[first:stop])
        if save:
            resumable.save(out)


def complete(path, first, of=OF, overwrite=False):
    with resumable.open_output(path, ROWS.shape, of, overwrite) as out:
        assert out.state["rows"] == first
        resumable.append(out, ROWS[first:])
        resumable.save(out)
        resumable.finish(out)
    assert names(path.parent) == [path.name, f"{path.name}.json"]
    np.testing.assert_array_equal(np.load(path), ROWS)
    state = whole.read_json(resumable.beside(path, ".json"), "")
    assert state == {"of": of, "rows": 10, "rows_crc32": zlib.crc32(ROWS.tobytes())}


def test_a_whole_output_is_a_npy_file_and_what_it_is_of(tmp_path):
    complete(tmp_path / "a.npy", 0)


def test_rows_that_were_saved_are_there_and_the_others_are_written_again(tmp_path):
    path = tmp_path / "a.npy"
    write(path, 0, 4)
    assert names(tmp_path) == ["a.npy.partial", "a.npy.partial.json"]
    write(path, 4, 7, save=False)
    with (tmp_path / "a.npy.partial").open("ab") as f:
        f.write(b"half a row that a kill left")
    write(path, 4, 9)
    complete(path, 9)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_inside_the_end_is_mended_by_the_same_command(tmp_path, monkeypatch, overwrite):
    """Killed before every change of a name: what has the final name is whole and of its state."""
    kills, whole = 0, False
    while not whole:
        path = tmp_path / str(kills) / "a.npy"
        path.parent.mkdir()
        if overwrite:
            complete(path, 0, of=OF | {"encoder": "old"})
        whole = finish_killed_before(path, kills, overwrite, monkeypatch)
        if path.exists() and not whole:
            state = json.loads(resumable.beside(path, ".json").read_text())
            old = state["of"]["encoder"] == "old"
            assert old == resumable.beside(path, ".partial").exists()
            np.testing.assert_array_equal(np.load(path), ROWS)
        if not path.exists():
            complete(path, 10, overwrite=overwrite)
        kills += 1
    assert kills > 3


def finish_killed_before(path, change, overwrite, monkeypatch):
    """Whether `finish` ended before that many files were renamed or removed."""

    def counted(step):
        def call(*args, **more):
            nonlocal change
            change -= 1
            if change == -1:
                raise KeyboardInterrupt
            return step(*args, **more)

        return call

    with (
        monkeypatch.context() as patch,
        contextlib.suppress(KeyboardInterrupt),
        resumable.open_output(path, ROWS.shape, OF, overwrite) as out,
    ):
        resumable.append(out, ROWS)
        resumable.save(out)
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr(os, "replace", counted(os.replace))
        resumable.finish(out)
        return True
    return False


def test_a_whole_output_is_refused_and_begun_anew_if_overwritten(tmp_path):
    path = tmp_path / "a.npy"
    complete(path, 0)
    with pytest.raises(BadInput, match="exists; use --overwrite"):
        write(path, 0, 10)
    complete(path, 0, overwrite=True)


def test_an_output_is_kept_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")
    with pytest.raises(BadInput, match=r"a\.npy: exists; use --overwrite"):
        write(path, 0, 3)
    assert names(tmp_path) == ["a.npy"]
    write(path, 0, 3, overwrite=True)
    assert path.read_bytes() == b"old"
    complete(path, 3, overwrite=True)


@pytest.mark.parametrize("held", ["mine", "[]", '{"of": {"input": "y.npy"}}'])
def test_a_json_of_something_else_is_kept_until_the_new_output_is_whole(tmp_path, held):
    path, facts = tmp_path / "a.npy", tmp_path / "a.npy.json"
    facts.write_text(held)
    with pytest.raises(BadInput, match=r"a\.npy\.json: exists; use --overwrite"):
        write(path, 0, 10)
    write(path, 0, 10, overwrite=True)
    assert facts.read_text() == held
    complete(path, 10, overwrite=True)


def test_what_was_begun_with_something_else_is_refused_or_begun_anew(tmp_path):
    path = tmp_path / "a.npy"
    write(path, 0, 4)
    other = OF | {"encoder": "2b"}
    with pytest.raises(BadInput, match=r"begun with another encoder \(1a, now 2b\)"):
        write(path, 0, 4, of=other)
    with pytest.raises(BadInput, match=r"begun with another input \(x.npy, now None\)"):
        write(path, 0, 4, of={"encoder": "1a"})
    complete(path, 0, of=other, overwrite=True)


@pytest.mark.parametrize("state", [None, "{", "[]", "{}", '{"of": {}, "rows": 4}'])
def test_a_partial_file_that_is_not_ours_is_left_alone(tmp_path, state):
    path = tmp_path / "a.npy"
    (tmp_path / "a.npy.partial").write_bytes(b"mine")
    if state is not None:
        (tmp_path / "a.npy.partial.json").write_text(state)
    with pytest.raises(BadInput, match=r"a\.npy\.partial: a\.npy\.partial\.json, which says"):
        write(path, 0, 4)
    assert (tmp_path / "a.npy.partial").read_bytes() == b"mine"
    complete(path, 0, overwrite=True)


@pytest.mark.parametrize("field", ["of", "rows", "rows_crc32"])
@pytest.mark.parametrize("value", ["4", -4, 1.5, None, [], 10**30])
def test_a_state_that_was_edited_is_refused(tmp_path, field, value):
    path, state_path = tmp_path / "a.npy", tmp_path / "a.npy.partial.json"
    write(path, 0, 4)
    state_path.write_text(json.dumps(json.loads(state_path.read_text()) | {field: value}))
    with pytest.raises(BadInput, match=r"is missing, damaged or of an earlier version"):
        write(path, 4, 10)
    complete(path, 0, overwrite=True)


def test_a_byte_that_is_flipped_or_missing_is_never_part_of_the_output(tmp_path):
    """Of the header, the rows that are there and the state: each byte, one at a time."""
    path = tmp_path / "a.npy"
    write(path, 0, 4)
    begun = {p: p.read_bytes() for p in tmp_path.iterdir()}
    refused = 0
    for changed, text in begun.items():
        for at in range(len(text)):
            for damaged in (text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :], text[:at]):
                for p in tmp_path.iterdir():
                    p.unlink()
                for p, content in begun.items():
                    p.write_bytes(damaged if p == changed else content)
                refused += not resumes_to_the_same(path)
    assert refused > sum(map(len, begun.values()))


def resumes_to_the_same(path):
    """Whether a run ends with all rows; otherwise it is refused."""
    try:
        with resumable.open_output(path, ROWS.shape, OF, False) as out:
            resumable.append(out, ROWS[out.state["rows"] :])
            resumable.save(out)
            resumable.finish(out)
    except BadInput as e:
        assert "--overwrite" in str(e) and "\n" not in str(e)
        return False
    np.testing.assert_array_equal(np.load(path), ROWS)
    return True


def test_a_kill_at_any_moment_is_mended_by_the_same_command(tmp_path, monkeypatch):
    """Before every write, rename and removal, the files are copied as a kill leaves them."""
    path, left = tmp_path / "run" / "a.npy", []
    path.parent.mkdir()

    def copying(step):
        def call(*args, **more):
            left.append(tmp_path / str(len(left)))
            shutil.copytree(path.parent, left[-1])
            return step(*args, **more)

        return call

    with monkeypatch.context() as patch:
        for owner, name in (
            (os, "open"),
            (os, "fsync"),
            (os, "replace"),
            (Path, "unlink"),
            (resumable, "append"),
            (zlib, "crc32"),
        ):
            patch.setattr(owner, name, copying(getattr(owner, name)))
        write(path, 0, 4)
        write(path, 4, 7, save=False)
        write(path, 4, 9)
        complete(path, 9)
    assert len(left) > 30
    finished = 0
    for directory in left:
        ended = resumable.ended(directory / path.name)
        if (directory / path.name).exists():
            np.testing.assert_array_equal(np.load(directory / path.name), ROWS)
            assert names(directory) == ["a.npy", "a.npy.json"]
            finished += ended is not None and ended["of"] == OF
        else:
            assert ended is None
            assert resumes_to_the_same(directory / path.name)
            assert not list(directory.glob("*.partial"))
    assert finished  # killed before the last removal
    assert resumable.ended(path) is None  # nothing was missing


def test_a_second_process_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    with resumable.open_output(path, ROWS.shape, OF, False) as out:
        with pytest.raises(BadInput, match="another process writes it"):
            write(path, 0, 4, overwrite=True)
        resumable.append(out, ROWS)
        resumable.save(out)
        resumable.finish(out)
    np.testing.assert_array_equal(np.load(path), ROWS)


def test_a_discarded_output_leaves_nothing(tmp_path):
    with resumable.open_output(tmp_path / "a.npy", ROWS.shape, OF, False) as out:
        resumable.append(out, ROWS[:4])
        resumable.discard(out)
    assert names(tmp_path) == []


def test_a_disk_too_small_or_a_missing_directory_is_told_before_anything_is_written(
    tmp_path, monkeypatch
):
    with pytest.raises(BadInput, match=r"a\.npy: cannot be written \(No such file"):
        write(tmp_path / "gone" / "a.npy", 0, 4)
    # 128 bytes of header and 30 of rows
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=157))
    with pytest.raises(BadInput, match="158B are needed and 157B are free"):
        write(tmp_path / "a.npy", 0, 4)
    assert names(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=158))
    complete(tmp_path / "a.npy", 0)


def test_a_disk_that_fills_up_keeps_what_was_saved(tmp_path, full_at):
    path = tmp_path / "a.npy"
    write(path, 0, 4)
    full_at(150)  # 128 bytes of header and 7 rows of 3
    with pytest.raises(BadInput, match=r"a\.npy: cannot be written \(.*\); free space"):
        write(path, 4, 10)
    assert json.loads((tmp_path / "a.npy.partial.json").read_text())["rows"] == 4
    full_at(1000)
    complete(path, 4)
